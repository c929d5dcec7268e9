"""Statistics that relate what a clip shows to what it could show, so that little of its content is left in
them.

An edge is compared with the step it bridges, noise with the flattest places, the change of a block with its
detail, a frame's distance from the next with that from later ones, one colour's edges with another's. As in
`statistics.py` each group is a function that returns (B,) columns, each clip by itself.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from components.video.filters import chroma, gaussian_blur, resize

QUANTILES = (0.1, 0.5, 0.9)


def _log(values: Tensor, epsilon: float = 1e-4) -> Tensor:
    return (values + epsilon).log()


def _quantiles(values: Tensor, shares: tuple[float, ...] = QUANTILES) -> list[Tensor]:
    """(B, N) -> one (B,) column a share, by rank."""
    ranked = values.sort(dim=1).values
    last = values.shape[1] - 1
    return [ranked[:, round(share * last)] for share in shares]


def acuity(grey: Tensor) -> list[Tensor]:
    """Of the strongest edges: the steepest slope as a share of the step, and how far the picture
    overshoots."""
    columns: list[Tensor] = []
    for scale in (1, 2):
        plane = grey if scale == 1 else resize(grey, grey.shape[-2] // 2, grey.shape[-1] // 2)
        flat = plane.flatten(0, 1)[:, None]
        high = F.max_pool2d(flat, 5, stride=2)
        low = -F.max_pool2d(-flat, 5, stride=2)
        slopes = []
        for axis in (-1, -2):
            step = flat.diff(dim=axis).abs()
            step = F.pad(step, (0, 1, 0, 0) if axis == -1 else (0, 0, 0, 1))
            slopes.append(F.max_pool2d(step, 5, stride=2))
        steep = torch.maximum(*slopes)
        ring = F.pad(flat, (1, 1, 1, 1), mode="replicate")
        around = (ring[..., :-2, 1:-1] + ring[..., 2:, 1:-1] + ring[..., 1:-1, :-2] + ring[..., 1:-1, 2:]) / 4
        bend = F.max_pool2d((flat - around).abs(), 5, stride=2)
        reach = (high - low).unflatten(0, grey.shape[:2]).flatten(1)
        count = max(4, reach.shape[1] // 20)
        best = reach.topk(count, dim=1)
        at = best.values + 0.02
        sharp = steep.unflatten(0, grey.shape[:2]).flatten(1).gather(1, best.indices) / at
        over = bend.unflatten(0, grey.shape[:2]).flatten(1).gather(1, best.indices) / at
        columns += [sharp.mean(1), *_quantiles(sharp), over.mean(1), *_quantiles(over), _log(at.mean(1))]
    return columns


def calm(grey: Tensor) -> list[Tensor]:
    """The flattest places: what is left of detail there, over space and time, against the rest of the
    clip."""
    fine = grey - gaussian_blur(grey, 1.0)
    fine_cells = _cells(fine.abs())
    coarse = gaussian_blur(grey, 1.0) - gaussian_blur(grey, 2.0)
    coarse_cells = _cells(coarse.abs())
    step = grey[:, 1:] - grey[:, :-1]
    moved = _cells(step.abs())
    still = _cells(fine[:, 1:] - fine[:, :-1])
    columns: list[Tensor] = []
    for cells in (fine_cells, coarse_cells, moved, still):
        lowest, low, middle, top = _quantiles(_log(cells), (0.02, 0.15, 0.5, 0.95))
        columns += [lowest, low, middle - low, top - middle]
    # Where it is flat, is what is left there the same in each frame, and finer than what lies under it?
    chosen = fine_cells.topk(max(2, fine_cells.shape[1] // 8), dim=1, largest=False).indices
    picked = [_log(cells.gather(1, chosen)).mean(1) for cells in (fine_cells, coarse_cells, moved, still)]
    columns += [picked[0] - picked[1], picked[3] - picked[0], picked[2] - picked[0]]
    if step.shape[1] > 1:
        again = fine[:, 2:] - 2 * fine[:, 1:-1] + fine[:, :-2]
        once = fine[:, 1:] - fine[:, :-1]
        ratio = _log(again.square().mean(dim=(2, 3)), 1e-7) - _log(
            once[:, 1:].square().mean(dim=(2, 3)), 1e-7
        )
        columns += [ratio.mean(1), ratio.amax(1)]
    else:
        columns += [torch.zeros_like(columns[0])] * 2
    return columns


def _cells(plane: Tensor) -> Tensor:
    """(B, T, H, W) -> (B, 64) mean absolute value over time and an 8 x 8 grid."""
    return F.adaptive_avg_pool2d(plane.abs().mean(1), (8, 8)).flatten(1)


def order(grey: Tensor) -> list[Tensor]:
    """Distances of all frames from each other: repeats, returns, jumps, and the unevenness of the pace."""
    small = F.adaptive_avg_pool2d(grey, (24, 24)).flatten(2)
    apart = (small[:, :, None] - small[:, None]).abs().mean(-1)  # (B, T, T)
    batch, time = apart.shape[:2]
    next_ = apart.diagonal(1, 1, 2) + 1e-4
    middle = next_.median(1).values
    ranked = next_.sort(1).values
    columns = [_log(next_.amax(1)) - _log(middle), _log(next_.amin(1)) - _log(middle), _log(next_.mean(1))]
    columns += [_log(ranked[:, min(1, time - 2)]) - _log(middle), _log(ranked[:, -2:].mean(1)) - _log(middle)]
    if time > 2:
        change = _log(next_).diff(dim=1)
        columns += [change.abs().mean(1), change.abs().amax(1)]
        # A pace that alternates: the change of change keeps turning round.
        turns = (
            (change[:, 1:] * change[:, :-1]).mean(1) if time > 3 else torch.zeros(batch, device=grey.device)
        )
        columns += [turns / (change.square().mean(1) + 1e-3)]
        two = apart.diagonal(2, 1, 2) + 1e-4
        pace = _log(two) - _log(torch.maximum(next_[:, 1:], next_[:, :-1]))
        columns += [pace.mean(1), pace.amin(1), pace.amax(1)]
    else:
        columns += [torch.zeros(batch, device=grey.device)] * 6
    # In one movement a later frame lies further off: how often and how far is it otherwise?
    wrong, closest = [], []
    for gap in range(2, time):
        near, far = apart.diagonal(gap - 1, 1, 2)[:, : time - gap], apart.diagonal(gap, 1, 2)
        wrong.append((near - far).clamp_min(0))
        closest.append(far)
    if wrong:
        total = torch.cat(wrong, dim=1)
        columns += [_log(total.mean(1) / middle, 1e-3), _log(total.amax(1) / middle, 1e-3)]
        columns += [_log(torch.cat(closest, dim=1).amin(1) / middle, 1e-2)]
        columns += [_log(apart[:, 0, -1] / (next_.sum(1)), 1e-2)]
    else:
        columns += [torch.zeros(batch, device=grey.device)] * 4
    return columns


def explained(grey: Tensor) -> list[Tensor]:
    """What the best of 25 small shifts leaves of each block's change, as a share of the block's own
    detail."""
    before, after = grey[:, :-1].flatten(0, 1), grey[:, 1:].flatten(0, 1)
    height, width = before.shape[-2:]
    reach, block = 2, 8
    padded = F.pad(before[:, None], (reach,) * 4, mode="replicate")[:, 0]
    shifted = []
    for dy in range(2 * reach + 1):
        for dx in range(2 * reach + 1):
            gone = (padded[:, dy : dy + height, dx : dx + width] - after).abs()
            shifted.append(F.avg_pool2d(gone[:, None], block)[:, 0])
    table = torch.stack(shifted)  # (25, B * (T-1), h, w)
    left = table.amin(0)
    unmoved = table[len(shifted) // 2]
    detail = F.avg_pool2d((after - gaussian_blur(after, 1.5)).abs()[:, None], block)[:, 0]
    share = (_log(left, 2e-3) - _log(detail, 2e-3)).unflatten(0, (grey.shape[0], -1))
    gain = (_log(left, 1e-3) - _log(unmoved, 1e-3)).unflatten(0, (grey.shape[0], -1))
    columns = [*_quantiles(share.flatten(1)), *_quantiles(gain.flatten(1))]
    each = share.flatten(2).mean(2)
    return [
        *columns,
        each.amax(1),
        each.amin(1),
        each.std(1, unbiased=False),
        share.amax(1).flatten(1).mean(1),
    ]


def colours(frames: Tensor, grey: Tensor) -> list[Tensor]:
    """Edges of one colour against another's: are they as steep, are they in the same place; the spread of
    the tones."""
    columns: list[Tensor] = []
    red, green, blue = frames.unbind(2)
    across = [plane[..., 1:] - plane[..., :-1] for plane in (red, green, blue)]
    for one, other in ((0, 2), (0, 1)):
        a, b = across[one], across[other]
        power = (a.square().mean(dim=(1, 2, 3)) * b.square().mean(dim=(1, 2, 3)) + 1e-9).sqrt() + 1e-5
        at = []
        for lag in (-2, -1, 0, 1, 2):
            x = a[..., max(0, -lag) : a.shape[-1] - max(0, lag)]
            y = b[..., max(0, lag) : b.shape[-1] - max(0, -lag)]
            at.append((x * y).mean(dim=(1, 2, 3)) / power)
        table = torch.stack(at)
        columns += [
            table[2],
            table[2] - table.amax(0),
            (table[3] - table[1]).abs(),
            (table[4] - table[0]).abs(),
        ]
    light = grey.diff(dim=-1).abs()
    for plane in chroma(frames):
        edge = plane.diff(dim=-1).abs()
        both = (edge * light).mean(dim=(1, 2, 3))
        norm = (edge.square().mean(dim=(1, 2, 3)) * light.square().mean(dim=(1, 2, 3)) + 1e-10).sqrt() + 1e-6
        columns += [both / norm]
        fine = (plane - gaussian_blur(plane, 1.0)).abs().mean(dim=(1, 2, 3))
        wide = (plane - gaussian_blur(plane, 3.0)).abs().mean(dim=(1, 2, 3))
        columns += [_log(fine, 1e-4) - _log(wide, 1e-4), _log(plane.std(dim=(1, 2, 3), unbiased=False), 1e-3)]
    most, least = frames.amax(2), frames.amin(2)
    columns += _quantiles(_small(most), (0.02, 0.5, 0.98)) + _quantiles(_small(least), (0.02, 0.5, 0.98))
    columns += _quantiles(_small(most - least), (0.1, 0.5, 0.9, 0.98))
    # Few tones, each of them often: neighbours that are equal to the bit, and empty places in the histogram.
    some = frames[:, ::2]
    change = (some[..., 1:] - some[..., :-1]).abs()
    same = change < 1e-3
    slight = ((change > 1e-3) & (change < 0.0125)).float().mean(dim=(1, 2, 3, 4))
    columns += [same.float().mean(dim=(1, 2, 3, 4)), _log(slight, 1e-3)]
    level = (some * 63.0).round().long().flatten(1)
    counts = torch.zeros((frames.shape[0], 64), device=frames.device)
    counts.scatter_add_(1, level, torch.ones_like(level, dtype=counts.dtype))
    shares = counts / level.shape[1]
    columns += [-(shares * (shares + 1e-9).log()).sum(1), (shares > 2e-3).float().mean(1)]
    rough = (shares[:, 1:-1] * 2 - shares[:, 2:] - shares[:, :-2]).abs().sum(1)
    return [*columns, rough]


def _small(plane: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(plane, (24, 24)).flatten(1)


def scales(grey: Tensor) -> list[Tensor]:
    """How detail falls from scale to scale, in space and in what changes: the slopes of both spectra."""
    columns: list[Tensor] = []
    for plane in (grey, grey[:, 1:] - grey[:, :-1]):
        energies = []
        for scale in (1, 2, 4):
            small = plane if scale == 1 else resize(plane, plane.shape[-2] // scale, plane.shape[-1] // scale)
            edge = small.diff(dim=-1).abs().mean(dim=(2, 3)) + small.diff(dim=-2).abs().mean(dim=(2, 3))
            energies.append(_log(edge, 1e-4))
        for one, other in ((0, 1), (1, 2)):
            fall = energies[one] - energies[other]
            columns += [fall.mean(1), fall.amin(1), fall.amax(1)]
        columns.append((energies[0] - 2 * energies[1] + energies[2]).mean(1))
    across, down = grey.diff(dim=-1).abs().mean(dim=(1, 2, 3)), grey.diff(dim=-2).abs().mean(dim=(1, 2, 3))
    columns.append(_log(across) - _log(down))
    detail = _log(grey.diff(dim=-1).abs().mean(dim=(1, 2, 3)))
    return [*columns, _log(grey.diff(dim=1).abs().mean(dim=(1, 2, 3))) - detail]
