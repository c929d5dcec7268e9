"""Fitting the calibration: from training clips alone, to the numbers that are in use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from components.corpus.dataset import Corpus
from components.reward.labels import fit_calibration as fitting
from components.reward.labels.calibration import CALIBRATION
from components.reward.labels.fit_calibration import measure_ladders, pick
from tests.reward.labels.conftest import at_levels


def test_contents_take_turns(inputs: tuple[Path, Path]) -> None:
    corpus = Corpus.open(inputs[0])
    frames, contents = pick(corpus, "train", "footage", 5)
    assert len(frames) == 5 and len(set(contents)) == 5
    assert pick(corpus, "train", "world", 100)[0].shape[0] == 8


def test_measures_every_type_and_level_of_a_split(
    inputs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: fitting.REGISTRY[name] for name in ("blur", "flicker_white", "desaturate")}
    monkeypatch.setattr(fitting, "REGISTRY", few)
    corpus = Corpus.open(inputs[0])
    losses, unseen = measure_ladders(corpus, "train", 2, 0, None, 0)
    assert losses.shape == (3, 4, 5, 4) and unseen.shape == (4, 4)
    assert bool((unseen.mean(0) < losses.mean((0, 1, 2))).all())
    again = measure_ladders(corpus, "train", 2, 0, None, 0)
    assert torch.equal(losses, again[0]) and torch.equal(unseen, again[1])


def test_the_numbers_in_use_spread_damage_over_the_scale(real: torch.Tensor) -> None:
    """Over unlike types, levels 1 to 5 of any clips lie on average where the designed severity puts them."""
    from components.reward.labels.label import measured

    names = ("blur", "jpeg", "darken", "frame_noise", "flicker_white", "ghost", "warp", "stutter", "erase")
    damage = torch.stack([CALIBRATION.damage(measured(real, at_levels(real, name)[:, 1:])) for name in names])
    means = damage.mean((0, 1))
    assert bool((means.diff() > 0.05).all())
    assert 0.15 < float(means[0]) < 0.45 and 0.5 < float(means[2]) < 0.75 and float(means[4]) > 0.75
