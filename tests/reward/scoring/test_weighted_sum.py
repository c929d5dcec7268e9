"""Weighted sums, against the sum worked by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from components.reward.base import InputSpec, Rating, input_spec_of
from components.reward.scoring.load import open_reward
from components.reward.scoring.weighted_sum import WeightedSum, WeightedTerm, scale_of
from components.runtime.errors import InputError
from tests.reward.conftest import world


class Fixed:
    """Gives each clip of a batch the figures it was made with, whatever the clip shows."""

    def __init__(self, scores: list[float], uncertainty: float, spec: InputSpec) -> None:
        self.scores, self.uncertainty, self.input_spec = scores, uncertainty, spec
        self.told: list[Sequence[str] | None] = []

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        return self.rate(frames, fps, prompts).score

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        self.told.append(prompts)
        scores = torch.tensor(self.scores[: len(frames)])
        return Rating(scores, torch.full_like(scores, self.uncertainty), {"own": scores})


def test_the_sum_is_of_standardised_scores_and_the_spreads_add_as_independent() -> None:
    one, two = Fixed([3.0, 5.0], 0.4, InputSpec(64, 16)), Fixed([100.0, 140.0], 30.0, InputSpec(224, 1))
    total = WeightedSum(
        [(WeightedTerm("one", 2.0, 3.0, 0.5), one), (WeightedTerm("two", -1.0, 120.0, 10.0), two)]
    )
    rating = total.rate(world(2), 8.0, ["a", "b"])
    # 2 * (3 - 3) / 0.5 - (100 - 120) / 10 and 2 * (5 - 3) / 0.5 - (140 - 120) / 10
    assert rating.score.tolist() == pytest.approx([2.0, 6.0])
    assert rating.uncertainty.tolist() == pytest.approx([math.hypot(2 * 0.4 / 0.5, 30.0 / 10.0)] * 2)
    assert rating.aspects["one"].tolist() == [0.0, 4.0] and rating.aspects["two"].tolist() == [-2.0, 2.0]
    assert one.told == two.told == [["a", "b"]]
    assert input_spec_of(total) == InputSpec(224, 1)


def test_the_unit_of_grouped_scores_is_the_deviation_within_groups() -> None:
    rng = np.random.default_rng(0)
    inside = rng.normal(0.0, 0.3, (40, 8))
    scores = inside + rng.normal(0.0, 5.0, (40, 1))
    groups = [str(place) for place in range(40) for _ in range(8)]
    centre, unit = scale_of(torch.tensor(scores.ravel()), groups)
    assert unit == pytest.approx(np.sqrt(inside.var(axis=1, ddof=1).mean()))
    assert unit == pytest.approx(0.3, rel=0.1) and centre == pytest.approx(scores.mean())
    assert scale_of(torch.tensor(scores[:, 0]), ["all"] * 40)[1] == pytest.approx(scores[:, 0].std(ddof=1))


@pytest.mark.parametrize(
    ("scores", "groups", "said"),
    [
        ([1.0, 2.0, 3.0], ["a"] * 3, "3 clips in 1 group.*too few"),
        ([float(i) for i in range(9)], [str(i) for i in range(9)], "too few"),
        ([7.0] * 20, ["a"] * 20, "do not differ"),
        ([*map(float, range(19)), math.inf], ["a"] * 20, "do not differ|finite"),
    ],
)
def test_a_part_without_a_unit_is_refused(scores: list[float], groups: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        scale_of(torch.tensor(scores), groups)


@pytest.mark.parametrize(
    "parts",
    [
        [{"name": "..", "weight": 1.0, "centre": 0.0, "unit": 1.0}],
        [{"name": "a/b", "weight": 1.0, "centre": 0.0, "unit": 1.0}],
        [{"name": "a", "weight": 1.0, "centre": 0.0, "unit": 0.0}],
        [{"name": "a", "weight": 1.0}],
        [],
    ],
)
def test_a_damaged_description_names_its_file(tmp_path: Path, parts: list[dict[str, object]]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"kind": "weighted", "parts": parts}))
    with pytest.raises(InputError, match=r"config\.json"):
        WeightedSum.load(tmp_path, "cpu", open_reward)
