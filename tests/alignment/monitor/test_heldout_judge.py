"""The held-out judge: which prompts it looks at, who judges, what a reading says."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from components.alignment.monitor import heldout_judge as held_out
from components.alignment.monitor.guards import Guards
from components.alignment.monitor.heldout_judge import (
    WORLD_SCORER,
    HeldOutJudge,
    choose_judge,
    hold_back,
)
from components.alignment.monitor.reading import HeldoutReading
from components.alignment.params import GuardParams
from components.alignment.policy import LoraPolicy, Policy
from components.corpus.prompts import Prompt, world_prompts
from components.corpus.world.render import render
from components.corpus.world.scene import parse_caption
from components.generator.generator import Generator
from components.reward.base import digest_of
from components.runtime.compute.distributed import Ranks
from components.runtime.errors import InputError
from tests.alignment.ledger.made import Light, make_reward
from tests.alignment.tiny import PROMPTS


class LightScorer:
    """The mean of the clip's pixels; it counts the clips it was shown."""

    name = "light"

    def __init__(self) -> None:
        self.clips = 0

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str]) -> list[float]:
        self.clips += len(frames)
        return [float(frame.double().mean()) for frame in frames]


def films(count: int) -> list[Prompt]:
    return [Prompt(f"p{n}", f"a film of {n} things", "train") for n in range(count)]


def perturbed(generator: Generator) -> Policy:
    policy = LoraPolicy(generator.family, 2, 0)
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in policy.parameters().values():
            value.add_(0.3 * torch.randn(value.shape, generator=noise))
    return policy


def new_judge(generator: Generator, scorer: Any, clips: int = 6, ranks: Ranks | None = None) -> HeldOutJudge:
    return HeldOutJudge(generator, PROMPTS[:3], scorer, clips=clips, seed=5, ranks=ranks or Ranks())


@given(st.integers(0, 300), st.integers(2, 40), st.integers(0, 3))
@settings(max_examples=30)
def test_prompts_are_trained_on_or_judged_on(count: int, clips: int, seed: int) -> None:
    prompts = films(count)
    training, judged = hold_back(prompts, clips, seed)
    assert sorted(training + judged, key=lambda p: int(p.id[1:])) == prompts
    assert len(judged) == (min(clips, count // 8) if count >= 16 else 0)
    assert training == [p for p in prompts if p in training]
    # Which ones is a matter of names: the order of the list has no part in it.
    assert set(hold_back(prompts[::-1], clips, seed)[1]) == set(judged)


def test_another_seed_holds_back_others() -> None:
    assert hold_back(films(200), 20, 0)[1] != hold_back(films(200), 20, 1)[1]


def reading(scores: list[float], base: list[float], prompts: int, iteration: int = 6) -> HeldoutReading:
    names = tuple(f"p{number % prompts}" for number in range(len(scores)))
    still = (1.0,) * len(scores)
    return HeldoutReading(iteration, names, tuple(scores), tuple(base), still, still)


def test_the_difference_has_an_interval_by_prompt() -> None:
    rng = np.random.default_rng(0)
    gains = np.concatenate([half := rng.normal(0.3, 1.0, 20), 0.6 - half])
    found = reading(gains.tolist() * 2, [0.0] * 80, 40).difference
    expected = stats.ttest_1samp(gains, 0).confidence_interval(0.95)  # two seeds of a prompt are one
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_nine_prompts_end_no_run() -> None:
    """A policy that fell by ten standard deviations on each of nine prompts: nothing is shown."""
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=36), rng.normal(-10, 1, size=36)
    for prompts, below in ((9, False), (12, True)):
        worse = reading(after.tolist(), [0.0] * 36, prompts)
        assert worse.below(reading(before.tolist(), [0.0] * 36, prompts)) is below
        assert ("judge_low" in worse.row()) is below
        assert worse.row()["judge_difference"] == pytest.approx(after.mean())


def test_who_judges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes = world_prompts()[:4]
    assert choose_judge(scenes, None, "d") is WORLD_SCORER
    assert choose_judge([*scenes, *films(1)], None, "d") is None
    assert "only motion is watched" in capsys.readouterr().err
    assert choose_judge([], None, "d") is None
    assert "fewer than 16 training prompts" in capsys.readouterr().err
    monkeypatch.setattr(held_out, "open_reward", lambda artifact, device: Light(-1.0))
    second = make_reward(tmp_path, "second")
    digest = digest_of({name: entry.sha256 for name, entry in second.manifest.files.items()})
    scorer = choose_judge(scenes, second, "another digest")
    clips = torch.full((2, 5, 3, 8, 8), 7, dtype=torch.uint8)
    assert scorer is not None and scorer.score(clips, 8.0, ["", ""]) == [-7.0, -7.0]
    assert digest[:12] in scorer.name
    with pytest.raises(InputError, match="scores as the training reward does"):
        choose_judge(scenes, second, digest)
    with pytest.raises(InputError, match="at least 16 training prompts are needed"):
        choose_judge([], second, "another digest")


def test_the_world_scorer_sees_what_a_clip_is_worth() -> None:
    scene = parse_caption(world_prompts()[0].text)
    assert scene is not None
    moving = render(scene, seed=1)
    frozen = moving[:1].expand_as(moving)
    good, still = WORLD_SCORER.score(torch.stack([moving, frozen]), 8.0, ["", ""])
    assert good > 0.9 and still < 0.8 * good


def test_a_policy_that_is_the_base_scores_as_the_base(new_generator: Callable[..., Generator]) -> None:
    generator = new_generator()
    reading = new_judge(generator, LightScorer()).read(LoraPolicy(generator.family, 2, 0), 0)
    assert reading.difference.value == 0.0
    assert not reading.difference.known  # three prompts
    assert reading.win == 0.5 and reading.motion == 1.0
    # 6 clips of 3 prompts: 2 seeds each.
    assert reading.prompts == ("p0", "p0", "p1", "p1", "p2", "p2")


def test_a_reading_is_what_the_policy_and_the_base_draw(new_generator: Callable[..., Generator]) -> None:
    generator = new_generator()
    judge = new_judge(generator, LightScorer())
    policy = perturbed(generator)
    reading = judge.read(policy, 4)
    texts, seeds = [prompt.text for prompt, _ in judge.clips], [seed for _, seed in judge.clips]
    assert len(set(seeds)) == 6
    ours = LightScorer().score(generator.sample(texts, seeds)[0], 8.0, texts)
    base = LightScorer().score(new_generator().sample(texts, seeds)[0], 8.0, texts)
    assert reading.scores == pytest.approx(ours) and reading.base_scores == pytest.approx(base)
    assert ours != base
    assert reading.difference.value == pytest.approx(np.mean(np.subtract(ours, base)))
    assert reading.win == np.mean([a > b for a, b in zip(ours, base, strict=True)])
    row = reading.row()
    assert row["judge_difference"] == reading.difference.value and row["held_out_motion"] == reading.motion


def test_the_base_is_measured_once_and_outlives_a_kill(new_generator: Callable[..., Generator]) -> None:
    generator, scorer = new_generator(), LightScorer()
    judge, policy = new_judge(generator, scorer), perturbed(generator)
    assert json.loads(json.dumps(judge.state())) == {"base": None}
    first = judge.read(policy, 2)
    assert scorer.clips == 12
    again = new_judge(generator, scorer)
    again.restore(json.loads(json.dumps(judge.state())))
    assert again.read(policy, 2) == first
    assert scorer.clips == 18
    assert HeldoutReading.of(json.loads(json.dumps(first.as_json()))) == first


def test_batches_do_not_change_a_reading(new_generator: Callable[..., Generator]) -> None:
    found = []
    for batch in (2, 16):
        generator = new_generator(batch=batch)
        found.append(new_judge(generator, LightScorer()).read(perturbed(generator), 1))
    assert found[0].scores == pytest.approx(found[1].scores, abs=0.05)
    assert found[0].prompts == found[1].prompts


@dataclass(frozen=True)
class Talking(Ranks):
    """One of several threads that stand for processes; they meet to see what the others have."""

    table: list[Any] = field(default_factory=list)
    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))

    def all_gather_object(self, value: Any) -> list[Any]:
        self.table[self.rank] = value
        self.meeting.wait(60)
        found = list(self.table)
        self.meeting.wait(60)
        return found


