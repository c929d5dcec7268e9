"""Every model of the catalogue at a tiny size with random weights, saved as `weights fetch` leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", "a", "the", "of", "in"]
WORDS += ["red", "blue", "green", "bicycle", "car", "alley", "beach", "park", "covered", "with", "sky", "on"]
ACTIONS = ["riding a bike", "marching", "clapping", "dancing ballet", "juggling balls", "yoga", "archery"]
OBJECTS = ["person", "bicycle", "car", "motorbike", "sofa"]


def make_all(root: Path) -> Path:
    """A place with every set of weights."""
    makers = (dino, clip_b32, clip_l14, aesthetic, musiq, raft, detector, captioner, action, video_text)
    for seed, maker in enumerate(makers):
        torch.manual_seed(seed)
        folder = root / maker.__name__.replace("_", "-")
        folder.mkdir(parents=True)
        maker(folder)
    return root


def dino(folder: Path) -> None:
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(image_size=224, patch_size=32, **_sizes())
    _save(ViTModel(config, add_pooling_layer=False), folder)


def clip_b32(folder: Path, dimensions: int = 8) -> None:
    from transformers import CLIPConfig, CLIPModel

    tokens = _clip_tokens()
    (folder / "vocab.json").write_text(json.dumps(tokens))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    ends = {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    config = CLIPConfig(
        text_config=_sizes() | ends | {"vocab_size": len(tokens), "max_position_embeddings": 40},
        vision_config=_sizes() | {"image_size": 32, "patch_size": 8},
        projection_dim=dimensions,
    )
    _save(CLIPModel(config), folder)


def clip_l14(folder: Path) -> None:
    clip_b32(folder, 12)


def aesthetic(folder: Path) -> None:
    save_file({"weight": torch.randn(1, 12), "bias": torch.full((1,), 5.0)}, folder / "model.safetensors")


def musiq(folder: Path) -> None:
    save_file(musiq_tensors(), folder / "model.safetensors")


def raft(folder: Path) -> None:
    tensors = raft_tensors()
    for part in ("weight", "bias"):  # steps of a fraction of a pixel: large random ones amplify rounding
        tensors[f"update_block.flow_head.conv2.{part}"] *= 0.02
    save_file(tensors, folder / "model.safetensors")


def detector(folder: Path) -> None:
    from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

    backbone = RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
        out_indices=[2, 3, 4],
    )
    config = RTDetrV2Config(
        backbone_config=backbone,
        encoder_hidden_dim=16,
        encoder_in_channels=[8, 16, 16],
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        feat_strides=[8, 16, 32],
        d_model=16,
        num_queries=6,
        decoder_in_channels=[16, 16, 16],
        decoder_ffn_dim=16,
        decoder_attention_heads=2,
        decoder_layers=2,
        decoder_n_points=2,
        num_denoising=0,
        id2label=dict(enumerate(OBJECTS)),
        label2id={name: key for key, name in enumerate(OBJECTS)},
    )
    model = RTDetrV2ForObjectDetection(config)
    _shake(model, 0.3)
    for name, parameter in model.named_parameters():
        if "class_embed" in name or "score_head" in name:
            parameter.data.normal_(0, 1.0 if parameter.dim() > 1 else 0.1)  # scores on both sides of a half
    model.save_pretrained(folder)
    _prepared(folder, size={"height": 64, "width": 64}, do_normalize=False)


def captioner(folder: Path) -> None:
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration

    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    ids = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    text = (
        _sizes() | ids | {"vocab_size": len(WORDS), "max_position_embeddings": 40, "encoder_hidden_size": 16}
    )
    config = BlipConfig(
        text_config=text | {"projection_dim": 8, "is_decoder": True},
        vision_config=_sizes() | {"image_size": 32, "patch_size": 16},
    )
    model = BlipForConditionalGeneration(config)
    _shake(model, 0.6)
    model.save_pretrained(folder)
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
    _prepared(folder, size={"height": 32, "width": 32}, resample=3, mean=[0.5, 0.4, 0.3], std=[0.3, 0.2, 0.2])


def action(folder: Path) -> None:
    from transformers import VivitConfig, VivitForVideoClassification

    config = VivitConfig(
        image_size=32,
        num_frames=8,
        tubelet_size=[2, 16, 16],
        id2label=dict(enumerate(ACTIONS)),
        label2id={name: key for key, name in enumerate(ACTIONS)},
        **_sizes(),
    )
    model = VivitForVideoClassification(config)
    _shake(model, 0.6)
    model.save_pretrained(folder)
    _prepared(
        folder,
        size={"shortest_edge": 36},
        do_center_crop=True,
        crop_size={"height": 32, "width": 32},
        rescale_factor=1 / 127.5,
        offset=True,
    )


def video_text(folder: Path) -> None:
    from transformers import VideoPrismClipModel, VideoPrismConfig, VideoPrismTokenizer

    few = {"num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 32}
    config = VideoPrismConfig(
        vision_config=few
        | {"image_size": 36, "num_frames": 8, "num_spatial_layers": 1, "num_temporal_layers": 1}
        | {"num_auxiliary_layers": 1},
        text_config=few | {"vocab_size": 60, "num_hidden_layers": 1, "max_position_embeddings": 16},
    )
    model = VideoPrismClipModel(config)
    _shake(model, 0.5)
    model.save_pretrained(folder)
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz,."]
    VideoPrismTokenizer(vocab=pieces, extra_ids=0).save_pretrained(folder)
    _prepared(
        folder, name="video_preprocessor_config.json", size={"height": 36, "width": 36}, do_normalize=False
    )


def musiq_tensors(
    width: int = 16, heads: int = 2, layers: int = 2, inner: int = 24, root: int = 32
) -> dict[str, Tensor]:
    """Random tensors under the names of MUSIQ's checkpoints; the published sizes are 384, 6, 14, 1152, 64."""
    found: dict[str, Tensor] = {}

    def dense(name: str, into: tuple[int, ...], out: tuple[int, ...], scale: float = 0.3) -> None:
        found[f"{name}.kernel"] = scale * torch.randn(*into, *out)
        found[f"{name}.bias"] = 0.1 * torch.randn(*out)

    def norm(name: str, shape: tuple[int, ...]) -> None:
        found[f"{name}.scale"] = 1 + 0.2 * torch.randn(*shape)
        found[f"{name}.bias"] = 0.2 * torch.randn(*shape)

    for name, shape in (
        ("conv_root", (7, 7, 3, root)),
        ("block1.unit1.conv_proj", (1, 1, root, 4 * root)),
        ("block1.unit1.conv1", (1, 1, root, root)),
        ("block1.unit1.conv2", (3, 3, root, root)),
        ("block1.unit1.conv3", (1, 1, root, 4 * root)),
    ):
        found[f"{name}.kernel"] = torch.randn(*shape)
        norm(name.replace("conv_root", "gn_root").replace("conv", "gn"), (1, 1, 1, shape[-1]))
    dense("embedding", (8 * 8 * 4 * root,), (width,), 0.02)
    found["Transformer.posembed_input.pos_embedding"] = torch.randn(1, 100, width)
    found["Transformer.scaleembed_input.scale_embedding"] = torch.randn(1, 3, width)
    found["Transformer.cls"] = torch.randn(1, 1, width)
    for layer in range(layers):
        at = f"Transformer.encoderblock_{layer}"
        for part in ("query", "key", "value"):
            dense(f"{at}.MultiHeadDotProductAttention_1.{part}", (width,), (heads, width // heads))
        dense(f"{at}.MultiHeadDotProductAttention_1.out", (heads, width // heads), (width,))
        dense(f"{at}.MlpBlock_3.Dense_0", (width,), (inner,))
        dense(f"{at}.MlpBlock_3.Dense_1", (inner,), (width,))
        norm(f"{at}.LayerNorm_0", (width,))
        norm(f"{at}.LayerNorm_2", (width,))
    norm("Transformer.encoder_norm", (width,))
    dense("head", (width,), (1,))
    found["head.bias"] += 60.0
    return found


def raft_tensors(generator: torch.Generator | None = None, full: bool = False) -> dict[str, Tensor]:
    """Random tensors under the names of the published RAFT, with a tenth of its channels or all of them."""
    found: dict[str, Tensor] = {}

    def convolution(name: str, out: int, into: int, kernel: tuple[int, int], norm: bool = False) -> None:
        scale = (2 / (into * kernel[0] * kernel[1])) ** 0.5
        found[f"{name}.weight"] = scale * torch.randn(out, into, *kernel, generator=generator)
        found[f"{name}.bias"] = 0.1 * torch.randn(out, generator=generator)
        if norm:
            of = name.removesuffix("0") + "1"
            found[f"{of}.weight"] = 1 + 0.1 * torch.randn(out, generator=generator)
            found[f"{of}.bias"] = 0.1 * torch.randn(out, generator=generator)
            found[f"{of}.running_mean"] = 0.1 * torch.randn(out, generator=generator)
            found[f"{of}.running_var"] = 1 + 0.5 * torch.rand(out, generator=generator)

    one, two, three, features, hidden = (64, 96, 128, 256, 128) if full else (6, 9, 12, 24, 8)
    for encoder, norm, out in (("feature_encoder", False, features), ("context_encoder", True, 2 * hidden)):
        convolution(f"{encoder}.convnormrelu.0", one, 3, (7, 7), norm)
        for stage, (into, width) in {1: (one, one), 2: (one, two), 3: (two, three)}.items():
            for block in (0, 1):
                at = f"{encoder}.layer{stage}.{block}"
                first = into if block == 0 else width
                convolution(f"{at}.convnormrelu1.0", width, first, (3, 3), norm)
                convolution(f"{at}.convnormrelu2.0", width, width, (3, 3), norm)
                if block == 0 and stage > 1:
                    convolution(f"{at}.downsample.0", width, first, (1, 1), norm)
        convolution(f"{encoder}.conv", out, three, (1, 1))
    at = "update_block.motion_encoder"
    seen, looked, moved, kept, motion, head = (
        (256, 192, 128, 64, 128, 256) if full else (16, 12, 8, 6, 12, 16)
    )
    convolution(f"{at}.convcorr1.0", seen, 324, (1, 1))
    convolution(f"{at}.convcorr2.0", looked, seen, (3, 3))
    convolution(f"{at}.convflow1.0", moved, 2, (7, 7))
    convolution(f"{at}.convflow2.0", kept, moved, (3, 3))
    convolution(f"{at}.conv.0", motion - 2, looked + kept, (3, 3))
    for number, kernel in ((1, (1, 5)), (2, (5, 1))):
        for gate in ("convz", "convr", "convq"):
            name = f"update_block.recurrent_block.convgru{number}.{gate}"
            convolution(name, hidden, 2 * hidden + motion, kernel)
    convolution("update_block.flow_head.conv1", head, hidden, (3, 3))
    convolution("update_block.flow_head.conv2", 2, head, (3, 3))
    convolution("mask_predictor.convrelu.0", head, hidden, (3, 3))
    convolution("mask_predictor.conv", 576, head, (1, 1))
    return found


def _sizes() -> dict[str, Any]:
    return {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def _shake(model: Any, scale: float) -> None:
    """Weights large enough for different pictures to have different features."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.normal_(0, scale)
        else:
            parameter.data.add_(0.1 * torch.randn_like(parameter))


def _save(model: Any, folder: Path) -> None:
    logit_scale = getattr(model, "logit_scale", None)
    _shake(model, 0.3)
    if logit_scale is not None:
        logit_scale.data.fill_(4.6052)
    model.save_pretrained(folder)


def _prepared(
    folder: Path,
    name: str = "preprocessor_config.json",
    mean: list[float] | None = None,
    std: list[float] | None = None,
    **settings: Any,
) -> None:
    found = {"image_mean": mean or [0.5, 0.5, 0.5], "image_std": std or [0.5, 0.5, 0.5]}
    found |= {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 2} | settings
    (folder / name).write_text(json.dumps(found))


def _clip_tokens() -> dict[str, int]:
    """CLIP's byte alphabet without any merge: a text is read letter by letter."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]
    names = letters + [f"{letter}</w>" for letter in letters] + ["<|startoftext|>", "<|endoftext|>"]
    return {name: place for place, name in enumerate(names)}
