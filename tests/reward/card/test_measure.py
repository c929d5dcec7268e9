"""The card's numbers on toy scorers whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from components.corpus.dataset import Corpus
from components.generator.generator import Generator, load_family
from components.generator.params import SamplingParams
from components.reward.base import Rating
from components.reward.card.agreement import by_family, by_type, columns, masks, measure_column, within_groups
from components.reward.card.measure import measure, throughput
from components.reward.ladders.ladder import Ladders, build
from components.reward.ladders.sources import LadderSources, gather
from components.reward.params import CardParams
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from tests.reward.conftest import textured, world


@pytest.fixture(scope="module")
def ladders() -> Ladders:
    levels = torch.arange(6).expand(6, -1)
    recipes = [("blur",), ("blur",), ("frame_noise",), ("frame_noise",), ("erase",), ("warp",)]
    frames = torch.cat((world(3), textured(3)))
    return build(frames, [f"c{i}" for i in range(6)], recipes, levels, source="world", seed=0, labelled=True)


def labels(ladders: Ladders) -> np.ndarray:
    return ladders.labels.numpy().astype(float)


def one(ladders: Ladders) -> Ladders:
    """The first ladder, all of whose clips can be told apart."""
    found = ladders.where([True, *[False] * 5])
    found.seen[:] = torch.triu(torch.ones(6, 6), 1)
    return found


def test_a_scorer_that_is_the_label_is_perfect(ladders: Ladders) -> None:
    column = measure_column(labels(ladders), ladders)
    assert column.srcc == pytest.approx(1.0) and column.krcc == pytest.approx(1.0)
    assert column.plcc == pytest.approx(1.0, abs=1e-3) and column.rmse < 0.01
    assert column.reference_above == 1.0 and column.ladders == 6


def test_a_scorer_upside_down_is_perfectly_wrong(ladders: Ladders) -> None:
    column = measure_column(-labels(ladders), ladders)
    assert column.srcc == pytest.approx(-1.0)
    shares = (column.reference_above, column.adjacent_ordered, column.two_apart_ordered, column.pairs_ordered)
    assert shares == (0.0, 0.0, 0.0, 0.0) and column.fully_ordered == 0.0


def test_a_constant_scorer_wins_nothing(ladders: Ladders) -> None:
    column = measure_column(np.zeros(ladders.labels.shape), ladders)
    assert column.srcc is None
    assert column.reference_above == column.pairs_ordered == 0.0  # a tie is not an order
    assert column.pairs_ordered_untied is None


def test_column_by_hand(ladders: Ladders) -> None:
    """One ladder scored 5 3 4 2 1 0: 14 of 15 pairs right, 5 of 5 above, 4 of 5 neighbours, 4 of 4 two
    apart, not fully ordered."""
    ladder = one(ladders)
    scores = np.array([[5.0, 3.0, 4.0, 2.0, 1.0, 0.0]])
    column = measure_column(scores, ladder)
    assert column.reference_above == 1.0
    assert column.adjacent_ordered == pytest.approx(4 / 5)
    assert column.two_apart_ordered == 1.0
    assert column.pairs_ordered == pytest.approx(14 / 15)
    assert column.fully_ordered == 0.0
    assert column.srcc == pytest.approx(stats.spearmanr(scores[0], ladder.labels[0].numpy()).statistic)
    assert column.clips == 6


def test_two_apart_counts_pairs_exactly_two_apart(ladders: Ladders) -> None:
    """5 4 6 3 2 1: of 0-2 1-3 2-4 3-5 the first is wrong; ties are wrong unless left out."""
    ladder = one(ladders)
    column = measure_column(np.array([[5.0, 4.0, 6.0, 3.0, 2.0, 1.0]]), ladder)
    assert column.two_apart_ordered == pytest.approx(3 / 4)
    assert column.pairs_ordered == pytest.approx(13 / 15)
    tied = measure_column(np.array([[5.0, 4.0, 5.0, 3.0, 2.0, 1.0]]), ladder)
    assert tied.two_apart_ordered == pytest.approx(3 / 4)
    assert tied.pairs_ordered == pytest.approx(13 / 15)
    assert tied.pairs_ordered_untied == pytest.approx(13 / 14)


def test_pairs_that_look_the_same_are_in_no_count(ladders: Ladders) -> None:
    ladder = one(ladders)
    ladder.seen[0, 1, 2] = 0
    column = measure_column(np.array([[5.0, 3.0, 4.0, 2.0, 1.0, 0.0]]), ladder)
    assert column.adjacent_ordered == column.pairs_ordered == column.fully_ordered == 1.0


def test_a_content_counts_its_pristine_clip_once(ladders: Ladders) -> None:
    same = ladders.where([True, True, False, False, False, False])
    same.contents = ["c0", "c0"]
    same.seen[:] = torch.triu(torch.ones(6, 6), 1)
    assert measure_column(labels(same), same).clips == 11


def test_generated_ladders_have_an_order_but_no_correlation(ladders: Ladders) -> None:
    unlabelled = ladders.where([True] * 6)
    unlabelled.labels = torch.full_like(unlabelled.labels, float("nan"))
    column = measure_column(-np.tile(np.arange(6.0), (6, 1)), unlabelled)
    assert column.reference_above == 1.0 and column.srcc is None


def test_columns_part_the_ladders_by_source_and_by_what_was_trained_on(ladders: Ladders) -> None:
    mixed = ladders.where([True] * 6)
    mixed.sources = ["world", "footage", "generated", "world", "generated", "footage"]
    rows = masks(mixed, {"blur", "frame_noise", "warp"})
    assert {name: np.flatnonzero(mask).tolist() for name, mask in rows.items()} == {
        "world": [0, 3], "footage": [1, 5], "all": [0, 1, 3, 5], "heldout_types": [], "generated": [2],
        "heldout_types_generated": [4],
    }  # fmt: skip
    found = columns(labels(mixed), mixed, rows)
    assert "heldout_types" not in found and found["all"].ladders == 4


def test_a_type_is_measured_on_pristine_sources_alone(ladders: Ladders) -> None:
    mixed = ladders.where([True] * 6)
    mixed.sources = ["world", "generated", "footage", "world", "world", "world"]
    # Right on the pristine blur ladder, upside down on the generated one.
    scores = labels(mixed)
    scores[1] = -scores[1]
    table = by_type(scores, mixed)
    assert table["blur"]["srcc"] == table["blur"]["srcc_world"] == pytest.approx(1.0)
    assert table["blur"]["above_world"] == 1.0 and table["blur"]["above_generated"] == 0.0
    assert table["blur"]["pairs_world"] == 1.0 and table["blur"]["pairs_generated"] == 0.0
    family = by_family(scores, mixed)["spatial"]
    assert family["pairs_generated"] == 0.0 and family["srcc_world"] > 0.9
    assert set(by_family(scores, mixed)) == {"spatial", "diffusion"}
    assert "srcc_generated" not in table["blur"] and set(table) == {"blur", "frame_noise", "erase", "warp"}


def test_within_groups_ignores_the_level_of_a_group() -> None:
    """Ranks agree inside each prompt while the prompts' levels run against each other."""
    judged = np.array([[0.1, 0.2, 0.3], [0.7, 0.8, 0.9]] * 6)
    scores = np.array([[11.0, 12.0, 13.0], [1.0, 2.0, 3.0]] * 6)
    interval, pairs = within_groups(scores, judged)
    assert interval.value == interval.high == 1.0 and pairs == 1.0
    # Twelve prompts that all agree: a thirteenth may not, 1 - .025^(1/12) of them at most.
    assert 0.3 < interval.low < 1 - (1 - 0.025 ** (1 / 12))
    assert stats.spearmanr(scores.ravel(), judged.ravel()).statistic < 0
    noise = np.random.default_rng(0).normal(size=(300, 6))
    interval, pairs = within_groups(noise, np.random.default_rng(1).normal(size=(300, 6)))
    assert interval.low < 0 < interval.high and abs(pairs - 0.5) < 0.03


