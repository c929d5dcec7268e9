"""What a reward keeps for its refresh: read back as it was put by, no pictures, no bytes that change."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from components.reward.features.handcrafted import clip_statistics
from components.reward.ladders import replay
from components.reward.ladders.ladder import NAMES, Ladders, build, join
from components.reward.ladders.replay import HELDOUT, REPLAY, keep, open_kept
from components.reward.ladders.sources import Groups
from components.runtime.errors import InputError
from tests.reward.conftest import textured, world
from tests.reward.refresh.refreshing import small_ladders

QUALITY = torch.tensor([[0.1, 0.9], [0.4, 0.3]], dtype=torch.float64)


@pytest.fixture(scope="module")
def ladders() -> Ladders:
    """Labelled ladders and unlabelled ones, with their pictures."""
    recipes, levels = [("blur",), ("freeze", "blur")], torch.tensor([[0, 2, 5]] * 2)
    return join(
        [
            build(world(2), ["w0", "w1"], recipes, levels, source="world", seed=0, labelled=True),
            build(textured(2), ["g0", "g1"], recipes, levels, source="generated", seed=0, labelled=False),
        ]
    )


@pytest.fixture(scope="module")
def samples() -> Groups:
    return Groups(world(4).unflatten(0, (2, 2)), ["p0", "p1"], ["a", "b"])


def test_it_is_read_back_as_it_was_but_for_rounding(
    ladders: Ladders, samples: Groups, tmp_path: Path
) -> None:
    heldout = small_ladders([0, 1, 2, 3, 4, 5], 3)
    keep(tmp_path, [ladders], heldout, samples, QUALITY)
    kept = open_kept(tmp_path)
    for name in ("statistics", "labels", "levels", "seen", "similarity"):
        was, now = getattr(ladders, name), getattr(kept.replay, name)
        assert now.dtype == torch.float32 and now.shape == was.shape
        # Half precision has 11 bits.
        assert torch.allclose(now, was, rtol=2**-11, atol=1e-7, equal_nan=True), name
    assert all(getattr(kept.replay, name) == getattr(ladders, name) for name in NAMES)
    assert kept.replay.frames.shape == (4, 3, 0) and kept.heldout.levels.shape == (3, 6)
    assert kept.judged is not None
    expected = clip_statistics(samples.frames[1, 0][None].float() / 255.0)[0]
    assert torch.allclose(kept.judged.statistics[1, 0], expected, rtol=2**-10, atol=1e-6)
    assert torch.allclose(kept.judged.quality, QUALITY, atol=1e-3)


def test_no_pictures_and_the_same_bytes_each_time(ladders: Ladders, samples: Groups, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        keep(tmp_path / folder, [ladders], ladders, samples, None)
    for name in (REPLAY, HELDOUT):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        with safe_open(tmp_path / "a" / name, "pt") as opened:
            assert "frames" not in opened.keys()  # noqa: SIM118
        assert (tmp_path / "a" / name).stat().st_size < 4 * ladders.statistics.numel() + 20_000
    assert open_kept(tmp_path / "a").judged is None


def test_of_many_shards_only_the_first_are_kept(
    ladders: Ladders, samples: Groups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "KEPT", 6)
    loaded = []

    class Many:
        def __len__(self) -> int:
            return 50

        def __getitem__(self, shard: int, /) -> Ladders:
            loaded.append(shard)
            return ladders

    keep(tmp_path, Many(), ladders, samples, None)
    assert loaded == [0, 1] and len(open_kept(tmp_path).replay) == 8


def test_a_missing_or_damaged_file_is_named(ladders: Ladders, samples: Groups, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"refresh/replay\.safetensors"):
        open_kept(tmp_path)
    keep(tmp_path, [ladders], ladders, samples, None)
    file = tmp_path / HELDOUT
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"refresh/heldout\.safetensors: not the ladders"):
        open_kept(tmp_path)
