"""Spatial distortions: damage that a single frame shows."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from components.reward.distortions.base import PX, Draws, distortion, scaled
from components.reward.distortions.saliency import background_fill, object_mask
from components.video.filters import displace, gaussian_blur, luma, resize, rgb_of_chroma


@distortion("spatial", (0.55, 0.8, 1.15, 1.75, 2.7), f"sigma, {PX}")
def blur(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Every frame blurred by a Gaussian."""
    return gaussian_blur(frames, scaled(frames, value))


@distortion("spatial", (1.0, 1.5, 2.2, 3.2, 4.6), f"radius of the disc, {PX}")
def lens_blur(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Every frame out of focus: each point becomes a disc."""
    height, width = frames.shape[-2:]
    radius = scaled(frames, value)
    reach = math.ceil(radius)
    # A disc cannot be split into rows and columns; the Fourier transform takes any size of it at one price.
    ring = torch.arange(-reach, reach + 1, device=frames.device, dtype=torch.float32)
    disc = (radius + 0.5 - torch.hypot(ring[:, None], ring[None, :])).clamp(0.0, 1.0)
    flat = F.pad(frames.flatten(0, 1).float(), (reach, reach, reach, reach), mode="replicate")
    size = (flat.shape[-2] + 2 * reach, flat.shape[-1] + 2 * reach)
    product = torch.fft.rfft2(flat, s=size) * torch.fft.rfft2(disc / disc.sum(), s=size)
    blurred = torch.fft.irfft2(product, s=size)[..., 2 * reach :, 2 * reach :]
    return blurred[..., :height, :width].reshape(frames.shape)


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


@distortion("spatial", (1.5, 2.5, 4, 6.5, 11), f"sigma, {PX}")
def colour_bleed(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Colours run over their edges while brightness stays sharp."""
    grey = luma(frames).unsqueeze(2)
    return grey + gaussian_blur(frames - grey, scaled(frames, value))


@distortion("spatial", (0.2, 0.35, 0.5, 0.65, 0.8), "fraction of contrast removed")
def low_contrast(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Everything drawn towards the clip's mean grey: a veil of haze."""
    grey = luma(frames).mean(dim=(1, 2, 3))[:, None, None, None, None]
    return torch.lerp(frames, grey.expand_as(frames), value)


@distortion("spatial", (0.2, 0.34, 0.48, 0.62, 0.78), "fraction of light removed")
def darken(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The picture grows dark and loses its shadows."""
    return (frames - 0.25 * value) * (1.0 - value)


@distortion("spatial", (0.12, 0.25, 0.42, 0.65, 1.0), "gain added")
def brighten(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The picture grows bright and loses its highlights."""
    return frames * (1.0 + value) + 0.2 * value


@distortion("spatial", (0.02, 0.035, 0.06, 0.1, 0.16), "standard deviation, 0..1")
def fixed_noise(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """A fixed pattern of white noise, as dirt on the lens."""
    _, _, channels, height, width = frames.shape
    return frames + value * draws.normal(1, channels, height, width)


@distortion("spatial", (0.02, 0.035, 0.06, 0.1, 0.16), "standard deviation of each chroma plane, 0..1")
def chroma_noise(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Colours speckle while brightness stays, new specks in every frame."""
    _, time, _, height, width = frames.shape
    blue, red = (value * draws.normal(time, 2, height, width)).to(frames.dtype).unbind(2)
    return frames + rgb_of_chroma(blue, red)


@distortion("spatial", (0.06, 0.11, 0.18, 0.28, 0.45), "standard deviation of the gain")
def multiplicative_noise(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Speckle: noise in proportion to brightness, new in every frame."""
    return frames * (1.0 + value * draws.normal(*frames.shape[1:]))


@distortion("spatial", (0.004, 0.01, 0.025, 0.05, 0.1), "fraction of pixels")
def impulse_noise(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Salt and pepper pixels, new ones in every frame."""
    _, time, _, height, width = frames.shape
    chance = draws.uniform(time, 1, height, width)
    colour = (draws.uniform(time, 1, height, width) > 0.5).to(frames.dtype)
    return torch.where(chance < value, colour.expand_as(frames), frames)


@distortion("spatial", (15, 9, 6, 4, 2.6), "tones per channel")
def posterise(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Few tones per channel: smooth shades become bands."""
    # Where the tones lie is drawn: a plain picture whose colours happen to be tones would come out whole.
    offset = draws.uniform(1, low=-0.5, high=0.5)[:, None, :, None, None]
    return (torch.round(frames * (value - 1) + offset) - offset) / (value - 1)


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


@distortion("spatial", (0.5, 0.8, 1.2, 1.8, 2.8), f"standard deviation, {PX}")
def pixel_jitter(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Every pixel is taken from a place near by, as seen through frosted glass."""
    height, width = frames.shape[-2:]
    step = scaled(frames, value) * draws.normal(2, 1, height, width)
    return displace(frames, step[:, 0], step[:, 1], mode="bilinear")


@distortion("spatial", (2, 4, 7, 12, 20), f"patches, a side of 9 {PX}")
def misplaced_patches(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Square pieces of the picture stand in the wrong places, for the whole clip."""
    batch, _, _, height, width = frames.shape
    side = max(1, min(round(scaled(frames, 9.0)), height - 1, width - 1))
    room = torch.tensor([height - side, width - side, height - side, width - side]) + 1
    corners = (draws.uniform(int(value), 4).cpu() * room).long().tolist()
    place = torch.arange(height * width).reshape(1, height, width).repeat(batch, 1, 1)
    home = place[0].clone()
    for clip, patches in zip(place, corners, strict=True):
        for y, x, from_y, from_x in patches:
            clip[y : y + side, x : x + side] = home[from_y : from_y + side, from_x : from_x + side]
    index = place.to(frames.device).reshape(batch, 1, 1, -1).expand(*frames.shape[:3], -1)
    return frames.flatten(-2).gather(-1, index).reshape(frames.shape)


@distortion("spatial", (1, 2, 4, 7, 12), f"blocks, a side of 7 {PX}")
def colour_blocks(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Blocks of one colour cover parts of the picture, for the whole clip."""
    height, width = frames.shape[-2:]
    side = max(1, min(round(scaled(frames, 7.0)), height, width))
    room = torch.tensor([height - side, width - side]) + 1
    corners = (draws.uniform(int(value), 2).cpu() * room).long().tolist()
    colours = draws.uniform(int(value), 3).to(frames.dtype)
    out = frames.clone()
    for clip, blocks, inks in zip(out, corners, colours, strict=True):
        for (y, x), ink in zip(blocks, inks, strict=True):
            clip[..., y : y + side, x : x + side] = ink[:, None, None]
    return out


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
