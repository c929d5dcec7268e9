"""Ladders: what is in them, in which order, the same every time."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from components.reward.distortions import FAMILIES, REGISTRY
from components.reward.ladders.ladder import build, family_of, join, levels_of, recipe_of, seen_types
from tests.reward.conftest import textured, world


def make(count: int = 4, labelled: bool = True):  # type: ignore[no-untyped-def]
    frames = world(count)
    recipes = [("blur",), ("frame_noise",), ("blur", "freeze"), ("erase",)][:count]
    levels = torch.tensor([levels_of(row, 4, seed=1) for row in range(count)])
    return (
        frames,
        levels,
        build(
            frames,
            [f"c{i}" for i in range(count)],
            recipes,
            levels,
            source="world",
            seed=3,
            labelled=labelled,
        ),
    )


def test_first_rung_is_the_clip_itself_and_labels_fall() -> None:
    frames, levels, ladders = make()
    assert torch.equal(ladders.frames[:, 0], frames)
    assert torch.equal(ladders.levels, levels.float())
    assert bool((ladders.labels[:, 1:] <= ladders.labels[:, :-1]).all())
    assert ladders.statistics.shape[:2] == (4, 4)


def test_generated_clips_get_no_label() -> None:
    assert bool(make(labelled=False)[2].labels.isnan().all())


def test_levels_rise_from_0_without_repeats() -> None:
    levels = torch.tensor([levels_of(row, 4, seed=0) for row in range(200)])
    assert bool((levels[:, 0] == 0).all()) and bool((levels.diff(dim=1) > 0).all()) and int(levels.max()) == 5
    assert torch.equal(levels[:5], torch.tensor([levels_of(row, 4, seed=0) for row in range(5)]))
    counts = Counter(levels[:, 1:].flatten().tolist())
    assert set(counts) == {1, 2, 3, 4, 5} and max(counts.values()) < 1.4 * min(counts.values())


def test_recipes_cover_every_type_and_stress_some() -> None:
    names = seen_types(("crawl",))
    count = 4 * (len(names) + 1)
    recipes = [recipe_of(row, names, ("erase", "crawl"), 0.0, seed=0) for row in range(count)]
    counts = Counter(recipe[0] for recipe in recipes)
    assert set(counts) == set(names) and "crawl" not in counts
    assert counts["erase"] == 2 * counts["blur"]
    composed = [recipe_of(row, names, (), 0.5, seed=0) for row in range(400)]
    share = sum(len(recipe) > 1 for recipe in composed) / 400
    assert 0.4 < share < 0.6 and max(map(len, composed)) <= 4


def test_a_recipe_of_one_family_has_it_and_a_mixture_has_none() -> None:
    assert FAMILIES[family_of(("blur", "pixelate"))] == "spatial"
    assert FAMILIES[family_of(("freeze",))] == "temporal"
    assert family_of(("blur", "freeze")) == -1


def test_pairs_that_look_the_same_do_not_count() -> None:
    still = textured(1)[:, :1].expand(-1, 5, -1, -1, -1)
    ladder = build(
        still, ["still"], [("freeze",)], torch.tensor([[0, 3, 5]]), source="x", seed=0, labelled=True
    )
    assert float(ladder.seen.sum()) == 0.0
    assert torch.allclose(ladder.labels, torch.ones(1, 3), atol=1e-3)


def test_better_clips_stand_before_the_ladder() -> None:
    originals, worse = world(2), world(2, seed=9)
    ladder = build(
        worse,
        ["a", "b"],
        [("blur",)] * 2,
        torch.tensor([[0, 2, 5]] * 2),
        source="r",
        seed=0,
        labelled=False,
        first=originals,
    )
    assert ladder.frames.shape[1] == 4 and torch.equal(ladder.frames[:, 0], originals)
    assert ladder.levels[0].tolist() == [-1, 0, 2, 5]


def test_building_in_parts_gives_the_same_bytes() -> None:
    """A ladder depends on its content's name and row, not on the other ladders of its recipe."""
    frames = textured(3)
    levels = torch.tensor([[0, 2, 4]] * 3)
    names = ["a", "b", "c"]
    mixed = build(
        frames, names, [("warp",), ("blur",), ("warp",)], levels, source="s", seed=1, labelled=False
    )
    same = build(
        frames, names, [("warp",), ("jitter",), ("warp",)], levels, source="s", seed=1, labelled=False
    )
    assert torch.equal(mixed.frames[[0, 2]], same.frames[[0, 2]])


def test_join_and_where_keep_rows_together() -> None:
    both = join([make()[2], make()[2]])
    assert len(both) == 8
    picked = both.where([recipe == ("erase",) for recipe in both.recipes])
    assert picked.contents == ["c3", "c3"] and len(picked) == 2


def test_without_frames_only_the_pictures_are_gone() -> None:
    ladders = make()[2]
    bare = ladders.without_frames()
    assert bare.frames.shape == (4, 4, 0) and torch.equal(bare.statistics, ladders.statistics)
    assert join([bare, bare]).take(torch.tensor([5, 0])).contents == ["c1", "c0"]


def test_labels_measured_before_are_the_same(tmp_path: Path) -> None:
    frames, levels = world(2), torch.tensor([[0, 2, 4]] * 2)
    recipes = [("blur",), ("warp",)]

    def labels(cache: Path | None) -> torch.Tensor:
        return build(
            frames, ["a", "b"], recipes, levels, source="w", seed=0, labelled=True, cache=cache
        ).labels

    first = labels(tmp_path / "labels")
    assert torch.equal(first, labels(None)) and torch.equal(first, labels(tmp_path / "labels"))


def test_held_out_types_are_left_out() -> None:
    assert set(seen_types(("blur", "warp"))) == set(REGISTRY) - {"blur", "warp"}
