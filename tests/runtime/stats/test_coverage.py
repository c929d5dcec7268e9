"""Every interval that a decision uses holds the truth as often as it says, and a null model seldom wins.

The short version runs a few settings by default; `make test-slow` runs all of them, 2,000 sets each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from components.evaluation.comparison.paired import compare
from components.runtime.stats import Clusters, Interval
from tests.runtime.stats.coverage import (
    SETTINGS,
    Array,
    changed,
    covered,
    exponential,
    latent,
    lognormal,
    normal,
    won,
)

Shape = Callable[[Array], Array]
CONTINUOUS: dict[str, tuple[Shape, float]] = {
    "normal": (normal, 0.0),
    "exponential": (exponential, 1.0),
    "lognormal": (lognormal, 1.0),
}
RATES = (0.5, 0.8, 0.95)
CHANGES = ((0.0, 0.01), (0.0, 0.03), (0.02, 0.05), (0.1, 0.1), (0.0, 0.3), (0.2, 0.3))
SHORT = [(10, 5, 0.6), (20, 5, 0.6), (96, 5, 0.6)]


def labels(clusters: int, each: int) -> Clusters:
    return Clusters(np.repeat(np.arange(clusters), each).tolist())


def mean_of(
    setting: tuple[int, int, float], shape: Shape, bound: float | None = None
) -> Callable[[np.random.Generator], Interval]:
    clusters, each, icc = setting
    grouped = labels(clusters, each)
    return lambda rng: grouped.mean(shape(latent(rng, clusters, each, icc)), bound)


def noise(sets: int) -> float:
    """One standard error of a coverage of .95."""
    return float(np.sqrt(0.95 * 0.05 / sets))


def check_mean(setting: tuple[int, int, float], name: str, sets: int) -> None:
    shape, truth = CONTINUOUS[name]
    found = covered(mean_of(setting, shape), truth, sets)
    assert 0.93 - noise(sets) <= found.held <= 0.97 + noise(sets), found


def check_rate(setting: tuple[int, int, float], chance: float, sets: int) -> None:
    clusters, each, icc = setting
    grouped, shape = labels(clusters, each), won(chance)
    found = covered(lambda rng: grouped.rate(shape(latent(rng, clusters, each, icc))), chance, sets)
    assert found.held >= 0.93, found
    # An exact interval of a count holds the truth more often than it says where the count is small.
    if clusters >= 96 and chance < 0.9:
        assert found.held <= 0.98, found
    assert found.above <= 0.045, found


def check_change(setting: tuple[int, int, float], chances: tuple[float, float], sets: int) -> None:
    found = covered(mean_of(setting, changed(*chances), 1.0), chances[0] - chances[1], sets)
    assert found.held >= 0.925, found
    if setting[0] >= 96 and min(chances) >= 0.1:
        assert found.held <= 0.97, found


def check_ratio(setting: tuple[int, int, float], sets: int) -> None:
    """Motion, say: skewed, and the aligned clips' is .9 of the base's on average, clip by clip."""
    clusters, each, icc = setting
    grouped = labels(clusters, each)

    def drawn(rng: np.random.Generator) -> Interval:
        base = np.exp(0.5 * latent(rng, clusters, each, icc))
        return grouped.ratio(0.9 * base * np.exp(0.3 * latent(rng, clusters, each, icc) - 0.045), base)

    found = covered(drawn, 0.9, sets)
    assert 0.93 - noise(sets) <= found.held <= 0.97 + noise(sets), found


def wins_of_nothing(setting: tuple[int, int, float], sets: int) -> float:
    """How often a model that is the same as its base "wins", by the verdict's own reading."""
    clusters, each, icc = setting
    rng, zeros = np.random.default_rng(1), np.zeros(clusters * each)
    grouped = Clusters(np.repeat(np.arange(clusters), each).tolist(), 10, np.random.default_rng(2))
    return float(
        np.mean(
            [
                compare(zeros, latent(rng, clusters, each, icc), grouped, bound=1.0).rate.low > 0.5
                for _ in range(sets)
            ]
        )
    )


def passes_at_the_margin(
    setting: tuple[int, int, float], shape: Shape, truth: float, bound: float | None, sets: int
) -> float:
    """How often a model that is worse by exactly the margin is found not inferior."""
    return covered(mean_of(setting, shape, bound), truth, sets, seed=3).above


@pytest.mark.parametrize("setting", SHORT, ids=str)
def test_intervals_cover_what_they_say(setting: tuple[int, int, float]) -> None:
    check_mean(setting, "exponential", 500)
    check_rate(setting, 0.8, 500)
    check_change(setting, (0.0, 0.03), 500)
    check_ratio(setting, 500)


@pytest.mark.parametrize("setting", SHORT, ids=str)
def test_a_null_model_wins_in_one_of_forty_runs(setting: tuple[int, int, float]) -> None:
    assert wins_of_nothing(setting, 1000) <= 0.035


@pytest.mark.parametrize("setting", [(10, 5, 0.6), (20, 5, 0.6)], ids=str)
def test_a_model_at_the_margin_passes_in_one_of_forty_runs(setting: tuple[int, int, float]) -> None:
    assert 0.01 <= passes_at_the_margin(setting, normal, 0.0, None, 1000) <= 0.035
    assert passes_at_the_margin(setting, changed(0.0, 0.03), -0.03, 1.0, 1000) <= 0.035


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_means_cover_what_they_say(name: str, setting: tuple[int, int, float]) -> None:
    check_mean(setting, name, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("chance", RATES)
def test_rates_cover_what_they_say(chance: float, setting: tuple[int, int, float]) -> None:
    check_rate(setting, chance, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
@pytest.mark.parametrize("chances", CHANGES, ids=str)
def test_changes_of_yes_or_no_cover_what_they_say(
    chances: tuple[float, float], setting: tuple[int, int, float]
) -> None:
    check_change(setting, chances, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_ratios_cover_what_they_say(setting: tuple[int, int, float]) -> None:
    check_ratio(setting, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_null_model_seldom_wins(setting: tuple[int, int, float]) -> None:
    assert wins_of_nothing(setting, 2000) <= 0.034


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_a_model_at_the_margin_seldom_passes(setting: tuple[int, int, float]) -> None:
    for shape, truth in CONTINUOUS.values():
        assert passes_at_the_margin(setting, shape, truth, None, 2000) <= 0.034
    for rise, fall in CHANGES:
        found = passes_at_the_margin(setting, changed(rise, fall), rise - fall, 1.0, 2000)
        assert found <= 0.065, (rise, fall)


def test_the_registrys_interval_is_the_same_one() -> None:
    """`components.registry.gate.champion` compares rows; 20 prompts x 5 at the margin, as above."""
    from components.registry.gate.champion import difference

    rng, passed = np.random.default_rng(4), 0
    keys = [{"prompt_id": str(i // 5), "index": i % 5, "seed": i} for i in range(100)]
    for _ in range(500):
        values: Array = 0.1 * latent(rng, 20, 5, 0.6) - 0.02
        mine = [key | {"aligned": {"judge": 0.5 + value}} for key, value in zip(keys, values, strict=True)]
        theirs = [key | {"aligned": {"judge": 0.5}} for key in keys]
        found = difference(mine, theirs, "judge")
        assert found is not None and found.known
        passed += found.low >= -0.02
    assert 0.008 <= passed / 500 <= 0.042
