"""The reward refreshed inside the loop: when, on what, and the same after a kill and on two processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from components.alignment.loop import AlignmentLoop
from components.generator.generator import Generator
from components.reward.base import digest_of_folder
from components.reward.refresh.versions import RewardVersion
from components.reward.scoring.trained import TrainedReward
from components.runtime.errors import InputError
from tests.alignment.tiny import (
    PARAMS,
    PROMPTS,
    REFRESHING,
    Killed,
    kill_after,
    ledger_rows,
    make_generator,
    make_trainer,
    probe,
)
from tests.reward.refresh.refreshing import make_refresher


def start(generator: Generator, folder: Path, **settings: object) -> AlignmentLoop:
    refresher = make_refresher()
    params = REFRESHING.model_copy(update=settings)
    return make_trainer(generator, folder, params, reward=refresher.first, refresher=refresher)


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> AlignmentLoop:
    """A finished run whose reward was refreshed."""
    trainer = start(make_generator(tiny_folder), tmp_path_factory.mktemp("whole"))
    trainer.run()
    return trainer


def test_the_reward_is_refreshed_on_its_beat_and_not_after_the_last_iteration(whole: AlignmentLoop) -> None:
    versions = whole.reward.versions
    # Iterations 0..3 with two updates each: after iteration 1 the fourth, after iteration 3 the eighth.
    assert [(v.number, v.parent, v.iteration) for v in versions] == [(0, None, None), (1, 0, 1)]
    assert versions[1].steps == 60 and versions[1].digest != versions[0].digest
    assert set(versions[1].checks) >= {"reference_above_generated", "policy_pairs_ordered"}


def test_pairs_keep_the_version_that_judged_them(whole: AlignmentLoop) -> None:
    rows = ledger_rows(whole.ledger.folder.parent)
    digests = [v.digest for v in whole.reward.versions]
    later = 1 if whole.reward.versions[1].adopted else 0
    expected = [0, 0, later, later]
    for row in rows:
        version = expected[int(str(row["iteration"]))]
        assert (row["reward_version"], row["reward_digest"]) == (version, digests[version])
    assert [r["reward_version"] for r in whole.curve] == expected
    assert {"aspect_spatial", "aspect_codec", "aspect_temporal", "aspect_diffusion"} <= set(rows[0])


def test_every_score_can_be_had_again_from_what_is_published(whole: AlignmentLoop, tmp_path: Path) -> None:
    assert whole.reward.version.number == 1, whole.reward.versions[1].reasons
    whole.reward.publish(tmp_path / "reward")
    listed = json.loads((tmp_path / "reward" / "versions.json").read_text())["versions"]
    assert [RewardVersion.of(values) for values in listed] == whole.reward.versions
    folder = tmp_path / "reward" / "v1"
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "card.json", "card.md",
    }  # fmt: skip
    assert digest_of_folder(folder) == listed[1]["digest"]
    rows = [r for r in ledger_rows(whole.ledger.folder.parent) if r["iteration"] == 2]
    texts = [str(r["prompt"]) for r in rows]
    # The policy at iteration 2 is not kept; its samples are judged by the kept weights in the run's memory.
    again, before = TrainedReward.load(folder), whole.reward.reward
    frames = whole.setting.generator.sample(texts, [int(str(r["seed"])) for r in rows])[0]
    assert torch.equal(again.score(frames, 8.0), before.score(frames, 8.0))


def test_the_new_version_judges_otherwise(whole: AlignmentLoop) -> None:
    frames = whole.setting.generator.sample([PROMPTS[0].text] * 4, [1, 2, 3, 4])[0]
    first = make_refresher().first
    assert not torch.equal(first.score(frames, 8.0), whole.reward.reward.score(frames, 8.0))


@pytest.mark.parametrize("iteration", [1, 2])
def test_killed_and_run_again_the_versions_are_the_same_bytes(
    whole: AlignmentLoop, new_generator: Callable[..., Generator], tmp_path: Path, iteration: int
) -> None:
    """Killed after the refresh and before its checkpoint, and killed when the new version has judged."""

    cut = start(new_generator(), tmp_path)
    cut.on_iteration = kill_after(iteration)
    with pytest.raises(Killed):
        cut.run()
    resumed = start(new_generator(), tmp_path)
    assert resumed.done == iteration
    resumed.run()
    assert resumed.reward.versions == whole.reward.versions
    assert resumed.curve == whole.curve
    assert ledger_rows(tmp_path) == ledger_rows(whole.ledger.folder.parent)
    for name in ("config.json", "model.safetensors", "card.json", "card.md"):
        mine, theirs = tmp_path / "reward" / "v1" / name, whole.reward.folder / "v1" / name
        assert mine.read_bytes() == theirs.read_bytes(), name
    expected = whole.policy.tensors()
    assert all(torch.equal(value, expected[name]) for name, value in resumed.policy.tensors().items())


def test_a_version_that_was_altered_is_named(
    new_generator: Callable[..., Generator], whole: AlignmentLoop, tmp_path: Path
) -> None:
    trainer = start(new_generator(), tmp_path)
    (tmp_path / "reward" / "v1").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "reward" / "v1" / name).write_bytes((whole.reward.folder / "v1" / name).read_bytes())
    trainer.reward.restore(whole.reward.state())
    assert trainer.reward.version.number == 1
    with (tmp_path / "reward" / "v1" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(InputError, match=r"v1: not version 1 of the reward"):
        trainer.reward.restore(whole.reward.state())


def test_without_a_refresh_nothing_is_kept_of_the_frames(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    trainer = make_trainer(new_generator(), tmp_path)
    trainer.run()
    assert [v.number for v in trainer.reward.versions] == [0]
    assert not (tmp_path / "reward").exists()


def test_a_reward_that_reads_text_gets_the_prompts(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    trainer = make_trainer(new_generator(), tmp_path, PARAMS.model_copy(update={"iterations": 1}))
    trainer.run()
    rows = ledger_rows(tmp_path, 1)
    assert trainer.reward.reward.prompts == [r["prompt"] for r in rows]
    assert all(isinstance(r["aspect_red"], float) for r in rows)


def test_two_processes_make_the_same_versions(whole: AlignmentLoop, two_processes: Path) -> None:
    # Both processes' own accounts of which versions there were and what the last says of the same clips.
    first, second = (json.loads((two_processes / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first == second
    versions = [RewardVersion.of(values) for values in first["versions"]]
    assert [(v.number, v.parent, v.iteration, v.adopted) for v in versions] == [
        (v.number, v.parent, v.iteration, v.adopted) for v in whole.reward.versions
    ]
    assert first["scores"] == pytest.approx(probe(whole.reward.reward).tolist(), abs=1e-3)
    pairs = [(r["iteration"], r["seed"], r["role"]) for r in ledger_rows(two_processes / "refreshed")]
    assert pairs == [(r["iteration"], r["seed"], r["role"]) for r in ledger_rows(whole.ledger.folder.parent)]
