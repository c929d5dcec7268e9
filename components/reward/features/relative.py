"""Statistics that relate what a clip shows to what it could show, so that they say little of its content.

An edge is compared with the step it bridges, noise with the flattest places, the change of a block with its
detail, a frame's distance from the next with that from later ones, one colour's edges with another's. As in
`handcrafted.py` each group is a function that returns (B,) columns, each clip by itself.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from components.reward.features.columns import block_errors, clip_mean, log, second_difference, shrunk
from components.video.filters import chroma, gaussian_blur


def _quantiles(values: Tensor, shares: tuple[float, ...] = (0.1, 0.5, 0.9)) -> list[Tensor]:
    """(B, N) -> one (B,) column a share, by rank."""
    ranked = values.sort(dim=1).values
    last = values.shape[1] - 1
    return [ranked[:, round(share * last)] for share in shares]


def acuity(grey: Tensor) -> list[Tensor]:
    """Of the strongest edges: the steepest slope as a share of the step, and how far the picture
    overshoots."""
    columns: list[Tensor] = []
    for scale in (1, 2):
        flat = shrunk(grey, scale).flatten(0, 1)[:, None]
        across, down = F.pad(flat.diff(dim=-1).abs(), (0, 1)), F.pad(flat.diff(dim=-2).abs(), (0, 0, 0, 1))
        ring = F.pad(flat, (1, 1, 1, 1), mode="replicate")
        around = (ring[..., :-2, 1:-1] + ring[..., 2:, 1:-1] + ring[..., 1:-1, :-2] + ring[..., 1:-1, 2:]) / 4
        # Maxima of 5 x 5 px: highest, lowest, steepest across and down, furthest from the neighbours' mean.
        high, low, steep_x, steep_y, bend = (
            F.max_pool2d(plane, 5, stride=2).unflatten(0, grey.shape[:2]).flatten(1)
            for plane in (flat, -flat, across, down, (flat - around).abs())
        )
        reach = high + low
        best = reach.topk(max(4, reach.shape[1] // 20), dim=1)
        at = best.values + 0.02
        sharp = torch.maximum(steep_x, steep_y).gather(1, best.indices) / at
        over = bend.gather(1, best.indices) / at
        columns += [sharp.mean(1), *_quantiles(sharp), over.mean(1), *_quantiles(over), log(at.mean(1))]
    return columns


def calm(grey: Tensor) -> list[Tensor]:
    """The flattest places: what is left of detail there, over space and time, against the rest of the
    clip."""
    fine = grey - gaussian_blur(grey, 1.0)
    coarse = gaussian_blur(grey, 1.0) - gaussian_blur(grey, 2.0)
    # Detail fine and coarse, changes of the picture and of its fine detail, (B, 64) each.
    grids = [_cells(part.abs()) for part in (fine, coarse, grey.diff(dim=1), fine.diff(dim=1))]
    columns: list[Tensor] = []
    for cells in grids:
        lowest, low, middle, top = _quantiles(log(cells), (0.02, 0.15, 0.5, 0.95))
        columns += [lowest, low, middle - low, top - middle]
    # Where it is flat, is what is left there the same in each frame, and finer than what lies under it?
    flattest = grids[0].topk(max(2, grids[0].shape[1] // 8), dim=1, largest=False).indices
    picked = [log(cells.gather(1, flattest)).mean(1) for cells in grids]
    columns += [picked[0] - picked[1], picked[3] - picked[0], picked[2] - picked[0]]
    if grey.shape[1] > 2:
        twice, once = second_difference(fine), fine.diff(dim=1)[:, 1:]
        ratio = log(twice.square().mean(dim=(2, 3)), 1e-7) - log(once.square().mean(dim=(2, 3)), 1e-7)
        return [*columns, ratio.mean(1), ratio.amax(1)]
    return columns + [torch.zeros_like(columns[0])] * 2


def _cells(plane: Tensor) -> Tensor:
    """(B, T, H, W) -> (B, 64) mean over time and over the cells of an 8 x 8 grid."""
    return F.adaptive_avg_pool2d(plane.mean(1), (8, 8)).flatten(1)


def order(grey: Tensor) -> list[Tensor]:
    """Distances of all frames from each other: repeats, returns, jumps, and the unevenness of the pace."""
    small = F.adaptive_avg_pool2d(grey, (24, 24)).flatten(2)
    apart = (small[:, :, None] - small[:, None]).abs().mean(-1)  # (B, T, T)
    time = apart.shape[1]
    following = apart.diagonal(1, 1, 2) + 1e-4
    middle = following.median(1).values
    ranked = following.sort(1).values
    columns = [log(following.amax(1)) - log(middle), log(following.amin(1)) - log(middle)]
    columns += [log(following.mean(1)), log(ranked[:, min(1, time - 2)]) - log(middle)]
    columns.append(log(ranked[:, -2:].mean(1)) - log(middle))
    if time < 3:
        return columns + [torch.zeros_like(middle)] * 10
    change = log(following).diff(dim=1)
    columns += [change.abs().mean(1), change.abs().amax(1)]
    # A pace that alternates: the change of change keeps turning round.
    turns = (change[:, 1:] * change[:, :-1]).mean(1) if time > 3 else torch.zeros_like(middle)
    columns.append(turns / (change.square().mean(1) + 1e-3))
    pace = log(apart.diagonal(2, 1, 2) + 1e-4) - log(torch.maximum(following[:, 1:], following[:, :-1]))
    columns += [pace.mean(1), pace.amin(1), pace.amax(1)]
    # In one movement a later frame lies further off: how often and how far is it otherwise?
    diagonals = [apart.diagonal(gap, 1, 2) for gap in range(1, time)]
    closer = [(near[:, : far.shape[1]] - far).clamp_min(0) for near, far in pairwise(diagonals)]
    wrong, distant = torch.cat(closer, dim=1), torch.cat(diagonals[1:], dim=1)
    columns += [log(wrong.mean(1) / middle, 1e-3), log(wrong.amax(1) / middle, 1e-3)]
    return [*columns, log(distant.amin(1) / middle, 1e-2), log(apart[:, 0, -1] / following.sum(1), 1e-2)]


def explained(grey: Tensor) -> list[Tensor]:
    """What the best of 25 small shifts leaves of each block's change, as a share of the block's own
    detail."""
    before, after = grey[:, :-1].flatten(0, 1), grey[:, 1:].flatten(0, 1)
    errors, _ = block_errors(before, after, reach=2, block=8)  # (25, B * (T - 1), h, w)
    left, unmoved = errors.amin(0), errors[len(errors) // 2]
    detail = F.avg_pool2d((after - gaussian_blur(after, 1.5)).abs()[:, None], 8)[:, 0]
    share = (log(left, 2e-3) - log(detail, 2e-3)).unflatten(0, (grey.shape[0], -1))
    gain = (log(left, 1e-3) - log(unmoved, 1e-3)).unflatten(0, (grey.shape[0], -1))
    each = share.flatten(2).mean(2)
    columns = [*_quantiles(share.flatten(1)), *_quantiles(gain.flatten(1)), each.amax(1), each.amin(1)]
    return [*columns, each.std(1, correction=0), share.amax(1).flatten(1).mean(1)]


def colours(frames: Tensor, grey: Tensor) -> list[Tensor]:
    """Edges of one colour against another's: equally steep, in the same place? And the spread of the
    tones."""
    columns: list[Tensor] = []
    red, green, blue = (plane.diff(dim=-1) for plane in frames.unbind(2))
    for a, b in ((red, blue), (red, green)):
        power = (clip_mean(a.square()) * clip_mean(b.square()) + 1e-9).sqrt() + 1e-5
        at = []
        for lag in (-2, -1, 0, 1, 2):
            x = a[..., max(0, -lag) : a.shape[-1] - max(0, lag)]
            y = b[..., max(0, lag) : b.shape[-1] - max(0, -lag)]
            at.append(clip_mean(x * y) / power)
        columns += [at[2], at[2] - torch.stack(at).amax(0), (at[3] - at[1]).abs(), (at[4] - at[0]).abs()]
    light = grey.diff(dim=-1).abs()
    for plane in chroma(frames):
        edge = plane.diff(dim=-1).abs()
        norm = (clip_mean(edge.square()) * clip_mean(light.square()) + 1e-10).sqrt() + 1e-6
        columns.append(clip_mean(edge * light) / norm)
        fine, wide = (clip_mean((plane - gaussian_blur(plane, sigma)).abs()) for sigma in (1.0, 3.0))
        columns += [log(fine) - log(wide), log(plane.std(dim=(1, 2, 3), correction=0), 1e-3)]
    most, least = frames.amax(2), frames.amin(2)
    columns += _quantiles(_small(most), (0.02, 0.5, 0.98)) + _quantiles(_small(least), (0.02, 0.5, 0.98))
    columns += _quantiles(_small(most - least), (0.1, 0.5, 0.9, 0.98))
    # Few tones, each of them often: neighbours that are equal to the bit, and empty places in the histogram.
    some = frames[:, ::2]
    change = some.diff(dim=-1).abs()
    slight = clip_mean(((change > 1e-3) & (change < 0.0125)).float())
    columns += [clip_mean((change < 1e-3).float()), log(slight, 1e-3)]
    level = (some * 63.0).round().long().flatten(1)
    counts = torch.zeros((frames.shape[0], 64), device=frames.device)
    counts.scatter_add_(1, level, torch.ones_like(level, dtype=counts.dtype))
    shares = counts / level.shape[1]
    columns += [-(shares * (shares + 1e-9).log()).sum(1), (shares > 2e-3).float().mean(1)]
    return [*columns, second_difference(shares).abs().sum(1)]


def _small(plane: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(plane, (24, 24)).flatten(1)


def scales(grey: Tensor) -> list[Tensor]:
    """How detail falls from scale to scale, in space and in what changes: the slopes of both spectra."""
    columns: list[Tensor] = []
    for plane in (grey, grey.diff(dim=1)):
        energies = []
        for scale in (1, 2, 4):
            small = shrunk(plane, scale)
            edge = small.diff(dim=-1).abs().mean(dim=(2, 3)) + small.diff(dim=-2).abs().mean(dim=(2, 3))
            energies.append(log(edge))
        for finer, coarser in pairwise(energies):
            fall = finer - coarser
            columns += [fall.mean(1), fall.amin(1), fall.amax(1)]
        columns.append((energies[0] - 2 * energies[1] + energies[2]).mean(1))
    across, down, change = (log(clip_mean(grey.diff(dim=dim).abs())) for dim in (-1, -2, 1))
    return [*columns, across - down, change - across]
