"""The held-out ladders: the same whoever builds them, of the right clips and types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from components.corpus.dataset import Corpus
from components.reward.card.heldout import FIT_LEVELS, PIECE, built, fit_baselines, pieces, pools
from components.reward.card.niqe_brisque import Baselines
from components.reward.distortions import REGISTRY
from components.reward.ladders.ladder import join
from components.reward.ladders.sources import LadderSources, SourceClips, gather
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.signals import StopSignal
from tests.reward.conftest import textured, world

TYPES = ("blur", "frame_noise", "freeze")


@pytest.fixture(scope="module")
def material(inputs: tuple[Path, Path]) -> LadderSources:
    return gather(Corpus.open(inputs[0]), open_artifact(inputs[1], step="generator"), 0.5, 0)


def test_pools_are_the_sources_there_are(material: LadderSources) -> None:
    assert set(pools(material)) == {"world", "footage", "generated"}
    assert len(pools(material)["generated"]) == 9  # half of 6 prompts, 3 samples each


def test_every_type_gets_its_own_clips_of_every_source() -> None:
    clips = {
        "world": SourceClips(world(10), [f"w{i}" for i in range(10)]),
        "footage": SourceClips(textured(2), ["f0", "f1"]),
    }
    work = pieces(clips, TYPES, 4, seed=0)
    assert all(len(piece.contents) <= PIECE for piece in work)
    chosen: dict[tuple[str, str], list[str]] = {}
    for piece in work:
        for (name,), content in zip(piece.recipes, piece.contents, strict=True):
            chosen.setdefault((piece.source, name), []).append(content)
    assert {key: len(set(names)) for key, names in chosen.items()} == {
        **{("world", name): 4 for name in TYPES},
        **{("footage", name): 2 for name in TYPES},  # not more than there are
    }
    assert len({tuple(chosen["world", name]) for name in TYPES}) == 3


def test_ladders_and_baselines_are_the_same_in_other_processes(tmp_path: Path) -> None:
    clips = {"footage": SourceClips(textured(5), [f"f{i}" for i in range(5)])}
    rivals = Baselines(None, None)
    work = pieces(clips, ("blur", "stutter", "frame_noise"), 5, seed=3, cache=tmp_path, rivals=rivals)
    assert len(work) == 2
    results = []
    for count in (0, 2):
        with ProcessPool(count, StopSignal()) as workers:
            results.append(list(built(workers, work)))
    here, there = (join([part.ladders for part in parts]) for parts in results)
    for name in ("frames", "labels", "statistics", "seen", "levels"):
        assert torch.equal(getattr(here, name), getattr(there, name)), name
    assert here.recipes == there.recipes and here.contents == there.contents
    for a, b in zip(*results, strict=True):
        sharp = a.rivals["laplacian_variance"]
        assert np.array_equal(sharp, b.rivals["laplacian_variance"])
        assert sharp.shape == (len(a.ladders), 6)
    # Blur takes sharpness away; the measure stands beside the ladder it was taken of.
    blurred = results[0][0].rivals["laplacian_variance"][:5]
    assert bool((np.diff(blurred, axis=1) < 0).all())


def test_baselines_are_fitted_to_training_content(
    material: LadderSources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    fit = Baselines.fit

    def watched(pristine: Tensor, damaged: Tensor, labels: Tensor, contents: list[str]) -> Baselines:
        given.update(pristine=pristine, damaged=damaged, labels=labels, contents=contents)
        return fit(pristine, damaged, labels, contents)

    monkeypatch.setattr(Baselines, "fit", watched)
    with ProcessPool(0, StopSignal()) as workers:
        found = fit_baselines(workers, material, ("blur",), 0, tmp_path)
    train = {name for pool in material.train.values() for name in pool.contents}
    assert len(given["pristine"]) == len(train) == 16 and set(given["contents"]) <= train
    # Every type but the held-out one, on both sources, at three levels of which the first is the original.
    levels = len(FIT_LEVELS)
    assert len(given["damaged"]) == len(given["contents"]) == (len(REGISTRY) - 1) * 2 * levels
    labels = given["labels"].reshape(-1, levels)
    assert bool((labels[:, 0] == 1).all()) and bool((labels[:, -1] <= labels[:, 1]).all())
    assert float(labels[:, -1].mean()) < 0.6
    assert found.niqe is not None and found.brisque is not None
    rated = found.rate(material.test["footage"].frames[[0, 1]])
    assert set(rated) == set(found.names) and all(bool(v.isfinite().all()) for v in rated.values())
