"""The clips that are compared: held-out prompts and named seeds, the same for both models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.corpus.dataset import Corpus
from components.generator.sampling import require_finite
from components.runtime.artifacts import remote_checkpoints
from components.runtime.artifacts.artifact import Artifact
from components.runtime.compute.seeds import derive, numpy_rng
from components.runtime.compute.signals import StopSignal
from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file
from components.runtime.progress import Progress

#: The two models that are compared.
SIDES = ("base", "aligned")


class Sampler(Protocol):
    """What is needed of a generator."""

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return frames, uint8 (B, T, 3, H, W), and their latents."""


@dataclass(frozen=True)
class Request:
    """One video that both models sample.

    Attributes:
        prompt_id: the prompt's id in the corpus.
        prompt: its text.
        index: number of the video among those of its prompt, from 0 (VBench's file name ends in it).
        seed: the sampler's seed.
    """

    prompt_id: str
    prompt: str
    index: int
    seed: int


def draw_requests(corpus: Corpus, prompts: int, seeds: int, seed: int) -> list[Request]:
    """Draw held-out prompts by the run's seed and give each of their videos a seed of its own.

    Raises:
        InputError: the corpus has no held-out prompt.
    """
    held_out = sorted(corpus.prompts("heldout"), key=lambda prompt: prompt.id)
    if not held_out:
        raise InputError("the corpus has no held-out prompt; the evaluation uses no others")
    order = numpy_rng(seed, "evaluation", "prompts").permutation(len(held_out))[:prompts]
    return [
        Request(prompt.id, prompt.text, index, derive(seed, "evaluation", prompt.id, index))
        for prompt in (held_out[place] for place in sorted(order.tolist()))
        for index in range(seeds)
    ]


def evenly_over_prompts(requests: Sequence[Request], number: int) -> NDArray[np.bool_]:
    """Mark ``number`` requests, evenly over the prompts, each prompt's first video first; bool (N,)."""
    order = sorted(range(len(requests)), key=lambda place: (requests[place].index, place))
    first = [place for place in order if requests[place].index == 0]
    chosen = order[:number]
    if number < len(first):
        chosen = [first[round(step)] for step in np.linspace(0, len(first) - 1, number)]
    marked = np.zeros(len(requests), dtype=bool)
    marked[chosen] = True
    return marked


def open_sampler(generator: Artifact, device: torch.device, aligned: Path | None) -> Sampler:
    """The base generator, or the aligned one when ``aligned`` is the folder of what was trained."""
    from components.generator.generator import Generator

    return Generator.load(generator.path, device=device, aligned=aligned)


def sample_both(
    generator: Artifact,
    aligned: Path,
    requests: Sequence[Request],
    batch: int,
    device: torch.device,
    keep: Path,
) -> dict[str, Tensor]:
    """Both models' clips, uint8 (N, T, 3, H, W) by side; one model is in memory at a time.

    Args:
        generator: the base.
        aligned: folder of the aligned weights.
        requests: the N clips.
        batch: videos per call.
        device: where the models run.
        keep: folder of finished batches, from which a stopped run resumes.

    Raises:
        Interrupted: stopped on request, after a whole batch.
    """
    frames = {}
    with StopSignal() as stop, Progress(2 * len(requests), "evaluation: sampling clips") as progress:

        def after_batch(number: int) -> None:
            progress.update(number)
            stop.raise_if_requested()

        for name, weights in zip(SIDES, (None, aligned), strict=True):
            sampler = open_sampler(generator, device, weights)
            frames[name] = sample_side(sampler, requests, batch, keep / name, after_batch)
    return frames


def sample_side(
    sampler: Sampler,
    requests: Sequence[Request],
    batch: int,
    keep: Path,
    after_batch: Callable[[int], None] = lambda number: None,
) -> Tensor:
    """Sample every request, uint8 (N, T, 3, H, W); finished batches are kept, so a stopped run resumes.

    Args:
        sampler: base or aligned generator.
        requests: the N clips.
        batch: videos per call.
        keep: folder of this side's finished batches.
        after_batch: called with the number of videos just done, after they are safely kept.
    """
    keep.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(requests), batch):
        part = requests[start : start + batch]
        file = keep / f"{start:06d}.safetensors"
        frames = _kept(file)
        if frames is None or len(frames) != len(part):
            frames, latents = sampler.sample([one.prompt for one in part], [one.seed for one in part])
            require_finite(latents)
            frames = frames.cpu().contiguous()
            with atomic_file(file) as aside:
                save_file({"frames": frames}, aside)
            remote_checkpoints.saved(file)
        parts.append(frames)
        after_batch(len(part))
    return torch.cat(parts)


def _kept(file: Path) -> Tensor | None:
    try:
        return load_file(file)["frames"] if file.is_file() else None
    except (SafetensorError, KeyError, OSError):
        return None
