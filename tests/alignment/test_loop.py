"""The loop: it raises its reward and forgets nothing when it is killed.

It is the same run on any number of processes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.alignment.candidates.rollout import prompts_of_iteration
from components.generator.generator import Generator
from tests.alignment.closeness import largest_difference, steady
from tests.alignment.tiny import PARAMS, PROMPTS, Killed, kill_after, ledger_rows, make_trainer, weights


def pairs_of(checkpoints: Path) -> list[tuple[object, ...]]:
    return [
        (r["iteration"], r["prompt_id"], r["candidate"], r["seed"], r["role"], r["verdict"])
        for r in ledger_rows(checkpoints)
    ]


def test_updates_learn_the_preference(new_generator: Callable[..., Generator], tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"iterations": 1, "inner_updates": 30, "reference_sync_every": 1000})
    trainer = make_trainer(new_generator(), tmp_path, params)
    trainer.run()
    # The curve holds the last update's figures: on the pairs of one iteration the policy now tells winner
    # from loser.
    assert trainer.curve[0]["rewards/accuracies"] > 0.7
    assert trainer.curve[0]["rewards/margins"] > 0.1
    assert trainer.curve[0]["drift_from_base"] > 0


def test_the_reference_is_refreshed_on_its_beat(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    trainer = make_trainer(new_generator(), tmp_path)
    trainer.run()
    assert trainer.updates == 8
    assert [row["reference_version"] for row in trainer.curve] == [0, 1, 2, 2]
    policy, reference = trainer.policy.parameters("policy"), trainer.policy.parameters("reference")
    assert any(not torch.equal(value, reference[name]) for name, value in policy.items())


def test_first_update_of_all_sees_no_margin(new_generator: Callable[..., Generator], tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"iterations": 1, "inner_updates": 1, "sft_weight": 0.0})
    trainer = make_trainer(new_generator(), tmp_path, params)
    trainer.run()
    # Policy and reference are both the base: margin 0, loss log 2.
    assert trainer.curve[0]["rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    assert trainer.curve[0]["loss"] == pytest.approx(0.693147, abs=1e-5)


def test_resumed_run_equals_an_uninterrupted_one_to_the_bit(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    whole = make_trainer(new_generator(), tmp_path / "whole")
    whole.run()

    # Before the checkpoint of iteration 2 is written, so that this iteration is done twice.
    with pytest.raises(Killed):
        make_trainer(new_generator(), tmp_path / "cut", on_iteration=kill_after(2)).run()
    resumed = make_trainer(new_generator(), tmp_path / "cut")
    assert resumed.done == 2
    resumed.run()
    expected = weights(whole)
    assert all(torch.equal(value, expected[name]) for name, value in weights(resumed).items())
    assert resumed.curve == whole.curve
    assert pairs_of(tmp_path / "cut") == pairs_of(tmp_path / "whole")


def test_sampling_batch_does_not_change_the_pairs(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    for batch in (2, 9):
        make_trainer(new_generator(batch=batch), tmp_path / str(batch)).run()
    assert pairs_of(tmp_path / "2") == pairs_of(tmp_path / "9")


def test_pairs_per_forward_is_only_about_memory(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    results = []
    for size in (1, 64):
        params = PARAMS.model_copy(update={"pairs_per_forward": size, "iterations": 2})
        trainer = steady(make_trainer(new_generator(), tmp_path / str(size), params))
        start = weights(trainer)
        trainer.run()
        results.append(weights(trainer))
    worst, name = largest_difference(*results, start)
    assert worst <= 1e-3, name


def test_two_processes_make_the_same_pairs_and_weights(
    new_generator: Callable[..., Generator], two_processes: Path, tmp_path: Path
) -> None:
    alone = steady(make_trainer(new_generator(), tmp_path / "one"))
    start = weights(alone)
    alone.run()
    assert pairs_of(two_processes / "plain") == pairs_of(tmp_path / "one")
    together = load_file(two_processes / "plain" / "weights.safetensors")
    worst, name = largest_difference(together, weights(alone), start)
    assert worst <= 1e-3, name


def test_each_epoch_has_every_prompt_once() -> None:
    seen = [prompt.id for iteration in range(5) for prompt in prompts_of_iteration(PROMPTS, 2, 0, iteration)]
    assert sorted(seen) == sorted(2 * [prompt.id for prompt in PROMPTS])
    straddling = [prompts_of_iteration(PROMPTS, 3, seed, 1) for seed in range(20)]
    assert all(len({p.id for p in chosen}) == len(chosen) for chosen in straddling)
