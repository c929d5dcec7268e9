"""Whole networks again, in float64: what the opened models are compared with.

MUSIQ and RAFT, whose code is ours, are written out; of the others the published class itself runs in float64,
and what is made of its output is written out.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import erf

from tests.evaluation import literal
from tests.evaluation.literal import Array
from tests.evaluation.tiny_weights import WORDS

#: What was said of which picture: a float64 model takes its time, and several tests ask for the same.
_CAPTIONS: dict[Path, dict[bytes, str]] = {}


def double(cls: Any, folder: Path, **options: Any) -> Any:
    return cls.from_pretrained(folder, dtype=torch.float64, **options).eval()


def detections(
    folder: Path, frames: list[Array], names: list[str], threshold: float = 0.5
) -> list[list[tuple[float, str, list[float]]]]:
    """(score, name, box in px) in each frame (3, H, W), the surest first."""
    from transformers import RTDetrV2ForObjectDetection

    model = double(RTDetrV2ForObjectDetection, folder / "detector")
    settings = json.loads((folder / "detector" / "preprocessor_config.json").read_text())
    by_frame = []
    for frame in frames:
        height, width = frame.shape[1:]
        pixels = torch.from_numpy(literal.prepared(frame, settings))[None]
        output = model(pixel_values=pixels)
        found = []
        for logits, (x, y, w, h) in zip(
            output.logits[0].tolist(), output.pred_boxes[0].tolist(), strict=True
        ):
            box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            for label, logit in enumerate(logits):
                score = 1 / (1 + np.exp(-logit))
                assert abs(score - threshold) > 1e-5  # or float32 may decide otherwise
                if score > threshold:
                    found.append((score, names[label], box))
        by_frame.append(sorted(found, key=lambda one: -one[0]))
    return by_frame


def captions(folder: Path, pictures: list[Array]) -> list[str]:
    """The likeliest next word, thirty times or until the end."""
    from transformers import BlipForConditionalGeneration

    known = _CAPTIONS.setdefault(folder, {})
    model = double(BlipForConditionalGeneration, folder / "captioner")
    settings = json.loads((folder / "captioner" / "preprocessor_config.json").read_text())
    for picture in pictures:
        if picture.tobytes() in known:
            continue
        pixels = torch.from_numpy(literal.prepared(picture, settings))[None]
        seen = model.vision_model(pixel_values=pixels).last_hidden_state
        tokens = [model.config.text_config.bos_token_id]
        while len(tokens) < 31 and tokens[-1] != model.config.text_config.sep_token_id:
            logits = model.text_decoder(input_ids=torch.tensor([tokens]), encoder_hidden_states=seen).logits[
                0, -1
            ]
            first, second = logits.topk(2).values.tolist()
            assert first - second > 1e-4  # or float32 may choose otherwise
            tokens.append(int(logits.argmax()))
        words = [WORDS[token] for token in tokens if not WORDS[token].startswith("[P")]
        known[picture.tobytes()] = " ".join(words)
    return [known[picture.tobytes()] for picture in pictures]


def musiq(frame: Array, folder: Path, ported: bool = False) -> float:
    """MUSIQ's score of one picture (3, H, W) in 0..1, patch by patch; `ported`: as pyiqa has it."""
    from safetensors.numpy import load_file

    w = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}
    picture = frame * 2 - 1
    height, width = picture.shape[1:]
    tokens = [w["Transformer.cls"][0, 0]]
    for scale, longer in enumerate((224, 384, None)):
        shown = picture
        if longer is not None:
            new = [
                int(np.rint(np.float32(side) * np.float32(longer / max(height, width))))
                for side in (height, width)
            ]
            weights = [
                literal.gaussian_weights(old, to) for old, to in zip((height, width), new, strict=True)
            ]
            if ported:
                new = [round(side * longer / max(height, width)) for side in (height, width)]
                weights = [
                    literal.plain_weights(old, to, "bicubic")
                    for old, to in zip((height, width), new, strict=True)
                ]
            shown = literal.resized(picture, *weights)
        tokens += _patch_tokens(shown, scale, w, ported)
    x = np.stack(tokens)
    for layer in range(sum(name.endswith("LayerNorm_2.scale") for name in w)):
        at = f"Transformer.encoderblock_{layer}"
        y = _layer_norm(x, w, f"{at}.LayerNorm_0")
        heads = w[f"{at}.MultiHeadDotProductAttention_1.query.kernel"].shape[1]
        summed = np.zeros_like(x) + w[f"{at}.MultiHeadDotProductAttention_1.out.bias"]
        for head in range(heads):
            q, k, v = (
                y @ w[f"{at}.MultiHeadDotProductAttention_1.{part}.kernel"][:, head]
                + w[f"{at}.MultiHeadDotProductAttention_1.{part}.bias"][head]
                for part in ("query", "key", "value")
            )
            logits = q @ k.T / math.sqrt(q.shape[1])
            shares = np.exp(logits - logits.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            summed += shares @ v @ w[f"{at}.MultiHeadDotProductAttention_1.out.kernel"][head]
        x = x + summed
        y = _layer_norm(x, w, f"{at}.LayerNorm_2") @ w[f"{at}.MlpBlock_3.Dense_0.kernel"]
        y = y + w[f"{at}.MlpBlock_3.Dense_0.bias"]
        if ported:
            y = y * 0.5 * (1 + erf(y / math.sqrt(2)))
        else:
            y = y * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)))
        x = x + y @ w[f"{at}.MlpBlock_3.Dense_1.kernel"] + w[f"{at}.MlpBlock_3.Dense_1.bias"]
    x = _layer_norm(x, w, "Transformer.encoder_norm")
    return float(x[0] @ w["head.kernel"][:, 0] + w["head.bias"][0])


