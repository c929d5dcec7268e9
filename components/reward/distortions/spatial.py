"""Spatial distortions: damage to each frame that does not change from frame to frame."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from components.reward.distortions.registry import Draws, distortion, scaled
from components.reward.distortions.salience import background_fill, object_mask
from components.reward.filtering import displace, gaussian_blur, luma, resize

PX = "px at a 48 px short side"


@distortion("spatial", (0.55, 0.8, 1.15, 1.75, 2.7), f"sigma, {PX}")
def blur(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Every frame blurred by a Gaussian."""
    return gaussian_blur(frames, scaled(frames, value))


@distortion("spatial", (2, 3.5, 5, 7.5, 11), f"length, {PX}")
def motion_blur(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Every frame smeared along one random direction, as by a moving camera."""
    angle = draws.uniform(high=math.pi)[:, None, None, None]
    length = scaled(frames, value)
    taps = max(3, math.ceil(length) + 1)
    total = torch.zeros_like(frames)
    for tap in range(taps):
        offset = length * (tap / (taps - 1) - 0.5)
        total += displace(frames, offset * angle.cos(), offset * angle.sin(), mode="bilinear")
    return total / taps


@distortion("spatial", (2, 3, 4, 6, 8), f"block side, {PX}")
def pixelate(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Square blocks of constant colour."""
    height, width = frames.shape[-2:]
    block = scaled(frames, value)
    small = resize(frames, max(1, round(height / block)), max(1, round(width / block)), "area")
    return resize(small, height, width, "nearest")


@distortion("spatial", (0.3, 0.5, 0.7, 0.87, 1.0), "fraction of colour removed")
def desaturate(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Colours fade to grey."""
    return torch.lerp(frames, luma(frames).unsqueeze(2).expand_as(frames), value)


@distortion("spatial", (1.6, 2.2, 3.0, 4.2, 6.0), "saturation factor")
def oversaturate(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Colours pushed away from grey until they clip."""
    grey = luma(frames).unsqueeze(2)
    return grey + (frames - grey) * value


@distortion("spatial", (0.2, 0.35, 0.5, 0.65, 0.8), "fraction of contrast removed")
def low_contrast(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Everything drawn towards the clip's mean grey: a veil of haze."""
    grey = luma(frames).mean(dim=(1, 2, 3))[:, None, None, None, None]
    return torch.lerp(frames, grey.expand_as(frames), value)


@distortion("spatial", (0.2, 0.34, 0.48, 0.62, 0.78), "fraction of light removed")
def darken(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The picture grows dark and loses its shadows."""
    return (frames - 0.25 * value) * (1.0 - value)


@distortion("spatial", (0.02, 0.035, 0.06, 0.1, 0.16), "standard deviation, 0..1")
def fixed_noise(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """A fixed pattern of white noise, as dirt on the lens."""
    _, _, channels, height, width = frames.shape
    return frames + value * draws.normal(1, channels, height, width)


@distortion("spatial", (0.004, 0.01, 0.025, 0.05, 0.1), "fraction of pixels")
def impulse_noise(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Salt and pepper pixels, new ones in every frame."""
    _, time, _, height, width = frames.shape
    chance = draws.uniform(time, 1, height, width)
    colour = (draws.uniform(time, 1, height, width) > 0.5).to(frames.dtype)
    return torch.where(chance < value, colour.expand_as(frames), frames)


@distortion("spatial", (16, 9, 6, 4, 2), "tones per channel")
def posterise(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Few tones per channel: smooth shades become bands."""
    return torch.round(frames * (value - 1)) / (value - 1)


@distortion("spatial", (0.8, 1.6, 3.0, 5.0, 9.0), "unsharp-mask amount")
def oversharpen(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Halos along edges from too much sharpening."""
    return frames + value * (frames - gaussian_blur(frames, scaled(frames, 1.0)))


@distortion("spatial", (0.8, 1.4, 2.1, 3.1, 4.5), f"shift of red against blue, {PX}")
def colour_fringe(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Red and blue planes shifted apart, as by a poor lens."""
    angle = draws.uniform(high=2 * math.pi)[:, None, None, None]
    step = scaled(frames, value) / 2
    red = displace(frames[:, :, 0:1], step * angle.cos(), step * angle.sin())
    blue = displace(frames[:, :, 2:3], -step * angle.cos(), -step * angle.sin())
    return torch.cat((red, frames[:, :, 1:2], blue), dim=2)


@distortion("spatial", (0.12, 0.22, 0.32, 0.42, 0.5), "weight of the second picture")
def double_exposure(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """A shifted copy of the picture lies over it: every object is seen twice."""
    angle = draws.uniform(high=2 * math.pi)[:, None, None, None]
    shift = scaled(frames, 1.0) * draws.uniform(low=4.0, high=10.0)[:, None, None, None]
    copy = displace(frames, shift * angle.cos(), shift * angle.sin(), mode="bilinear")
    return torch.lerp(frames, copy, value)


@distortion("spatial", (0.25, 0.45, 0.65, 0.85, 1.0), "opacity of the blank")
def blank(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The whole picture dissolves into its mean colour; level 5 shows nothing at all."""
    mean = frames.mean(dim=(1, 3, 4), keepdim=True)
    return torch.lerp(frames, mean.expand_as(frames), value)


@distortion("spatial", (0.25, 0.45, 0.65, 0.85, 1.0), "opacity of the fill")
def erase(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The salient object is painted over with what surrounds it; at level 5 it is gone."""
    mask = object_mask(frames)
    return torch.lerp(frames, background_fill(frames, mask), value * mask)


@distortion("spatial", (0.1, 0.2, 0.35, 0.55, 0.8), "fraction of the object's cells")
def holes(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Pieces of the salient object are missing."""
    height, width = frames.shape[-2:]
    cell = max(2, round(scaled(frames, 4.0)))
    grid = draws.uniform(1, 1, math.ceil(height / cell), math.ceil(width / cell))
    gone = (grid < value).to(frames.dtype)
    gone = gone.repeat_interleave(cell, -2).repeat_interleave(cell, -1)[..., :height, :width]
    mask = object_mask(frames)
    return torch.lerp(frames, background_fill(frames, mask), mask * gone)
