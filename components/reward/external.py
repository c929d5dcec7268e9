"""Making rewards of models and rewards that are there already: ordinary artifacts, which alignment takes like
one that was trained here.

Such a reward has passed no gate unless its card is measured when it is made, which needs a corpus and a
generator. Without, its config.json says `"measured": false` and its metrics.json `measured` 0, and whoever
opens it is told.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from components.reward.base import Reward, open_reward, scoring_files
from components.reward.params import CardParams, GateParams, LadderParams
from components.reward.scoring.trained import CONFIG
from components.reward.scoring.transformers import MODEL, Description, Regressor, described
from components.reward.scoring.videos import score_files, sources
from components.reward.scoring.weighted_sum import PARTS, Part, Recipe, WeightedSum, scale_of
from components.runtime.artifacts.artifact import Artifact, cache_dir, open_artifact
from components.runtime.artifacts.pretrained import fetch
from components.runtime.artifacts.publish import Workspace, publish
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import GateRefused, InputError, one_line
from components.runtime.params import Section, StepParams
from components.runtime.progress import Progress
from components.runtime.tracking.step_run import track

FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")
"""What belongs to a checkpoint: weights, settings, vocabularies. Pickles are not copied."""


class _MadeParams(StepParams):
    """What every reward made here without training is told; the card's part holds where one is measured."""

    card: CardParams = Field(CardParams(), description="held-out measurements")
    gate: GateParams = Field(GateParams(), description="thresholds of the quality gate")
    heldout_types: tuple[str, ...] = Field(
        LadderParams().heldout_types, description="distortions that the card shows in a column of their own"
    )


class AdoptParams(_MadeParams):
    """A regressor of `transformers` as a reward."""

    model: str = Field(description="folder, s3:// prefix or hub id of the checkpoint")
    frames: int | None = Field(None, ge=2, le=512, description="frames that the model sees of a clip")
    aspects: tuple[str, ...] = Field((), description="names of its outputs, in order")
    text: str | None = Field(None, description="what a model that reads text is told")


class Term(Section):
    """One part of a weighted sum."""

    reward: str = Field(description="folder or s3:// URI of the part")
    weight: float = Field(description="units of the sum for each of its own standard deviations")


class CombineParams(_MadeParams):
    """A weighted sum of rewards."""

    terms: tuple[Term, ...] = Field(min_length=1, description="the parts")
    clips: tuple[str, ...] = Field((), description="videos on which the parts' units are measured")


@dataclass(frozen=True)
class Made:
    """Where the reward is, and its flat metrics."""

    out: Path
    metrics: dict[str, float]


def adopt(
    params: AdoptParams, *, out: str | Path, corpus: str | None = None, generator: str | None = None
) -> Made:
    """Publishes a checkpoint as a reward at `out`, with everything that is needed to run it.

    Raises:
        InputError: no such checkpoint, one that cannot serve as a reward, or one of corpus and generator is
            given without the other.
        GateRefused: its card was measured and fails a threshold; published all the same, marked as refused.
    """
    checkpoint = fetch(params.model, "--model")
    description = described(
        checkpoint, params.model, frames=params.frames, aspects=params.aspects, text=params.text
    )

    def write(folder: Path) -> tuple[Reward, dict[str, float]]:
        _copy(checkpoint, folder / MODEL, FILES)
        reward = Regressor.of(folder / MODEL, description, params.run.device)
        _try(reward, params.model)
        weights = sum(parameter.numel() for parameter in reward.model.parameters())
        return reward, {"parameters": float(weights), "aspects": float(len(description.aspects))}

    return _published(params, out, {"model": checkpoint}, write, description, corpus, generator)


