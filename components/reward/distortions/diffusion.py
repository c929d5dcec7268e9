"""Distortions that look like the faults of video diffusion models: flicker, ghosts, warps, textures,
drift."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from components.reward.distortions.base import PX, Draws, distortion, scaled
from components.reward.distortions.temporal import take
from components.video.filters import box_blur, displace, gaussian_blur, luma


def _over_time(series: Tensor) -> Tensor:
    return series[:, :, None, None, None]


def _unit(field: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Scales a random field to root mean square 1 over `dims`, so that a level means the same on every
    draw."""
    return field / field.square().mean(dim=dims, keepdim=True).sqrt().clamp_min(1e-6)


@distortion("diffusion", (0.025, 0.05, 0.1, 0.18, 0.3), "gain, root mean square")
def flicker_sine(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Brightness of the whole frame swings regularly."""
    time = torch.arange(frames.shape[1], device=frames.device)
    period = draws.uniform(1, low=2.0, high=5.0)
    phase = draws.uniform(1, high=2 * math.pi)
    wave = torch.sin(2 * math.pi * time / period + phase)
    return frames * (1.0 + value * _over_time(_unit(wave, (1,))))


@distortion("diffusion", (0.025, 0.05, 0.1, 0.18, 0.3), "gain standard deviation")
def flicker_white(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Brightness of the whole frame jumps at random from frame to frame."""
    return frames * (1.0 + value * _over_time(_unit(draws.normal(frames.shape[1]), (1,))))


@distortion("diffusion", (0.06, 0.12, 0.2, 0.32, 0.5), "brightness change of the first frame")
def first_frame_ramp(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The clip starts too bright or too dark and settles within a few frames."""
    time = torch.arange(frames.shape[1], device=frames.device, dtype=frames.dtype)
    decay = torch.exp(-time / draws.uniform(1, low=0.5, high=2.0))
    return frames + 0.6 * value * draws.signs(1, 1, 1, 1) * _over_time(decay) * (0.3 + frames)


@distortion("diffusion", (0.08, 0.16, 0.27, 0.42, 0.65), "brightness change over the clip, 0..1")
def brightness_ramp(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The clip grows steadily brighter (or darker) from its first frame to its last."""
    course = torch.linspace(0.0, 1.0, frames.shape[1], device=frames.device)
    return frames + value * draws.signs(1, 1, 1, 1) * course[None, :, None, None, None]


@distortion("diffusion", (0.03, 0.06, 0.11, 0.19, 0.3), "gain standard deviation")
def local_flicker(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Brightness of regions pulses, each at its own moment."""
    _, time, _, height, width = frames.shape
    field = gaussian_blur(draws.normal(time, 1, height, width), scaled(frames, 6.0))
    return frames * (1.0 + value * _unit(field, (1, 2, 3, 4)))


@distortion("diffusion", (0.015, 0.03, 0.05, 0.085, 0.14), "standard deviation, 0..1")
def frame_noise(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """White noise, new in every frame."""
    return frames + value * draws.normal(*frames.shape[1:])


@distortion("diffusion", (0.015, 0.03, 0.05, 0.085, 0.14), "standard deviation, 0..1")
def boiling(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Blotches of colour that change in every frame."""
    field = gaussian_blur(draws.normal(*frames.shape[1:]), scaled(frames, 1.6))
    return frames + value * _unit(field, (1, 2, 3, 4))


@distortion("diffusion", (0.2, 0.35, 0.5, 0.65, 0.8), "weight of earlier frames")
def ghost(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Earlier (or later) frames shine through: a moving object drags copies of itself."""
    time = frames.shape[1]
    clock = torch.arange(time, device=frames.device)
    lag = draws.integers(2, 4, 1) * draws.signs(1).long()
    first = take(frames, (clock - lag).clamp(0, time - 1))
    second = take(frames, (clock - 2 * lag).clamp(0, time - 1))
    return (1.0 - value) * frames + value * (0.65 * first + 0.35 * second)


@distortion("diffusion", (0.6, 1.0, 1.6, 2.5, 4.0), f"root mean square displacement, {PX}")
def warp(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Shapes wobble: a smooth random displacement, nearly new in every frame."""
    _, time, _, height, width = frames.shape
    field = gaussian_blur(draws.normal(2, time, height, width), scaled(frames, 4.5))
    field = _unit(field, (1, 2, 3, 4)) * scaled(frames, value)
    return displace(frames, field[:, 0], field[:, 1])


@distortion("diffusion", (0.9, 1.6, 2.6, 3.9, 5.8), f"root mean square displacement, {PX}")
def melt(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Shapes lose their form steadily over the clip, as wax does."""
    _, time, _, height, width = frames.shape
    field = gaussian_blur(draws.normal(2, 1, height, width), scaled(frames, 4.5))
    field = _unit(field, (1, 2, 3, 4)) * scaled(frames, value)
    course = torch.linspace(0.3, 1.5, time, device=frames.device)[None, :, None, None]
    return displace(frames, field[:, 0] * course, field[:, 1] * course)


@distortion("diffusion", (8, 12, 16, 22, 30), f"patch side, {PX}")
def patch_swap(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """In each frame after the first a patch shows another place of the clip."""
    batch, time, _, height, width = frames.shape
    side = max(2, min(round(scaled(frames, value)), height - 1, width - 1))
    where = draws.uniform(time, 4)
    other = draws.integers(0, time, time)
    out = frames.clone()
    for clip in range(batch):
        for moment in range(1, time):
            y, y2 = (where[clip, moment, :2] * (height - side)).long().tolist()
            x, x2 = (where[clip, moment, 2:] * (width - side)).long().tolist()
            source = frames[clip, int(other[clip, moment]), :, y2 : y2 + side, x2 : x2 + side]
            out[clip, moment, :, y : y + side, x : x + side] = source
    return out


@distortion("diffusion", (0.15, 0.3, 0.45, 0.65, 1.0), "fraction of the frame's width")
def local_freeze(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """A band of the frame stands still while the rest moves."""
    time, width = frames.shape[1], frames.shape[-1]
    held = take(frames, draws.integers(0, time, 1).expand(-1, time))
    xs = (torch.arange(width, device=frames.device) + 0.5) / width
    centre = draws.uniform(1, low=0.3, high=0.7)
    reach = value / 2 + value**4 / 2
    inside = torch.sigmoid((reach - (xs - centre).abs()) * width / 2)
    return torch.lerp(frames, held, inside[:, None, None, None, :])


@distortion("diffusion", (0.012, 0.025, 0.045, 0.075, 0.12), "amplitude, 0..1")
def lattice(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """A regular texture of period 4 or 8 px lies over the picture: the latent grid showing through."""
    batch, _, channels, height, width = frames.shape
    period = torch.where(draws.uniform() < 0.7, 4, 8)
    tile = gaussian_blur(draws.normal(channels, 8, 8), 0.6) + 0.7 * draws.normal(1, 8, 8)
    ys = torch.arange(height, device=frames.device)[None, :] % period[:, None]
    xs = torch.arange(width, device=frames.device)[None, :] % period[:, None]
    clips = torch.arange(batch, device=frames.device)
    small = tile.permute(0, 2, 3, 1)
    grid = small[clips[:, None, None], ys[:, :, None], xs[:, None, :]].permute(0, 3, 1, 2)
    grid = grid - grid.mean(dim=(2, 3), keepdim=True)
    return frames + value * _unit(grid, (1, 2, 3))[:, None]


@distortion("diffusion", (0.015, 0.03, 0.05, 0.08, 0.13), "standard deviation, 0..1")
def crawl(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """A fine texture slides over the picture."""
    _, time, channels, height, width = frames.shape
    # Moved by phases of its spectrum: what leaves on one side enters on the other, whole.
    waves = torch.fft.rfft2(draws.normal(1, channels, height, width))
    fy = torch.fft.fftfreq(height, device=frames.device)[:, None]
    fx = torch.fft.rfftfreq(width, device=frames.device)[None, :]
    waves = waves * torch.exp(-2 * (math.pi * scaled(frames, 0.8)) ** 2 * (fx**2 + fy**2))
    angle = draws.uniform(high=2 * math.pi)[:, None, None, None, None]
    steps = torch.arange(time, device=frames.device)[None, :, None, None, None] * scaled(frames, 1.5)
    turned = 2 * math.pi * steps * (fx * angle.cos() + fy * angle.sin())
    texture = torch.fft.irfft2(waves * torch.polar(torch.ones_like(turned), turned), s=(height, width))
    return frames + value * _unit(texture, (1, 2, 3, 4))


@distortion("diffusion", (0.05, 0.1, 0.18, 0.28, 0.42), "tint of the last frame, 0..1")
def colour_drift(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """The picture takes on a tint over time."""
    tint = draws.normal(3)
    tint = tint - tint.mean(1, keepdim=True)
    tint = _unit(tint, (1,)) * value
    course = torch.linspace(0.0, 1.0, frames.shape[1], device=frames.device)
    return frames + course[None, :, None, None, None] * tint[:, None, :, None, None]


@distortion("diffusion", (0.1, 0.18, 0.3, 0.45, 0.65), "mixing angle, radians")
def hue_flicker(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Colours change from frame to frame while brightness stays."""
    angle = _over_time(_unit(draws.normal(frames.shape[1]), (1,)) * value)
    grey = luma(frames).unsqueeze(2)
    colour = frames - grey
    turned = torch.stack(
        (
            colour[:, :, 1] - colour[:, :, 2],
            colour[:, :, 2] - colour[:, :, 0],
            colour[:, :, 0] - colour[:, :, 1],
        ),
        dim=2,
    ) / math.sqrt(3.0)
    colour = colour * angle.cos() + turned * angle.sin()
    return grey + colour - luma(colour).unsqueeze(2)


@distortion("diffusion", (0.0006, 0.002, 0.006, 0.02, 0.08), "variance treated as texture")
def oversmooth(frames: Tensor, value: float, draws: Draws) -> Tensor:
    """Fine detail is ironed out while strong edges stay (self-guided filter, He et al. 2010)."""
    radius = max(1, round(scaled(frames, 2.0)))
    smooth = frames
    for _ in range(2):
        mean = box_blur(smooth, radius)
        variance = (box_blur(smooth * smooth, radius) - mean * mean).clamp_min(0.0)
        gain = variance / (variance + value)
        smooth = box_blur(gain, radius) * smooth + box_blur(mean * (1.0 - gain), radius)
    return smooth
