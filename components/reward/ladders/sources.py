"""The clips that the reward learns from and is measured on: of the corpus and of the generator's artifact.

Most of them stay in their files until they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from components.corpus.dataset import SOURCES, Corpus
from components.runtime.artifacts.artifact import Artifact
from components.runtime.compute.seeds import torch_generator
from components.runtime.errors import InputError
from components.video.clip import ClipFormat

SAMPLES = "samples.safetensors"
SAMPLE_ROWS = "samples.jsonl"
#: Tensors of the generator's file beside `frames`: clips through its VAE and back, and the clips before.
RECONSTRUCTED, ORIGINALS = "reconstructions", "reconstructed_from"


class StoredClips:
    """uint8 (N, T, 3, H, W) clips that stay in their safetensors file until some of them are asked for.

    Indexed with a list of rows, an index tensor or a slice like a tensor; what comes back is a tensor of
    those rows alone, at the given geometry. Small to send to another process.
    """

    def __init__(self, file: Path, name: str, rows: Sequence[int], geometry: ClipFormat) -> None:
        """Args:
        file: where they lie.
        name: of the tensor, (..., T, 3, H, W); its leading axes count as one.
        rows: which of its clips these are.
        geometry: what they are brought to.
        """
        self.file, self.name, self.geometry = file, name, geometry
        self._rows = torch.tensor(rows, dtype=torch.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Tensor:
        picked = self._rows[index].reshape(-1).tolist()
        size = self.geometry
        if not picked:
            return torch.zeros((0, size.frames, 3, size.height, size.width), dtype=torch.uint8)
        # Opened anew each time: pages of a file that stays mapped would count as this process's memory.
        with safe_open(self.file, "pt") as opened:
            table = opened.get_slice(self.name)
            places = zip(*np.unravel_index(picked, table.get_shape()[:-4]), strict=True)
            clips = [table[tuple(map(int, place))].clone() for place in places]
        return torch.stack([size.fit(clip) for clip in clips])


@dataclass(frozen=True)
class SourceClips:
    """uint8 (N, T, 3, H, W) clips, in memory or in a file, and the name of what each one shows.

    Clips of one content never meet two splits.
    """

    frames: Tensor | StoredClips
    contents: list[str]

    def __len__(self) -> int:
        return len(self.contents)


@dataclass(frozen=True)
class Pool:
    """The clips of one source, and how many ladders are built on them.

    Attributes:
        labelled: whether the clips are pristine, so that a full-reference label means something.
        first: clips better than `clips`, row by row, put before them; None where there are none.
        levels: (ladders, K) int64, rising from 0, of ladders whose clips are there already: `clips` then has
            K clips for each content. None where distortions make the ladders.
    """

    source: str
    clips: SourceClips
    ladders: int
    labelled: bool
    first: SourceClips | None = None
    levels: Tensor | None = None


@dataclass(frozen=True)
class Groups:
    """A generator's samples: uint8 (P, N, T, 3, H, W), N candidates for each of P prompts."""

    frames: Tensor
    prompts: list[str]
    texts: list[str | None]

    def clips(self) -> SourceClips:
        """All samples one after the other; the content is the prompt."""
        return SourceClips(self.frames.flatten(0, 1), _named(self.prompts, self.frames.shape[1]))


@dataclass(frozen=True)
class LadderSources:
    """Everything a reward is made from, in one geometry; training and held-out parts share no content.

    Attributes:
        prompts_train: the known texts of the prompts of `samples_train`.
    """

    geometry: ClipFormat
    train: dict[str, SourceClips]
    test: dict[str, SourceClips]
    samples_train: SourceClips
    prompts_train: list[str]
    samples_card: Groups
    reconstructed: SourceClips
    originals: SourceClips


