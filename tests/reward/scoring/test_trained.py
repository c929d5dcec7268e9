"""Scoring: round trip, independence of the batch, any geometry, clear errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from components.reward.features.handcrafted import clip_statistics
from components.reward.model.network import RewardNet
from components.reward.params import NetworkParams
from components.reward.scoring.trained import TrainedReward
from components.runtime.errors import InputError
from components.video.clip import ClipFormat
from tests.reward.conftest import textured, world

SIZES = NetworkParams(members=3, hidden=8, embedding=8, bins=2)


@pytest.fixture(scope="module")
def scorer() -> TrainedReward:
    torch.manual_seed(0)
    statistics = clip_statistics(world(8).float() / 255.0)
    network = RewardNet(SIZES, statistics.shape[1])
    network.coding.fit(statistics)
    return TrainedReward(network, ClipFormat(5, 32, 32, 8.0))


def test_save_and_load_score_the_same_bits(scorer: TrainedReward, tmp_path: Path) -> None:
    scorer.save(tmp_path, SIZES)
    clips = world(3)
    assert torch.equal(TrainedReward.load(tmp_path, "cpu").score(clips, 8.0), scorer.score(clips, 8.0))
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "config.json"}


def test_a_score_has_the_same_bits_in_any_batch(scorer: TrainedReward) -> None:
    clips = torch.cat((world(18), textured(5)))
    together = scorer.score(clips, 8.0)
    alone = torch.cat([scorer.score(clip[None], 8.0) for clip in clips])
    assert torch.equal(together, alone)
    assert torch.equal(scorer.score(clips.flip(0), 8.0).flip(0), together)


def test_bytes_and_floats_score_alike(scorer: TrainedReward) -> None:
    clips = world(4)
    assert torch.allclose(scorer.score(clips, 8.0), scorer.score(clips.float() / 255.0, 8.0), atol=1e-4)


def test_known_statistics_change_nothing(scorer: TrainedReward) -> None:
    clips = world(4)
    known = clip_statistics(clips.float() / 255.0)
    assert torch.allclose(scorer.score_prepared(clips, known), scorer.score_prepared(clips), atol=1e-4)


def test_larger_faster_and_longer_clips_are_brought_to_the_training_geometry(scorer: TrainedReward) -> None:
    clip = world(1)
    enlarged = clip.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert torch.isfinite(scorer.score(enlarged, 8.0)).all()
    slow_motion = clip.repeat_interleave(3, 1)  # the same clip at three times the rate
    assert torch.allclose(scorer.score(slow_motion, 24.0), scorer.score(clip, 8.0), atol=1e-4)
    long = torch.cat([world(1, seed=s) for s in range(4)], dim=1)
    windows = scorer.score(torch.cat(list(long.split(5, dim=1))), 8.0)
    assert float(scorer.score(long, 8.0)) == pytest.approx(float(windows.mean()), abs=1e-4)
    assert torch.isfinite(scorer.score(world(1, frames=2), 8.0)).all()


def test_a_rating_is_mean_and_deviation_of_the_members(scorer: TrainedReward) -> None:
    clips = world(4)
    rating = scorer.rate(clips, 8.0)
    with torch.no_grad():
        outputs = scorer.network(clip_statistics(clips.float() / 255.0)).numpy()
    assert torch.equal(rating.score, scorer.score(clips, 8.0))
    assert np.allclose(rating.score, outputs[:, :, 0].mean(0), atol=1e-4)
    assert (
        np.allclose(rating.uncertainty, np.std(outputs[:, :, 0], axis=0), atol=1e-4)
        and rating.uncertainty.min() > 0
    )
    assert list(rating.aspects) == ["spatial", "codec", "temporal", "diffusion"]
    for place, aspect in enumerate(rating.aspects.values()):
        assert np.allclose(aspect, outputs[:, :, 1 + place].mean(0), atol=1e-4)


def test_nothing_to_score_gives_nothing(scorer: TrainedReward) -> None:
    assert scorer.score(world(1)[:0], 8.0).shape == (0,)
    assert scorer.rate(world(1)[:0], 8.0).aspects["codec"].shape == (0,)


@pytest.mark.parametrize(
    ("frames", "fps", "said"),
    [
        (torch.zeros(2, 5, 3, 32, 32)[0], 8.0, "must be"),
        (torch.zeros(1, 1, 3, 32, 32), 8.0, "T >= 2"),
        (torch.zeros(1, 5, 3, 32, 32), 0.0, "frame rate"),
        (torch.full((1, 5, 3, 32, 32), float("nan")), 8.0, "not finite"),
    ],
)
def test_bad_clips_are_refused(scorer: TrainedReward, frames: Tensor, fps: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        scorer.score(frames, fps)


def test_broken_folders_name_the_file(scorer: TrainedReward, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.json"):
        TrainedReward.load(tmp_path)
    scorer.save(tmp_path, SIZES)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(InputError, match=r"model\.safetensors"):
        TrainedReward.load(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="not the description"):
        TrainedReward.load(tmp_path)
