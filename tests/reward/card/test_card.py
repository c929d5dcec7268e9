"""The card as values: what is counted, and what is left out of its files."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from components.reward.card.card import Card, Column, Slowed, Stillness, Uncertainty, Wins
from components.runtime.errors import InputError

NAN = float("nan")


def test_wins_count_what_can_be_told_apart() -> None:
    above = np.array([True, True, False, True, False])
    seen = np.array([True, False, True, True, False])
    wins = Wins.of(above, seen)
    assert (wins.won, wins.clips, wins.same) == (2, 3, 2)
    assert wins.share == pytest.approx(2 / 3)
    assert Wins(0, 0).share is None


def test_pooled_wins_weigh_pairs_not_sources() -> None:
    card = Card(attacks={"world": {"frozen": Wins(30, 30, 1)}, "generated": {"frozen": Wins(5, 10, 2)}})
    assert card.pooled() == {"frozen": Wins(35, 40, 3)}
    assert card.metrics()["frozen_below_original"] == pytest.approx(0.875)
    assert card.metrics()["frozen_below_original_generated"] == 0.5


def test_the_worst_source_of_every_attack_is_kept() -> None:
    """Of sources with any pair that can be told apart."""
    card = Card(
        attacks={
            "world": {"frozen": Wins(30, 30), "blank": Wins(60, 60)},
            "footage": {"frozen": Wins(9, 12), "blank": Wins(0, 0, 12)},
            "generated": {"frozen": Wins(26, 30), "few_steps": Wins(27, 30)},
        }
    )
    assert card.worst() == {
        "frozen": ("footage", Wins(9, 12)),
        "blank": ("world", Wins(60, 60)),
        "few_steps": ("generated", Wins(27, 30)),
    }
    metrics = card.metrics()
    assert metrics["frozen_below_original_worst"] == 0.75 < metrics["frozen_below_original"]
    assert metrics["attacks_below_original_worst"] == 0.75
    found = card.as_json()["worst_attacks"]
    assert found["frozen"]["source"] == "footage" and found["frozen"]["clips"] == 12


def test_ranked_backwards_is_read_of_every_source_by_itself() -> None:
    card = Card(
        by_family={"spatial": {"srcc_world": 0.5, "pairs_world": 0.9, "pairs_generated": 0.49}},
        by_type={
            "blur": {"srcc_world": -0.01, "pairs_world": 0.6},
            "desaturate": {"srcc": 0.43, "srcc_footage": -0.3, "pairs_footage": 0.4, "pairs_world": 1.0},
            "freeze": {"srcc_world": NAN, "pairs_world": NAN},
            "ghost": {"srcc_world": 0.0, "pairs_world": 0.5},
        },
    )
    found = [(one.name, one.source) for one in card.backward()]
    assert found == [("spatial", "generated"), ("desaturate", "footage"), ("blur", "world")]
    assert card.metrics()["ranked_backwards"] == 3
    assert card.as_json()["backward"][1] == {
        "name": "desaturate", "source": "footage", "srcc": -0.3, "pairs": 0.4,
    }  # fmt: skip


def test_the_verdict_on_stillness_is_the_worst_probe() -> None:
    found = Stillness(slowed={"a": Slowed(Wins(1, 2), -2.0), "b": Slowed(Wins(1, 2), 0.1)})
    assert found.verdict == 0.1 and found.worst == "b"
    found.slowed["c"] = Slowed(Wins(0, 0, 4), NAN)
    assert found.verdict == 0.1
    assert Stillness().verdict is None


def test_metrics_are_flat_and_finite_and_json_has_null_for_unknown() -> None:
    card = Card(
        columns={"world": Column(3, srcc=0.5, two_apart_ordered=0.9)},
        baselines={"niqe": {"world": Column(3, srcc=0.25)}},
        attacks={"world": {"frozen": Wins(0, 0)}},
        stillness=Stillness({"world": 0.125}, {"pan": Slowed(Wins(3, 4), -0.5)}),
        uncertainty=Uncertainty(NAN, {"world_ladders": {"beyond": Wins(9, 10), "within": Wins(1, 2)}}),
    )
    metrics = card.metrics()
    assert metrics["srcc_world"] == 0.5 and metrics["two_apart_ordered_world"] == 0.9
    assert metrics["baseline_niqe_srcc_world"] == 0.25
    assert metrics["stillness_gain"] == -0.5 and metrics["moving_above_pan"] == 0.75
    assert metrics["pairs_beyond_uncertainty_world_ladders"] == 0.9
    assert all(isinstance(value, float) and math.isfinite(value) for value in metrics.values())
    assert not {"krcc_world", "frozen_below_original_world", "uncertainty_error_srcc"} & set(metrics)
    found = json.loads(json.dumps(card.as_json(), allow_nan=False))
    assert found["columns"]["world"]["krcc"] is None
    assert found["attacks"]["pooled"]["frozen"]["share"] is None
    assert found["stillness"]["verdict"] == -0.5
    assert found["stillness"]["slowed"]["pan"]["wins"] == {
        "won": 3, "clips": 4, "same": 0, "share": 0.75, "low": None, "high": None, "contents": 0,
    }  # fmt: skip


def test_a_card_comes_back_from_its_file(tmp_path: Path) -> None:
    card = Card(
        columns={"world": Column(3, srcc=0.5, krcc=NAN)},
        by_type={"blur": {"srcc_world": -0.5, "pairs_world": 0.25}},
        attacks={"world": {"frozen": Wins.counted(3, 4, 1)}},
        stillness=Stillness({"world": NAN}, {"pan": Slowed(Wins(3, 4), -0.5)}),
        score_per_level=0.25,
        time_reversal_change=0.125,
        uncertainty=Uncertainty(0.5),
    )
    file = tmp_path / "card.json"
    file.write_text(json.dumps(card.as_json(), allow_nan=False))
    read = Card.read(file)
    assert read == card and read.as_json() == card.as_json()
    assert read.attacks["world"]["frozen"].low == card.attacks["world"]["frozen"].low
    # The last release's names, and figures that it did not have.
    old = card.as_json()
    for before, after in (("level", "score_per_level"), ("reversed_change", "time_reversal_change")):
        old[before] = old.pop(after)
    old["certainty"] = old.pop("uncertainty")
    old["attacks"]["world"]["frozen"].pop("contents")
    file.write_text(json.dumps(old))
    assert Card.read(file) == card


@pytest.mark.parametrize("text", ["", "[]", "{", '{"attacks": 3}', '{"columns": {"world": {"clips": "x"}}}'])
def test_what_is_no_card_is_one_clear_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(InputError, match=r"card\.json: not a reward card") as caught:
        Card.read(tmp_path / "card.json")
    assert "\n" not in str(caught.value)


def test_the_card_opens_without_torch() -> None:
    code = "import sys, components.reward.card.card; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
