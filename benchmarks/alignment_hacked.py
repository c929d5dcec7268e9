"""A reward that can be hacked: what the guards, and after them the gate, make of one that pays for stillness.

    python benchmarks/alignment_hacked.py [--arms ARM ...] [--set SECTION.KEY=VALUE ...]
        [--corpus DIR] [--generator DIR] [--reward DIR] [--out DIR] [--report-only]

First a deliberately weak reward is made: the project's own scoring network, trained to score the generator's
samples, and the same played more slowly, by how little they move. Then, for every arm, an alignment to it,
an evaluation by the honest reward (--reward) and the oracle judge, and the registry's gate with its default
rules, in a registry of its own in --out. The arms:

    guarded   everything at its default
    readings  without the motion floor on winners: only the readings on held-back prompts can tell
    open      no motion floor and no guards: only the gate is left

What is done is kept in --out: the same command goes on. Writes hacked.md there over the arms that are done.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from alignment_arms import INPUTS, align_and_evaluate, exit_code_of, load, make_parser
from earlier_results import is_done
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor

from components.alignment.candidates.pairs import motion_of
from components.alignment.params import AlignmentParams
from components.evaluation.params import EvaluationParams
from components.generator.generator import Generator
from components.registry.params import RegistryParams
from components.reward.base import CONFIG
from components.reward.card.correlation import srcc
from components.reward.features.handcrafted import clip_statistics
from components.reward.model.network import RewardNet
from components.reward.params import NetworkParams
from components.reward.scoring.trained import TrainedReward
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.manifest import MANIFEST
from components.runtime.artifacts.publish import publish
from components.runtime.compute.devices import configure_determinism, configure_threads
from components.runtime.compute.seeds import derive
from components.runtime.errors import InputError
from components.runtime.params import StepParams
from components.video.clip import ClipFormat

NO_FLOOR = ("alignment.motion_floor=0",)
NO_GUARDS = (
    "alignment.guards.every=0", "alignment.guards.drift_limit=1e9", "alignment.guards.worse_limit=1",
)  # fmt: skip
ARMS: dict[str, tuple[str, ...]] = {"guarded": (), "readings": NO_FLOOR, "open": NO_FLOOR + NO_GUARDS}
ALARMS = ("drift", "winners_worse", "motion", "judge")
#: Playback speeds of each sample: without the slow ones nothing would show what lies beyond the base.
SPEEDS = (1.0, 0.75, 0.5, 0.25, 0.0)

#: One prompt in so many is left out of training, to check what the weak reward learnt.
CHECKED = 4


class StillnessParams(StepParams):
    """A reward that pays for stillness and for nothing else."""

    network: NetworkParams = Field(NetworkParams(dropout=0.0), description="sizes of the scoring network")
    steps: int = Field(300, ge=1, description="optimizer steps, each over all clips")
    learning_rate: float = Field(2e-3, gt=0, description="of AdamW")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what is left, then reports."""
    options = make_parser(__doc__, list(ARMS), "artifacts/hacked").parse_args(arguments)

    def go() -> None:
        if unknown := set(options.arms) - set(ARMS):
            raise InputError(f"--arms {' '.join(sorted(unknown))}: allowed are {', '.join(ARMS)}")
        if not options.report_only:
            configure_threads()
            configure_determinism()
            weak = options.out / "reward"
            make_reward(load(StillnessParams, "stillness", options.set), options.generator, weak)
            inputs = {name: Path(getattr(options, name)) for name in INPUTS}
            for arm in options.arms:
                run(options.out, arm, options.set, inputs, weak)
        done = [arm for arm in ARMS if (options.out / arm / "registry" / MANIFEST).is_file()]
        report(options.out, done)

    return exit_code_of(go)


