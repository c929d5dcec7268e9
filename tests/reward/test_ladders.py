"""Ladders: what is in them, in which order, the same every time."""

from __future__ import annotations

from collections import Counter

import torch

from components.reward.distortions import REGISTRY
from components.reward.ladders import build, draw_levels, draw_recipes, join, seen_types, vary
from tests.reward.conftest import textured, world


def make(count: int = 4, labelled: bool = True):  # type: ignore[no-untyped-def]
    frames = world(count)
    recipes = [("blur",), ("frame_noise",), ("blur", "freeze"), ("erase",)][:count]
    levels = draw_levels(count, 4, seed=1)
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
    levels = draw_levels(200, 4, seed=0)
    assert bool((levels[:, 0] == 0).all()) and bool((levels.diff(dim=1) > 0).all()) and int(levels.max()) == 5
    assert torch.equal(levels, draw_levels(200, 4, seed=0))


def test_recipes_cover_every_type_and_stress_some() -> None:
    names = seen_types(("crawl",))
    recipes = draw_recipes(4 * (len(names) + 1), names, ("erase", "crawl"), 0.0, seed=0)
    counts = Counter(recipe[0] for recipe in recipes)
    assert set(counts) == set(names) and "crawl" not in counts
    assert counts["erase"] == 2 * counts["blur"]
    composed = draw_recipes(400, names, (), 0.5, seed=0)
    share = sum(len(recipe) > 1 for recipe in composed) / 400
    assert 0.4 < share < 0.6 and max(map(len, composed)) <= 4


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


def test_varied_clips_keep_their_pixels() -> None:
    clips = textured(6)
    varied = vary(clips, seed=0)
    assert varied.shape == clips.shape and not torch.equal(varied, clips)
    for before, after in zip(clips, varied, strict=True):
        assert torch.equal(before.flatten().sort().values, after.flatten().sort().values)
    assert torch.equal(varied, vary(clips, seed=0))


def test_held_out_types_are_left_out() -> None:
    assert set(seen_types(("blur", "warp"))) == set(REGISTRY) - {"blur", "warp"}