def combine(
    params: CombineParams, *, out: str | Path, corpus: str | None = None, generator: str | None = None
) -> Made:
    """Publishes a weighted sum at `out`, the parts inside it.

    The parts' units are measured on `params.clips`, or without them on the generator's own samples.

    Raises:
        InputError: a part is missing, refused or has no unit; nothing to measure units on.
        GateRefused: as `adopt`.
    """
    if not params.clips and generator is None:
        raise InputError("nothing to measure the parts' units on: give --generator or --clips")
    opened = [open_artifact(term.reward, step="reward") for term in params.terms]
    names = _names([term.reward for term in params.terms])
    samples = None if params.clips or generator is None else open_artifact(generator, step="generator")
    rewards = [open_reward(part, params.run.device) for part in opened]
    calibration, groups, scores = _calibration(rewards, names, params.clips, samples)
    parts = []
    for name, term, values in zip(names, params.terms, scores, strict=True):
        try:
            centre, unit = scale_of(values, groups)
        except InputError as error:
            raise InputError(f"{term.reward}: {error}") from error
        parts.append(Part(name, term.weight, centre, unit))
    recipe = Recipe(tuple(parts), calibration)

    def write(folder: Path) -> tuple[Reward, dict[str, float]]:
        for name, part in zip(names, opened, strict=True):
            for file in scoring_files(part.manifest.files):
                target = folder / PARTS / name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(part.path / file, target)
        figures = {
            f"{part.name}/{key}": float(getattr(part, key)) for part in parts for key in ("weight", "unit")
        }
        return WeightedSum(list(zip(parts, rewards, strict=True))), figures | {"parts": float(len(parts))}

    inputs: dict[str, Path | Artifact] = {
        f"reward/{name}": part for name, part in zip(names, opened, strict=True)
    }
    return _published(params, out, inputs, write, recipe, corpus, generator)


def _published(
    params: AdoptParams | CombineParams,
    out: str | Path,
    inputs: Mapping[str, Path | Artifact],
    write: Callable[[Path], tuple[Reward, dict[str, float]]],
    config: Description | Recipe,
    corpus: str | None,
    generator: str | None,
) -> Made:
    if corpus is not None and generator is None:
        raise InputError("--corpus has no effect without --generator: the card is measured on both")
    given: dict[str, str | Path | Artifact] = dict(inputs)
    if generator is not None:
        given["generator"] = open_artifact(generator, step="generator")
    if corpus is not None:
        given["corpus"] = open_artifact(corpus, step="corpus")
    with (
        track("reward", params) as tracked,
        publish(out, step="reward", params=params, inputs=given) as workspace,
    ):
        reward, figures = write(workspace.dir)
        measured = corpus is not None
        refused: list[str] = []
        if measured:
            card, refused = _card(reward, params, str(corpus), str(generator), workspace)
            figures |= card
        text = json.dumps(replace(config, measured=measured).as_json(), indent=2)
        (workspace.dir / CONFIG).write_text(text + "\n", encoding="utf-8")
        workspace.write_metrics(figures | {"measured": float(measured)})
        if refused:
            workspace.publish_on_refusal = True
            raise GateRefused("reward gate: " + "; ".join(refused))
    tracked.finish(workspace.published or Path(out))
    return Made(workspace.published or Path(out), figures | {"measured": float(measured)})


def _card(
    reward: Reward, params: AdoptParams | CombineParams, corpus: str, generator: str, workspace: Workspace
) -> tuple[dict[str, float], list[str]]:
    """The card of any reward, as of one that was trained: its metrics, and the gate's reasons to refuse."""
    from components.corpus.dataset import Corpus
    from components.reward.card import gate
    from components.reward.card.measure import measure
    from components.reward.ladders.sources import gather, judge_of
    from components.reward.step import write_card

    material = gather(
        Corpus.open(corpus), open_artifact(generator, step="generator"), params.card.prompts, params.run.seed
    )
    fps = material.geometry.fps
    with StopSignal() as stop:
        measured = measure(
            lambda clips, statistics: reward.score(clips, fps),
            material,
            params.card,
            heldout_types=params.heldout_types,
            seed=params.run.seed,
            stop=stop,
            judged=judge_of(material.samples_card),
            cache=cache_dir() / "labels",
        )
    checks = gate.checks(measured.card, params.gate)
    refused = gate.refusals(checks)
    return write_card(workspace.dir, measured, checks, refused), refused


