"""Where candidates come from and what is learnt from them, told apart by what ends up in the ledger."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from components.alignment.ledger import LedgerReader
from components.alignment.loop import AlignmentLoop
from components.alignment.objectives.losses import dpop, sft
from components.alignment.params import AlignmentParams
from components.alignment.policy import POLICY, REFERENCE
from components.alignment.strategies import STRATEGIES
from components.generator.generator import Generator
from components.runtime.artifacts.publish import publish
from tests.alignment.tiny import (
    PARAMS,
    Brightness,
    Killed,
    kill_after,
    ledger_rows,
    make_generator,
    make_trainer,
)


def run(strategy: str, generator: Generator, folder: Path, **settings: object) -> AlignmentLoop:
    params = PARAMS.model_copy(update={"strategy": strategy, **settings})
    trainer = make_trainer(generator, folder, params)
    trainer.run()
    return trainer


@pytest.fixture(scope="module")
def rows(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """The ledgers of all strategies, after the same number of iterations."""
    found = {}
    for strategy in STRATEGIES:
        folder = tmp_path_factory.mktemp(strategy)
        run(strategy, make_generator(tiny_folder), folder)
        found[strategy] = ledger_rows(folder)
    return found


def test_every_strategy_can_be_asked_for() -> None:
    assert set(get_args(AlignmentParams.model_fields["strategy"].annotation)) == set(STRATEGIES)


def test_as_many_candidates_of_the_same_names(rows: dict[str, list[dict[str, Any]]]) -> None:
    names = {
        strategy: [(r["iteration"], r["prompt_id"], r["candidate"], r["seed"]) for r in found]
        for strategy, found in rows.items()
    }
    assert names["online"] == names["offline"] == names["best_of_n"]
    assert len(names["online"]) >= 4 * 2 * 3


def test_before_the_first_update_all_draw_the_same_clips(rows: dict[str, list[dict[str, Any]]]) -> None:
    first = {s: [r["latents"] for r in found if r["iteration"] == 0] for s, found in rows.items()}
    assert first["online"] == first["offline"] == first["best_of_n"] and any(first["online"])


def test_offline_candidates_are_the_bases_to_the_end(
    rows: dict[str, list[dict[str, Any]]], new_generator: Callable[..., Generator]
) -> None:
    base, late = new_generator(), {}
    for strategy, found in rows.items():
        last = [r for r in found if r["iteration"] == 3]
        texts = [r["prompt"] for r in last]
        frames = base.sample(texts, [r["seed"] for r in last])[0]
        late[strategy] = Brightness().score(frames, 8.0, texts).tolist() == [r["reward"] for r in last]
    assert late == {"online": False, "offline": True, "best_of_n": False}
    versions = {s: {r["policy_version"] for r in found} for s, found in rows.items()}
    assert versions == {"online": {0, 2, 4, 6}, "offline": {0}, "best_of_n": {0, 2, 4, 6}}


def test_offline_keeps_its_reference_unless_told_otherwise(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    versions = {}
    for name, reference in (("fixed", None), ("every_k", "every_k")):
        trainer = run(
            "offline", new_generator(), tmp_path / name, reference=reference, reference_sync_every=4
        )
        versions[name] = trainer.reference.version
        # Eight updates: the second copy is of the policy as it stands.
        policy, kept = trainer.policy.parameters(POLICY), trainer.policy.parameters(REFERENCE)
        assert all(torch.equal(v, kept[n]) for n, v in policy.items()) == (name == "every_k")
    assert versions == {"fixed": 0, "every_k": 2}


def test_best_of_n_learns_from_winners_alone(new_generator: Callable[..., Generator], tmp_path: Path) -> None:
    trainer = run("best_of_n", new_generator(), tmp_path, iterations=1, inner_updates=1, sft_weight=0.25)
    row = trainer.curve[0]
    assert row["loss"] == pytest.approx(1.25 * row["winner_error"])
    assert trainer.updater.objective is sft
    online = make_trainer(new_generator(), tmp_path / "online")
    assert online.updater.objective is dpop


def test_best_of_n_brings_the_winners_error_down(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    errors = []
    for updates in (1, 40):
        folder = tmp_path / str(updates)
        trainer = run(
            "best_of_n", new_generator(), folder, iterations=1, inner_updates=updates, timesteps_per_pair=8
        )
        errors.append(trainer.curve[0]["winner_error"])
    assert errors[1] < 0.95 * errors[0]


def published(trainer: AlignmentLoop, out: Path) -> LedgerReader:
    """The ledger of a run, as the step publishes it."""
    with publish(out, step="alignment", params=trainer.params) as workspace:
        trainer.ledger.publish(workspace.dir, trainer.done)
        workspace.write_metrics({"updates": float(trainer.updates)})
    return LedgerReader.open(out)


def test_pairs_of_a_ledger_are_trained_on_again_and_nothing_is_sampled(
    new_generator: Callable[..., Generator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = published(run("online", new_generator(), tmp_path / "first"), tmp_path / "published")
    generator = new_generator()
    monkeypatch.setattr(generator, "sample_latents", None)
    params = PARAMS.model_copy(update={"strategy": "offline", "iterations": 6})
    trainer = make_trainer(generator, tmp_path / "second", params, ledger=first)
    trainer.run()
    assert trainer.updates == 12 and {row["clips"] for row in trainer.curve} == {0.0}

    def sides(found: list[dict[str, Any]]) -> set[tuple[Any, ...]]:
        names = (
            "prompt_id", "role", "seed", "reward", "motion", "gap", "latents", "aspect_red",
            "policy_version", "reference_version", "reward_version", "reward_digest",
        )  # fmt: skip
        return {tuple(row[name] for name in names) for row in found if row["role"]}

    again = ledger_rows(tmp_path / "second", 6)
    assert sides(again) == sides(first.rows)
    # Six iterations of three go through the 12 pairs once and half way again: an epoch and a half.
    uses = [row["latents"] for row in again if row["role"] == "winner"]
    assert max(uses.count(name) for name in set(uses)) <= 2


def test_a_ledger_run_resumes_to_the_same_weights(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    first = published(run("online", new_generator(), tmp_path / "first"), tmp_path / "published")
    params = PARAMS.model_copy(update={"strategy": "offline"})
    whole = make_trainer(new_generator(), tmp_path / "whole", params, ledger=first)
    whole.run()

    with pytest.raises(Killed):
        make_trainer(
            new_generator(), tmp_path / "cut", params, ledger=first, on_iteration=kill_after(2)
        ).run()
    resumed = make_trainer(new_generator(), tmp_path / "cut", params, ledger=first)
    resumed.run()
    expected = whole.policy.tensors()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.policy.tensors().items())
