"""Full-size models with random weights in the catalogue's form, to measure cost with.

A random model costs what the real one costs, except where it decides how much there is to do: a random
detector finds other objects, a random captioner ends its sentences elsewhere.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from components.evaluation.models import WEIGHTS
from tests.evaluation import tiny_weights


def make(root: Path, names: list[str]) -> str:
    """Make the sets of weights ``names`` under ``root``; tokenizers are tiny ones, their cost is nothing."""
    torch.manual_seed(0)
    for name in names:
        folder = root / name
        if (folder / "model.safetensors").is_file():
            continue
        folder.mkdir(parents=True, exist_ok=True)
        getattr(tiny_weights, name.replace("-", "_"))(folder)
        (folder / "model.safetensors").unlink()
        tensors = _tensors(name)
        if tensors is not None:
            save_file(tensors, folder / "model.safetensors")
        else:
            _model(name).save_pretrained(folder)
            _sizes(name, folder)
        for file in WEIGHTS[name].files:
            assert (folder / file).is_file(), (name, file)
    return str(root)


def _tensors(name: str) -> dict[str, torch.Tensor] | None:
    if name == "aesthetic":
        return {"weight": torch.randn(1, 768), "bias": torch.zeros(1)}
    if name == "musiq":
        return tiny_weights.musiq_tensors(width=384, heads=6, layers=14, inner=1152, root=64)
    if name == "raft":
        return tiny_weights.raft_tensors(full=True)
    return None


def _model(name: str) -> Any:
    import transformers as t

    large = {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
    }
    if name == "dino":
        return t.ViTModel(t.ViTConfig(), add_pooling_layer=False)
    if name == "clip-b32":
        return t.CLIPModel(t.CLIPConfig())
    if name == "clip-l14":
        text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
        return t.CLIPModel(
            t.CLIPConfig(text_config=text, vision_config=large | {"patch_size": 14}, projection_dim=768)
        )
    if name == "detector":
        backbone = t.RTDetrResNetConfig(depths=[3, 4, 23, 3], out_features=["stage2", "stage3", "stage4"])
        labels = dict(enumerate([*tiny_weights.OBJECTS, *(f"object {place}" for place in range(75))]))
        return t.RTDetrV2ForObjectDetection(
            t.RTDetrV2Config(
                backbone_config=backbone,
                encoder_hidden_dim=384,
                encoder_ffn_dim=2048,
                decoder_in_channels=[384, 384, 384],
                id2label=labels,
            )
        )
    if name == "captioner":
        ids = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0, "is_decoder": True}
        return t.BlipForConditionalGeneration(
            t.BlipConfig(
                text_config=ids | {"encoder_hidden_size": 1024},
                vision_config=large | {"image_size": 384, "patch_size": 16},
            )
        )
    if name == "action":
        labels = dict(enumerate([*tiny_weights.ACTIONS, *(f"action {place}" for place in range(393))]))
        return t.VivitForVideoClassification(t.VivitConfig(id2label=labels))
    assert name == "video-text"
    return t.VideoPrismClipModel(t.VideoPrismConfig())


def _sizes(name: str, folder: Path) -> None:
    """The published input sizes in place of the tiny ones."""
    import json

    sizes: dict[str, dict[str, Any]] = {
        "detector": {"size": {"height": 640, "width": 640}},
        "captioner": {"size": {"height": 384, "width": 384}},
        "action": {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}},
        "video-text": {"size": {"height": 288, "width": 288}},
    }
    for file in folder.glob("*preprocessor_config.json"):
        settings = json.loads(file.read_text()) | sizes.get(name, {})
        file.write_text(json.dumps(settings))
    shutil.rmtree(folder / ".cache", ignore_errors=True)