def _calibration(
    rewards: Sequence[Reward], names: Sequence[str], clips: Sequence[str], generator: Artifact | None
) -> tuple[dict[str, Any], list[str], list[Tensor]]:
    """What the units are measured on, in words; each clip's group; each reward's (N,) scores."""
    if generator is not None:
        found: list[list[Tensor]] = [[] for _ in rewards]
        groups: list[str] = []
        for place, (frames, fps, text) in enumerate(_samples(generator)):
            groups += [str(place)] * len(frames)
            for mine, reward in zip(found, rewards, strict=True):
                mine.append(reward.score(frames, fps, [text] * len(frames)))
        about = {
            "of": "samples",
            "generator": generator.manifest.digest,
            "clips": len(groups),
            "groups": len(found[0]),
        }
        return about, groups, [torch.cat(mine) for mine in found]
    files = sources(clips)
    scores = []
    with Progress(len(rewards) * len(files), "reward: scoring the clips") as progress:
        for reward in rewards:
            values = []
            for result in score_files(reward, files):
                if result.score is None:
                    raise InputError(f"--clips: {result.error}")
                values.append(result.score)
                progress.update()
            scores.append(torch.tensor(values))
    return {"of": "videos", "clips": len(files), "groups": 1}, ["all"] * len(files), scores


def _samples(generator: Artifact) -> Iterator[tuple[Tensor, float, str]]:
    """A generator's samples prompt by prompt: uint8 (N, T, 3, H, W), frames per second, the prompt."""
    file, rows = generator.file("samples.safetensors"), generator.file("samples.jsonl")
    try:
        fps = float(json.loads(generator.file("generator.json").read_text(encoding="utf-8"))["fps"])
        texts = [json.loads(line)["text"] for line in rows.read_text(encoding="utf-8").splitlines() if line]
        with safe_open(file, "pt") as opened:
            table = opened.get_slice("frames")
            shape = tuple(table.get_shape())
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{generator.path}: its samples cannot be read ({error})") from error
    if len(shape) != 6 or len(texts) != shape[0]:
        raise InputError(f"{file}: frames must be ({len(texts)} prompts, samples, T, 3, H, W), got {shape}")
    with Progress(shape[0], "reward: scoring the generator's samples") as progress:
        for place, text in enumerate(texts):
            # Opened anew each time: pages of a file that stays mapped would count as this process's memory.
            with safe_open(file, "pt") as opened:
                frames = opened.get_slice("frames")[place].clone()
            yield frames, fps, str(text)
            progress.update()


def _names(rewards: Sequence[str]) -> list[str]:
    """A folder name for each part: the last of its path, numbered where it comes again."""
    names: list[str] = []
    for reward in rewards:
        base = re.sub(r"[^A-Za-z0-9_.-]", "_", Path(reward.rstrip("/")).name).lstrip(".") or "part"
        again = (f"{base}-{number}" for number in count(2))
        names.append(base if base not in names else next(name for name in again if name not in names))
    return names


def _try(reward: Regressor, source: str) -> None:
    """Score one small clip, so that a model that cannot is found now and not by alignment."""
    clip = torch.arange(reward.description.frames * 3 * 64 * 64).reshape(1, -1, 3, 64, 64) % 251
    try:
        found = reward.rate(clip.to(torch.uint8), 8.0, ["a test"])
    except InputError:
        raise
    except Exception as error:  # a library's own words for a processor that does not fit its model
        text = one_line(f"{type(error).__name__}: {error}")
        raise InputError(
            f"{source}: cannot score a clip of {reward.description.frames} frames ({text})"
        ) from error
    if not bool(torch.isfinite(found.score).all()):
        raise InputError(f"{source}: gives a figure that is not finite for an ordinary clip")


def _copy(source: Path, target: Path, patterns: Sequence[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for pattern in patterns:
        for file in sorted(source.glob(pattern)):
            shutil.copyfile(file, target / file.name)
