"""The card's numbers on toy scorers whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from components.reward.baselines import NaturalnessDistance, laplacian_variance, temporal_steadiness
from components.reward.card import Card, Column, attack_wins, measure_column, score_ladders, within_groups
from components.reward.distortions import REGISTRY
from components.reward.ladders import Ladders, build
from components.reward.material import Clips
from tests.reward.conftest import textured, world


@pytest.fixture(scope="module")
def ladders() -> Ladders:
    levels = torch.arange(6).expand(6, -1)
    recipes = [("blur",), ("blur",), ("frame_noise",), ("frame_noise",), ("erase",), ("warp",)]
    frames = torch.cat((world(3), textured(3)))
    return build(frames, [f"c{i}" for i in range(6)], recipes, levels, source="world", seed=0, labelled=True)


def test_a_scorer_that_is_the_label_is_perfect(ladders: Ladders) -> None:
    column = measure_column(ladders.labels.numpy().astype(float), ladders)
    assert column.srcc == pytest.approx(1.0) and column.krcc == pytest.approx(1.0)
    assert column.plcc == pytest.approx(1.0, abs=1e-3) and column.rmse < 0.01
    assert column.reference_above == 1.0


def test_a_scorer_upside_down_is_perfectly_wrong(ladders: Ladders) -> None:
    column = measure_column(-ladders.labels.numpy().astype(float), ladders)
    assert column.srcc == pytest.approx(-1.0)
    assert column.reference_above == column.adjacent_ordered == column.fully_ordered == 0.0


def test_a_constant_scorer_wins_nothing(ladders: Ladders) -> None:
    column = measure_column(np.zeros(ladders.labels.shape), ladders)
    assert math.isnan(column.srcc)
    assert column.reference_above == 0.0  # a tie is not an order


def test_column_by_hand(ladders: Ladders) -> None:
    """One ladder scored 5 3 4 2 1 0: 14 of 15 pairs right, 5 of 5 above, 4 of 5 neighbours, not fully
    ordered."""
    one = ladders.where([True, False, False, False, False, False])
    one.seen[:] = torch.triu(torch.ones(6, 6), 1)
    scores = np.array([[5.0, 3.0, 4.0, 2.0, 1.0, 0.0]])
    column = measure_column(scores, one)
    assert column.reference_above == 1.0
    assert column.adjacent_ordered == pytest.approx(4 / 5)
    assert column.fully_ordered == 0.0
    assert column.srcc == pytest.approx(stats.spearmanr(scores[0], one.labels[0].numpy()).statistic)
    assert column.clips == 6


def test_a_content_counts_its_pristine_clip_once(ladders: Ladders) -> None:
    same = ladders.where([True, True, False, False, False, False])
    same.contents = ["c0", "c0"]
    same.seen[:] = torch.triu(torch.ones(6, 6), 1)
    assert measure_column(same.labels.numpy().astype(float), same).clips == 11


def test_generated_ladders_have_an_order_but_no_correlation(ladders: Ladders) -> None:
    unlabelled = ladders.where([True] * 6)
    unlabelled.labels = torch.full_like(unlabelled.labels, float("nan"))
    column = measure_column(-np.tile(np.arange(6.0), (6, 1)), unlabelled)
    assert column.reference_above == 1.0 and math.isnan(column.srcc)


def test_within_groups_ignores_the_level_of_a_group() -> None:
    """Ranks agree inside each prompt while the prompts' levels run against each other."""
    judged = np.array([[0.1, 0.2, 0.3], [0.7, 0.8, 0.9]])
    scores = np.array([[11.0, 12.0, 13.0], [1.0, 2.0, 3.0]])
    interval, pairs = within_groups(scores, judged, seed=0)
    assert interval.mean == interval.low == 1.0 and pairs == 1.0
    assert stats.spearmanr(scores.ravel(), judged.ravel()).statistic < 0
    noise = np.random.default_rng(0).normal(size=(300, 6))
    interval, pairs = within_groups(noise, np.random.default_rng(1).normal(size=(300, 6)), seed=0)
    assert interval.low < 0 < interval.high and abs(pairs - 0.5) < 0.03


def test_groups_without_spread_are_left_out() -> None:
    interval, _ = within_groups(
        np.array([[1.0, 2, 3], [1, 2, 3]]), np.array([[5.0, 5, 5], [1, 2, 3]]), seed=0
    )
    assert interval.clusters == 1


def test_attacks_by_scorers_with_known_weaknesses() -> None:
    clips = Clips(world(4, 9, 48), list("abcd"))

    def lively(frames: Tensor, statistics: Tensor | None) -> Tensor:
        return -temporal_steadiness(frames.float() / 255.0)

    def calm(frames: Tensor, statistics: Tensor | None) -> Tensor:
        return temporal_steadiness(frames.float() / 255.0)

    assert attack_wins(lively, clips, 4, 0)["frozen"] == 1.0
    assert attack_wins(calm, clips, 4, 0) == {"frozen": 0.0, "blurred": 0.0, "blank": 0.0, "erased": 0.0}


def test_metrics_are_flat_and_finite_and_json_has_null_for_unknown() -> None:
    nan = float("nan")
    card = Card(
        columns={"world": Column(3, 0.5, nan, 0.4, 0.1, 0.4, 1.0, 0.9, 0.8)},
        attacks={"world": {"frozen": nan}},
    )
    assert card.metrics()["srcc_world"] == 0.5
    assert "krcc_world" not in card.metrics() and "frozen_below_original_world" not in card.metrics()
    assert card.as_json()["columns"]["world"]["krcc"] is None


def test_baselines_on_known_clips(clips: Tensor) -> None:
    seeds = list(range(len(clips)))
    blurred, frozen = REGISTRY["blur"](clips, 4, seeds), REGISTRY["freeze"](clips, 5, seeds)
    assert bool((laplacian_variance(blurred) < laplacian_variance(clips)).all())
    assert bool((temporal_steadiness(frozen) == 0).all())
    natural = NaturalnessDistance.fit(clips[4:])
    noisy = REGISTRY["frame_noise"](clips[4:], 5, seeds[4:])
    assert float(natural.score(noisy).mean()) < float(natural.score(clips[4:]).mean())


def test_scores_keep_the_ladders_order(ladders: Ladders) -> None:
    marked = ladders.where([True] * 6)
    scores = score_ladders(lambda frames, statistics: frames.float().mean(dim=(1, 2, 3, 4)), marked)
    assert scores[4, 2] == pytest.approx(float(marked.frames[4, 2].float().mean()), rel=1e-5)
