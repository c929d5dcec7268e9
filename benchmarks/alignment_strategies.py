"""Online against offline against best-of-N fine-tuning, at the same number of generated clips.

    python benchmarks/alignment_strategies.py [--arms ARM ...] [--seeds N ...] [--set SECTION.KEY=VALUE ...]
        [--corpus DIR] [--generator DIR] [--reward DIR] [--out DIR] [--report-only]

Every arm at every seed is an alignment and an evaluation of its own, by the same reward, on the same held-out
prompts and seeds. An arm is a strategy, or `strategy+objective` (online+sdpo). What is done is kept in
--out: the same command goes on, and several at once share the arms among them. No guard ends an arm and no
prompt is held back, so that all arms draw as many clips; --set may say otherwise.

Writes strategies.md, strategies.json and strategies.png in --out over the arms that are done.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from alignment_arms import INPUTS, align_and_evaluate, exit_code_of, load, make_parser
from earlier_results import is_done
from numpy.typing import NDArray

from components.alignment.params import AlignmentParams
from components.evaluation.params import EvaluationParams
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.errors import InputError
from components.runtime.io.files import file_lock
from components.runtime.stats import Interval, clustered_mean

Array = NDArray[np.float64]

#: Every arm runs to its end, on all training prompts.
FIXED = ("alignment.guards.every=0", "alignment.guards.drift_limit=1e9")

SCORES = ("reward", "judge")
WIN = {score: f"win by {score}" for score in SCORES}
#: Figures of the evaluation that the reward does not see, and where they should lie.
GUARDS = {"motion_ratio": "motion", "diversity_ratio": "diversity", "worst_semantic_delta": "worst semantic"}
#: Figures of the alignment itself.
TRAINING = {"clips": "clips", "pairs": "pairs", "updates": "updates", "drift_from_base": "drift"}


@dataclass(frozen=True)
class Arm:
    """One alignment and its evaluation."""

    name: str
    seed: int

    @property
    def label(self) -> str:
        """Its folder's name."""
        return f"{self.name}-seed{self.seed}"

    def overrides(self) -> list[str]:
        """The params that make it."""
        strategy, _, objective = self.name.partition("+")
        found = [f"alignment.strategy={strategy}", f"run.seed={self.seed}"]
        return found + ([f"alignment.loss={objective}"] if objective else [])


@dataclass(frozen=True)
class Result:
    """What an arm came to: per prompt, means over the evaluation's seeds.

    Attributes:
        wins: by score, shares of won pairs (P,), a tie counting half; a score that is not there is left out.
        gains: by score, aligned less base (P,).
        figures: of the guards and of the training.
    """

    arm: Arm
    prompts: tuple[str, ...]
    wins: dict[str, Array]
    gains: dict[str, Array]
    figures: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the arms that are left, then reports."""
    parser = make_parser(__doc__, ["online", "offline", "best_of_n"], "artifacts/strategies")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    options = parser.parse_args(arguments)
    arms = [Arm(name, seed) for seed in options.seeds for name in options.arms]

    def go() -> None:
        # The evaluation has the default run's seed: the same prompts for every arm.
        evaluation = load(EvaluationParams, "evaluation", options.set)
        settings = {
            arm: load(AlignmentParams, "alignment", [*options.set, *arm.overrides()], FIXED) for arm in arms
        }
        inputs = {name: Path(getattr(options, name)) for name in INPUTS}
        for arm in arms if not options.report_only else ():
            with _claimed(options.out / f".{arm.label}.lock") as claimed:
                if claimed:
                    align_and_evaluate(options.out / arm.label, settings[arm], evaluation, inputs)
                else:
                    print(f"{arm.label}: another process has it, passed over", flush=True)
        results = [read(options.out / arm.label, arm, settings[arm], evaluation) for arm in arms]
        report(options.out, [result for result in results if result is not None])

    return exit_code_of(go)


@contextmanager
def _claimed(lock: Path) -> Iterator[bool]:
    """Whether this process has the arm, and no other."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(file_lock(lock, timeout_s=0))
        except TimeoutError:
            yield False
            return
        yield True


