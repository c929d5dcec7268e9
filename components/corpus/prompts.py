"""Prompts: the world's captions or the user's list, in train and held-out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from components.corpus.world.scene import all_scenes
from components.corpus.world.splits import PromptSplit, slug, split_of
from components.runtime.errors import InputError
from components.runtime.io.prompt_lists import read_prompt_list

HELDOUT_EVERY = 6  # one prompt in six of the user's list is held out, as in the world


@dataclass(frozen=True)
class Prompt:
    """A sentence to make videos of. Held-out prompts are for evaluation alone."""

    id: str
    text: str
    split: PromptSplit


def world_prompts() -> list[Prompt]:
    """The captions of all scenes, in the world's order."""
    return [Prompt(slug(scene), scene.caption, split_of(scene)) for scene in all_scenes()]


def read_prompts(file: str | Path) -> list[Prompt]:
    """A list of the user's, on disk or at s3://, in any format of `read_prompt_list`, repetitions skipped.

    They keep the file's order. One in six is held out, chosen by the prompts' digests, so that adding a line
    at the top moves nothing by place.

    Raises:
        InputError: fewer than two, or what `read_prompt_list` refuses.
    """
    texts = read_prompt_list(file)
    if len(texts) < 2:
        raise InputError(f"{file}: {len(texts)} different prompts, at least 2 are needed (one is held out)")
    digests = {line: hashlib.sha256(line.encode()).hexdigest() for line in texts}
    count = max(1, round(len(texts) / HELDOUT_EVERY))
    heldout = set(sorted(texts, key=digests.__getitem__)[:count])
    return [Prompt(digests[line][:16], line, "heldout" if line in heldout else "train") for line in texts]
