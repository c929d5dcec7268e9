"""Hand-made statistics of a clip: sharpness, noise, texture grids, flicker and uneven motion in numbers.

Each group is one function that returns (B,) columns; `clip_statistics` joins them. All are per clip: no
statistic depends on another clip of the batch.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from components.reward.distortions.saliency import border_contrast
from components.reward.features import relative
from components.reward.features.columns import (
    block_errors,
    clip_mean,
    frame_mean,
    log,
    over_time,
    second_difference,
    shrunk,
)
from components.reward.features.natural_scene import products
from components.video.filters import chroma, gaussian_blur, luma


def _kurtosis(plane: Tensor) -> Tensor:
    """Log kurtosis over the last two axes, after removing the mean."""
    centred = plane - plane.mean(dim=(-2, -1), keepdim=True)
    return log((frame_mean(centred.pow(4)) + 1e-9) / (frame_mean(centred.square()).square() + 1e-9), 1e-3)


def _gradients(plane: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbours across and down: (..., H, W) -> two (..., H - 1, W - 1)."""
    return plane[..., :-1, :].diff(dim=-1), plane[..., :-1].diff(dim=-2)


def sharpness(grey: Tensor) -> list[Tensor]:
    """Gradient and Laplacian energy, heaviness of their tails, at three scales; their change over time."""
    columns: list[Tensor] = []
    for scale in (1, 2, 4):
        plane = shrunk(grey, scale)
        dx, dy = _gradients(plane)
        edge = (dx * dx + dy * dy + 1e-10).sqrt()
        ring = plane[..., :-2, 1:-1] + plane[..., 2:, 1:-1] + plane[..., 1:-1, :-2] + plane[..., 1:-1, 2:]
        laplacian = ring - 4 * plane[..., 1:-1, 1:-1]
        strong = edge.flatten(2).topk(max(1, edge.shape[-1] * edge.shape[-2] // 50), dim=2).values.mean(2)
        columns += over_time(log(frame_mean(edge))) + over_time(log(frame_mean(laplacian.abs())))
        columns += [_kurtosis(edge).mean(1), _kurtosis(laplacian).mean(1)]
        columns += over_time(log(strong, 1e-3))
        # The distribution of edges from truly flat upwards: noise and textures empty its low end.
        limits = (0.002, 0.005, 0.01, 0.02, 0.05, 0.12, 0.25)
        columns += [clip_mean((edge < limit).float()) for limit in limits]
    return columns


def naturalness(grey: Tensor) -> list[Tensor]:
    """Locally normalised luma as in BRISQUE (Mittal et al. 2012): deviation, tails, neighbours."""
    columns: list[Tensor] = []
    for scale in (1, 2):
        plane = shrunk(grey, scale)
        mean = gaussian_blur(plane, 7 / 6)
        deviation = (gaussian_blur(plane * plane, 7 / 6) - mean * mean).clamp_min(0).sqrt()
        normal = (plane - mean) / (deviation + 0.01)
        columns += [log(clip_mean(normal.square())), log(clip_mean(normal.abs()))]
        columns += [_kurtosis(normal).mean(1), log(clip_mean(deviation))]
        columns.append(log(deviation.std(dim=(1, 2, 3), correction=0)))
        for product in products(normal):
            columns += [clip_mean(product), log(clip_mean(product.abs()))]
    return columns


def grids(grey: Tensor) -> list[Tensor]:
    """Texture that repeats every 2, 3, 4, 6 or 8 px, blocks, and the shape of the spectrum."""
    columns: list[Tensor] = []
    # (B, W - 1) and (B, H - 1)
    for step in (grey.diff(dim=-1).abs().mean(dim=(1, 2)), grey.diff(dim=-2).abs().mean(dim=(1, 3))):
        for period in (2, 3, 4, 6, 8):
            cut = step[:, : step.shape[1] // period * period].reshape(step.shape[0], -1, period).mean(1)
            columns += [log(cut.amax(1)) - log(cut.mean(1)), log(cut.amin(1)) - log(cut.mean(1))]
    fine = grey - gaussian_blur(grey, 1.5)
    energy = clip_mean(fine.square()) + 1e-7
    columns += [log(energy, 1e-7), log((clip_mean(fine.mean(1).square()) + 1e-7) / energy, 1e-3)]
    weak = fine.clamp(-0.06, 0.06)  # strong edges of objects must not drown a faint texture
    power = clip_mean(weak.square()) + 1e-7
    for lag in (2, 3, 4, 5, 6, 8):
        columns.append(clip_mean(weak[..., :, lag:] * weak[..., :, :-lag]) / power)
        columns.append(clip_mean(weak[..., lag:, :] * weak[..., :-lag, :]) / power)
    return columns + _spectrum(grey)


def _spectrum(grey: Tensor) -> list[Tensor]:
    """Shares of the power in rings of frequency, and power on the frequencies of a 4 or 8 px grid."""
    height, width = grey.shape[-2:]
    across = torch.hann_window(width, periodic=False, device=grey.device)
    down = torch.hann_window(height, periodic=False, device=grey.device)
    flat = (grey - grey.mean(dim=(-2, -1), keepdim=True)) * across * down[:, None]
    power = torch.fft.rfft2(flat).abs().square().mean(1)  # (B, H, W / 2 + 1)
    fy = torch.fft.fftfreq(height, device=grey.device).abs()[:, None]
    fx = torch.fft.rfftfreq(width, device=grey.device)[None, :]
    radius = (fx * fx + fy * fy).sqrt()
    total = power.sum(dim=(1, 2)) + 1e-3
    columns = []
    for low, high in pairwise((0.0, 0.06, 0.12, 0.2, 0.28, 0.36, 0.44, 0.75)):
        band = ((radius >= low) & (radius < high)).float()
        columns.append(log((power * band).sum(dim=(1, 2)) / total, 1e-6))
    for cell in (4.0, 8.0):
        near_x, near_y = (torch.minimum((f * cell) % 1, 1 - (f * cell) % 1) < 0.06 for f in (fx, fy))
        on_grid = (near_x & near_y & (radius > 0.1)).float()
        beside = ((radius > 0.1).float() - on_grid).clamp_min(0)
        here = (power * on_grid).sum(dim=(1, 2)) / on_grid.sum().clamp_min(1)
        there = (power * beside).sum(dim=(1, 2)) / beside.sum().clamp_min(1)
        columns.append(log(here, 1e-5) - log(there, 1e-5))
    return columns


def motion(grey: Tensor) -> list[Tensor]:
    """Energy of temporal differences, their evenness over time, repeats, and what motion cannot explain."""
    step = grey.diff(dim=1)
    energy = frame_mean(step.abs())
    columns = over_time(log(energy))
    columns += [(energy < 0.0015).float().mean(1), _kurtosis(step).mean(1)]
    columns += over_time(frame_mean((step.abs() < 0.006).float()))
    if energy.shape[1] < 2:
        return columns + [torch.zeros_like(columns[0])] * 12
    columns.append(log(energy).diff(dim=1).abs().mean(1))
    bend = frame_mean(second_difference(grey).abs())
    columns += [*over_time(log(bend)), log(bend.mean(1)) - log(energy.mean(1))]
    skip = frame_mean((grey[:, 2:] - grey[:, :-2]).abs())
    columns += [log(skip.mean(1)) - log(energy.mean(1)), log(skip).amin(1)]
    agree = frame_mean(step[:, 1:] * step[:, :-1])
    power = frame_mean(step.square()) + 1e-6
    return columns + over_time(agree / (power[:, 1:] * power[:, :-1]).sqrt())


def compensated(grey: Tensor) -> list[Tensor]:
    """Block matching at half size (search +-3 px, blocks of 6 px): residual, size and smoothness of the
    vectors over time."""
    small = shrunk(grey, 2)
    shape = (small.shape[0], small.shape[1] - 1)
    raw, shifts = block_errors(small[:, :-1].flatten(0, 1), small[:, 1:].flatten(0, 1), reach=3, block=6)
    # A slight preference for no motion settles flat blocks.
    errors = torch.stack([e + 2e-4 * math.hypot(*shift) for e, shift in zip(raw, shifts, strict=True)])
    best = errors.min(0)
    vectors = torch.tensor(shifts, dtype=torch.float32, device=grey.device)
    field = vectors[best.indices].unflatten(0, shape)  # (B, T - 1, h, w, 2)
    residual = best.values.reshape(*shape, -1)
    still = errors[len(errors) // 2].unflatten(0, shape)
    mean_residual = residual.mean(2)
    columns = over_time(log(mean_residual)) + over_time(log(residual.amax(2), 1e-3))
    columns.append(log(mean_residual.mean(1)) - log(still.flatten(2).mean(dim=(1, 2))))
    speed = field.square().sum(-1).sqrt()
    columns += [*over_time(speed.amax(dim=(2, 3))), clip_mean(speed)]
    weight = still + 1e-4
    drive = (field * weight[..., None]).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))[..., None]  # (B, T - 1, 2)
    columns += [drive.mean(1).square().sum(-1).sqrt(), drive.std(1, correction=0).square().sum(-1).sqrt()]
    if shape[1] > 1:
        jerk = drive.diff(dim=1).square().sum(-1).sqrt()
        columns += [jerk.mean(1), jerk.amax(1), clip_mean(field.diff(dim=1).abs())]
    else:
        columns += [torch.zeros_like(columns[0])] * 3
    return [*columns, clip_mean(field.diff(dim=2).abs())]


def _swing(series: Tensor) -> list[Tensor]:
    """(B, T) -> log standard deviation and log largest step."""
    return [log(series.std(1, correction=0)), log(series.diff(dim=1).abs().amax(1))]


def flicker(frames: Tensor, grey: Tensor) -> list[Tensor]:
    """Global and local brightness and colour over time: deviation, second differences, first frame against
    the rest."""
    columns: list[Tensor] = []
    for plane in (grey, *chroma(frames)):
        level = frame_mean(plane)
        columns += _swing(level)
        columns += [log((level[:, 0] - level[:, 1:].mean(1)).abs()), log((level[:, -1] - level[:, 0]).abs())]
        bend = second_difference(level)
        columns.append(log(bend.abs().mean(1)) if bend.shape[1] else torch.zeros_like(level[:, 0]))
    cells = F.adaptive_avg_pool2d(grey, (4, 4))
    change = cells.diff(dim=1).abs()
    columns += [log(clip_mean(change)), log(change.amin(dim=1).mean(dim=(1, 2)))]
    columns.append(log(change.flatten(2).median(2).values.mean(1)))
    if cells.shape[1] > 2:
        bend = second_difference(cells).abs()
        columns += [log(clip_mean(bend)), log(bend.flatten(2).median(2).values.mean(1))]
    else:
        columns += [torch.zeros_like(columns[0])] * 2
    # The darkest and brightest tenth: a gain moves them together, a moving object does not.
    ranked = F.adaptive_avg_pool2d(grey, (16, 16)).flatten(2).sort(dim=2).values
    count = ranked.shape[2]
    dark, middle, bright = (ranked[:, :, at] for at in (count // 10, count // 2, count - 1 - count // 10))
    columns += [*_swing(dark), *_swing(middle), *_swing(bright)]
    contrast = bright - dark
    return [*columns, contrast.mean(1), log(contrast.std(1, correction=0))]


def tones(frames: Tensor, grey: Tensor) -> list[Tensor]:
    """Light, contrast, clipping and colourfulness, and how they hold over time."""
    blue, red = chroma(frames)
    saturation = (blue * blue + red * red + 1e-10).sqrt()
    small = F.adaptive_avg_pool2d(saturation, (16, 16)).flatten(2)
    most = small.topk(max(1, small.shape[2] // 25), dim=2).values.mean(2)
    contrast = grey.flatten(2).std(2, correction=0)
    columns = [clip_mean(grey), clip_mean(saturation)]
    columns += over_time(log(most, 1e-3)) + over_time(log(contrast, 1e-3))
    columns += [clip_mean((frames <= 0.004).float()), clip_mean((frames >= 0.996).float())]
    for plane in (blue, red):
        changes = (plane.diff(dim=-1), second_difference(plane, dim=-1), plane.diff(dim=1))
        columns += [log(clip_mean(change.abs())) for change in changes]
    return columns


def subject(frames: Tensor) -> list[Tensor]:
    """What stands out from the border's colour: how much, how large, how steady in size, colour and path."""
    edge, border, apart = border_contrast(frames)
    height, width = apart.shape[-2:]
    peak = apart.flatten(2).topk(max(1, height * width // 100), dim=2).values.mean(2)
    mask = torch.sigmoid((apart - 0.5 * peak[..., None, None].clamp_min(0.06)) * 40.0)
    area = frame_mean(mask) + 1e-5
    ys = torch.linspace(0, 1, height, device=frames.device)[:, None]
    xs = torch.linspace(0, 1, width, device=frames.device)
    cy, cx = frame_mean(mask * ys) / area, frame_mean(mask * xs) / area
    square = mask * (ys - cy[..., None, None]) ** 2 + mask * (xs - cx[..., None, None]) ** 2
    reach = (frame_mean(square) / area).sqrt()
    colour = frame_mean(frames * mask.unsqueeze(2)) / area[..., None]
    soft = frame_mean(mask * (1 - mask)) / area
    columns = over_time(log(peak, 1e-2)) + over_time(log(area, 1e-3)) + over_time(reach / area.sqrt())
    columns += [soft.mean(1), soft.amax(1), log(colour.std(1, correction=0).mean(1), 1e-3)]
    columns.append(log(border[..., 0, 0].std(1, correction=0).mean(1), 1e-3))
    columns.append(log(edge.std(-1, correction=0).mean(dim=(1, 2)), 1e-3))
    inside = frame_mean((apart - peak[..., None, None]).square() * mask) / area
    outside = frame_mean(apart.square() * (1 - mask))
    columns += [log(inside.mean(1)), log(outside.mean(1), 1e-5)]
    vx, vy = cx.diff(dim=1), cy.diff(dim=1)
    speed = (vx * vx + vy * vy + 1e-10).sqrt()
    columns += [log(speed.mean(1), 1e-3), speed.amax(1), speed.amin(1)]
    if vx.shape[1] > 1:
        turn = (vx.diff(dim=1) ** 2 + vy.diff(dim=1) ** 2 + 1e-10).sqrt()
        return [*columns, log(turn.mean(1), 1e-3), log(turn.amax(1), 1e-3)]
    return columns + [torch.zeros_like(columns[0])] * 2


def _around(cells: Tensor) -> Tensor:
    """Mean of each cell and its eight neighbours: (B, C, h, w) -> the same shape."""
    return F.avg_pool2d(F.pad(cells, (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def patchiness(frames: Tensor, grey: Tensor) -> list[Tensor]:
    """How unevenly detail, colour and motion are spread over an 8 x 8 grid, and how steady each cell is.

    A smudge, a hole or a region that stands still is a cell far below its neighbours; one that comes and
    goes is a cell whose detail changes over time.
    """
    columns: list[Tensor] = []
    blue, red = chroma(frames)
    for plane in (grey, blue + red):
        dx, dy = _gradients(plane)
        cells = log(F.adaptive_avg_pool2d(dx.abs() + dy.abs(), (8, 8)), 1e-3)  # (B, T, 8, 8)
        apart = (cells - _around(cells)).mean(1).flatten(1)
        ranked = cells.mean(1).flatten(1).sort(dim=1).values
        columns += [ranked[:, 0], ranked[:, 6], ranked[:, 32] - ranked[:, 0], ranked[:, 57] - ranked[:, 6]]
        columns += [apart.amin(1), apart.std(1, correction=0)]
        change = cells.diff(dim=1).abs().flatten(2)
        columns += [clip_mean(change), change.amax(2).mean(1), change.amax(dim=(1, 2))]
        wander = cells.std(1, correction=0).flatten(1)
        columns += [wander.mean(1), wander.amax(1)]
    moved = log(F.adaptive_avg_pool2d(grey.diff(dim=1).abs(), (8, 8)), 1e-3).mean(1)
    ranked = moved.flatten(1).sort(dim=1).values
    columns += [ranked[:, 0], ranked[:, 6], ranked[:, 32] - ranked[:, 6]]
    return [*columns, (moved - _around(moved[:, None])[:, 0]).amin(dim=(1, 2))]


@torch.no_grad()
def clip_statistics(frames: Tensor) -> Tensor:
    """All statistics of each clip.

    Args:
        frames: (B, T >= 2, 3, H >= 24, W >= 24) float in 0..1.

    Returns:
        (B, F) float32, finite; row i depends on clip i only.
    """
    frames = frames.float()
    grey = luma(frames)
    columns = [
        *sharpness(grey),
        *naturalness(grey),
        *grids(grey),
        *motion(grey),
        *compensated(grey),
        *flicker(frames, grey),
        *tones(frames, grey),
        *subject(frames),
        *patchiness(frames, grey),
        *relative.acuity(grey),
        *relative.calm(grey),
        *relative.order(grey),
        *relative.explained(grey),
        *relative.colours(frames, grey),
        *relative.scales(grey),
    ]
    return torch.stack([column.float() for column in columns], dim=1)
