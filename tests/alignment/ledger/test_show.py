"""What a ledger tells at a glance, counted again by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.alignment.__main__ import app
from components.alignment.ledger import LedgerReader, LedgerWriter
from components.alignment.ledger.show import summary, table
from tests.alignment.ledger.made import PROMPTS, group, publish_ledger, write


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("show")
    writer = LedgerWriter(folder / "parts")
    write(writer, 0, [group(PROMPTS[0], [0.0, 1.0, 4.0]), group(PROMPTS[1], [5.0, 5.0])])
    write(writer, 1, [group(PROMPTS[0], [2.0, 1.0]), group(PROMPTS[2], [math.nan, 1.0])], policy=4)
    return publish_ledger(folder / "ledger", writer, 2)


def test_the_figures(made: Path) -> None:
    found = summary(LedgerReader.open(made))
    assert (found["candidates"], found["groups"], found["pairs"], found["iterations"]) == (9, 4, 2, 2)
    assert found["verdicts"] == {"accepted": 2, "gap_too_small": 1, "too_few_finite": 1}
    assert found["gaps"] == {
        "least": 1.0,
        "quarter": 1.75,
        "median": 2.5,
        "three quarters": 3.25,
        "most": 4.0,
    }
    (reward,) = found["rewards"]
    assert reward["clips"] == 9 and reward["not_finite"] == 1 and reward["digest"] == "digest of light"
    assert reward["mean"] == pytest.approx((0 + 1 + 4 + 5 + 5 + 2 + 1 + 1) / 8)
    assert (reward["winners"], reward["losers"]) == (3.0, 0.5)
    # Candidate i moves 1 + i: winners were 2 and 0, losers 0 and 1.
    assert found["motion"]["winner"] == 2.0 and found["motion"]["loser"] == 1.5
    first = found["most_used_prompts"][0]
    assert first == {"prompt_id": "p0", "prompt": PROMPTS[0].text, "groups": 2, "pairs": 2, "uses": 2}
    assert found["latents"]["clips"] == 4 and found["latents"]["files"] == 2
    size = sum(file.stat().st_size for file in (made / "latents").iterdir())
    assert found["latents"]["bytes"] == size


def test_without_a_pair_there_is_no_gap(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "parts")
    write(writer, 0, [group(PROMPTS[0], [1.0, 1.0])])
    found = summary(LedgerReader.open(publish_ledger(tmp_path / "ledger", writer, 1)))
    assert set(found["gaps"].values()) == {None} and found["motion"]["winner"] is None
    assert "least           -" in table(found)


def test_the_command(made: Path) -> None:
    shown = CliRunner().invoke(app, ["ledger", "show", str(made)])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("9 candidates of 3 prompts in 4 groups, 2 iterations")
    assert "  accepted        2" in lines and f"      2      2     2  {PROMPTS[0].text}" in lines
    told = CliRunner().invoke(app, ["ledger", "show", str(made), "--json"])
    assert json.loads(told.stdout) == summary(LedgerReader.open(made))
