"""The usual no-reference measures, which the trained reward must beat: computed in the same run on the same
clips.

NIQE and BRISQUE are built from their papers and fitted to the corpus's training clips: the published model
files belong to pictures of another size. Both rate pictures; a clip is rated by its frames together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.reward.card.correlation import srcc
from components.reward.features.natural_scene import (
    FEATURES,
    brisque_features,
    halved,
    niqe_features,
    normalised,
    patches,
)
from components.video.filters import luma

#: Side of NIQE's patches in its paper, px, on photographs several hundred px high.
PUBLISHED_PATCH = 96
#: Pristine patches count from this share of their frame's sharpest patch on, as in the paper.
SHARP = 0.75
FOLDS = 4
#: Parameters of BRISQUE's regression that are tried: wide enough that the best lies inside.
GRID = {"C": [0.1, 0.3, 1.0, 3.0, 10.0, 30.0], "gamma": [0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0]}


def laplacian_variance(grey: Tensor) -> Tensor:
    """Sharpness: variance of the luma's Laplacian, mean over frames. (B, T, H, W) in 0..1 -> (B,)."""
    ring = grey[..., :-2, 1:-1] + grey[..., 2:, 1:-1] + grey[..., 1:-1, :-2] + grey[..., 1:-1, 2:]
    return (ring - 4 * grey[..., 1:-1, 1:-1]).var(dim=(-2, -1)).mean(1)


def temporal_difference_energy(grey: Tensor) -> Tensor:
    """Mean square difference of neighbouring frames' luma. (B, T >= 2, H, W) in 0..1 -> (B,)."""
    return (grey[:, 1:] - grey[:, :-1]).square().mean(dim=(1, 2, 3))


