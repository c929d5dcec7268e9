"""Ladders that the generator draws: right order, drawn once, the same after a kill and in any process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from components.generator.generator import Generator, load_family
from components.generator.params import SamplingParams
from components.reward.distortions import GENERATIVE
from components.reward.ladders.few_step import draw
from components.reward.ladders.ladder import family_of
from components.reward.ladders.plan import ShardPlan
from components.reward.params import LadderParams
from components.runtime.compute.seeds import derive
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.video.clip import ClipFormat

PROMPTS = ["a red circle moves left", "a blue square moves up"]
GEOMETRY = ClipFormat(9, 48, 48, 8.0)


@pytest.fixture(scope="module")
def generator(repository: Path) -> Generator:
    return Generator(load_family(repository / "models" / "miniature", torch.device("cpu")), SamplingParams())


@pytest.fixture(scope="module")
def file(generator: Generator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("drawn") / "shards" / "drawn.safetensors"
    draw(generator, PROMPTS, 3, 3, GEOMETRY, 5, file, StopSignal())
    return file


def test_each_clip_is_the_generators_sample_at_its_level(generator: Generator, file: Path) -> None:
    pool = draw(None, PROMPTS, 3, 3, GEOMETRY, 5, file, StopSignal())
    assert pool.levels is not None and pool.ladders == 3 and pool.clips.contents == [*PROMPTS, PROMPTS[0]]
    assert bool((pool.levels[:, 0] == 0).all()) and bool((pool.levels.diff(dim=1) > 0).all())
    seed = derive(derive(5, "drawn ladders", "few_steps"), "noise", 1)
    for place, level in enumerate(pool.levels[1].tolist()):
        alone = GENERATIVE["few_steps"].build(generator, [PROMPTS[1]], level, [seed])[0]
        # Batches of another size round differently.
        apart = (pool.clips.frames[[3 + place]][0].float() - alone.float()).abs()
        assert float(apart.max()) <= 3 and float(apart.mean()) < 0.05


def test_what_is_there_is_not_drawn_again(generator: Generator, file: Path) -> None:
    before = file.stat().st_mtime_ns
    draw(generator, PROMPTS, 3, 3, GEOMETRY, 5, file, StopSignal())
    assert file.stat().st_mtime_ns == before and [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_shard_holds_them_in_order_and_varied_alike(file: Path) -> None:
    pool = draw(None, PROMPTS, 3, 3, GEOMETRY, 5, file, StopSignal())
    shard = ShardPlan((pool,), LadderParams(clips_per_ladder=3), 5, pixels=True).build(0)
    assert shard.sources == ["few_steps"] * 3 and {family_of(recipe) for recipe in shard.recipes} == {3}
    assert torch.equal(shard.levels, pool.levels.float()) and bool(shard.labels.isnan().all())
    stored = load_file(file)["frames"]
    for row in range(3):
        # Varied alike, the clips stay about as far apart as they were.
        before = (stored[row, 0].float() - stored[row, -1].float()).abs().mean()
        after = (shard.frames[row, 0].float() - shard.frames[row, -1].float()).abs().mean()
        assert 0.2 < float(after / before) < 3.0
        assert not torch.equal(shard.frames[row, 0], shard.frames[row, -1])


def test_a_file_of_something_else_and_unknown_prompts_are_one_clear_line(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="few_steps = 3: the texts of the generator"):
        draw(None, [], 3, 3, GEOMETRY, 5, file, StopSignal())
    with pytest.raises(InputError, match=r"ladders \(3, 3\), expected \(4, 3\)"):
        draw(None, PROMPTS, 4, 3, GEOMETRY, 5, file, StopSignal())
    other = tmp_path / "drawn.safetensors"
    save_file({"else": torch.zeros(1)}, other)
    with pytest.raises(InputError, match="not the ladders that the generator drew"):
        draw(None, PROMPTS, 3, 3, GEOMETRY, 5, other, StopSignal())
