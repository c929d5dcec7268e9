"""Scoring with a backbone: self-contained, independent of the batch, at the clip's own resolution."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.reward.features.fragments import fragments
from components.reward.features.handcrafted import clip_statistics
from components.reward.model.backbone import Backbone
from components.reward.model.network import RewardNet
from components.reward.params import NetworkParams
from components.reward.scoring.trained import TrainedReward
from components.runtime.errors import InputError
from components.video.clip import ClipFormat
from components.video.filters import resize
from tests.reward.conftest import textured, world
from tests.reward.model.tiny_backbones import write

GEOMETRY = ClipFormat(5, 32, 32, 8.0)


def scorer_of(kind: str, folder: Path) -> TrainedReward:
    source = write(folder / "source", kind)
    params = NetworkParams(members=3, hidden=8, embedding=8, bins=2, backbone=str(source))
    backbone = Backbone.load(source)
    clips = world(4)
    statistics = clip_statistics(clips.float() / 255.0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = RewardNet(params, statistics.shape[1], backbone)
    network.coding.fit(statistics)
    assert network.temporal is not None
    with torch.no_grad():
        network.temporal.fit(backbone(fragments(clips, backbone.canvas)))
    return TrainedReward(network, GEOMETRY)


@pytest.fixture(scope="module", params=["videomae", "dinov2", "siglip"])
def scorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TrainedReward:
    return scorer_of(request.param, tmp_path_factory.mktemp("model"))


def seeing(scorer: TrainedReward) -> TrainedReward:
    """The same, told by the backbone alone."""
    network = scorer.network
    own = network.coding.knots.shape[0] * (network.params.bins + 1)
    with torch.no_grad():
        network.first.weight[:, :own] = 0.0
    return scorer


def test_a_saved_reward_needs_nothing_but_its_folder(tmp_path: Path) -> None:
    for kind in ("videomae", "siglip"):
        scorer = scorer_of(kind, tmp_path / kind)
        folder = tmp_path / f"{kind} reward"
        folder.mkdir()
        scorer.save(folder, scorer.params)
        shutil.rmtree(tmp_path / kind)
        loaded = TrainedReward.load(folder, "cpu")
        clips = torch.cat((world(3), textured(2)))
        before, after = scorer.rate(clips, 8.0), loaded.rate(clips, 8.0)
        assert torch.equal(before.score, after.score) and torch.equal(before.uncertainty, after.uncertainty)
        assert loaded.params == scorer.params and loaded.network.backbone is not None
        # Saved once more it is the same files.
        again = tmp_path / f"{kind} again"
        again.mkdir()
        loaded.save(again, loaded.params)
        for file in (path for path in folder.rglob("*") if path.is_file()):
            assert (again / file.relative_to(folder)).read_bytes() == file.read_bytes()


def test_a_score_has_the_same_bits_in_any_batch(scorer: TrainedReward) -> None:
    clips = torch.cat((world(6), textured(3)))
    together = scorer.score(clips, 8.0)
    assert len(set(together.tolist())) == 9
    assert torch.equal(torch.cat([scorer.score(clip[None], 8.0) for clip in clips]), together)
    assert torch.equal(scorer.score(clips.flip(0), 8.0).flip(0), together)


def test_a_score_is_what_the_network_says_of_centred_fragments(scorer: TrainedReward) -> None:
    clips = textured(3, side=75)
    assert scorer.network.backbone is not None
    with torch.no_grad():
        small = resize(clips.float() / 255.0, 32, 32, "bilinear").clamp(0, 1)
        views = fragments(clips, scorer.network.backbone.canvas)
        expected = scorer.network(clip_statistics(small), views).mean(0)
    rating = scorer.rate(clips, 8.0)
    assert torch.allclose(rating.score, expected[:, 0], atol=2e-5)
    assert torch.allclose(rating.aspects["diffusion"], expected[:, 4], atol=2e-5)
    prepared = scorer.score_prepared(clips, clip_statistics(small))
    assert torch.allclose(prepared, rating.score, atol=2e-5)
    assert torch.allclose(scorer.score(clips.float() / 255.0, 8.0), rating.score, atol=1e-4)


@pytest.mark.parametrize("kind", ["videomae", "dinov2"])
def test_damage_of_single_pixels_is_seen_in_a_large_clip(kind: str, tmp_path: Path) -> None:
    """A pattern that shrinking to the size of training would average away."""
    scorer = seeing(scorer_of(kind, tmp_path))
    smooth = torch.full((1, 5, 3, 128, 128), 128, dtype=torch.uint8)
    board = (torch.arange(128)[:, None] + torch.arange(128)) % 2 * 80
    rough = (smooth.int() - 40 + board).to(torch.uint8)

    def shrunk(clip: Tensor) -> Tensor:
        return resize(clip.float(), 32, 32, "bilinear").round().to(torch.uint8)

    assert torch.equal(shrunk(smooth), shrunk(rough))
    apart = (scorer.score(smooth, 8.0) - scorer.score(rough, 8.0)).abs()
    assert float(apart) > 2e-4


def test_longer_and_faster_clips_are_scored_in_windows(scorer: TrainedReward) -> None:
    clip = world(1)
    slow_motion = clip.repeat_interleave(3, 1)
    assert torch.allclose(scorer.score(slow_motion, 24.0), scorer.score(clip, 8.0), atol=1e-4)
    long = torch.cat([world(1, seed=seed) for seed in range(3)], dim=1)
    windows = scorer.score(torch.cat(list(long.split(5, dim=1))), 8.0)
    assert float(scorer.score(long, 8.0)) == pytest.approx(float(windows.mean()), abs=1e-4)
    assert torch.isfinite(scorer.score(world(1, frames=2), 8.0)).all()


def test_a_broken_backbone_names_its_file(tmp_path: Path) -> None:
    scorer = scorer_of("dinov2", tmp_path)
    scorer.save(tmp_path, scorer.params)
    (tmp_path / "backbone" / "config.json").unlink()
    with pytest.raises(InputError, match=r"backbone/config\.json"):
        TrainedReward.load(tmp_path)
    shutil.rmtree(tmp_path / "backbone")
    with pytest.raises(InputError, match=r"backbone/config\.json"):
        TrainedReward.load(tmp_path)