def test_two_processes_come_to_the_same_reading(new_generator: Callable[..., Generator]) -> None:
    table: list[Any] = [None, None]
    meeting = threading.Barrier(2)
    scorers = [LightScorer(), LightScorer()]
    generators = [new_generator(), new_generator()]
    judges = [
        new_judge(generator, scorer, ranks=Talking(rank, 2, table, meeting))
        for rank, (generator, scorer) in enumerate(zip(generators, scorers, strict=True))
    ]
    policies = [perturbed(generator) for generator in generators]
    found: dict[int, HeldoutReading] = {}
    threads = [
        threading.Thread(target=lambda rank=rank: found.update({rank: judges[rank].read(policies[rank], 1)}))
        for rank in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert found[0] == found[1]
    assert [scorer.clips for scorer in scorers] == [6, 6]
    alone = new_generator()
    reading = new_judge(alone, LightScorer()).read(perturbed(alone), 1)
    assert found[0].scores == pytest.approx(reading.scores, abs=0.05)


def test_without_a_judge_motion_is_measured(new_generator: Callable[..., Generator]) -> None:
    generator = new_generator()
    reading = new_judge(generator, None).read(perturbed(generator), 3)
    assert not reading.judged and reading.scores == ()
    assert set(reading.row()) == {"held_out_motion"} and reading.motion != 1.0


def test_a_judge_that_has_no_score_is_an_error(new_generator: Callable[..., Generator]) -> None:
    class Mute:
        name = "mute"

        def score(self, frames: Tensor, fps: float, prompts: Sequence[str]) -> list[float]:
            return [math.nan] * len(frames)

    generator = new_generator()
    with pytest.raises(InputError, match="mute gives none of the base's 6 clips a finite score"):
        new_judge(generator, Mute()).read(LoraPolicy(generator.family, 2, 0), 0)


def test_a_policy_that_the_judge_cannot_score_has_fallen(
    new_generator: Callable[..., Generator], capsys: pytest.CaptureFixture[str]
) -> None:
    class Once:
        """Scores the first clips it sees, the base's, and none of the policy's."""

        name, seen = "once", 0

        def score(self, frames: Tensor, fps: float, prompts: Sequence[str]) -> list[float]:
            self.seen += len(frames)
            return [1.0 if self.seen <= 6 else math.nan] * len(frames)

    generator = new_generator()
    reading = new_judge(generator, Once()).read(perturbed(generator), 2)
    assert reading.judged and reading.unscored and set(reading.row()) == {"held_out_motion"}
    guards = Guards(GuardParams(least_motion=0.0))
    assert guards.after_reading(reading) == "regressed" and guards.kept_iteration is None
    told = capsys.readouterr().err
    assert (
        "no held-out clip has a finite score" in told
        and "held out, after iteration 2: no finite score" in told
    )
    assert guards.after_reading(reading) == "regressed" and guards.stop is not None
