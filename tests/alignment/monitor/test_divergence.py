"""What is not a number: left out, counted, told of, and never published as a policy."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.alignment import step
from components.alignment.loop import AlignmentLoop
from components.alignment.outcome import load_best, refusal_of
from components.alignment.params import AlignmentParams
from components.alignment.policy import FullPolicy, LoraPolicy, Policy
from components.generator.generator import Generator
from components.reward.base import Rating
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.publish import publish
from components.runtime.errors import GateRefused, InputError
from components.runtime.params import StepParams
from tests.alignment.ledger.made import make_base, make_reward
from tests.alignment.policy.test_lora import disturb, probe
from tests.alignment.tiny import (
    PARAMS,
    PROMPTS,
    Brightness,
    Killed,
    kill_after,
    ledger_rows,
    make_trainer,
    same,
    weights,
)

ABSURD = PARAMS.model_copy(update={"learning_rate": 1e30})


def breaking(loop: AlignmentLoop, broken: Callable[[int, int], bool]) -> AlignmentLoop:
    """Let the loss of the updates (iteration, update) that are named be no number."""
    objective, step = loop.updater.objective, loop.updater.step

    def broken_step(pairs: Sequence[object], iteration: int, update: int) -> dict[str, float]:
        factor = math.nan if broken(iteration, update) else 1.0
        loop.updater.objective = lambda errors, beta: factor * objective(errors, beta)
        return step(pairs, iteration, update)  # type: ignore[arg-type]

    loop.updater.step = broken_step  # type: ignore[method-assign, assignment]
    return loop


@pytest.mark.parametrize("rank", [2, 0])
@torch.no_grad()
def test_an_absurd_learning_rate_leaves_the_base(
    rank: int, new_generator: Callable[..., Generator], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = new_generator()
    before = generator.family.predict(*probe(generator))
    params = ABSURD.model_copy(update={"lora_rank": rank, "inner_updates": 4})
    with torch.enable_grad():
        loop = make_trainer(generator, tmp_path, params)
        loop.run()
    # The first update is of the base and finite; the second and the third are what it led to.
    assert (loop.done, loop.updates, loop.curve[0]["updates_skipped"]) == (1, 1, 2)
    assert loop.guards.stop is not None and "2 updates in a row" in loop.guards.stop
    assert loop.guards.metrics()["alarms_gradient"] == 2
    assert "warning: guard gradient" in capsys.readouterr().err
    assert all(math.isfinite(value) for row in loop.curve for value in row.values())
    assert refusal_of(loop) is not None and "2 updates in a row" in refusal_of(loop)
    assert load_best(loop) == "the base"
    assert torch.equal(generator.family.predict(*probe(generator)), before)


def test_a_single_broken_update_changes_nothing_and_is_counted(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    """The run is that of one that never made this update: weights, and Adam's moments with the later ones."""
    one = PARAMS.model_copy(update={"iterations": 1, "inner_updates": 3})
    skipping = breaking(make_trainer(new_generator(), tmp_path / "skipping", one), lambda _, n: n == 2)
    skipping.run()
    shorter = make_trainer(new_generator(), tmp_path / "shorter", one.model_copy(update={"inner_updates": 2}))
    shorter.run()
    assert same(weights(skipping), weights(shorter)) and skipping.updates == shorter.updates == 2
    assert skipping.curve[0]["updates_skipped"] == 1 and shorter.curve[0]["updates_skipped"] == 0
    assert skipping.curve[0]["loss"] == shorter.curve[0]["loss"]
    whole = breaking(make_trainer(new_generator(), tmp_path / "whole"), lambda i, n: (i, n) == (1, 0))
    whole.run()
    assert whole.done == 4 and whole.guards.stop is None and not whole.guards.broken
    assert whole.updates == 7 and refusal_of(whole) is None and load_best(whole) == "the last policy"


