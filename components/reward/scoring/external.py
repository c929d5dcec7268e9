"""Rewards made of checkpoints and rewards that exist already: artifacts like one that was trained here.

Such a reward has a card and has passed a gate only if a corpus and a generator are given. Otherwise its
config.json says `"measured": false`, its metrics.json `measured` 0, and opening it prints a warning.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from components.reward.base import CONFIG, Reward, scoring_files
from components.reward.params import CardParams, GateParams, LadderParams
from components.reward.scoring.load import open_reward
from components.reward.scoring.transformers import MODEL, Description, Regressor, described
from components.reward.scoring.videos import score_files, sources
from components.reward.scoring.weighted_sum import PARTS, Recipe, WeightedSum, WeightedTerm, scale_of
from components.runtime.artifacts.artifact import Artifact, cache_dir, open_artifact
from components.runtime.artifacts.pretrained import fetch
from components.runtime.artifacts.publish import StepResult, publish
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import GateRefused, InputError, one_line
from components.runtime.params import Section, StepParams
from components.runtime.progress import Progress
from components.runtime.tracking.step_run import track

#: What belongs to a checkpoint: weights, settings, vocabularies. Pickles are not copied.
FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


class _ExternalParams(StepParams):
    """Params of every reward made here without training; those of the card hold where one is measured."""

    card: CardParams = Field(CardParams(), description="held-out measurements")
    gate: GateParams = Field(GateParams(), description="thresholds of the quality gate")
    heldout_types: tuple[str, ...] = Field(
        LadderParams().heldout_types, description="distortions that the card shows in a column of their own"
    )


class ImportParams(_ExternalParams):
    """A regressor of `transformers` as a reward."""

    model: str = Field(description="folder, s3:// prefix or hub id of the checkpoint")
    frames: int | None = Field(None, ge=2, le=512, description="frames that the model sees of a clip")
    aspects: tuple[str, ...] = Field((), description="names of its outputs, in order")
    text: str | None = Field(None, description="prompt template of a model that reads text, with {prompt}")


class SumTerm(Section):
    """One part of a weighted sum."""

    reward: str = Field(description="folder or s3:// URI of the part")
    weight: float = Field(description="units of the sum for each of its own standard deviations")


class CombineParams(_ExternalParams):
    """A weighted sum of rewards."""

    terms: tuple[SumTerm, ...] = Field(min_length=1, description="the parts")
    clips: tuple[str, ...] = Field((), description="videos on which the parts' units are measured")


def import_model(
    params: ImportParams, *, out: str | Path, corpus: str | None = None, generator: str | None = None
) -> StepResult:
    """Publish a checkpoint as a reward at `out`, with everything that is needed to run it.

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
        (folder / MODEL).mkdir()
        for file in sorted(file for pattern in FILES for file in checkpoint.glob(pattern)):
            shutil.copyfile(file, folder / MODEL / file.name)
        reward = Regressor.of(folder / MODEL, description, params.run.device)
        _try(reward, params.model)
        weights = sum(parameter.numel() for parameter in reward.model.parameters())
        return reward, {"parameters": float(weights), "aspects": float(len(description.aspects))}

    return _publish(params, out, {"model": checkpoint}, write, description, corpus, generator)


def combine(
    params: CombineParams, *, out: str | Path, corpus: str | None = None, generator: str | None = None
) -> StepResult:
    """Publish a weighted sum at `out`, the parts inside it.

    The parts' units are measured on `params.clips`, or without them on the generator's own samples.

    Raises:
        InputError: a part is missing, refused or has no unit; nothing to measure units on.
        GateRefused: as `import_model`.
    """
    if not params.clips and generator is None:
        raise InputError("nothing to measure the parts' units on: give --generator or --clips")
    opened = [open_artifact(term.reward, step="reward") for term in params.terms]
    names = _names([term.reward for term in params.terms])
    samples = None if params.clips or generator is None else open_artifact(generator, step="generator")
    rewards = [open_reward(part, params.run.device) for part in opened]
    calibration, groups, scores = _calibration(rewards, params.clips, samples)
    parts = []
    for name, term, values in zip(names, params.terms, scores, strict=True):
        try:
            parts.append(WeightedTerm(name, term.weight, *scale_of(values, groups)))
        except InputError as error:
            raise InputError(f"{term.reward}: {error}") from error

    def write(folder: Path) -> tuple[Reward, dict[str, float]]:
        for name, artifact in zip(names, opened, strict=True):
            for file in scoring_files(artifact.manifest.files):
                target = folder / PARTS / name / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(artifact.path / file, target)
        metrics = {"parts": float(len(parts))}
        for part in parts:
            metrics |= {f"{part.name}/weight": part.weight, f"{part.name}/unit": part.unit}
        return WeightedSum(list(zip(parts, rewards, strict=True))), metrics

    inputs = {f"reward/{name}": artifact for name, artifact in zip(names, opened, strict=True)}
    return _publish(params, out, inputs, write, Recipe(tuple(parts), calibration), corpus, generator)


