from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from components.corpus.dataset import Corpus
from components.corpus.params import ClipCounts, CorpusParams
from components.corpus.step import run
from components.corpus.world.scene import parse_caption
from components.corpus.world.splits import clip_split_of
from components.runtime.errors import InputError
from components.runtime.params import RunParams

SMALL = CorpusParams(
    world_clips=ClipCounts(train=12, val=5, test=8), footage_clips=ClipCounts(train=20, val=6, test=8)
)


@pytest.fixture(scope="module", autouse=True)
def untracked() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONLINEVPO_TRACKING", "off")
        yield patch


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("corpus") / "corpus"
    run(SMALL, out=out)
    return Corpus.open(out)


def test_clips_come_by_split_and_source(corpus: Corpus) -> None:
    assert corpus.fps == 8.0
    for split, world, footage in (("train", 12, 20), ("val", 5, 6), ("test", 8, 8)):
        frames, records = corpus.clips(split)
        assert frames.shape == (world + footage, 9, 3, 48, 48) and frames.dtype == torch.uint8
        assert len(records) == len(frames) and {record.split for record in records} == {split}
        only, chosen = corpus.clips(split, "footage")
        assert len(only) == len(chosen) == footage
        place = [record.id for record in records].index(chosen[-1].id)
        assert torch.equal(only[-1], frames[place])
        assert {record.caption for record in chosen} == {None}


def test_no_content_is_in_two_splits(corpus: Corpus) -> None:
    seen: dict[str, str] = {}
    for record in corpus.records():
        assert seen.setdefault(record.content, record.split) == record.split
    assert len({record.id for record in corpus.records()}) == len(corpus.records())
    assert corpus.artifact.metrics()["contents_in_two_splits"] == 0


def test_world_clips_show_scenes_of_their_split_alone(corpus: Corpus) -> None:
    for record in corpus.records(source="world"):
        scene = parse_caption(record.caption or "")
        assert scene is not None and clip_split_of(scene) == record.split


def test_no_two_clips_are_the_same(corpus: Corpus) -> None:
    pixels = [
        frames.numpy().tobytes() for split in ("train", "val", "test") for frames in corpus.clips(split)[0]
    ]
    assert len(set(pixels)) == len(pixels)


def test_prompts(corpus: Corpus) -> None:
    held, train = corpus.prompts("heldout"), corpus.prompts("train")
    assert (len(held), len(train)) == (96, 480)
    trained = {record.caption for split in ("train", "val") for record in corpus.records(split, "world")}
    assert not trained & {prompt.text for prompt in held}


def test_same_seed_same_bytes_other_seed_other_clips(corpus: Corpus, tmp_path: Path) -> None:
    run(SMALL, out=tmp_path / "again")
    run(SMALL.model_copy(update={"run": RunParams(seed=1)}), out=tmp_path / "other")
    again, other = Corpus.open(tmp_path / "again"), Corpus.open(tmp_path / "other")

    def digests(of: Corpus) -> dict[str, object]:
        files = of.artifact.manifest.files
        return {name: files[name] for name in files if name.startswith("clips/") or name == "prompts.jsonl"}

    assert digests(again) == digests(corpus)
    assert not torch.equal(other.clips("train")[0], corpus.clips("train")[0])
    assert other.prompts() == corpus.prompts()


def test_more_clips_leave_the_first_ones_as_they_were(corpus: Corpus, tmp_path: Path) -> None:
    more = SMALL.model_copy(
        update={"sources": ("world",), "world_clips": ClipCounts(train=500, val=5, test=8)}
    )
    run(more, out=tmp_path / "more")
    frames, records = Corpus.open(tmp_path / "more").clips("train", "world")
    first, few = corpus.clips("train", "world")
    assert torch.equal(frames[:12], first) and records[:12] == few
    assert len({record.content for record in records}) == 500


def test_what_a_person_finds_beside_the_clips(corpus: Corpus) -> None:
    assert corpus.artifact.file("plots/corpus.png").stat().st_size > 10_000
    lines = corpus.artifact.file("footage.jsonl").read_text().splitlines()
    assert sum(json.loads(line)["clips"] for line in lines) == 34


def test_a_list_of_prompts_and_other_sizes(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\na dog\n")
    params = CorpusParams(
        frames=5, height=32, width=32, sources=("world",), prompts=str(tmp_path / "p.txt"),
        world_clips=ClipCounts(train=2, val=0, test=1),
    )  # fmt: skip
    run(params, out=tmp_path / "out")
    corpus = Corpus.open(tmp_path / "out")
    assert {prompt.text for prompt in corpus.prompts()} == {"a cat", "a dog"}
    assert corpus.clips("train")[0].shape == (2, 5, 3, 32, 32)
    assert corpus.clips("val")[0].shape == (0, 5, 3, 32, 32)


def test_bad_footage_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mp4").write_text("broken")
    params = CorpusParams(sources=(), footage=str(tmp_path / "videos"))
    with pytest.raises(InputError, match="none of its 1 video files"):
        run(params, out=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["videos"]


def test_params_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="no source of clips"):
        CorpusParams(sources=())
    with pytest.raises(ValueError, match="square"):
        CorpusParams(height=32)
    with pytest.raises(ValueError, match="twice"):
        CorpusParams(sources=("world", "world"))


def test_names_that_do_not_exist_are_refused(corpus: Corpus) -> None:
    for call in (
        lambda: corpus.clips("dev"),
        lambda: corpus.clips("train", "packaged"),
        lambda: corpus.prompts("x"),
    ):
        with pytest.raises(ValueError, match="is not one of"):
            call()
