"""Hand-made statistics of a clip: what sharpness, noise, texture grids, flicker and uneven motion look like
in numbers.

Each group is one function that returns (B, n) columns; `clip_statistics` joins them. All are per clip: no
statistic depends on
another clip of the batch. Energies are taken to log(x + epsilon), so that a column is about as wide on
footage as on plain
clips.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from components.reward.features import relative as relations
from components.video.filters import chroma, gaussian_blur, luma, resize


def _log(values: Tensor, epsilon: float = 1e-5) -> Tensor:
    return (values + epsilon).log()


def _over_time(series: Tensor) -> list[Tensor]:
    """(B, T) -> mean, spread, smallest and largest of the clip."""
    return [series.mean(1), series.std(1, unbiased=False), series.amin(1), series.amax(1)]


def _kurtosis(plane: Tensor) -> Tensor:
    """Log kurtosis over the last two axes, after removing the mean."""
    centred = plane - plane.mean(dim=(-2, -1), keepdim=True)
    second = centred.square().mean(dim=(-2, -1))
    fourth = centred.pow(4).mean(dim=(-2, -1))
    return _log((fourth + 1e-9) / (second.square() + 1e-9), 1e-3)


def sharpness(grey: Tensor) -> list[Tensor]:
    """Gradient and Laplacian energy, heaviness of their tails, at three scales; their change over time."""
    columns: list[Tensor] = []
    for scale in (1, 2, 4):
        plane = grey if scale == 1 else resize(grey, grey.shape[-2] // scale, grey.shape[-1] // scale)
        dx = plane[..., :-1, 1:] - plane[..., :-1, :-1]
        dy = plane[..., 1:, :-1] - plane[..., :-1, :-1]
        edge = (dx * dx + dy * dy + 1e-10).sqrt()
        inner = plane[..., 1:-1, 1:-1]
        ring = plane[..., :-2, 1:-1] + plane[..., 2:, 1:-1] + plane[..., 1:-1, :-2] + plane[..., 1:-1, 2:]
        bend = (ring - 4 * inner).abs()
        strong = edge.flatten(2).topk(max(1, edge.shape[-1] * edge.shape[-2] // 50), dim=2).values.mean(2)
        columns += _over_time(_log(edge.mean(dim=(-2, -1)), 1e-4))
        columns += _over_time(_log(bend.mean(dim=(-2, -1)), 1e-4))
        columns += [_kurtosis(edge).mean(1), _kurtosis(ring - 4 * inner).mean(1)]
        columns += _over_time(_log(strong, 1e-3))
        # The distribution of edges from truly flat upwards: noise and textures empty its low end.
        columns += [
            (edge < limit).float().mean(dim=(1, 2, 3))
            for limit in (0.002, 0.005, 0.01, 0.02, 0.05, 0.12, 0.25)
        ]
    return columns


def naturalness(grey: Tensor) -> list[Tensor]:
    """Locally normalised luma as in BRISQUE (Mittal et al. 2012): spread, tails, and products of
    neighbours."""
    columns: list[Tensor] = []
    for scale in (1, 2):
        plane = grey if scale == 1 else resize(grey, grey.shape[-2] // 2, grey.shape[-1] // 2)
        mean = gaussian_blur(plane, 7 / 6)
        spread = (gaussian_blur(plane * plane, 7 / 6) - mean * mean).clamp_min(0).sqrt()
        normal = (plane - mean) / (spread + 0.01)
        columns += [
            _log(normal.square().mean(dim=(1, 2, 3)), 1e-4),
            _log(normal.abs().mean(dim=(1, 2, 3)), 1e-4),
        ]
        columns += [_kurtosis(normal).mean(1), _log(spread.mean(dim=(1, 2, 3)), 1e-4)]
        columns += [_log(spread.std(dim=(1, 2, 3), unbiased=False), 1e-4)]
        for a, b in (
            (normal[..., :, 1:], normal[..., :, :-1]),
            (normal[..., 1:, :], normal[..., :-1, :]),
            (normal[..., 1:, 1:], normal[..., :-1, :-1]),
            (normal[..., 1:, :-1], normal[..., :-1, 1:]),
        ):
            product = a * b
            columns += [product.mean(dim=(1, 2, 3)), _log(product.abs().mean(dim=(1, 2, 3)), 1e-4)]
    return columns


def grids(grey: Tensor) -> list[Tensor]:
    """Texture that repeats every 2, 3, 4, 6 or 8 px, blocks, and the shape of the spectrum."""
    columns: list[Tensor] = []
    fine = grey - gaussian_blur(grey, 1.5)
    steps = (
        (grey[..., :, 1:] - grey[..., :, :-1]).abs().mean(dim=(1, 2)),  # (B, W-1)
        (grey[..., 1:, :] - grey[..., :-1, :]).abs().mean(dim=(1, 3)),
    )
    for step in steps:
        for period in (2, 3, 4, 6, 8):
            cut = step[:, : step.shape[1] // period * period].reshape(step.shape[0], -1, period).mean(1)
            columns += [
                _log(cut.amax(1), 1e-4) - _log(cut.mean(1), 1e-4),
                _log(cut.amin(1), 1e-4) - _log(cut.mean(1), 1e-4),
            ]
    energy = fine.square().mean(dim=(1, 2, 3)) + 1e-7
    still = fine.mean(1)
    columns += [_log(energy, 1e-7), _log((still.square().mean(dim=(1, 2)) + 1e-7) / energy, 1e-3)]
    weak = fine.clamp(-0.06, 0.06)  # strong edges of objects must not drown a faint texture
    power = weak.square().mean(dim=(1, 2, 3)) + 1e-7
    for lag in (2, 3, 4, 5, 6, 8):
        across = (weak[..., :, lag:] * weak[..., :, :-lag]).mean(dim=(1, 2, 3))
        down = (weak[..., lag:, :] * weak[..., :-lag, :]).mean(dim=(1, 2, 3))
        columns += [across / power, down / power]
    window = torch.hann_window(grey.shape[-1], periodic=False, device=grey.device)
    tall = torch.hann_window(grey.shape[-2], periodic=False, device=grey.device)
    flat = (grey - grey.mean(dim=(-2, -1), keepdim=True)) * window * tall[:, None]
    spectrum = torch.fft.rfft2(flat).abs().square().mean(1)  # (B, H, W/2+1)
    fy = torch.fft.fftfreq(grey.shape[-2], device=grey.device).abs()[:, None]
    fx = torch.fft.rfftfreq(grey.shape[-1], device=grey.device)[None, :]
    radius = (fx * fx + fy * fy).sqrt()
    total = spectrum.sum(dim=(1, 2)) + 1e-3
    for low, high in (
        (0.0, 0.06),
        (0.06, 0.12),
        (0.12, 0.2),
        (0.2, 0.28),
        (0.28, 0.36),
        (0.36, 0.44),
        (0.44, 0.75),
    ):
        band = ((radius >= low) & (radius < high)).float()
        columns.append(_log((spectrum * band).sum(dim=(1, 2)) / total, 1e-6))
    for cell in (4.0, 8.0):
        on_grid = (
            (torch.minimum((fx * cell) % 1, 1 - (fx * cell) % 1) < 0.06)
            & (torch.minimum((fy * cell) % 1, 1 - (fy * cell) % 1) < 0.06)
            & (radius > 0.1)
        ).float()
        beside = ((radius > 0.1).float() - on_grid).clamp_min(0)
        here = (spectrum * on_grid).sum(dim=(1, 2)) / on_grid.sum().clamp_min(1)
        there = (spectrum * beside).sum(dim=(1, 2)) / beside.sum().clamp_min(1)
        columns.append(_log(here, 1e-5) - _log(there, 1e-5))
    return columns


def motion(grey: Tensor) -> list[Tensor]:
    """Energy of temporal differences, their evenness over time, repeats, and what motion cannot explain."""
    step = grey[:, 1:] - grey[:, :-1]
    energy = step.abs().mean(dim=(-2, -1))
    log_energy = _log(energy, 1e-4)
    columns = _over_time(log_energy)
    columns += [(energy < 0.0015).float().mean(1), _kurtosis(step).mean(1)]
    quiet = (step.abs() < 0.006).float().mean(dim=(-2, -1))
    columns += _over_time(quiet)
    if energy.shape[1] > 1:
        columns += [(log_energy[:, 1:] - log_energy[:, :-1]).abs().mean(1)]
        bend = (grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2]).abs().mean(dim=(-2, -1))
        columns += _over_time(_log(bend, 1e-4))
        columns += [_log(bend.mean(1), 1e-4) - _log(energy.mean(1), 1e-4)]
        skip = (grey[:, 2:] - grey[:, :-2]).abs().mean(dim=(-2, -1))
        columns += [_log(skip.mean(1), 1e-4) - _log(energy.mean(1), 1e-4), (_log(skip, 1e-4)).amin(1)]
        agree = (step[:, 1:] * step[:, :-1]).mean(dim=(-2, -1))
        power = step.square().mean(dim=(-2, -1)) + 1e-6
        columns += _over_time(agree / (power[:, 1:] * power[:, :-1]).sqrt())
    else:
        columns += [torch.zeros(grey.shape[0], device=grey.device)] * 12
    return columns


def compensated(grey: Tensor) -> list[Tensor]:
    """Block matching at half size (search +-3 px, blocks of 6 px): residual, size and smoothness of the
    vectors over time."""
    small = resize(grey, grey.shape[-2] // 2, grey.shape[-1] // 2)
    before, after = small[:, :-1], small[:, 1:]
    batch, steps, height, width = before.shape
    reach, block = 3, 6
    padded = F.pad(before, (reach, reach, reach, reach), mode="replicate")
    errors, vectors = [], []
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            moved = padded[..., reach + dy : reach + dy + height, reach + dx : reach + dx + width]
            cost = F.avg_pool2d((moved - after).abs().reshape(batch * steps, 1, height, width), block, block)
            # A whisker in favour of standing still settles flat blocks.
            errors.append(cost[:, 0] + 2e-4 * math.hypot(dx, dy))
            vectors.append((float(dx), float(dy)))
    best = torch.stack(errors).min(0)
    table = torch.tensor(vectors, device=grey.device)
    field = table[best.indices].reshape(batch, steps, *best.indices.shape[-2:], 2)
    residual = best.values.reshape(batch, steps, -1)
    still = errors[len(errors) // 2].reshape(batch, steps, -1)
    mean_residual = residual.mean(2)
    columns = _over_time(_log(mean_residual, 1e-4)) + _over_time(_log(residual.amax(2), 1e-3))
    columns += [_log(mean_residual.mean(1), 1e-4) - _log(still.mean(dim=(1, 2)), 1e-4)]
    speed = field.square().sum(-1).sqrt()
    columns += [*_over_time(speed.amax(dim=(2, 3))), speed.mean(dim=(1, 2, 3))]
    weight = still.reshape(batch, steps, *speed.shape[2:]) + 1e-4
    drive = (field * weight[..., None]).sum(dim=(2, 3)) / weight.sum(dim=(2, 3))[..., None]  # (B, T-1, 2)
    columns += [drive.mean(1).square().sum(-1).sqrt(), drive.std(1, unbiased=False).square().sum(-1).sqrt()]
    if steps > 1:
        jerk = (drive[:, 1:] - drive[:, :-1]).square().sum(-1).sqrt()
        columns += [jerk.mean(1), jerk.amax(1), (field[:, 1:] - field[:, :-1]).abs().mean(dim=(1, 2, 3, 4))]
    else:
        columns += [torch.zeros(batch, device=grey.device)] * 3
    rough = (field[:, :, 1:] - field[:, :, :-1]).abs().mean(dim=(1, 2, 3, 4))
    return [*columns, rough]


def flicker(frames: Tensor, grey: Tensor) -> list[Tensor]:
    """Global and local brightness and colour over time: spread, second differences, the first frame against
    the rest."""
    columns: list[Tensor] = []
    blue, red = chroma(frames)
    for plane in (grey, blue, red):
        level = plane.mean(dim=(-2, -1))
        columns += [
            _log(level.std(1, unbiased=False), 1e-4),
            _log((level[:, 1:] - level[:, :-1]).abs().amax(1), 1e-4),
        ]
        columns += [
            _log((level[:, 0] - level[:, 1:].mean(1)).abs(), 1e-4),
            _log((level[:, -1] - level[:, 0]).abs(), 1e-4),
        ]
        bend = level[:, 2:] - 2 * level[:, 1:-1] + level[:, :-2]
        columns.append(_log(bend.abs().mean(1), 1e-4) if bend.shape[1] else torch.zeros_like(level[:, 0]))
    cells = F.adaptive_avg_pool2d(grey, (4, 4))
    change = (cells[:, 1:] - cells[:, :-1]).abs()
    columns += [_log(change.mean(dim=(1, 2, 3)), 1e-4), _log(change.amin(dim=1).mean(dim=(1, 2)), 1e-4)]
    columns += [_log(change.flatten(2).median(2).values.mean(1), 1e-4)]
    if cells.shape[1] > 2:
        bend = (cells[:, 2:] - 2 * cells[:, 1:-1] + cells[:, :-2]).abs()
        columns += [
            _log(bend.mean(dim=(1, 2, 3)), 1e-4),
            _log(bend.flatten(2).median(2).values.mean(1), 1e-4),
        ]
    else:
        columns += [torch.zeros_like(columns[0])] * 2
    # The darkest and brightest tenth: a gain moves them together, a moving object does not.
    ranked = F.adaptive_avg_pool2d(grey, (16, 16)).flatten(2).sort(dim=2).values
    count = ranked.shape[2]
    ordered = [ranked[:, :, count // 10], ranked[:, :, count // 2], ranked[:, :, count - 1 - count // 10]]
    for series in ordered:
        columns += [
            _log(series.std(1, unbiased=False), 1e-4),
            _log((series[:, 1:] - series[:, :-1]).abs().amax(1), 1e-4),
        ]
    contrast = ordered[2] - ordered[0]
    return [*columns, contrast.mean(1), _log(contrast.std(1, unbiased=False), 1e-4)]


def tones(frames: Tensor, grey: Tensor) -> list[Tensor]:
    """Light, contrast, clipping and colourfulness, and how they hold over time."""
    blue, red = chroma(frames)
    saturation = (blue * blue + red * red + 1e-10).sqrt()
    small = F.adaptive_avg_pool2d(saturation, (16, 16)).flatten(2)
    most = small.topk(max(1, small.shape[2] // 25), dim=2).values.mean(2)
    spread = grey.flatten(2).std(2, unbiased=False)
    columns = [grey.mean(dim=(1, 2, 3)), saturation.mean(dim=(1, 2, 3))]
    columns += _over_time(_log(most, 1e-3)) + _over_time(_log(spread, 1e-3))
    columns += [
        (frames <= 0.004).float().mean(dim=(1, 2, 3, 4)),
        (frames >= 0.996).float().mean(dim=(1, 2, 3, 4)),
    ]
    for plane in (blue, red):
        dx = (plane[..., :, 1:] - plane[..., :, :-1]).abs().mean(dim=(1, 2, 3))
        bend = (plane[..., 1:-1] * 2 - plane[..., 2:] - plane[..., :-2]).abs().mean(dim=(1, 2, 3))
        step = (plane[:, 1:] - plane[:, :-1]).abs().mean(dim=(1, 2, 3))
        columns += [_log(dx, 1e-4), _log(bend, 1e-4), _log(step, 1e-4)]
    return columns


def subject(frames: Tensor) -> list[Tensor]:
    """What stands out from the border's colour: how much, how large, how steady in size, colour and path."""
    edge = torch.cat((frames[..., 0, :], frames[..., -1, :], frames[..., :, 0], frames[..., :, -1]), dim=-1)
    border = edge.median(dim=-1).values[..., None, None]
    apart = (frames - border).square().sum(2).sqrt()
    height, width = apart.shape[-2:]
    peak = apart.flatten(2).topk(max(1, height * width // 100), dim=2).values.mean(2)
    mask = torch.sigmoid((apart - 0.5 * peak[..., None, None].clamp_min(0.06)) * 40.0)
    area = mask.mean(dim=(-2, -1)) + 1e-5
    ys = torch.linspace(0, 1, height, device=frames.device)[:, None]
    xs = torch.linspace(0, 1, width, device=frames.device)
    cy, cx = (mask * ys).mean(dim=(-2, -1)) / area, (mask * xs).mean(dim=(-2, -1)) / area
    reach = (
        (mask * (ys - cy[..., None, None]) ** 2 + mask * (xs - cx[..., None, None]) ** 2).mean(dim=(-2, -1))
        / area
    ).sqrt()
    colour = (frames * mask.unsqueeze(2)).mean(dim=(-2, -1)) / area[..., None]
    soft = (mask * (1 - mask)).mean(dim=(-2, -1)) / area
    columns = _over_time(_log(peak, 1e-2)) + _over_time(_log(area, 1e-3)) + _over_time(reach / area.sqrt())
    columns += [soft.mean(1), soft.amax(1), _log(colour.std(1, unbiased=False).mean(1), 1e-3)]
    columns += [
        _log(border[..., 0, 0].std(1, unbiased=False).mean(1), 1e-3),
        _log(edge.std(-1, unbiased=False).mean(dim=(1, 2)), 1e-3),
    ]
    inside = ((apart - peak[..., None, None]).square() * mask).mean(dim=(-2, -1)) / area
    outside = ((apart.square()) * (1 - mask)).mean(dim=(-2, -1))
    columns += [_log(inside.mean(1), 1e-4), _log(outside.mean(1), 1e-5)]
    vx, vy = cx[:, 1:] - cx[:, :-1], cy[:, 1:] - cy[:, :-1]
    speed = (vx * vx + vy * vy + 1e-10).sqrt()
    columns += [_log(speed.mean(1), 1e-3), speed.amax(1), speed.amin(1)]
    if vx.shape[1] > 1:
        turn = ((vx[:, 1:] - vx[:, :-1]) ** 2 + (vy[:, 1:] - vy[:, :-1]) ** 2 + 1e-10).sqrt()
        columns += [_log(turn.mean(1), 1e-3), _log(turn.amax(1), 1e-3)]
    else:
        columns += [torch.zeros_like(columns[0])] * 2
    return columns


def patchiness(frames: Tensor, grey: Tensor) -> list[Tensor]:
    """How unevenly detail, colour and motion are spread over an 8 x 8 grid of cells, and how steady each
    cell is.

    A smudge, a hole or a region that stands still is a cell far below its neighbours; one that comes and
    goes is a cell
    whose detail changes over time.
    """
    columns: list[Tensor] = []
    blue, red = chroma(frames)
    for plane in (grey, blue + red):
        edge = (plane[..., :-1, 1:] - plane[..., :-1, :-1]).abs() + (
            plane[..., 1:, :-1] - plane[..., :-1, :-1]
        ).abs()
        cells = _log(F.adaptive_avg_pool2d(edge, (8, 8)), 1e-3)  # (B, T, 8, 8)
        around = F.avg_pool2d(F.pad(cells, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        apart = (cells - around).mean(1).flatten(1)
        ranked = cells.mean(1).flatten(1).sort(dim=1).values
        columns += [ranked[:, 0], ranked[:, 6], ranked[:, 32] - ranked[:, 0], ranked[:, 57] - ranked[:, 6]]
        columns += [apart.amin(1), apart.std(1, unbiased=False)]
        change = (cells[:, 1:] - cells[:, :-1]).abs().flatten(2)
        columns += [change.mean(dim=(1, 2)), change.amax(2).mean(1), change.amax(dim=(1, 2))]
        wander = cells.std(1, unbiased=False).flatten(1)
        columns += [wander.mean(1), wander.amax(1)]
    moved = _log(F.adaptive_avg_pool2d((grey[:, 1:] - grey[:, :-1]).abs(), (8, 8)), 1e-3).mean(1)
    ranked = moved.flatten(1).sort(dim=1).values
    around = F.avg_pool2d(F.pad(moved[:, None], (1, 1, 1, 1), mode="replicate"), 3, stride=1)[:, 0]
    columns += [ranked[:, 0], ranked[:, 6], ranked[:, 32] - ranked[:, 6], (moved - around).amin(dim=(1, 2))]
    return columns


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
        *relations.acuity(grey),
        *relations.calm(grey),
        *relations.order(grey),
        *relations.explained(grey),
        *relations.colours(frames, grey),
        *relations.scales(grey),
    ]
    return torch.stack([column.float() for column in columns], dim=1)
