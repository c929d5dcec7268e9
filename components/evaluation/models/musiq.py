"""MUSIQ (Ke et al. 2021), the multi-scale image quality transformer, for inference.

Written against the paper and the authors' published checkpoints, whose names are kept ("/" as "."). A picture
is cut into patches at its own size and at two other ones; each patch becomes a token by a small ResNet, knows
its place on a 10 x 10 grid and its scale, and a transformer reads them all.

The figures that VBench publishes come from pyiqa's port of it, which differs in three things: it resizes by a
bicubic filter, its transformer has the exact GELU, and kernels are standardised by their unbiased deviation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from components.evaluation.models.loading import TensorModel

PATCH, GRID = 32, 10
LONGER_SIDES = (224, 384)
ATTENTION = "MultiHeadDotProductAttention_1"


class Musiq(TensorModel):
    """Mean opinion score of pictures, about 0..100 for the SPAQ checkpoint."""

    title, landmark = "the multi-scale MUSIQ", "Transformer.scaleembed_input.scale_embedding"

    @torch.no_grad()
    def scores(self, pictures: Tensor, ported: bool = False) -> Tensor:
        """Float (N, 3, H, W) in 0..1 to scores (N,); ``ported``: as pyiqa's port of MUSIQ gives them."""
        x = 2 * pictures.to(self.tensors["head.bias"]) - 1
        resize = _resized_bicubic if ported else _resized
        scales = [*(resize(x, longer) for longer in LONGER_SIDES), x]
        tokens = torch.cat(
            [self._tokens(scale, number, ported) for number, scale in enumerate(scales)], dim=1
        )
        tokens = torch.cat([self.tensors["Transformer.cls"].expand(len(x), -1, -1), tokens], dim=1)
        for layer in range(sum(name.endswith("LayerNorm_2.scale") for name in self.tensors)):
            tokens = self._block(f"Transformer.encoderblock_{layer}", tokens, ported)
        return self._dense("head", self._layer_norm("Transformer.encoder_norm", tokens)[:, 0])[:, 0]

    def _tokens(self, pictures: Tensor, scale: int, ported: bool) -> Tensor:
        patches, places = _patches(pictures)
        count = patches.shape[1]
        x = _same_conv(patches.flatten(0, 1), self._standardised("conv_root", ported), 2)
        x = self._group_norm("gn_root", x, 1e-6).relu()
        x = F.max_pool2d(F.pad(x, _same(x, 3, 2), value=-math.inf), 3, 2)
        x = self._unit("block1.unit1", x, ported)
        x = self._dense("embedding", x.permute(0, 2, 3, 1).reshape(len(pictures), count, -1))
        x = x + self.tensors["Transformer.posembed_input.pos_embedding"][0, places.to(x.device)]
        return x + self.tensors["Transformer.scaleembed_input.scale_embedding"][0, scale]

    def _unit(self, name: str, x: Tensor, ported: bool) -> Tensor:
        """The one bottleneck block of the patch encoder."""
        kept = F.conv2d(x, self._standardised(f"{name}.conv_proj", ported))
        kept = self._group_norm(f"{name}.gn_proj", kept, 1e-4)
        for number in (1, 2, 3):
            x = _same_conv(x, self._standardised(f"{name}.conv{number}", ported), 1)
            x = self._group_norm(f"{name}.gn{number}", x, 1e-4)
            x = x.relu() if number < 3 else x
        return (kept + x).relu()

    def _block(self, name: str, x: Tensor, ported: bool) -> Tensor:
        y = self._layer_norm(f"{name}.LayerNorm_0", x)
        at = f"{name}.{ATTENTION}"
        query, key, value = (self._heads(f"{at}.{part}", y) for part in ("query", "key", "value"))
        y = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + y @ self.tensors[f"{at}.out.kernel"].flatten(0, 1) + self.tensors[f"{at}.out.bias"]
        y = self._dense(f"{name}.MlpBlock_3.Dense_0", self._layer_norm(f"{name}.LayerNorm_2", x))
        y = F.gelu(y, approximate="none" if ported else "tanh")
        return x + self._dense(f"{name}.MlpBlock_3.Dense_1", y)

    def _heads(self, name: str, x: Tensor) -> Tensor:
        """(N, L, D) to (N, heads, L, size); the kernel is (D, heads, size)."""
        kernel, bias = self.tensors[f"{name}.kernel"], self.tensors[f"{name}.bias"]
        return torch.einsum("nld,dhs->nhls", x, kernel) + bias[:, None]

    def _dense(self, name: str, x: Tensor) -> Tensor:
        return x @ self.tensors[f"{name}.kernel"] + self.tensors[f"{name}.bias"]

    def _layer_norm(self, name: str, x: Tensor) -> Tensor:
        scale, bias = self.tensors[f"{name}.scale"], self.tensors[f"{name}.bias"]
        return F.layer_norm(x, scale.shape, scale, bias, 1e-6)

    def _group_norm(self, name: str, x: Tensor, epsilon: float) -> Tensor:
        scale, bias = (self.tensors[f"{name}.{part}"].flatten() for part in ("scale", "bias"))
        return F.group_norm(x, 32, scale, bias, epsilon)

    def _standardised(self, name: str, ported: bool) -> Tensor:
        """A kernel (h, w, in, out) with mean 0 and deviation 1 for each output, as (out, in, h, w)."""
        kernel = self.tensors[f"{name}.kernel"]
        kernel = kernel - kernel.mean(dim=(0, 1, 2))
        return (kernel / (kernel.std(dim=(0, 1, 2), correction=int(ported)) + 1e-5)).permute(3, 2, 0, 1)


