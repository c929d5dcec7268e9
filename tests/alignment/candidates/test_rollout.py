"""Scoring beside sampling: it does overlap, and nothing else changes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.alignment.params import AlignmentParams
from components.generator.generator import Generator
from components.reward.base import Rating
from components.runtime.errors import Interrupted
from tests.alignment.tiny import PARAMS, Brightness, make_trainer

#: Nine clips an iteration in batches of four, the last of one; groups of three lie across batches.
BATCH, BATCHES = 4, 3
BESIDE = PARAMS.model_copy(update={"reward_device": "cpu", "iterations": 2})
PATIENCE = 30.0  # seconds that nothing in a passing test waits


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("more", [{}, {"dynamic_sampling": 1, "min_gap": 10.0}, {"strategy": "offline"}])
def test_the_ledger_is_the_same_byte_for_byte(
    more: dict[str, object], new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    trainers = []
    for name, device in (("after", None), ("beside", "cpu")):
        params = BESIDE.model_copy(update={"reward_device": device, **more})
        trainer = make_trainer(new_generator(batch=BATCH), tmp_path / name, params)
        trainer.run()
        trainers.append(trainer)
    after, beside = trainers
    assert files(tmp_path / "after" / "ledger") == files(tmp_path / "beside" / "ledger")
    assert len(files(tmp_path / "after" / "ledger")) >= 2
    assert after.curve == beside.curve
    expected = beside.policy.tensors()
    assert all(torch.equal(value, expected[name]) for name, value in after.policy.tensors().items())


class Waiting(Brightness):
    """Is not through with a batch before the next one is being sampled."""

    def __init__(self, sampled: list[threading.Event]) -> None:
        super().__init__()
        self.sampled, self.batches = sampled, 0
        self.overlapped: list[bool] = []
        self.threads: set[str] = set()

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        self.batches += 1
        self.threads.add(threading.current_thread().name)
        if self.batches < BATCHES:
            self.overlapped.append(self.sampled[self.batches].wait(PATIENCE))
        assert not torch.is_grad_enabled()
        return super().rate(frames, fps, prompts)


def test_a_batch_is_scored_while_the_next_one_is_sampled(
    new_generator: Callable[..., Generator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = new_generator(batch=BATCH)
    sampled = [threading.Event() for _ in range(BATCHES)]
    sample, calls = generator.sample_latents, iter(sampled)

    def sampling(prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        next(calls).set()
        return sample(prompts, seeds)

    monkeypatch.setattr(generator, "sample_latents", sampling)
    reward = Waiting(sampled)
    params = BESIDE.model_copy(update={"iterations": 1})
    make_trainer(generator, tmp_path, params, reward=reward).run()
    assert reward.batches == BATCHES and reward.overlapped == [True] * (BATCHES - 1)
    assert len(reward.threads) == 1 and threading.main_thread().name not in reward.threads
    assert not any(thread.name.startswith("reward") for thread in threading.enumerate())


def test_what_a_reward_raises_comes_through(new_generator: Callable[..., Generator], tmp_path: Path) -> None:
    class Broken(Brightness):
        def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
            raise ArithmeticError("no score")

    for params in (BESIDE, PARAMS):
        trainer = make_trainer(new_generator(batch=BATCH), tmp_path, params, reward=Broken())
        with pytest.raises(ArithmeticError, match=r"^no score$"):
            trainer.run()
        assert trainer.done == 0 and not list(tmp_path.rglob("step-*"))


def test_told_to_stop_while_scoring_it_saves(new_generator: Callable[..., Generator], tmp_path: Path) -> None:
    class Telling(Brightness):
        def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
            os.kill(os.getpid(), signal.SIGTERM)
            return super().rate(frames, fps, prompts)

    params = BESIDE.model_copy(update={"checkpoint_every": 2})
    with pytest.raises(Interrupted):
        make_trainer(new_generator(batch=BATCH), tmp_path, params, reward=Telling()).run()
    resumed = make_trainer(new_generator(batch=BATCH), tmp_path, params)
    assert resumed.done == 1
    resumed.run()
    whole = make_trainer(new_generator(batch=BATCH), tmp_path / "whole", params)
    whole.run()
    expected = whole.policy.tensors()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.policy.tensors().items())


@pytest.mark.parametrize("wrong", ["cuda", "gpu:1", "cuda:x", ""])
def test_a_wrong_device_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"reward_device"):
        AlignmentParams.model_validate({"reward_device": wrong})
