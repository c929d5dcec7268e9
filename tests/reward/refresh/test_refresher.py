"""The refresh: it learns the damage on new clips, changes nothing that judges, and is the same each time."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.reward.base import digest_of_folder
from components.reward.card.agreement import measure_column
from components.reward.ladders.replay import Kept, keep
from components.reward.ladders.sources import Groups, SourceClips
from components.reward.params import NetworkParams, RewardParams
from components.reward.refresh.recheck import score_ladders
from components.reward.refresh.refresher import Refresher, Samples
from components.reward.refresh.versions import RewardVersion
from components.reward.scoring.load import open_reward
from components.reward.scoring.trained import TrainedReward
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.publish import publish
from components.runtime.errors import InputError
from components.runtime.params import Section, StepParams
from tests.reward.conftest import textured, write_reward
from tests.reward.refresh.refreshing import make_refresher, small_ladders

FIRST = [RewardVersion(0, "digest of the first")]


def samples(seed: int = 5) -> Samples:
    return Samples(textured(12, side=24, seed=seed), tuple(f"p{i // 3}" for i in range(12)))


def made(
    folder: Path, refresher: Refresher | None = None, seed: int = 5
) -> tuple[RewardVersion, TrainedReward]:
    refresher = refresher or make_refresher()
    return refresher.refresh(folder, FIRST, refresher.first, samples(seed), iteration=4)


@dataclass(frozen=True)
class Once:
    """One refresh and what was there before it; for looking at only."""

    folder: Path
    refresher: Refresher
    version: RewardVersion
    scorer: TrainedReward
    weights_before: dict[str, Tensor]
    kept_random_state: bool


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    refresher, folder = make_refresher(), tmp_path_factory.mktemp("once")
    weights = {name: value.clone() for name, value in refresher.first.network.state_dict().items()}
    torch.manual_seed(1)
    state = torch.get_rng_state()
    version, scorer = made(folder, refresher)
    kept = torch.equal(torch.get_rng_state(), state)
    return Once(folder, refresher, version, scorer, weights, kept)


def test_it_learns_the_order_on_the_new_clips(once: Once) -> None:
    refresher, version, scorer = once.refresher, once.version, once.scorer
    assert version.adopted, version.reasons
    fresh = SourceClips(textured(9, side=24, seed=77), [f"n{i}" for i in range(9)])
    ladders = refresher._ladders(fresh, 24, 9)
    before, after = (
        measure_column(score_ladders(one.score_prepared, ladders), ladders).pairs_ordered
        for one in (refresher.first, scorer)
    )
    assert after > before + 0.1 and after > 0.7
    assert (version.number, version.parent, version.iteration, version.steps) == (1, 0, 4, 60)


def test_the_version_on_disk_scores_as_the_one_in_memory(once: Once) -> None:
    clips = textured(3, side=24, seed=8)
    loaded = open_reward(once.folder / "v1", "cpu")
    assert torch.equal(loaded.score(clips, 8.0), once.scorer.score(clips, 8.0))
    assert digest_of_folder(once.folder / "v1") == once.version.digest
    assert [path.name for path in once.folder.iterdir()] == ["v1"]
    page = (once.folder / "v1" / "card.md").read_text()
    assert (
        "Version 1, trained on from version 0 for 60 steps in iteration 4" in page and "Not measured" in page
    )


def test_the_version_that_judges_is_left_alone_and_the_random_state_too(once: Once) -> None:
    assert once.kept_random_state
    for name, value in once.refresher.first.network.state_dict().items():
        assert torch.equal(value, once.weights_before[name]), name
    assert not once.refresher.first.network.training


def test_the_same_samples_make_the_same_bytes_and_others_others(once: Once, tmp_path: Path) -> None:
    torch.manual_seed(2)
    second, _ = made(tmp_path / "b")
    assert once.version == second
    for name in ("model.safetensors", "config.json", "card.json", "card.md"):
        assert (once.folder / "v1" / name).read_bytes() == (tmp_path / "b" / "v1" / name).read_bytes()
    assert made(tmp_path / "c", seed=6)[0].digest != once.version.digest


def test_a_version_that_forgot_is_refused_with_its_reason_and_leaves_nothing(
    once: Once, tmp_path: Path
) -> None:
    good, trained = once.refresher, once.scorer
    # Replay that says the opposite: the worse a clip, the better. What comes of it must not judge.
    replay = good.kept.replay
    upside_down = replace(replay, statistics=replay.statistics.flip(1))
    bad = Refresher(trained, good.params, Kept(upside_down, good.kept.heldout, None), good.effort)
    bad.effort = replace(bad.effort, steps=150)
    version, scorer = bad.refresh(tmp_path / "bad", FIRST, trained, samples(), iteration=0)
    assert not version.adopted and scorer is trained
    assert any(reason.startswith("reference_above_generated is") for reason in version.reasons)
    assert (
        version.checks["reference_above_generated"]["after"]
        < version.checks["reference_above_generated"]["before"]
    )
    assert list((tmp_path / "bad").iterdir()) == []


def test_a_refresh_that_diverges_leaves_the_reward_that_judges(tmp_path: Path) -> None:
    """The alignment goes on with it; the record says why there is no new version."""
    refresher = make_refresher()
    training = refresher.params.training.model_copy(update={"weight_decay": 1e30})
    refresher.params = refresher.params.model_copy(update={"training": training})
    version, scorer = refresher.refresh(tmp_path, FIRST, refresher.first, samples(), iteration=2)
    assert scorer is refresher.first and not version.adopted
    assert version.number == 1 and version.parent == 0 and version.iteration == 2
    assert len(version.reasons) == 1 and "diverged at step" in version.reasons[0]
    assert list(tmp_path.iterdir()) == [] and RewardVersion.of(version.as_json()) == version


def test_one_prompt_leaves_nothing_to_hold_out(tmp_path: Path) -> None:
    refresher = make_refresher()
    alone = Samples(textured(4, side=24), ("p",) * 4)
    version, _ = refresher.refresh(tmp_path, FIRST, refresher.first, alone, iteration=0)
    assert "policy_pairs_ordered" not in version.checks
    own, held = refresher._split(samples(), 3)
    assert {*own.contents} | {*held.contents} == {"p0", "p1", "p2", "p3"}
    assert len({*held.contents}) == 1 and not {*own.contents} & {*held.contents}
    assert len(own) == 9 and len(held) == 3


def test_a_reward_that_kept_nothing_cannot_be_refreshed(tmp_path: Path) -> None:
    artifact = open_artifact(write_reward(tmp_path / "reward"), step="reward")
    with pytest.raises(
        InputError, match=r"without refresh/replay\.safetensors and refresh/heldout\.safetensors"
    ):
        Refresher.open(artifact, open_reward(artifact, "cpu"))


class _OldLadders(Section):
    gone: int = 3


class _Old(StepParams):
    ladders: _OldLadders = _OldLadders()


@pytest.mark.parametrize("old", [False, True])
def test_a_reward_that_kept_its_ladders_is_opened_unless_its_params_are_of_another_time(
    tmp_path: Path, old: bool
) -> None:
    plain = write_reward(tmp_path / "plain")
    params = _Old() if old else StepParams()
    with publish(str(tmp_path / "reward"), step="reward", params=params, inputs={}) as workspace:
        for name in ("config.json", "model.safetensors"):
            shutil.copy(plain / name, workspace.dir / name)
        ladders = small_ladders([0, 1, 2, 3, 4, 5], 3)
        samples = Groups(textured(2).unflatten(0, (1, 2)), ["p"], ["a film"])
        keep(workspace.dir, [ladders], ladders, samples, None)
        workspace.write_metrics({})
    artifact = open_artifact(tmp_path / "reward", step="reward")
    reward = open_reward(artifact, "cpu")
    if old:
        with pytest.raises(InputError, match=r"reward\.ladders\.gone.*make it again"):
            Refresher.open(artifact, reward)
        return
    refresher = Refresher.open(artifact, reward)
    assert refresher.first is reward and len(refresher.kept.replay) == 3
    assert refresher.params == RewardParams()


def test_a_reward_from_elsewhere_cannot_be_refreshed(tmp_path: Path) -> None:
    class Elsewhere:
        pass

    with publish(str(tmp_path / "reward"), step="reward", params=StepParams(), inputs={}) as workspace:
        (workspace.dir / "config.json").write_text('{"kind": "weighted"}')
        workspace.write_metrics({})
    artifact = open_artifact(tmp_path / "reward", step="reward")
    with pytest.raises(InputError, match=r"kind weighted cannot be refreshed.*refresh_reward_every = 0"):
        Refresher.open(artifact, Elsewhere())  # type: ignore[arg-type]


def test_sizes_of_the_refreshed_network_are_those_of_the_first(once: Once) -> None:
    assert once.scorer.params == NetworkParams(members=2, hidden=8, embedding=8, bins=3)
