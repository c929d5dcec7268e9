"""The registry's copy of the page holds its decision, whatever it was."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from components.registry.gate.gate import Decision
from components.registry.params import RegistryParams
from components.registry.report import decided_page
from components.registry.step import run
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.gate.rules import Check
from components.runtime.io.page_slots import DECISION, OUTCOME, slot

PAGE = (
    f"<main><h1>Worth promoting</h1>{slot(OUTCOME)}<h3>Promotion</h3>{slot(DECISION, 'Not decided')}</main>"
)
CHECKS = (
    Check("absolute", "motion_ratio >= 0.85", 1.01, True, 0.99, 1.03),
    Check("champion", "judge at most 0.02 below champion version 3", -0.05, False),
    Check("champion", "<b>odd & name</b>", None, None, note="neither has this score"),
)


def words(page: str | None) -> str:
    assert page is not None
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("accepted", "Promoted by the registry: version 4 of m is now the champion."),
        ("refused", "Refused by the registry: version 4 of m stays a candidate, 1 rule(s) failed."),
        ("unchanged", "Unchanged by the registry: version 4 of m was the champion already."),
    ],
)
def test_the_outcome_and_every_rule_are_said(outcome: str, said: str) -> None:
    decision = Decision(outcome, ("judge fell",) if outcome == "refused" else (), CHECKS, "3")  # type: ignore[arg-type]
    found = words(decided_page(PAGE, decision, "m", "4"))
    assert said in found
    assert "beside champion version 3: 1 rules passed, 1 failed, 1 skipped." in found
    assert "passed motion_ratio &gt;= 0.85: 1.0100 [0.9900, 1.0300]" in found
    assert "failed judge at most 0.02 below champion version 3: -0.0500" in found
    assert "&lt;b&gt;odd &amp; name&lt;/b&gt;" in found
    assert "Not decided" not in found


def test_a_page_of_another_version_is_left_alone() -> None:
    assert decided_page("<main></main>", Decision("accepted", (), CHECKS, None), "m", "1") is None


@pytest.mark.usefixtures("mlflow_home")
def test_the_step_publishes_it_and_names_it(
    candidate: Callable[..., dict[str, Path]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = RegistryParams.model_validate(
        {"model": "with-a-page", "reward_model": "with-a-page-reward", "run": {"device": "cpu"}}
    )
    run(params, **candidate("a", page=PAGE), out=tmp_path / "registry")
    page = open_artifact(tmp_path / "registry", step="registry").file("report.html")
    assert "Promoted by the registry: version 1 of with-a-page" in words(page.read_text())
    assert capsys.readouterr().out.rstrip().endswith(str(tmp_path / "registry" / "report.html"))