def read(folder: Path, arm: Arm, alignment: AlignmentParams, evaluation: EvaluationParams) -> Result | None:
    """An arm's result, or None where it is not done."""
    if not (is_done(folder / "alignment", alignment) and is_done(folder / "evaluation", evaluation)):
        return None
    opened = open_artifact(folder / "evaluation", step="evaluation")
    rows = [json.loads(line) for line in opened.file("pairs.jsonl").read_text().splitlines()]
    prompts = tuple(dict.fromkeys(row["prompt_id"] for row in rows))
    ties = {"reward": evaluation.tie_reward, "judge": evaluation.tie_judge}
    wins, gains = {}, {}
    for score in SCORES:
        pairs = [(row["base"].get(score), row["aligned"].get(score)) for row in rows]
        if any(value is None for pair in pairs for value in pair):
            continue
        gain = np.array([after - before for before, after in pairs])
        won = np.where(np.abs(gain) <= ties[score], 0.5, (gain > 0).astype(float))
        wins[score], gains[score] = (_by_prompt(values, rows, prompts) for values in (won, gain))
    figures = opened.metrics() | open_artifact(folder / "alignment", step="alignment").metrics()
    wanted = {name: figures[name] for name in (*GUARDS, *TRAINING) if name in figures}
    return Result(arm, prompts, wins, gains, wanted)


def _by_prompt(values: Array, rows: Sequence[dict[str, Any]], prompts: Sequence[str]) -> Array:
    places = {prompt: number for number, prompt in enumerate(prompts)}
    index = np.array([places[row["prompt_id"]] for row in rows])
    sums = np.bincount(index, weights=values, minlength=len(prompts))
    means: Array = sums / np.bincount(index, minlength=len(prompts))
    return means


def over_prompts(values: Sequence[Array]) -> Interval:
    """Mean of a value per prompt (P,) of each training seed, with its interval by prompt.

    All seeds were judged on the same prompts, so that a prompt's values are one observation.
    """
    return clustered_mean(np.mean(values, axis=0), range(len(values[0])))


def in_words(interval: Interval) -> str:
    """An estimate with its interval."""
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


@dataclass(frozen=True)
class Summary:
    """The arms of one name together."""

    name: str
    seeds: tuple[int, ...]
    wins: dict[str, Interval]
    gains: dict[str, Interval]
    by_seed: dict[str, list[float]]
    figures: dict[str, list[float]]


def summarise(results: Sequence[Result]) -> list[Summary]:
    """One summary for each name, in the order given.

    Raises:
        InputError: arms were evaluated on different prompts.
    """
    if len({result.prompts for result in results}) > 1:
        raise InputError("arms were evaluated on different prompts; they cannot be compared")
    found = []
    for name in dict.fromkeys(result.arm.name for result in results):
        mine = [result for result in results if result.arm.name == name]
        scores = [score for score in SCORES if all(score in result.wins for result in mine)]
        found.append(
            Summary(
                name,
                tuple(result.arm.seed for result in mine),
                {score: over_prompts([r.wins[score] for r in mine]) for score in scores},
                {score: over_prompts([r.gains[score] for r in mine]) for score in scores},
                {score: [float(r.wins[score].mean()) for r in mine] for score in scores},
                {n: [r.figures[n] for r in mine] for n in (*GUARDS, *TRAINING) if n in mine[0].figures},
            )
        )
    return found


def differences(results: Sequence[Result]) -> dict[str, dict[str, Interval]]:
    """The first name's gains and wins less each other name's, by score, over the seeds that both have."""
    names = list(dict.fromkeys(result.arm.name for result in results))
    by_arm = {(result.arm.name, result.arm.seed): result for result in results}
    found: dict[str, dict[str, Interval]] = {}
    for other in names[1:]:
        seeds = [seed for name, seed in by_arm if name == names[0] and (other, seed) in by_arm]
        for score in SCORES:
            pairs = [(by_arm[names[0], seed], by_arm[other, seed]) for seed in seeds]
            if pairs and all(score in side.gains for pair in pairs for side in pair):
                by = found.setdefault(f"{names[0]} - {other}", {})
                by[score] = over_prompts([one.gains[score] - two.gains[score] for one, two in pairs])
                by[WIN[score]] = over_prompts([one.wins[score] - two.wins[score] for one, two in pairs])
    return found