def _patch_tokens(picture: Array, scale: int, w: dict[str, Array], ported: bool) -> list[Array]:
    height, width = picture.shape[1:]
    rows, columns = math.ceil(height / 32), math.ceil(width / 32)
    top, left = (rows * 32 - height) // 2, (columns * 32 - width) // 2
    board = np.zeros((3, rows * 32, columns * 32))
    board[:, top : top + height, left : left + width] = picture
    found = []
    for row in range(rows):
        for column in range(columns):
            patch = board[:, row * 32 : row * 32 + 32, column * 32 : column * 32 + 32].transpose(1, 2, 0)
            x = _convolved(np.pad(patch, ((2, 3), (2, 3), (0, 0))), w["conv_root.kernel"], 2, ported)
            x = np.maximum(_group_norm(x, w, "gn_root", 1e-6), 0)
            x = np.pad(x, ((0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
            x = np.array(
                [
                    [x[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max(axis=(0, 1)) for j in range(8)]
                    for i in range(8)
                ]
            )
            at = "block1.unit1"
            kept = _group_norm(
                _convolved(x, w[f"{at}.conv_proj.kernel"], 1, ported), w, f"{at}.gn_proj", 1e-4
            )
            x = np.maximum(
                _group_norm(_convolved(x, w[f"{at}.conv1.kernel"], 1, ported), w, f"{at}.gn1", 1e-4), 0
            )
            x = _convolved(np.pad(x, ((1, 1), (1, 1), (0, 0))), w[f"{at}.conv2.kernel"], 1, ported)
            x = np.maximum(_group_norm(x, w, f"{at}.gn2", 1e-4), 0)
            x = _group_norm(_convolved(x, w[f"{at}.conv3.kernel"], 1, ported), w, f"{at}.gn3", 1e-4)
            token = np.maximum(kept + x, 0).reshape(-1) @ w["embedding.kernel"] + w["embedding.bias"]
            place = (row * 10 // rows) * 10 + column * 10 // columns
            token = token + w["Transformer.posembed_input.pos_embedding"][0, place]
            found.append(token + w["Transformer.scaleembed_input.scale_embedding"][0, scale])
    return found


def _convolved(x: Array, kernel: Array, stride: int, ported: bool) -> Array:
    """(H, W, C) with a kernel (h, w, C, out) whose outputs are brought to mean 0 and deviation 1 first."""
    kernel = kernel - kernel.mean(axis=(0, 1, 2))
    number = kernel[..., 0].size - int(ported)
    kernel = kernel / (np.sqrt((kernel**2).sum(axis=(0, 1, 2)) / number) + 1e-5)
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(0, 1))[::stride, ::stride]
    return np.einsum("ijcab,abco->ijo", windows, kernel, optimize=True)


def _group_norm(x: Array, w: dict[str, Array], name: str, epsilon: float) -> Array:
    groups = x.reshape(*x.shape[:2], 32, -1)
    mean = groups.mean(axis=(0, 1, 3), keepdims=True)
    variance = ((groups - mean) ** 2).mean(axis=(0, 1, 3), keepdims=True)
    normed = ((groups - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)
    return np.asarray(normed * w[f"{name}.scale"].reshape(-1) + w[f"{name}.bias"].reshape(-1))


def _layer_norm(x: Array, w: dict[str, Array], name: str) -> Array:
    mean = x.mean(axis=1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=1, keepdims=True)
    return np.asarray((x - mean) / np.sqrt(variance + 1e-6) * w[f"{name}.scale"] + w[f"{name}.bias"])


def raft(first: Array, second: Array, folder: Path, updates: int = 20, padded: bool = False) -> Array:
    """RAFT's flow (2, H, W) from one picture (3, H, W) of levels to another, padded and enlarged as ours.

    `padded`: with the padding left in place.
    """
    from safetensors.numpy import load_file

    w = {name: value.astype(np.float64) for name, value in load_file(folder / "model.safetensors").items()}
    height, width = first.shape[1:]
    factor = math.ceil(128 / min(height, width))
    shown = [np.kron(frame, np.ones((1, factor, factor))) for frame in (first, second)]
    below, right = (-side * factor % 8 for side in (height, width))
    border = ((0, 0), (below // 2, below - below // 2), (right // 2, right - right // 2))
    one, other = (np.pad(frame / 255 * 2 - 1, border, mode="edge") for frame in shown)
    levels = [_products(_encoded(one, w, "feature_encoder"), _encoded(other, w, "feature_encoder"))]
    for _ in range(3):
        large = levels[-1][..., : levels[-1].shape[2] // 2 * 2, : levels[-1].shape[3] // 2 * 2]
        levels.append(np.mean([large[..., a::2, b::2] for a in (0, 1) for b in (0, 1)], axis=0))
    context = _encoded(one, w, "context_encoder")
    hidden, context = np.tanh(context[: len(context) // 2]), np.maximum(context[len(context) // 2 :], 0)
    flow = np.zeros((2, *hidden.shape[1:]))
    for _ in range(updates):
        hidden = _recurred(hidden, np.concatenate([context, _motion(flow, _around(levels, flow), w)]), w)
        head = np.maximum(_planes(hidden, w, "update_block.flow_head.conv1", (1, 1)), 0)
        flow = flow + _planes(head, w, "update_block.flow_head.conv2", (1, 1))
    mask = _planes(
        np.maximum(_planes(hidden, w, "mask_predictor.convrelu.0", (1, 1)), 0), w, "mask_predictor.conv"
    )
    fine = _finer(flow, 0.25 * mask)
    if padded:
        return np.asarray(fine)
    fine = fine[:, below // 2 :, right // 2 :][:, : height * factor, : width * factor]
    return np.asarray(fine.reshape(2, height, factor, width, factor).mean(axis=(2, 4)) / factor)


def _planes(
    x: Array, w: dict[str, Array], name: str, pad: tuple[int, int] = (0, 0), stride: int = 1
) -> Array:
    """A convolution of (C, H, W) with (out, C, h, w), zeros around."""
    kernel = w[f"{name}.weight"]
    padded = np.pad(x, ((0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2:], axis=(1, 2))
    found = np.einsum("cijab,ocab->oij", windows[:, ::stride, ::stride], kernel, optimize=True)
    return np.asarray(found + w[f"{name}.bias"][:, None, None])


def _encoded(x: Array, w: dict[str, Array], name: str) -> Array:
    def normed(x: Array, at: str, pad: int, stride: int) -> Array:
        x = _planes(x, w, f"{at}.0", (pad, pad), stride)
        if f"{at}.1.weight" not in w:
            return (x - x.mean(axis=(1, 2), keepdims=True)) / np.sqrt(
                x.var(axis=(1, 2), keepdims=True) + 1e-5
            )
        of = {
            part: w[f"{at}.1.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        }
        return (x - of["running_mean"]) / np.sqrt(of["running_var"] + 1e-5) * of["weight"] + of["bias"]

    x = np.maximum(normed(x, f"{name}.convnormrelu", 3, 2), 0)
    for stage in (1, 2, 3):
        for block in (0, 1):
            at, stride = f"{name}.layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = np.maximum(normed(x, f"{at}.convnormrelu1", 1, stride), 0)
            y = np.maximum(normed(y, f"{at}.convnormrelu2", 1, 1), 0)
            x = np.maximum(y + (normed(x, f"{at}.downsample", 0, 2) if stride == 2 else x), 0)
    return _planes(x, w, f"{name}.conv")


def _products(one: Array, other: Array) -> Array:
    """(h, w, h, w): how like each place of one is to each of the other."""
    return np.asarray(np.einsum("cij,ckl->ijkl", one, other, optimize=True) / math.sqrt(len(one)))


def _around(levels: list[Array], flow: Array) -> Array:
    """The products within four places of where each place went, at four scales, nothing beyond the border."""
    height, width = flow.shape[1:]
    found = []
    rows, columns = np.mgrid[:height, :width]
    for level, products in enumerate(levels):
        at_x, at_y = (columns + flow[0]) / 2**level, (rows + flow[1]) / 2**level
        for across in range(-4, 5):
            for down in range(-4, 5):
                x, y = at_x + across, at_y + down
                value = np.zeros((height, width))
                for left in (np.floor(x), np.floor(x) + 1):
                    for top in (np.floor(y), np.floor(y) + 1):
                        inside = (
                            (left >= 0) & (left < products.shape[3]) & (top >= 0) & (top < products.shape[2])
                        )
                        k, m = (np.where(inside, place, 0).astype(int) for place in (top, left))
                        share = (1 - np.abs(x - left)) * (1 - np.abs(y - top))
                        value += inside * share * products[rows, columns, k, m]
                found.append(value)
    return np.stack(found)


def _motion(flow: Array, seen: Array, w: dict[str, Array]) -> Array:
    at = "update_block.motion_encoder"
    seen = np.maximum(_planes(seen, w, f"{at}.convcorr1.0"), 0)
    seen = np.maximum(_planes(seen, w, f"{at}.convcorr2.0", (1, 1)), 0)
    moved = np.maximum(_planes(flow, w, f"{at}.convflow1.0", (3, 3)), 0)
    moved = np.maximum(_planes(moved, w, f"{at}.convflow2.0", (1, 1)), 0)
    both = np.maximum(_planes(np.concatenate([seen, moved]), w, f"{at}.conv.0", (1, 1)), 0)
    return np.concatenate([both, flow])


def _recurred(hidden: Array, x: Array, w: dict[str, Array]) -> Array:
    for number, pad in ((1, (0, 2)), (2, (2, 0))):
        at = f"update_block.recurrent_block.convgru{number}"
        both = np.concatenate([hidden, x])
        z, r = (1 / (1 + np.exp(-_planes(both, w, f"{at}.conv{gate}", pad))) for gate in "zr")
        new = np.tanh(_planes(np.concatenate([r * hidden, x]), w, f"{at}.convq", pad))
        hidden = (1 - z) * hidden + z * new
    return hidden


def _finer(flow: Array, mask: Array) -> Array:
    """Eight times the size: a fine place is a weighted mean of its coarse place and the eight around it."""
    height, width = flow.shape[1:]
    shares = np.exp(mask.reshape(9, 8, 8, height, width))
    shares /= shares.sum(axis=0)
    around = np.pad(8 * flow, ((0, 0), (1, 1), (1, 1)))
    found = np.zeros((2, height, 8, width, 8))
    for place in range(9):
        row, column = divmod(place, 3)
        coarse = around[:, row : row + height, column : column + width]
        found += np.einsum("abij,cij->ciajb", shares[place], coarse)
    return found.reshape(2, 8 * height, 8 * width)
