"""RAFT optical flow (Teed and Deng 2020), the large model, for inference.

Written against the paper and the names of the published weights (torchvision's port of the authors' own). The
tensors are used as they lie in the file, by name; layer sizes follow from their shapes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from components.evaluation.models.loading import TensorModel

LEVELS, RADIUS = 4, 4
#: At an eighth of the size, halved three times, two pixels must be left to interpolate between.
SMALLEST_SIDE = 128


class Raft(TensorModel):
    """Flow between pairs of frames."""

    title, landmark = "the large RAFT", "mask_predictor.conv.weight"

    @torch.no_grad()
    def flow(self, first: Tensor, second: Tensor, updates: int = 20, border: bool = False) -> Tensor:
        """Where each pixel of ``first`` went in ``second``.

        Frames are padded to a multiple of 8 px by repeating their borders, and enlarged by a whole factor
        first where a side is under 128 px.

        Args:
            first: (N, 3, H, W), uint8 0..255.
            second: the same, the later frames.
            updates: refinements of the estimate.
            border: keep the flow of the padding, too, as VBench does.

        Returns:
            float32 (N, 2, H, W) in pixels of the frames given, channel 0 to the right, channel 1 down; larger
            by the padding where `border` is asked for.
        """
        height, width = int(first.shape[-2]), int(first.shape[-1])
        factor = -(-SMALLEST_SIDE // min(height, width))
        pair = torch.stack([first, second]).to(self.tensors["mask_predictor.conv.bias"])
        if factor > 1:
            pair = pair.repeat_interleave(factor, dim=-1).repeat_interleave(factor, dim=-2)
        rows, columns = -pair.shape[-2] % 8, -pair.shape[-1] % 8
        left, top = columns // 2, rows // 2
        pads = (left, columns - left, top, rows - top)
        one, other = (F.pad(2 * (part / 255.0) - 1, pads, mode="replicate") for part in pair)
        found = self._estimate(one, other, updates)
        if not border:
            found = found[..., top : top + factor * height, left : left + factor * width]
        if factor > 1:
            found = F.avg_pool2d(found, factor) / factor
        return found.float()

    def _estimate(self, one: Tensor, other: Tensor, updates: int) -> Tensor:
        """The padded frames, in -1..1, to their flow at full size."""
        before, after = self._encode("feature_encoder", torch.cat([one, other])).chunk(2)
        correlation = _pyramid(before, after)
        context = self._encode("context_encoder", one)
        size = self.tensors["update_block.flow_head.conv1.weight"].shape[1]
        hidden, context = context[:, :size].tanh(), context[:, size:].relu()
        start = _grid(before)
        flow = torch.zeros_like(start)
        for _ in range(updates):
            seen = self._motion(flow, _look_up(correlation, start + flow))
            hidden = self._recur(hidden, torch.cat([context, seen], dim=1))
            step = self._conv("update_block.flow_head.conv1", hidden, 1).relu()
            flow = flow + self._conv("update_block.flow_head.conv2", step, 1)
        mask = self._conv("mask_predictor.convrelu.0", hidden, 1).relu()
        return _upsample(flow, 0.25 * self._conv("mask_predictor.conv", mask))

    def _conv(self, name: str, x: Tensor, pad: int | tuple[int, int] = 0, stride: int = 1) -> Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return F.conv2d(x, weight, bias, stride=stride, padding=pad)

    def _normed(self, name: str, x: Tensor, pad: int, stride: int = 1) -> Tensor:
        """A convolution and its norm: of the batch where the file holds one, else of each picture."""
        x = self._conv(f"{name}.0", x, pad, stride)
        if f"{name}.1.weight" not in self.tensors:
            return F.instance_norm(x)
        weight, bias = self.tensors[f"{name}.1.weight"], self.tensors[f"{name}.1.bias"]
        mean, variance = self.tensors[f"{name}.1.running_mean"], self.tensors[f"{name}.1.running_var"]
        return F.batch_norm(x, mean, variance, weight, bias)

    def _encode(self, name: str, x: Tensor) -> Tensor:
        """Features at an eighth of the size: three stages of two residual blocks."""
        x = self._normed(f"{name}.convnormrelu", x, 3, 2).relu()
        for stage, stride in ((1, 1), (2, 2), (3, 2)):
            for block in (0, 1):
                at = f"{name}.layer{stage}.{block}"
                step = stride if block == 0 else 1
                y = self._normed(f"{at}.convnormrelu1", x, 1, step).relu()
                y = self._normed(f"{at}.convnormrelu2", y, 1).relu()
                if f"{at}.downsample.0.weight" in self.tensors:
                    x = self._normed(f"{at}.downsample", x, 0, step)
                x = (x + y).relu()
        return self._conv(f"{name}.conv", x)

    def _motion(self, flow: Tensor, correlation: Tensor) -> Tensor:
        at = "update_block.motion_encoder"
        seen = self._conv(f"{at}.convcorr1.0", correlation).relu()
        seen = self._conv(f"{at}.convcorr2.0", seen, 1).relu()
        moved = self._conv(f"{at}.convflow1.0", flow, 3).relu()
        moved = self._conv(f"{at}.convflow2.0", moved, 1).relu()
        both = self._conv(f"{at}.conv.0", torch.cat([seen, moved], dim=1), 1).relu()
        return torch.cat([both, flow], dim=1)

    def _recur(self, hidden: Tensor, x: Tensor) -> Tensor:
        """A convolutional gated unit along the rows, then one along the columns."""
        for number, pad in ((1, (0, 2)), (2, (2, 0))):
            at = f"update_block.recurrent_block.convgru{number}"
            both = torch.cat([hidden, x], dim=1)
            update = self._conv(f"{at}.convz", both, pad).sigmoid()
            reset = self._conv(f"{at}.convr", both, pad).sigmoid()
            proposal = self._conv(f"{at}.convq", torch.cat([reset * hidden, x], dim=1), pad).tanh()
            hidden = (1 - update) * hidden + update * proposal
        return hidden


def _grid(like: Tensor) -> Tensor:
    """Coordinates (N, 2, h, w) of every place, x then y."""
    height, width = like.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([columns, rows]).to(like).expand(len(like), -1, -1, -1)


def _pyramid(before: Tensor, after: Tensor) -> list[Tensor]:
    """Products of every place with every other, (N h w, 1, h, w), and three halvings of the second pair."""
    number, channels, height, width = before.shape
    products = before.flatten(2).transpose(1, 2) @ after.flatten(2) / channels**0.5
    levels = [products.reshape(number * height * width, 1, height, width)]
    for _ in range(LEVELS - 1):
        levels.append(F.avg_pool2d(levels[-1], 2))
    return levels


def _look_up(pyramid: list[Tensor], places: Tensor) -> Tensor:
    """The products around (N, 2, h, w) places: (N, levels x 81, h, w), each window column by column."""
    number, _, height, width = places.shape
    reach = torch.arange(-RADIUS, RADIUS + 1, device=places.device, dtype=places.dtype)
    across, down = torch.meshgrid(reach, reach, indexing="ij")
    offsets = torch.stack([across, down], dim=-1)  # window[i, j] is i to the right and j down
    centres = places.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    found = []
    for level, products in enumerate(pyramid):
        at = centres / 2**level + offsets
        last = torch.tensor([products.shape[-1] - 1, products.shape[-2] - 1]).to(at)
        window = F.grid_sample(products, 2 * at / last - 1, align_corners=True)
        found.append(window.reshape(number, height, width, -1))
    return torch.cat(found, dim=-1).permute(0, 3, 1, 2)


def _upsample(flow: Tensor, mask: Tensor) -> Tensor:
    """Eight times the size: each fine place is a weighted mean of the nine coarse ones around it."""
    number, _, height, width = flow.shape
    shares = mask.reshape(number, 1, 9, 8, 8, height, width).softmax(dim=2)
    around = F.unfold(8 * flow, 3, padding=1).reshape(number, 2, 9, 1, 1, height, width)
    fine = (shares * around).sum(dim=2)
    return fine.permute(0, 1, 4, 2, 5, 3).reshape(number, 2, 8 * height, 8 * width)
