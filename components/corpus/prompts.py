"""What the generator is asked for: the world's captions or the user's list, in train and held-out."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from components.corpus.world.scene import all_scenes
from components.corpus.world.splits import PromptSplit, slug, split_of
from components.runtime import storage
from components.runtime.errors import InputError

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_PROMPT_CHARACTERS = 1000
MAX_PROMPTS = 20_000
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
    """A list of the user's, on disk or at s3://: one prompt a line, blank lines and repetitions skipped.

    They keep the file's order.

    One in six is held out, chosen by the prompts' digests, so that adding a line at the top moves nothing by
    place.

    Raises:
        InputError: fewer than two, or what `prompt_lines` refuses.
    """
    texts = prompt_lines(file)
    if len(texts) < 2:
        raise InputError(f"{file}: {len(texts)} different prompts, at least 2 are needed (one is held out)")
    digests = {line: hashlib.sha256(line.encode()).hexdigest() for line in texts}
    count = max(1, round(len(texts) / HELDOUT_EVERY))
    heldout = set(sorted(texts, key=digests.__getitem__)[:count])
    return [Prompt(digests[line][:16], line, "heldout" if line in heldout else "train") for line in texts]


def prompt_lines(file: str | Path) -> list[str]:
    """The lines of a text file on disk or at s3://, in NFC, blank ones and repetitions skipped.

    Raises:
        InputError: missing, out of reach, too large, not UTF-8, a line too long or with control characters,
            too many of them.
    """
    data = storage.read_bytes(file, at_most=MAX_FILE_BYTES + 1)
    if data is None:
        raise InputError(f"{file}: no such file of prompts")
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{file}: too large, a list of prompts has at most {MAX_FILE_BYTES:,} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text (byte {error.start})") from error
    texts: dict[str, None] = {}
    for number, raw in enumerate(text.split("\n"), start=1):
        line = unicodedata.normalize("NFC", raw.strip(" \t\r"))
        if not line:
            continue
        if len(line) > MAX_PROMPT_CHARACTERS:
            raise InputError(
                f"{file}, line {number}: {len(line)} characters, a prompt has at most {MAX_PROMPT_CHARACTERS}"
            )
        # Cc: control characters; Cf would forbid the joiners of emoji and of many scripts, so only its
        # dangerous ones.
        if any(
            unicodedata.category(sign) in ("Cc", "Zl", "Zp") or sign in "\u202a\u202b\u202d\u202e"
            for sign in line
        ):
            raise InputError(f"{file}, line {number}: control characters are not allowed in a prompt")
        texts[line] = None
    if len(texts) > MAX_PROMPTS:
        raise InputError(f"{file}: {len(texts):,} prompts, at most {MAX_PROMPTS:,} are allowed")
    return list(texts)