def patch_side(height: int, width: int) -> int:
    """Side of NIQE's patches for frames of this size, px, even: 96 as published where at least two fit side
    by side, else half the short side (24 at 48 px)."""
    return max(8, min(PUBLISHED_PATCH, min(height, width) // 2) // 2 * 2)


@dataclass(frozen=True)
class _Views:
    """Both scales of B clips, normalised: values and local deviation, (B, T, H, W) and half that size.

    Of every second frame: neighbours say nearly the same.
    """

    full: tuple[Tensor, Tensor]
    half: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, grey: Tensor) -> _Views:
        grey = grey[:, ::2]
        return cls(normalised(grey), normalised(halved(grey)))


def _niqe_patches(views: _Views) -> tuple[Tensor, Tensor]:
    """(B, T, P, 36) features, nan where a patch shows nothing, and (B, T, P) sharpness."""
    side = patch_side(*views.full[0].shape[-2:])
    # Small frames hold few patches: there they overlap by half.
    step = side if side == PUBLISHED_PATCH else side // 2
    columns = [
        niqe_features(patches(views.full[0], side, step)),
        niqe_features(patches(views.half[0], side // 2, step // 2)),
    ]
    count = min(part.shape[2] for part in columns)
    sharpness = patches(views.full[1], side, step).mean(dim=(-2, -1))
    return torch.cat([part[:, :, :count] for part in columns], dim=-1), sharpness[:, :, :count]


@dataclass(frozen=True)
class Niqe:
    """Distance of a clip's patches from pristine ones, both seen as multivariate Gaussians (NIQE).

    As published: 36 features of a patch at two scales; pristine patches count where they are sharp; the
    distance is sqrt((m1 - m2)' ((C1 + C2) / 2)^-1 (m1 - m2)). Adapted to small frames: patches of
    `patch_side` (24 px at 48 px, not 96) that overlap by half, and all frames of a clip together, as one
    frame of 48 px has 9 patches for 36 features.

    Attributes:
        mean, covariance: (36,) and (36, 36) float64 of pristine patches.
        worst: distance of the training clip that lies furthest; twice that is said of a clip in which no
            patch shows anything, for which the measure is not defined.
    """

    mean: Tensor
    covariance: Tensor
    worst: float

    @classmethod
    def fit(cls, grey: Tensor) -> Niqe:
        """The model of pristine clips, (N, T, H, W) luma in 0..1.

        Raises:
            ValueError: fewer usable patches than features.
        """
        views = _Views.of(grey)
        features, sharpness = _niqe_patches(views)
        usable = ~features.isnan().any(-1)
        sharp = sharpness >= SHARP * sharpness.amax(dim=2, keepdim=True)
        rows = features[usable & sharp].double()
        if len(rows) <= FEATURES:
            raise ValueError(f"{len(rows)} patches that show something: NIQE needs more than {FEATURES}")
        model = cls(rows.mean(0), torch.cov(rows.T), 0.0)
        distances = model._distances(features)
        return cls(model.mean, model.covariance, float(distances[distances.isfinite()].max()))

    def _distances(self, features: Tensor) -> Tensor:
        """(B, T, P, 36) -> (B,) distance; inf where no patch can be used."""
        rows = features.double().flatten(1, 2)
        used = ~rows.isnan().any(-1)
        weight = used.double()[..., None]
        count = weight.sum(1)
        filled = rows.nan_to_num() * weight
        mean = filled.sum(1) / count.clamp_min(1)
        apart = (filled - mean[:, None]) * weight
        spread = apart.transpose(1, 2) @ apart / (count - 1).clamp_min(1)[..., None]
        gap = mean - self.mean
        inverse = torch.linalg.pinv((self.covariance + spread) / 2, hermitian=True)
        squared = torch.einsum("bi,bij,bj->b", gap, inverse, gap).clamp_min(0.0)
        return torch.where(count[:, 0] > 0, squared.sqrt(), torch.inf)

    def distance(self, views: _Views) -> Tensor:
        """(B,) float32, at least 0; larger is worse."""
        rated = self._distances(_niqe_patches(views)[0])
        return torch.where(rated.isinf(), 2 * self.worst, rated).float()


def _brisque_columns(views: _Views) -> Tensor:
    """(B, 36): each scale's features of whole frames, mean over frames."""
    return torch.cat([brisque_features(views.full[0]), brisque_features(views.half[0])], dim=-1).mean(1)


@dataclass(frozen=True)
class Brisque:
    """BRISQUE: 36 features of whole frames and a support vector regression on labels.

    As published: features scaled to -1..1, an epsilon-SVR with a Gaussian kernel whose parameters are chosen
    by cross-validation. What it learns here are the labels of training ladders, and folds share no content.
    The parameters are those that rank unseen contents best, as ranks are what it is compared by: chosen by
    its squared error it would be the smoothest of all, which errs little and ranks nothing.

    Attributes:
        low, high: (36,) range of the training features.
        machine: the fitted regression.
    """

    low: np.ndarray
    high: np.ndarray
    machine: Any

    @classmethod
    def fit(cls, columns: np.ndarray, labels: np.ndarray, contents: Sequence[str]) -> Brisque:
        """Fits features (N, 36) to labels (N,), whose clips show these contents."""
        from sklearn.model_selection import GridSearchCV, GroupKFold
        from sklearn.svm import SVR

        low, high = columns.min(0), columns.max(0)
        ranged = _ranged(columns, low, high)
        folds = min(FOLDS, len(set(contents)))
        machine = SVR(kernel="rbf", epsilon=0.05, C=1.0, gamma=0.5)
        if folds > 1:
            search = GridSearchCV(machine, GRID, cv=GroupKFold(folds), scoring=_ranking)
            machine = search.fit(ranged, labels, groups=list(contents)).best_estimator_
        else:
            machine.fit(ranged, labels)
        return cls(low, high, machine)

    def quality(self, views: _Views) -> Tensor:
        """(B,) float32, higher is better; on the scale of the labels."""
        columns = _brisque_columns(views).double().numpy()
        return torch.from_numpy(self.machine.predict(_ranged(columns, self.low, self.high))).float()


def _ranking(machine: Any, columns: np.ndarray, labels: np.ndarray) -> float:
    """Rank correlation of what a fitted regression says with the labels; 0 where either is constant."""
    rated = srcc(machine.predict(columns), labels)
    return rated if math.isfinite(rated) else 0.0


def _ranged(columns: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    # Beyond the training range a Gaussian kernel knows nothing: a value there counts as the nearest known.
    return np.clip(2 * (columns - low) / np.maximum(high - low, 1e-9) - 1, -1.0, 1.0)


@dataclass(frozen=True)
class Baselines:
    """All baselines; `brisque` or `niqe` is None where there was nothing to fit it to."""

    niqe: Niqe | None
    brisque: Brisque | None

    @classmethod
    def fit(cls, pristine: Tensor, damaged: Tensor, labels: Tensor, contents: Sequence[str]) -> Baselines:
        """Fits what needs fitting, on training content.

        Args:
            pristine: uint8 (N, T, 3, H, W).
            damaged: uint8 (M, T, 3, H, W), clips of labelled ladders, originals among them.
            labels: (M,) in 0..1, higher is better.
            contents: M names.
        """
        niqe, brisque = None, None
        if len(pristine):
            try:
                niqe = Niqe.fit(luma(pristine.float() / 255.0))
            except ValueError:
                niqe = None
        if len(damaged) > FEATURES:
            columns = torch.cat([_brisque_columns(_Views.of(_grey(part))) for part in damaged.split(32)])
            brisque = Brisque.fit(columns.double().numpy(), labels.double().numpy(), contents)
        return cls(niqe, brisque)

    @property
    def names(self) -> list[str]:
        """The measures there are."""
        fitted = [name for name in ("niqe", "brisque") if getattr(self, name) is not None]
        return [*fitted, "laplacian_variance", "temporal_difference_energy"]

    def rate(self, frames: Tensor) -> dict[str, Tensor]:
        """Every measure of uint8 (B, T, 3, H, W) as a quality, higher is better: (B,) float32 each.

        NIQE's distance and the temporal energy are turned round.
        """
        grey = _grey(frames)
        views = _Views.of(grey)
        rated: dict[str, Tensor] = {}
        if self.niqe is not None:
            rated["niqe"] = -self.niqe.distance(views)
        if self.brisque is not None:
            rated["brisque"] = self.brisque.quality(views)
        rated["laplacian_variance"] = laplacian_variance(grey)
        rated["temporal_difference_energy"] = -temporal_difference_energy(grey)
        return rated


def _grey(frames: Tensor) -> Tensor:
    return luma(frames.float() / 255.0)