def _publish(
    params: ImportParams | CombineParams,
    out: str | Path,
    inputs: Mapping[str, Path | Artifact],
    write: Callable[[Path], tuple[Reward, dict[str, float]]],
    config: Description | Recipe,
    corpus: str | None,
    generator: str | None,
) -> StepResult:
    """Publish what `write` puts into a folder, with a card and the gate's decision where both inputs are."""
    if corpus is not None and generator is None:
        raise InputError("--corpus has no effect without --generator: the card is measured on both")
    all_inputs: dict[str, str | Path | Artifact] = dict(inputs)
    if generator is not None:
        all_inputs["generator"] = open_artifact(generator, step="generator")
    if corpus is not None:
        all_inputs["corpus"] = open_artifact(corpus, step="corpus")
    with (
        track("reward", params) as tracked,
        publish(out, step="reward", params=params, inputs=all_inputs) as workspace,
    ):
        reward, metrics = write(workspace.dir)
        metrics["measured"] = float(corpus is not None)
        refused: list[str] = []
        if corpus is not None:
            card, refused = _card(reward, params, corpus, str(generator), workspace.dir)
            metrics |= card
        text = json.dumps(replace(config, measured=corpus is not None).as_json(), indent=2)
        (workspace.dir / CONFIG).write_text(text + "\n", encoding="utf-8")
        workspace.write_metrics(metrics)
        if refused:
            workspace.publish_on_refusal = True
            raise GateRefused("reward gate: " + "; ".join(refused))
    tracked.finish(workspace.published or Path(out))
    return StepResult(workspace.published or Path(out), metrics)


def _card(
    reward: Reward, params: ImportParams | CombineParams, corpus: str, generator: str, folder: Path
) -> tuple[dict[str, float], list[str]]:
    """Write the card as of a trained reward: its metrics, and the gate's reasons to refuse."""
    from components.corpus.dataset import Corpus
    from components.reward.card.measure import measure
    from components.reward.card.write import write_measured
    from components.reward.ladders.sources import gather

    samples = open_artifact(generator, step="generator")
    material = gather(Corpus.open(corpus), samples, params.card.prompts, params.run.seed)
    with StopSignal() as stop:
        measured = measure(
            # Without aspects: not every such reward has an ensemble.
            lambda clips, _: replace(reward.rate(clips, material.geometry.fps), aspects={}),
            material,
            params.card,
            heldout_types=params.heldout_types,
            seed=params.run.seed,
            stop=stop,
            cache=cache_dir() / "labels",
        )
    refused = write_measured(folder, measured, params.gate)
    return measured.card.metrics(), refused


def _calibration(
    rewards: Sequence[Reward], clips: Sequence[str], generator: Artifact | None
) -> tuple[dict[str, Any], list[str], list[Tensor]]:
    """What the units are measured on, as the config says it; each clip's group; each reward's (N,) scores."""
    if generator is not None:
        parts: list[list[Tensor]] = [[] for _ in rewards]
        groups: list[str] = []
        for place, (frames, fps, text) in enumerate(_samples(generator)):
            groups += [str(place)] * len(frames)
            for part, reward in zip(parts, rewards, strict=True):
                part.append(reward.score(frames, fps, [text] * len(frames)))
        about = {
            "of": "samples",
            "generator": generator.manifest.digest,
            "clips": len(groups),
            "groups": len(parts[0]),
        }
        return about, groups, [torch.cat(part) for part in parts]
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
    """Score one small clip, so that a model that cannot score fails here and not in alignment."""
    clip = torch.arange(reward.description.frames * 3 * 64 * 64).reshape(1, -1, 3, 64, 64) % 251
    try:
        rating = reward.rate(clip.to(torch.uint8), 8.0, ["a test"])
    except InputError:
        raise
    except Exception as error:  # a library's own words for a processor that does not fit its model
        text = one_line(f"{type(error).__name__}: {error}")
        raise InputError(
            f"{source}: cannot score a clip of {reward.description.frames} frames ({text})"
        ) from error
    if not bool(torch.isfinite(rating.score).all()):
        raise InputError(f"{source}: gives a figure that is not finite for an ordinary clip")
