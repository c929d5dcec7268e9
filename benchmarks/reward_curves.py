"""What limits the reward: its figures on held-out content against training time, label noise and contents.

    python benchmarks/reward_curves.py [--corpus DIR] [--generator DIR] [--photographs DIR] [--out PREFIX]

Every point is a training of its own on the ladders of the default run, measured on the ladders of its card.
Writes PREFIX.csv and PREFIX.png.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from components.corpus.camera import draw_move, film
from components.corpus.dataset import Corpus
from components.reward.card.agreement import measure_column
from components.reward.card.heldout import built, pieces, pools
from components.reward.ladders.ladder import Ladders, join, seen_types
from components.reward.ladders.plan import ShardPlan, plan_of
from components.reward.ladders.shards import ShardFolder
from components.reward.ladders.sources import LadderSources, Pool, SourceClips, gather
from components.reward.model.training import train
from components.reward.params import RewardParams
from components.runtime.artifacts.artifact import cache_dir, open_artifact
from components.runtime.compute.devices import configure_threads
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.compute.seeds import derive, numpy_rng, torch_generator
from components.runtime.compute.signals import StopSignal

STEPS = (60, 125, 250, 500, 1000, 2000, 4000)
NOISE = (0.0, 0.05, 0.1, 0.2, 0.4)
CONTENTS = (1, 2, 4, 7, 10, 20, 40)
SHORT = 500
"""Steps of every training but those that ask what steps do: a quarter of the default's."""
LADDERS = 1000
"""Ladders on footage at each number of contents: contents change, the amount of material does not."""
CLIPS = 20
"""Clips filmed from each photograph that is added."""
SHOWN = ("world", "footage", "heldout_types")


@dataclass(frozen=True)
class Point:
    """One training and its figures."""

    arm: str
    value: float
    seconds: float
    figures: dict[str, float]