def report(folder: Path, results: Sequence[Result]) -> None:
    """Print the table and write it, its figures and the plot."""
    if not results:
        print("no arm is done yet", flush=True)
        return
    summaries, apart = summarise(results), differences(results)
    text = table(summaries, apart, len(results[0].prompts))
    (folder / "strategies.md").write_text(text)
    figures = {
        "arms": [asdict(one) for one in summaries],
        "differences": {n: {s: asdict(i) for s, i in by.items()} for n, by in apart.items()},
    }
    (folder / "strategies.json").write_text(json.dumps(figures, indent=1) + "\n")
    plot(folder / "strategies.png", summaries)
    print(text, flush=True)


def table(summaries: Sequence[Summary], apart: dict[str, dict[str, Interval]], prompts: int) -> str:
    """Markdown: wins with intervals, guards and training by arm, then the first arm less the others."""
    head = ["arm", "seeds", "win by judge", "win by reward", *GUARDS.values(), *TRAINING.values()]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for one in summaries:
        cells = [one.name, ", ".join(map(str, one.seeds))]
        for score in ("judge", "reward"):
            each = " / ".join(f"{value:.2f}" for value in one.by_seed.get(score, ()))
            cells.append(f"{in_words(one.wins[score])} ({each})" if score in one.wins else "unavailable")
        for name in (*GUARDS, *TRAINING):
            cells.append(" / ".join(f"{value:.4g}" for value in one.figures.get(name, ())) or "unavailable")
        lines.append(f"| {' | '.join(cells)} |")
    columns = ("judge", "reward", WIN["judge"], WIN["reward"])
    lines += ["", "| difference | gain by judge | gain by reward | win by judge | win by reward |"]
    lines.append("|---|---|---|---|---|")
    for name, by in apart.items():
        cells = [in_words(by[score]) if score in by else "unavailable" for score in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        f"Against the base on {prompts} held-out prompts, same prompts and seeds for every arm. Intervals: "
        "95 % by prompt, of the mean over training seeds; in round brackets and the other columns is one "
        "figure per seed. motion and diversity are shares of the base's, worst semantic is the lowest "
        "change of a semantic score.",
        "",
    ]
    return "\n".join(lines)


def plot(file: Path, summaries: Sequence[Summary]) -> None:
    """Wins by score with intervals and one dot per seed; beside them motion and diversity."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 4))
    places = np.arange(len(summaries))
    inks = ("#3b6ea5", "#a53b6e")
    for number, (score, ink) in enumerate(zip(("judge", "reward"), inks, strict=True)):
        at = places + 0.2 * (number - 0.5)
        for place, one in zip(at, summaries, strict=True):
            if score not in one.wins:
                continue
            win = one.wins[score]
            ends = [[max(0.0, win.value - win.low)], [max(0.0, win.high - win.value)]]
            panels[0].errorbar(place, win.value, yerr=ends, fmt="s", color=ink, capsize=4)
            each = one.by_seed[score]
            panels[0].plot([place + 0.06] * len(each), each, ".", color=ink, alpha=0.5)
        panels[0].plot([], [], "s", color=ink, label=f"by {score}")
    panels[0].axhline(0.5, color="grey", linewidth=0.8)
    panels[0].set(ylabel="win rate against the base", ylim=(-0.03, 1.03))
    for number, (name, ink) in enumerate(zip(("motion_ratio", "diversity_ratio"), inks, strict=True)):
        for place, one in zip(places + 0.2 * (number - 0.5), summaries, strict=True):
            each = one.figures.get(name, [])
            panels[1].plot([place] * len(each), each, "o", color=ink, alpha=0.7)
        panels[1].plot([], [], "o", color=ink, label=GUARDS[name])
    panels[1].axhline(1.0, color="grey", linewidth=0.8)
    panels[1].set(ylabel="share of the base's")
    for panel in panels:
        panel.set_xticks(places, [one.name for one in summaries])
        panel.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
        panel.set_xlim(-0.5, len(summaries) - 0.5)
        panel.grid(axis="y", alpha=0.3)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