def test_groups_without_spread_are_left_out() -> None:
    interval, _ = within_groups(np.array([[1.0, 2, 3], [1, 2, 3]]), np.array([[5.0, 5, 5], [1, 2, 3]]))
    assert interval.clusters == 1


@pytest.fixture(scope="module")
def material(inputs: tuple[Path, Path]) -> LadderSources:
    return gather(Corpus.open(inputs[0]), open_artifact(inputs[1], step="generator"), 0.5, 0)


def brightness(frames: Tensor, statistics: Tensor | None) -> Tensor:
    return frames.float().mean(dim=(1, 2, 3, 4)) / 255.0


def bright(frames: Tensor, statistics: Tensor | None) -> Rating:
    score = brightness(frames, statistics)
    return Rating(score, torch.full_like(score, 0.01), {"spatial": score, "temporal": -score})


def alone(frames: Tensor, statistics: Tensor | None) -> Rating:
    """Without an ensemble."""
    return Rating(brightness(frames, statistics), torch.zeros(len(frames)), {})


def test_everything_is_measured_on_real_material(material: LadderSources, tmp_path: Path) -> None:
    """A reward that is brightness: darkening is seen through, brightening is not."""
    found = measure(
        bright, material, CardParams(contents_per_type=1, attacks=4), heldout_types=("darken",), seed=0,
        stop=StopSignal(), cache=tmp_path / "labels",
    )  # fmt: skip
    card, held = found.card, found.ladders
    assert found.scores.shape == (len(held), 6) and held.frames.numel() == 0
    assert {"world", "footage", "all", "heldout_types", "generated", "heldout_types_generated"} == set(
        card.columns
    )
    assert card.columns["heldout_types"].ladders == 2
    assert card.by_type["darken"]["adjacent"] == 1.0 and card.by_type["brighten"]["adjacent"] == 0.0
    assert set(card.baselines) == {"niqe", "brisque", "laplacian_variance", "temporal_difference_energy"}
    assert all(set(rival) == set(card.columns) for rival in card.baselines.values())
    assert card.baselines["niqe"]["world"].clips == card.columns["world"].clips
    assert set(card.attacks) == {"world", "footage", "generated"}
    assert card.time_reversal_change == pytest.approx(0.0, abs=1e-4)
    assert card.judge is not None and card.uncertainty is not None and card.stillness is not None
    assert "few_steps" in " ".join(card.unavailable)
    assert card.data["heldout_types"] == ["darken"] and card.data["sources"]["world"]["contents"] == 6
    # The scores are those of the ladders' own clips: the darkest level is the darkest.
    dark = found.scores[[recipe == ("darken",) for recipe in held.recipes]]
    assert all(a > b for row in dark for a, b in pairwise(row))