def main() -> None:
    """Trains every point, prints and writes them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", default="artifacts/corpus", help="corpus artifact")
    parser.add_argument("--generator", default="artifacts/generator", help="generator artifact")
    parser.add_argument("--photographs", type=Path, help="folder of photographs to add as further contents")
    parser.add_argument("--out", type=Path, default=Path("reward_curves"), help="prefix of the files written")
    given = parser.parse_args()
    configure_threads()
    params = RewardParams()
    material = gather(
        Corpus.open(given.corpus),
        open_artifact(given.generator, step="generator"),
        params.card.prompts,
        params.run.seed,
    )
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(params, material, Path(scratch))
        for point in bench.points(given.photographs):
            found.append(point)
            shown = " ".join(f"{name} {value:.3f}" for name, value in point.figures.items())
            print(f"{point.arm} {point.value:g}: {point.seconds:.0f} s, SRCC {shown}", flush=True)
            _write(given.out, found)  # after each: a run that is stopped keeps what it has


class Bench:
    """Ladders that are built once, and trainings on parts of them."""

    def __init__(self, params: RewardParams, material: LadderSources, scratch: Path) -> None:
        self.params, self.material, self.scratch = params, material, scratch
        self.stop = StopSignal()
        seed = params.run.seed
        self.training = self._built(plan_of(material, params.ladders, seed, cache=cache_dir() / "labels"))
        work = pieces(
            {name: clips for name, clips in pools(material).items() if name != "generated"},
            seen_types(()),
            params.card.contents_per_type,
            derive(seed, "card"),
            cache=cache_dir() / "labels",
        )
        with ProcessPool(1, self.stop) as crew:
            self.held = join([part.ladders.without_frames() for part in built(crew, work)])

    def points(self, photographs: Path | None) -> Iterator[Point]:
        """Every training, one after the other."""
        for steps in STEPS:
            yield self._trained("steps", steps, self.training, steps)
        for noise in NOISE:
            yield self._trained("label noise", noise, _noisy(self.training, noise), SHORT)
        # Neither source of ladders may hide what the number of contents does.
        others = self.training.where([source != "footage" for source in self.training.sources])
        clips = self.material.train["footage"]
        frames, contents = clips.frames[:], clips.contents
        if photographs is not None:
            more, names = filmed(photographs, self.material)
            frames, contents = torch.cat((frames, more)), contents + names
        order = list(dict.fromkeys(contents))
        for count in (count for count in CONTENTS if count <= len(order)):
            rows = [i for i, name in enumerate(contents) if name in order[:count]]
            pool = Pool("footage", SourceClips(frames[rows], [contents[i] for i in rows]), LADDERS, True)
            plan = ShardPlan((pool,), self.params.ladders, derive(self.params.run.seed, "contents", count))
            yield self._trained("contents", count, join([others, self._built(plan)]), SHORT)

    def _built(self, plan: ShardPlan) -> Ladders:
        folder = ShardFolder(self.scratch / f"{len(list(self.scratch.iterdir()))}", plan, self.stop)
        with folder.workers(1):
            return join([folder[number] for number in range(len(folder))])

    def _trained(self, arm: str, value: float, ladders: Ladders, steps: int) -> Point:
        training = self.params.training.model_copy(update={"steps": steps})
        params = self.params.model_copy(update={"training": training})
        began = time.process_time()
        with (
            tempfile.TemporaryDirectory() as checkpoints,
            contextlib.redirect_stderr(io.StringIO()),
        ):
            network, _ = train(
                [ladders],
                params,
                checkpoints=Path(checkpoints),
                stop=self.stop,
                device=torch.device("cpu"),
            )
        seconds = time.process_time() - began
        with torch.no_grad():
            outputs = [
                network(part)[..., 0].mean(0) for part in self.held.statistics.flatten(0, 1).split(2048)
            ]
        scores = torch.cat(outputs).double().reshape(self.held.levels.shape).numpy()
        return Point(arm, value, seconds, self._figures(scores))

    def _figures(self, scores: np.ndarray) -> dict[str, float]:
        seen = set(seen_types(self.params.ladders.heldout_types))
        known = np.asarray([recipe[0] in seen for recipe in self.held.recipes])
        source = np.asarray(self.held.sources)
        masks = {
            "world": known & (source == "world"),
            "footage": known & (source == "footage"),
            "heldout_types": ~known,
        }
        return {
            name: measure_column(scores[mask], self.held.where(mask.tolist())).srcc
            for name, mask in masks.items()
        }


def _noisy(ladders: Ladders, deviation: float) -> Ladders:
    """The ladders with Gaussian noise on every label."""
    noise = torch.randn(ladders.labels.shape, generator=torch_generator(0, "label noise"))
    return replace(ladders, labels=ladders.labels + deviation * noise)


def filmed(folder: Path, material: LadderSources) -> tuple[torch.Tensor, list[str]]:
    """Clips of a camera's moves over every photograph of a folder, and what each one shows."""
    frames, names = [], []
    size = (material.geometry.height, material.geometry.width)
    for file in sorted(folder.iterdir()):
        with Image.open(file) as opened:
            opened.thumbnail((1024, 1024))
            photo = (
                torch.from_numpy(np.asarray(opened.convert("RGB")).copy()).permute(2, 0, 1).float() / 255.0
            )
        rng = numpy_rng(0, "added photograph", file.name)
        for _ in range(CLIPS):
            move = draw_move(rng, (photo.shape[1], photo.shape[2]), size, material.geometry.frames)
            if move is not None:
                frames.append(film(photo, move, size, material.geometry.frames))
                names.append(f"added/{file.stem}")
    return torch.stack(frames), names


def _write(prefix: Path, points: list[Point]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with prefix.with_suffix(".csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["arm", "value", "cpu_seconds", *SHOWN])
        for point in points:
            figures = [f"{point.figures[name]:.4f}" for name in SHOWN]
            writer.writerow([point.arm, f"{point.value:g}", f"{point.seconds:.1f}", *figures])
    figure, panels = plt.subplots(1, 3, figsize=(12, 3.8), sharey=True)
    titles = {
        "steps": "training: CPU seconds of the network",
        "label noise": "noise added to the labels, standard deviation",
        "contents": "contents of footage",
    }
    for axes, (arm, title) in zip(panels, titles.items(), strict=True):
        mine = [point for point in points if point.arm == arm]
        across = [point.seconds if arm == "steps" else point.value for point in mine]
        for name, ink in zip(SHOWN, ("#3b6ea5", "#3b8a5a", "#a53b6e"), strict=True):
            axes.plot(across, [point.figures[name] for point in mine], marker="o", color=ink, label=name)
        axes.set(xlabel=title)
        if arm != "label noise":
            axes.set_xscale("log")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("SRCC on held-out content")
    panels[0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(prefix.with_suffix(".png"), dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