def gather(
    corpus: Corpus, generator: Artifact, card_share: float, seed: int, heldout: str = "test"
) -> LadderSources:
    """Opens clips, samples and reconstructions.

    Clips of the generator are resized to the corpus's frame size. Its prompts are split at random:
    `card_share` of them is kept away from training.

    Args:
        heldout: the corpus's split that `LadderSources.test` holds; "val" to choose settings by.

    Raises:
        InputError: the corpus has no train or no held-out clips, or the generator's samples are missing or
            malformed.
    """
    geometry = ClipFormat(corpus.num_frames, corpus.height, corpus.width, corpus.fps)
    train, test = _by_source(corpus, "train", geometry), _by_source(corpus, heldout, geometry)
    for split, sources in (("train", train), (heldout, test)):
        if not any(map(len, sources.values())):
            raise InputError(
                f"{corpus.artifact.path}: no clips in the {split} split; "
                f"the reward needs both train and {heldout}"
            )
    file = generator.file(SAMPLES)
    try:
        with safe_open(file, "pt") as opened:
            table = opened.get_slice("frames")
            dtype, shape = table.get_dtype(), tuple(table.get_shape())
            pairs = {key: opened.get_slice(key).get_shape()[0] for key in (RECONSTRUCTED, ORIGINALS)}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file}: must hold the tensors frames, {RECONSTRUCTED} and {ORIGINALS} ({error})"
        ) from error
    if len(shape) != 6 or dtype != "U8" or min(shape[:2]) < 2:
        raise InputError(
            f"{file}: frames must be uint8 (prompts >= 2, samples >= 2, T, 3, H, W), got {dtype} {shape}"
        )
    names, texts = _prompts(generator, shape[0])
    by_id = {prompt.id: prompt.text for prompt in corpus.prompts()}
    texts = [text or by_id.get(name) for name, text in zip(names, texts, strict=True)]
    order = torch.randperm(len(names), generator=torch_generator(seed, "card prompts")).tolist()
    kept = max(1, min(len(order) - 1, round(card_share * len(order))))
    card, rest = sorted(order[:kept]), sorted(order[kept:])

    def stored(prompts: list[int]) -> StoredClips:
        rows = [prompt * shape[1] + sample for prompt in prompts for sample in range(shape[1])]
        return StoredClips(file, "frames", rows, geometry)

    def pairs_of(name: str) -> SourceClips:
        rows = range(pairs[name])
        return SourceClips(StoredClips(file, name, rows, geometry), [f"reconstruction/{row}" for row in rows])

    frames = stored(card)[:].unflatten(0, (len(card), shape[1]))
    return LadderSources(
        geometry=geometry,
        train=train,
        test=test,
        samples_train=SourceClips(stored(rest), _named([names[i] for i in rest], shape[1])),
        prompts_train=[text for text in (texts[i] for i in rest) if text is not None],
        samples_card=Groups(frames, [names[i] for i in card], [texts[i] for i in card]),
        reconstructed=pairs_of(RECONSTRUCTED),
        originals=pairs_of(ORIGINALS),
    )


def _by_source(corpus: Corpus, split: str, geometry: ClipFormat) -> dict[str, SourceClips]:
    file, rows = corpus.artifact.file(f"clips/{split}.safetensors"), corpus.records(split)
    try:
        with safe_open(file, "pt") as opened:
            count = opened.get_slice("frames").get_shape()[0]
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a readable file of clips ({error})") from error
    if count != len(rows):
        raise InputError(f"{file}: {count} clips, but index.jsonl lists {len(rows)}")
    clips = {}
    for source in SOURCES:
        index = [place for place, row in enumerate(rows) if row.source == source]
        contents = [rows[place].content for place in index]
        clips[source] = SourceClips(StoredClips(file, "frames", index, geometry), contents)
    return clips


def _named(prompts: Sequence[str], each: int) -> list[str]:
    return [f"prompt/{prompt}" for prompt in prompts for _ in range(each)]


def _prompts(generator: Artifact, count: int) -> tuple[list[str], list[str | None]]:
    """The prompt of each group of samples, by the rows of samples.jsonl: one a group, or one a sample."""
    file = generator.file(SAMPLE_ROWS)
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]
        names = [str(row.get("prompt_id", row.get("id"))) for row in rows]
        texts = [row.get("prompt", row.get("text")) for row in rows]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{file}: not JSON lines that name prompts ({error})") from error
    if not rows or len(rows) % count:
        raise InputError(f"{file}: {len(rows)} rows for {count} groups of samples")
    each = len(rows) // count
    return names[::each], texts[::each]


def judge_of(groups: Groups) -> Tensor | None:
    """(P, N) quality by the oracle judge of the miniature world, or None if the prompts are not of it."""
    from components.corpus.world.judge import judge
    from components.corpus.world.scene import parse_caption

    if any(text is None or parse_caption(text) is None for text in groups.texts):
        return None
    return torch.tensor([[judge(clip).quality for clip in group] for group in groups.frames])