def test_a_small_budget_and_one_source(material: LadderSources) -> None:
    params = CardParams(contents_per_type=1, attacks=4, baselines=False)
    found = measure(alone, replace(material, test={}), params, heldout_types=(), seed=0, stop=StopSignal())
    assert set(found.card.columns) == {"generated"} and not found.card.baselines
    assert found.card.uncertainty is None and set(found.card.attacks) == {"generated"}
    assert set(found.ladders.sources) == {"generated"}
    assert "no world clips" in found.card.unavailable["world"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_one_clear_line(material: LadderSources, value: float) -> None:
    params = CardParams(contents_per_type=1, attacks=4, baselines=False)
    with pytest.raises(InputError, match="held-out clips got a score that is not a finite number") as caught:
        measure(
            lambda clips, _: Rating(torch.full((len(clips),), value), torch.zeros(len(clips)), {}),
            replace(material, test={}), params, heldout_types=(), seed=0, stop=StopSignal(),
        )  # fmt: skip
    assert "\n" not in str(caught.value)


def test_constant_scores_are_measured_and_pass_nothing(ladders: Ladders) -> None:
    flat = np.full((len(ladders), 6), 3.0)
    column = measure_column(flat, ladders)
    assert column.srcc is None and column.plcc is None and column.pairs_ordered == 0.0
    assert {row["pairs_world"] for row in by_type(flat, ladders).values()} == {0.0}
    equal = ladders.where([True] * 6)
    equal.labels[:] = 0.5
    found = measure_column(labels(ladders), equal)
    assert found.srcc is None and found.plcc is None and found.pairs_ordered == 1.0


def test_the_generators_own_attacks_stand_with_its_samples(material: LadderSources, repository: Path) -> None:
    family = load_family(repository / "models" / "miniature", torch.device("cpu"))
    params = CardParams(contents_per_type=1, attacks=4, generator_attacks=3, baselines=False)
    found = measure(
        alone, replace(material, test={}), params, heldout_types=(), seed=0, stop=StopSignal(),
        generator=Generator(family, SamplingParams()),
    )  # fmt: skip
    tried = found.card.attacks["generated"]
    assert {"frozen", "few_steps", "early_checkpoint"} <= set(tried)
    for attack in ("few_steps", "early_checkpoint"):
        assert tried[attack].clips + tried[attack].same == 3 and tried[attack].clips > 0
        assert attack not in " ".join(found.card.unavailable)


def test_throughput_counts_clips_of_every_source(material: LadderSources) -> None:
    sizes: list[int] = []

    def score(frames: Tensor, statistics: Tensor | None) -> Tensor:
        sizes.append(len(frames))
        return brightness(frames, statistics)

    found = throughput(score, material.test, most=8)
    assert sizes == [8] and found["clips_per_second"] > 0
    share = found["megapixels_per_second"] / found["clips_per_second"]
    assert share == pytest.approx(5 * 32 * 32 / 1e6)
