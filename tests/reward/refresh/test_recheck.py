"""The card from stored ladders: against counting by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from components.reward.distortions import ATTACKS
from components.reward.ladders.ladder import Ladders
from components.reward.ladders.replay import Judged, Kept
from components.reward.refresh.recheck import attacks_on_ladders, recheck, score_ladders
from tests.reward.refresh.refreshing import small_ladders


@pytest.fixture(scope="module")
def held() -> Ladders:
    """Six-level ladders whose first statistic is a score anyone can read: less is worse."""
    ladders = small_ladders([0, 1, 2, 3, 4, 5])
    statistics = ladders.statistics.clone()
    statistics[..., 0] = -ladders.levels
    return replace(
        ladders,
        statistics=statistics,
        seen=torch.ones_like(ladders.seen).triu(1),
        sources=["world"] * 6 + ["generated"] * 6,
        labels=torch.cat((1.0 - ladders.levels[:6] / 5, ladders.labels[6:])),
        similarity=torch.cat((1.0 - ladders.levels[:6] / 5, ladders.labels[6:])),
    )


def first_statistic(clips: Tensor, statistics: Tensor | None) -> Tensor:
    assert statistics is not None and len(clips) == len(statistics)
    return statistics[:, 0]


def test_a_score_that_reads_the_level_gets_full_marks_and_its_opposite_none(held: Ladders) -> None:
    card = recheck(first_statistic, Kept(held, held, None), ())
    worst = recheck(lambda c, s: -first_statistic(c, s), Kept(held, held, None), ())
    assert card.columns["world"].srcc == pytest.approx(1.0)
    assert worst.columns["world"].srcc == pytest.approx(-1.0)
    assert card.columns["generated"].reference_above == 1.0
    assert worst.columns["generated"].reference_above == 0.0
    for wins in card.pooled().values():
        assert wins.share == 1.0
    assert "judge" in card.unavailable and card.judge is None


def test_attacks_are_read_at_their_own_level(held: Ladders) -> None:
    scores = score_ladders(first_statistic, held).copy()
    frozen = [i for i, recipe in enumerate(held.recipes) if recipe == ("freeze",)]
    scores[frozen[0], ATTACKS["frozen"][1]] = 1.0  # one frozen clip above its original
    scores[frozen, ATTACKS["frozen"][1] - 1] = 1.0  # another level is no matter
    found = attacks_on_ladders(scores, held)
    total = sum(wins["frozen"].clips for wins in found.values())
    won = sum(wins["frozen"].won for wins in found.values())
    assert (won, total) == (3, 4)
    assert found["world"]["blurred"].share == found["generated"]["flickering"].share == 1.0
    hidden = replace(held, seen=torch.zeros_like(held.seen))
    assert all(w.clips == 0 for wins in attacks_on_ladders(scores, hidden).values() for w in wins.values())


def test_agreement_with_the_judge_is_inside_prompts(held: Ladders) -> None:
    statistics = torch.zeros(3, 4, held.statistics.shape[-1])
    ranks = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(3, -1)
    # Prompts differ by far more than the clips of one prompt, the other way round.
    statistics[..., 0] = ranks - torch.tensor([[0.0], [100.0], [200.0]])
    quality = (ranks / 10 + torch.tensor([[0.0], [0.2], [0.4]])).double()
    card = recheck(first_statistic, Kept(held, held, Judged(statistics, quality)), ())
    assert card.judge is not None and card.judge.value == pytest.approx(1.0) and card.judge.clusters == 3
    assert card.judge_pairs == 1.0


def test_scores_lie_where_their_clips_do(held: Ladders) -> None:
    assert np.array_equal(score_ladders(first_statistic, held), -held.levels.double().numpy())
