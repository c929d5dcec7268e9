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
from components.runtime.artifacts import remote_checkpoints as mirror
from components.runtime.compute.seeds import derive, numpy_rng
from components.runtime.errors import InputError
from components.runtime.io.files import atomic_file


class Sampler(Protocol):
    """What is needed of a generator."""

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return frames, uint8 (B, T, 3, H, W), and their latents."""


@dataclass(frozen=True)
class Request:
    """One video asked of both models.

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


def requests(corpus: Corpus, prompts: int, seeds: int, seed: int) -> list[Request]:
    """Draw held-out prompts by the run's seed and give each of their videos a seed of its own.

    Raises:
        InputError: the corpus has no held-out prompt.
    """
    held_out = sorted(corpus.prompts("heldout"), key=lambda prompt: prompt.id)
    if not held_out:
        raise InputError("the corpus has no held-out prompt; the evaluation uses no others")
    order = numpy_rng(seed, "evaluation", "prompts").permutation(len(held_out))[:prompts]
    return [
        Request(
            held_out[place].id,
            held_out[place].text,
            index,
            derive(seed, "evaluation", held_out[place].id, index),
        )
        for place in sorted(int(place) for place in order)
        for index in range(seeds)
    ]


def spread(asked: Sequence[Request], number: int) -> NDArray[np.bool_]:
    """Mark ``number`` requests, evenly over the prompts, each prompt's first video first; bool (N,)."""
    order = sorted(range(len(asked)), key=lambda place: (asked[place].index, place))
    first = [place for place in order if asked[place].index == 0]
    if number < len(first):
        chosen = [first[round(step)] for step in np.linspace(0, len(first) - 1, number)]
    else:
        chosen = order[:number]
    marked = np.zeros(len(asked), dtype=bool)
    marked[chosen] = True
    return marked


def sample_side(
    sampler: Sampler,
    asked: Sequence[Request],
    batch: int,
    keep: Path,
    after_batch: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Sample every request, uint8 (N, T, 3, H, W); finished batches are kept, so a stopped run goes on.

    Args:
        sampler: base or aligned generator.
        asked: the N requests.
        batch: videos per call.
        keep: folder of this side's finished batches.
        after_batch: called with the number of videos just done, after they are safely kept.
    """
    keep.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        file = keep / f"{start:06d}.safetensors"
        frames = _kept(file)
        if frames is None or len(frames) != len(part):
            frames, latents = sampler.sample([one.prompt for one in part], [one.seed for one in part])
            require_finite(latents)
            frames = frames.cpu().contiguous()
            with atomic_file(file) as aside:
                save_file({"frames": frames}, aside)
            mirror.saved(file)
        parts.append(frames)
        after_batch(len(part))
    return torch.cat(parts)


def _kept(file: Path) -> Tensor | None:
    try:
        return load_file(file)["frames"] if file.is_file() else None
    except (SafetensorError, KeyError, OSError):
        return None
