"""Which frames a model is shown, and how they are brought to its size and range.

The first group of functions repeats, operation by operation, what VBench does before its own models (none of
it smooths before shrinking). `Preparation` follows the model's own ``preprocessor_config.json`` and serves
the models that stand in for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from components.runtime.errors import InputError
from components.runtime.io.untrusted import read_json

Mode = Literal["bilinear", "bicubic"]

#: Frames that go through a model at once. The result does not depend on it beyond rounding; memory does.
BATCH = 16

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_RANGE = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def middle(frames: int, number: int) -> list[int]:
    """The middle frame of each of ``number`` equal stretches; a shorter video's last frame is repeated.

    Args:
        frames: how many there are, at least 1.
        number: how many are wanted.
    """
    stretches = min(number, frames)
    borders = [int(border) for border in np.linspace(0, frames, stretches + 1)]
    chosen = [(start + end - 1) // 2 for start, end in pairwise(borders)]
    return chosen + [chosen[-1]] * (number - stretches)


def shorter_side(height: int, width: int, side: int) -> tuple[int, int]:
    """The size whose shorter side is ``side`` px; the longer one is rounded down."""
    if height <= width:
        return side, int(side * width / height)
    return int(side * height / width), side


def to_shorter_side(frames: Tensor, side: int, mode: Mode) -> Tensor:
    """Float (T, 3, H, W) with its shorter side at ``side`` px, without smoothing before shrinking."""
    size = shorter_side(int(frames.shape[-2]), int(frames.shape[-1]), side)
    return F.interpolate(frames, size, mode=mode, align_corners=False)


def centre(frames: Tensor, height: int, width: int) -> Tensor:
    """The middle (T, 3, height, width) of larger frames; halves of a pixel go to the even side."""
    top, left = round((frames.shape[-2] - height) / 2), round((frames.shape[-1] - width) / 2)
    return frames[..., top : top + height, left : left + width]


def standardised(frames: Tensor, mean_and_std: tuple[tuple[float, ...], tuple[float, ...]]) -> Tensor:
    """Float (T, 3, H, W) in 0..1, less the mean and over the deviation of each channel."""
    mean, std = (torch.tensor(part, device=frames.device)[:, None, None] for part in mean_and_std)
    return (frames - mean) / std


def for_dino(frames: Tensor) -> Tensor:
    """uint8 (T, 3, H, W) to 224 px on the shorter side, whole pictures, ImageNet's range."""
    return standardised(to_shorter_side(frames.float(), 224, "bilinear") / 255.0, IMAGENET)


def for_clip(frames: Tensor, side: int = 224) -> Tensor:
    """uint8 (T, 3, H, W) to the middle square of ``side`` px, bicubic, CLIP's range."""
    small = centre(to_shorter_side(frames.float(), side, "bicubic"), side, side)
    return standardised(small / 255.0, CLIP_RANGE)


def for_clip_as_pictures(frames: Tensor, side: int = 224) -> Tensor:
    """As `for_clip`, but through Pillow: smoothed before shrinking, rounded to whole levels."""
    size = shorter_side(int(frames.shape[-2]), int(frames.shape[-1]), side)
    pictures = [
        Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        for frame in frames.permute(0, 2, 3, 1).cpu().numpy()
    ]
    small = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
    return standardised(centre(small, side, side).to(frames.device).float() / 255.0, CLIP_RANGE)


@dataclass(frozen=True)
class Preparation:
    """What a model's own configuration says about its input.

    Attributes:
        size: (height, width) px, or the shorter side alone.
        crop: (height, width) px of the middle that is kept, None for all of it.
        mode: how pixels are interpolated; shrinking smooths first.
        factor: what levels 0..255 are multiplied by.
        shift: what is added then.
        mean_and_std: of each channel after that, None for neither.
    """

    size: tuple[int, int] | int
    crop: tuple[int, int] | None
    mode: Mode
    factor: float
    shift: float
    mean_and_std: tuple[tuple[float, ...], tuple[float, ...]] | None

    @classmethod
    def read(cls, folder: Path) -> Preparation:
        """Read ``preprocessor_config.json`` (or the video one) of a model's folder.

        Raises:
            InputError: the file is missing or describes something else than resizing, cropping and scaling.
        """
        names = ("video_preprocessor_config.json", "preprocessor_config.json")
        file = next((folder / name for name in names if (folder / name).is_file()), folder / names[1])
        try:
            settings = read_json(file)
            return cls._of(settings)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InputError(f"{file}: not the preprocessing of a vision model: {error!r}") from error

    @classmethod
    def _of(cls, settings: dict[str, Any]) -> Preparation:
        size = settings["size"]
        shortest = size if isinstance(size, int) else size.get("shortest_edge")
        crop = settings.get("crop_size") if settings.get("do_center_crop") else None
        if isinstance(crop, int):
            crop = {"height": crop, "width": crop}
        normal = settings.get("do_normalize", True)
        return cls(
            size=int(shortest) if shortest else (int(size["height"]), int(size["width"])),
            crop=(int(crop["height"]), int(crop["width"])) if crop else None,
            mode="bicubic" if settings.get("resample", 2) == 3 else "bilinear",
            factor=float(settings.get("rescale_factor", 1 / 255)),
            shift=-1.0 if settings.get("offset") else 0.0,
            mean_and_std=(tuple(settings["image_mean"]), tuple(settings["image_std"])) if normal else None,
        )

    def __call__(self, frames: Tensor) -> Tensor:
        """uint8 (T, 3, H, W) to what the model takes, float32 (T, 3, h, w)."""
        height, width = int(frames.shape[-2]), int(frames.shape[-1])
        size = shorter_side(height, width, self.size) if isinstance(self.size, int) else self.size
        small = F.interpolate(frames.float(), size, mode=self.mode, align_corners=False, antialias=True)
        small = small.clamp(0.0, 255.0)  # bicubic overshoots
        if self.crop is not None:
            small = centre(small, *self.crop)
        scaled = small * self.factor + self.shift
        return scaled if self.mean_and_std is None else standardised(scaled, self.mean_and_std)
