"""How a local run ends, from what its steps and its exit handler left."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.runtime.errors import GateRefused, InputError, Interrupted, OnlineVPOError
from pipelines.local.engines import Attempt
from pipelines.local.outcome import StepOutcome, conclude, outcome
from pipelines.steps import STEPS, step


def ended(tmp_path: Path, *codes: int) -> list[Attempt]:
    return [Attempt(tmp_path / "finish", code, 1.0, f"ended with {code}") for code in codes]


def test_an_exit_handler_that_fails_is_told(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = [StepOutcome(name, "done", 0, "", (), tmp_path) for name in (s.name for s in STEPS)]
    with pytest.raises(OnlineVPOError, match="the exit handler left no report: it was never run"):
        conclude(done, [], page, stopped=False)
    with pytest.raises(OnlineVPOError, match="the exit handler left no report: ended with 0"):
        conclude(done, ended(tmp_path, 1, 0), page, stopped=False)
    page.touch()
    conclude(done, ended(tmp_path, 1, 0), page, stopped=False)
    with pytest.raises(OnlineVPOError, match="the exit handler left no report: ended with 1"):
        conclude(done, ended(tmp_path, 0, 1), page, stopped=False)
    # How a step ended says more.
    refused = StepOutcome("reward", "refused", 3, "refused: too bad", (), tmp_path)
    with pytest.raises(GateRefused, match="step reward: too bad"):
        conclude([*done, refused], ended(tmp_path, 1), page, stopped=False)


@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (2, InputError, "step reward: x"),
        (75, Interrupted, "step reward: x"),
        (137, OnlineVPOError, "step reward failed with exit code 137: x"),
    ],
)
def test_how_a_run_ends(tmp_path: Path, code: int, kind: type[OnlineVPOError], message: str) -> None:
    bad = StepOutcome("reward", "failed", code, f"{kind.label}: x" if code != 137 else "x", (), tmp_path)
    with pytest.raises(kind) as caught:
        conclude([bad], [], tmp_path / "none", stopped=False)
    assert (type(caught.value), str(caught.value)) == (kind, message)
    with pytest.raises(OnlineVPOError, match="step corpus was never run, though no step before it failed"):
        conclude([StepOutcome("corpus", "not reached", 1, "", (), tmp_path)], [], tmp_path, stopped=False)


def test_a_step_that_was_stopped_without_a_word_counts_as_interrupted(tmp_path: Path) -> None:
    silent, said = Attempt(tmp_path / "reward", 1, 1.0, ""), Attempt(tmp_path / "reward", 1, 1.0, "boom")
    states = {
        (attempt.last_line, stopped): outcome(step("reward"), [attempt], tmp_path, stopped).state
        for attempt in (silent, said)
        for stopped in (False, True)
    }
    assert states == {
        ("", False): "failed",
        ("", True): "interrupted",
        ("boom", False): "failed",
        ("boom", True): "failed",
    }