def _same(x: Tensor, kernel: int, stride: int) -> tuple[int, int, int, int]:
    """Padding with which ``ceil(size / stride)`` outputs come out; the odd pixel goes to the end."""
    pads = []
    for size in (x.shape[-1], x.shape[-2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return pads[0], pads[1], pads[2], pads[3]


def _same_conv(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    return F.conv2d(F.pad(x, _same(x, weight.shape[-1], stride)), weight, stride=stride)


def _patches(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W) to patches (N, L, 3, 32, 32) row by row, and each one's place on the 10 x 10 grid."""
    padded = F.pad(pictures, _same(pictures, PATCH, PATCH))
    rows, columns = padded.shape[-2] // PATCH, padded.shape[-1] // PATCH
    cut = padded.unflatten(3, (columns, PATCH)).unflatten(2, (rows, PATCH))  # N, 3, rows, 32, columns, 32
    patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    down = torch.arange(rows) * GRID // rows
    across = torch.arange(columns) * GRID // columns
    return patches, (down[:, None] * GRID + across[None]).flatten()


def _resized(pictures: Tensor, longer: int) -> Tensor:
    """The longer side brought to ``longer`` px by a Gaussian of deviation 1/2 source pixel, cut off at 3/2.

    This is TensorFlow's "gaussian" resampling, as the authors use it: shrinking does not widen the window.
    """
    height, width = pictures.shape[-2:]
    ratio = torch.tensor(longer, dtype=torch.float32) / max(height, width)
    new = [int(torch.round(side * ratio)) for side in (height, width)]  # halves go to the even number
    down, across = (_gaussian(old, to).to(pictures) for old, to in zip((height, width), new, strict=True))
    return down @ pictures @ across.T


def _resized_bicubic(pictures: Tensor, longer: int) -> Tensor:
    """The longer side brought to ``longer`` px by torch's bicubic filter, without smoothing first."""
    height, width = pictures.shape[-2:]
    ratio = longer / max(height, width)
    size = (round(height * ratio), round(width * ratio))
    return F.interpolate(pictures, size, mode="bicubic", align_corners=False)


def _gaussian(old: int, new: int) -> Tensor:
    """Weights (new, old), each row summing to 1."""
    at = (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new)
    away = (torch.arange(old, dtype=torch.float64) + 0.5 - at[:, None]).abs()
    weights = torch.where(away <= 1.5, torch.exp(-2.0 * away**2), 0.0)
    return weights / weights.sum(dim=1, keepdim=True)
