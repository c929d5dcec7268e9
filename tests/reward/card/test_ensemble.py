"""Uncertainty and aspects on made-up rewards whose errors are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.reward.card.card import Wins
from components.reward.card.ensemble import aspect_falls, error_srcc, split_by_uncertainty, uncertainty
from components.reward.ladders.ladder import Ladders


def ladders(recipes: list[str], labels: np.ndarray, sources: list[str] | None = None) -> Ladders:
    count, levels = labels.shape
    return Ladders(
        frames=torch.zeros(count, levels, 0, dtype=torch.uint8),
        levels=torch.arange(levels).expand(count, -1).float(),
        labels=torch.from_numpy(labels).float(),
        similarity=torch.from_numpy(labels).float(),
        statistics=torch.zeros(count, levels, 1),
        seen=torch.triu(torch.ones(count, levels, levels), 1),
        recipes=[(name,) for name in recipes],
        sources=sources or ["world"] * count,
        contents=[f"c{i}" for i in range(count)],
    )


def test_a_spread_that_is_the_error_correlates() -> None:
    rng = np.random.default_rng(0)
    labels = rng.uniform(size=400)
    sigma = rng.uniform(0.01, 0.3, size=400)
    scores = labels + rng.normal(size=400) * sigma
    assert error_srcc(scores, sigma, labels) > 0.4
    assert abs(error_srcc(scores, rng.permutation(sigma), labels)) < 0.15
    labels[:300] = np.nan  # unlabelled clips say nothing
    assert error_srcc(scores, sigma, labels) > 0.3
    assert np.isnan(error_srcc(scores, sigma, np.full(400, np.nan)))


def test_pairs_split_by_hand() -> None:
    """Scores 3 2.9 1 with spreads .4 .2 .2, truth a > b > c: a-b lies within (.1 < .3), the others beyond."""
    better = np.triu(np.ones((1, 3, 3)), 1)
    spread = np.array([[0.4, 0.2, 0.2]])
    assert split_by_uncertainty(np.array([[3.0, 2.9, 1.0]]), spread, better) == {
        "beyond": Wins(2, 2),
        "within": Wins(1, 1),
    }
    swapped = split_by_uncertainty(np.array([[2.9, 3.0, 1.0]]), spread, better)
    assert swapped == {"beyond": Wins(2, 2), "within": Wins(0, 1)}


def test_an_aspect_is_measured_against_its_own_family() -> None:
    held = ladders(["blur", "freeze", "boiling"], np.tile(np.linspace(1, 0, 6), (3, 1)))
    fall = -np.arange(6.0)
    spatial = np.stack((2 * fall, 0 * fall, 0.5 * fall))
    temporal = np.stack((0 * fall, 3 * fall, -3 * fall))
    table = aspect_falls({"spatial": spatial, "temporal": temporal, "codec": spatial}, held)
    assert set(table) == {"spatial", "temporal", "diffusion"}  # no codec ladder is there
    assert table["spatial"]["spatial"] == table["temporal"]["temporal"] == 1.0
    assert table["diffusion"]["spatial"] == pytest.approx(0.25)
    assert table["diffusion"]["temporal"] == pytest.approx(-1.0)
    assert np.isnan(table["spatial"]["codec"])


def test_pairs_are_told_by_source_and_by_the_judge() -> None:
    labels = np.tile(np.linspace(1, 0, 6), (2, 1))
    labels[1] = np.nan
    held = ladders(["blur", "blur"], labels, ["world", "generated"])
    scores = np.tile(-np.arange(6.0), (2, 1))
    scores[1] = -scores[1]
    spread = np.full((2, 6), 0.1)
    verdicts = np.array([[3.0, 2.0, 2.0]])
    found = uncertainty(
        held,
        scores,
        spread,
        {"spatial": scores},
        (np.array([[1.0, 0.0, 0.5]]), np.full((1, 3), 0.1), verdicts),
    )
    assert found.pairs["world_ladders"]["beyond"] == Wins(15, 15)
    assert found.pairs["generated_ladders"]["beyond"] == Wins(0, 15)
    # The judge sees no difference between the last two: two pairs, both right.
    assert found.pairs["judged_samples"]["beyond"] == Wins(2, 2)