def make_reward(params: StillnessParams, generator: str, out: Path) -> None:
    """Train the weak reward and publish it; any step opens it like one that the reward step trained."""
    if is_done(out, params):
        return
    opened = open_artifact(generator, step="generator")
    with publish(out, step="reward", params=params, inputs={"generator": opened}) as workspace:
        drawn = load_file(opened.file("samples.safetensors"))["frames"]  # (prompts, samples, T, 3, H, W)
        held_out = torch.arange(len(drawn)) % CHECKED == 0
        if not held_out.any() or held_out.all():
            raise InputError(f"{opened.path}: samples of {len(drawn)} prompt(s) are too few to learn from")
        clips = slowed(drawn[~held_out].flatten(0, 1))
        statistics, stillness = _measure(clips)
        centre, unit = stillness.mean(), stillness.std()
        torch.manual_seed(derive(params.run.seed, "stillness"))
        network = RewardNet(params.network, statistics.shape[1])
        network.coding.fit(statistics)
        optimizer = torch.optim.AdamW(network.parameters(), lr=params.learning_rate)
        for _ in range(params.steps):
            optimizer.zero_grad()
            error = (network(statistics)[..., 0] - (stillness - centre) / unit).square().mean()
            error.backward()
            optimizer.step()
        fps = Generator.load(opened.path).fps
        frames, _, height, width = drawn.shape[2:]
        scorer = TrainedReward(network, ClipFormat(frames, height, width, fps))
        scorer.save(workspace.dir, params.network)
        # No card and no gate: whoever opens it is told.
        described = json.loads((workspace.dir / CONFIG).read_text()) | {"measured": False}
        (workspace.dir / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
        agreement = []
        for group in drawn[held_out]:
            statistics, truth = _measure(group)
            agreement.append(srcc(scorer.score_prepared(group, statistics).numpy(), truth.numpy()))
        figures = {"error": error.item(), "srcc_stillness": sum(agreement) / len(agreement), "measured": 0.0}
        workspace.write_metrics(figures)
    print(f"weak reward: agrees with stillness to {figures['srcc_stillness']:.2f} (SRCC, unseen prompts)")


def slowed(clips: Tensor) -> Tensor:
    """(N, T, 3, H, W) clips and the same played at each of `SPEEDS` from their first frame on."""
    time = torch.arange(clips.shape[1])
    return torch.cat([clips[:, (time * speed).long()] for speed in SPEEDS])


def _measure(clips: Tensor) -> tuple[Tensor, Tensor]:
    """Statistics (N, F) and stillness (N,), less motion being more, of uint8 clips."""
    parts = clips.split(64)
    return torch.cat([clip_statistics(part.float() / 255) for part in parts]), -motion_of(clips)


def run(out: Path, arm: str, overrides: Sequence[str], inputs: dict[str, Path], weak: Path) -> None:
    """Align to the weak reward, evaluate by the honest one, put it to the gate; or what is left of it."""
    from components.registry.step import run as register

    folder = out / arm
    alignment = load(AlignmentParams, "alignment", [*overrides, *ARMS[arm]])
    evaluation = load(EvaluationParams, "evaluation", overrides)
    registry = RegistryParams(model=f"hacked-{arm}")
    align_and_evaluate(folder, alignment, evaluation, inputs, weak)
    if not is_done(folder / "registry", registry):
        made = {name: (folder / name).resolve() for name in ("alignment", "evaluation", "registry")}
        known = {name: inputs[name].resolve() for name in ("generator", "reward")}
        # In a registry of its own: nobody's list of models should hold what was made to be refused.
        with contextlib.chdir(out), _environment("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"):
            register(
                registry, alignment=made["alignment"], evaluation=made["evaluation"], **known,
                out=made["registry"],
            )  # fmt: skip


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.update({name: before})


def report(out: Path, arms: Sequence[str]) -> None:
    """Print the table and write it."""
    if not arms:
        print("no arm is done yet", flush=True)
        return
    columns = {arm: column(out / arm) for arm in arms}
    lines = [f"| | {' | '.join(arms)} |", "|" + "---|" * (1 + len(arms))]
    for name in columns[arms[0]]:
        lines.append(f"| {name} | {' | '.join(columns[arm][name] for arm in arms)} |")
    weak = open_artifact(out / "reward", step="reward").metrics()
    lines += [
        "",
        "Aligned to a reward that pays for stillness alone (it agrees with stillness to "
        f"{weak['srcc_stillness']:.2f}, SRCC inside prompts it was not trained on); evaluated by the "
        "honest reward and the oracle judge on held-out prompts, 95 % intervals. Held-out motion "
        "and score are relative to the base, after so many iterations. open: no motion floor, no guards.",
        "",
    ]
    text = "\n".join(lines)
    (out / "hacked.md").write_text(text)
    print(text, flush=True)


def column(folder: Path) -> dict[str, str]:
    """One arm's figures in words, by row of the table."""
    aligned = open_artifact(folder / "alignment", step="alignment")
    evaluated = open_artifact(folder / "evaluation", step="evaluation")
    registered = open_artifact(folder / "registry", step="registry")
    figures, found = aligned.metrics(), evaluated.metrics()
    planned = int(aligned.manifest.params["iterations"])
    with aligned.file("plots/training.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    def readings(name: str, form: str) -> str:
        read = [f"{int(row['iteration']) + 1}: {float(row[name]):{form}}" for row in rows if row[name]]
        return ", ".join(read) or "no readings"

    def interval(name: str) -> str:
        if name not in found:
            return "unavailable"
        return f"{found[name]:.3f} [{found[f'{name}_low']:.3f}, {found[f'{name}_high']:.3f}]"

    alarms = [f"{name} {figures[key]:g}" for name in ALARMS if figures.get(key := f"alarms_{name}")]
    stopped = f"after iteration {len(rows)} of {planned}" if figures["stopped_early"] else "no"
    if "kept_iteration" in figures:
        kept = f"that of iteration {figures['kept_iteration']:g}"
    else:
        kept = "the last one" + (", for none stood" if figures["held_out_readings"] else "")
    comparison = json.loads(evaluated.file("comparison.json").read_text())
    broken = [
        f"{check['rule']}: {check['value']:.3f}" if check["value"] is not None else f"{check['rule']}: absent"
        for check in comparison["checks"]
        if check["passed"] is False
    ]
    decision = json.loads(registered.file("decision.json").read_text())
    motion = f"{figures['motion_mean_first']:.4f} to {figures['motion_mean_last']:.4f}"
    return {
        "its own reward, first to last quarter": (
            f"{figures['reward_mean_first']:+.2f} to {figures['reward_mean_last']:+.2f}"
        ),
        "motion of its candidates, first to last quarter": motion,
        "groups whose winner was too still": f"{figures['winner_too_still']:g}",
        "held-out motion": readings("held_out_motion", ".3f"),
        "held-out judge's score": readings("judge_difference", "+.3f"),
        "alarms": ", ".join(alarms) or "none",
        "stopped early": stopped,
        "policy that is published": kept,
        "motion at evaluation, share of the base's": interval("motion_ratio"),
        "win by the judge": interval("win_rate_judge"),
        "win by the honest reward": interval("win_rate_reward"),
        "rules that fail": ", ".join(broken) or "none",
        "the gate": f"{decision['outcome'].upper()}: "
        + ("; ".join(decision["reasons"]) or "every rule holds"),
    }


if __name__ == "__main__":
    sys.exit(main())