@pytest.mark.parametrize("rank", [2, 0])
def test_the_last_good_policy_is_kept_also_by_a_run_that_was_killed(
    rank: int, new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    params = PARAMS.model_copy(update={"lora_rank": rank, "learning_rate": 1e-3})

    def late(iteration: int, update: int) -> bool:
        return (iteration, update) in {(2, 1), (3, 0)}

    after: dict[int, dict[str, Tensor]] = {}
    whole = make_trainer(
        new_generator(),
        tmp_path / "whole",
        params,
        on_iteration=lambda row: after.update({len(after): seen()}),
    )

    def seen() -> dict[str, Tensor]:
        return weights(whole)

    breaking(whole, late).run()
    # The third iteration ends on a skipped update: nobody knows whether its policy is good.
    assert whole.done == 4 and whole.guards.kept_iteration == 2
    assert load_best(whole) == "the policy after iteration 2 of 4" and refusal_of(whole) is None
    assert same(weights(whole), after[1]) and not same(after[2], after[1])

    with pytest.raises(Killed):
        breaking(
            make_trainer(new_generator(), tmp_path / "cut", params, on_iteration=kill_after(3)), late
        ).run()
    # The row of two is made of one before the kill and one after it.
    resumed = breaking(make_trainer(new_generator(), tmp_path / "cut", params), late)
    assert resumed.done == 3 and resumed.guards.broken
    resumed.run()
    load_best(resumed)
    assert same(weights(resumed), weights(whole)) and resumed.curve == whole.curve
    assert resumed.guards.stop == whole.guards.stop is not None
    # And killed after its end, before it could be published.
    again = make_trainer(new_generator(), tmp_path / "cut", params)
    again.run()
    load_best(again)
    assert again.done == 4 and same(weights(again), weights(whole))


@pytest.mark.parametrize("kind", ["lora", "full"])
@torch.no_grad()
def test_the_base_comes_back_from_weights_that_are_no_numbers(
    kind: str, new_generator: Callable[..., Generator]
) -> None:
    generator = new_generator()
    before = generator.family.predict(*probe(generator))
    policy: Policy = FullPolicy(generator.family) if kind == "full" else LoraPolicy(generator.family, 2, 0)
    disturb(policy)
    for value in policy.parameters().values():
        value[0] = math.nan
    policy.stepped()
    assert generator.family.predict(*probe(generator)).isnan().any()
    policy.reset_to_base()
    assert torch.equal(generator.family.predict(*probe(generator)), before)


class Faulty(Brightness):
    """Brightness, but for the first clip of each call, which would win every group if it counted."""

    def __init__(self, value: float, share: int = 3) -> None:
        super().__init__()
        self.value, self.share = value, share

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        """See `Brightness.rate`."""
        rating = super().rate(frames, fps, prompts)
        rating.score[:: self.share] = self.value
        return rating


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rewards_that_are_no_numbers_are_left_out_and_counted(
    value: float, new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    loop = make_trainer(new_generator(), tmp_path, reward=Faulty(value))
    loop.run()
    rows = ledger_rows(tmp_path)
    # Of three candidates each group's first is left out; the two others are its pair.
    assert {row["role"] for row in rows if not math.isfinite(row["reward"])} == {""}
    assert [row["candidates_not_finite"] for row in loop.curve] == [3.0] * 4
    assert sum(row["pairs"] for row in loop.curve) == 12 and refusal_of(loop) is None


def test_latents_that_are_no_numbers_are_in_no_pair(
    new_generator: Callable[..., Generator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They decode to black frames, which a reward scores like any others."""
    generator = new_generator()
    sample = generator.sample_latents

    def poisoned(texts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        latents = sample(texts, seeds)
        latents[1::3, 0, 0, 0, 0] = math.nan
        return latents

    monkeypatch.setattr(generator, "sample_latents", poisoned)
    loop = make_trainer(generator, tmp_path, PARAMS.model_copy(update={"iterations": 2}))
    loop.run()
    rows = ledger_rows(tmp_path, 2)
    assert {row["role"] for row in rows if row["candidate"] == 1} == {""}
    assert [row["candidates_not_finite"] for row in loop.curve] == [3.0] * 2
    assert [row["updates_skipped"] for row in loop.curve] == [0.0] * 2 and loop.updates == 4


class Run:
    """The step itself on a tiny base, to a reward of the test's own."""

    def __init__(self, folder: Path, pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        with publish(folder / "corpus", step="corpus", params=StepParams()) as workspace:
            workspace.write_metrics({})
        make_base(folder, pipeline)
        make_reward(folder, "reward")
        monkeypatch.setattr(step, "_prompts", lambda params, corpus: (PROMPTS, []))
        self.patch = monkeypatch

    def __call__(self, params: AlignmentParams, reward: Brightness) -> None:
        self.patch.setattr(step, "open_reward", lambda artifact, device: reward)
        step.run(
            params, corpus=self.folder / "corpus", generator=self.folder / "base",
            reward=self.folder / "reward", out=self.folder / "out",
        )  # fmt: skip


@pytest.fixture
def run_step(tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(tmp_path, tiny_folder, monkeypatch)


@pytest.mark.parametrize(
    ("params", "value", "reason"),
    [
        (
            PARAMS, math.nan,
            "0 updates in 4 iterations (pairs 0, too_few_finite 12, candidates_not_finite 36)",
        ),
        (
            PARAMS.model_copy(update={"min_gap": 1e9}), None,
            "0 updates in 4 iterations (pairs 0, gap_too_small 12)",
        ),
        # Its first update is its last.
        (
            ABSURD, None,
            "after iteration 1: drift_from_base is nan, the limit is 1e+09 (pairs 3, updates_skipped 1)",
        ),
    ],
)  # fmt: skip
def test_the_step_publishes_no_untrained_policy_as_a_result(
    params: AlignmentParams, value: float | None, reason: str, run_step: Run, tmp_path: Path
) -> None:
    reward = Brightness() if value is None else Faulty(value, share=1)
    for _ in range(2):  # and the same again
        with pytest.raises(GateRefused) as refusal:
            run_step(params, reward)
        assert refusal.value.exit_code == 3
        assert str(refusal.value) == f"no trained policy to publish: {reason}"
    # What tells why is there; nothing takes it for a policy by accident.
    with pytest.raises(InputError, match="refused by its quality gate: no trained policy"):
        open_artifact(tmp_path / "out", step="alignment")
    found = open_artifact(tmp_path / "out", step="alignment", allow_refused=True)
    assert all(math.isfinite(value) for value in found.metrics().values())
    assert (found.path / "ledger.parquet").is_file()
    assert not (tmp_path / "out.partial").exists()


def test_the_step_publishes_the_last_good_policy_with_the_reason(
    run_step: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Breaking(AlignmentLoop):
        def __init__(self, *given: object, **named: object) -> None:
            super().__init__(*given, **named)  # type: ignore[arg-type]
            breaking(self, lambda iteration, _: iteration == 2)

    monkeypatch.setattr(step, "AlignmentLoop", Breaking)
    run_step(PARAMS, Brightness())
    found = open_artifact(tmp_path / "out", step="alignment")
    metrics = found.metrics()
    assert (metrics["iterations"], metrics["kept_iteration"], metrics["stopped_early"]) == (3, 2, 1)
    assert metrics["alarms_gradient"] == 2 and math.isfinite(metrics["winner_error"])
    told = capsys.readouterr().err
    assert "ended early: in iteration 3: the gradients of 2 updates in a row were not finite" in told
    assert "published is the policy after iteration 2 of 3" in told
    rows = list(csv.DictReader((found.path / "plots" / "training.csv").open()))
    assert [row["updates_skipped"] for row in rows] == ["0.0", "0.0", "2.0"]
    assert json.loads((found.path / "manifest.json").read_text())["refused"] is None
