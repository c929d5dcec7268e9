"""Backbones of the real classes, too small to know anything, in folders as the hub has them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    VideoMAEConfig,
    VideoMAEForPreTraining,
)

SIZES = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
KINDS = ("videomae", "dinov2", "siglip", "siglip_vision_model")


def make(kind: str, **changes: object) -> PreTrainedModel:
    """A model with random weights, always the same."""
    sizes = {**SIZES, **changes}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if kind == "videomae":
            decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1}
            decoder |= {"decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}
            sizes = {"num_frames": 4, "intermediate_size": 64, **decoder, **sizes}
            return VideoMAEForPreTraining(VideoMAEConfig(**sizes))
        if kind == "dinov2":
            return Dinov2Model(Dinov2Config(**{"mlp_ratio": 2, **sizes}))
        vision = {"intermediate_size": 64, **sizes}
        if kind == "siglip_vision_model":
            return SiglipVisionModel(SiglipVisionConfig(**vision))
        text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
        text |= {"vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2}
        return SiglipModel(SiglipConfig(vision_config=vision, text_config=text))


def write(folder: Path, kind: str, **changes: object) -> Path:
    """The folder of such a model, with its preprocessing."""
    make(kind, **changes).save_pretrained(folder)
    described = {"image_mean": MEAN, "image_std": STD, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(described))
    return folder
