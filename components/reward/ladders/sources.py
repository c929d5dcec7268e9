"""What the reward learns from and is measured on, read from the corpus and the generator's artifact as it is
needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from components.corpus.dataset import Corpus
from components.reward.scoring.trained import Geometry
from components.runtime.artifacts.artifact import Artifact
from components.runtime.compute.seeds import torch_generator
from components.runtime.errors import InputError
from components.video.filters import resize

SAMPLES = "samples.safetensors"
SAMPLE_ROWS = "samples.jsonl"


class StoredClips:
    """uint8 (N, T, 3, H, W) clips that stay in their safetensors file until some of them are asked for.

    Indexed with a list of rows, an index tensor or a slice like a tensor; what comes back is a tensor of
    those rows alone, at the given geometry. Small to send to another process.
    """

    def __init__(self, file: Path, name: str, rows: Sequence[int], geometry: Geometry) -> None:
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
        goal, out = self.geometry, []
        # Opened anew each time: pages of a file that stays mapped would count as this process's memory.
        with safe_open(self.file, "pt") as opened:
            table = opened.get_slice(self.name)
            lead = table.get_shape()[:-4]
            for row in picked:
                where: list[int] = []
                for length in reversed(lead):
                    row, place = divmod(row, length)
                    where.insert(0, place)
                out.append(_fitted(table[tuple(where)].clone(), goal))
        if not out:
            return torch.zeros((0, goal.frames, 3, goal.height, goal.width), dtype=torch.uint8)
        return torch.stack(out)


@dataclass(frozen=True)
class Clips:
    """uint8 (N, T, 3, H, W) clips, in memory or in a file, and the name of what each one shows.

    Clips of one content never meet two splits.
    """

    frames: Tensor | StoredClips
    contents: list[str]

    def __len__(self) -> int:
        return len(self.contents)


@dataclass(frozen=True)
class Groups:
    """A generator's samples: uint8 (P, N, T, 3, H, W), N candidates for each of P prompts."""

    frames: Tensor
    prompts: list[str]
    texts: list[str | None]

    def clips(self) -> Clips:
        """All samples one after the other; the prompt is the content."""
        return Clips(self.frames.flatten(0, 1), _named(self.prompts, self.frames.shape[1]))


@dataclass(frozen=True)
class Material:
    """Everything a reward is made from, in one geometry; training and held-out parts share no content.

    Attributes:
        prompts_train: texts of the prompts of `samples_train`, as far as they are known.
    """

    geometry: Geometry
    train: dict[str, Clips]
    test: dict[str, Clips]
    samples_train: Clips
    prompts_train: list[str]
    samples_card: Groups
    reconstructed: Clips
    originals: Clips


def gather(
    corpus: Corpus, generator: Artifact, card_share: float, seed: int, heldout: str = "test"
) -> Material:
    """Opens clips, samples and reconstructions.

    Clips of the generator are resized to the corpus's frame size. Its prompts are split at random:
    `card_share` of them is kept away from training.

    Args:
        heldout: the corpus's split that `Material.test` holds; "val" to choose settings by.

    Raises:
        InputError: the corpus has no train or no held-out clips, or the generator's samples are missing or
            malformed.
    """
    geometry = Geometry(corpus.num_frames, corpus.height, corpus.width, corpus.fps)
    train, test = _by_source(corpus, "train", geometry), _by_source(corpus, heldout, geometry)
    for split, found in (("train", train), (heldout, test)):
        if not any(len(clips) for clips in found.values()):
            raise InputError(
                f"{corpus.artifact.path}: no clips in the {split} split; "
                f"the reward needs both train and {heldout}"
            )
    file = generator.file(SAMPLES)
    try:
        with safe_open(file, "pt") as opened:
            tables = {
                key: opened.get_slice(key) for key in ("frames", "reconstructions", "reconstructed_from")
            }
            shapes = {key: tuple(table.get_shape()) for key, table in tables.items()}
            dtypes = {key: table.get_dtype() for key, table in tables.items()}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{file}: must hold the tensors frames, reconstructions and reconstructed_from ({error})"
        ) from error
    shape = shapes["frames"]
    if len(shape) != 6 or dtypes["frames"] != "U8" or shape[0] < 2 or shape[1] < 2:
        raise InputError(
            f"{file}: frames must be uint8 (prompts >= 2, samples >= 2, T, 3, H, W), "
            f"got {dtypes['frames']} {shape}"
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

    def pictures(name: str) -> Clips:
        count = shapes[name][0]
        contents = [f"reconstruction/{row}" for row in range(count)]
        return Clips(StoredClips(file, name, range(count), geometry), contents)

    return Material(
        geometry=geometry,
        train=train,
        test=test,
        samples_train=Clips(stored(rest), _named([names[i] for i in rest], shape[1])),
        prompts_train=[text for text in (texts[i] for i in rest) if text is not None],
        samples_card=Groups(
            stored(card)[:].unflatten(0, (len(card), shape[1])),
            [names[i] for i in card],
            [texts[i] for i in card],
        ),
        reconstructed=pictures("reconstructions"),
        originals=pictures("reconstructed_from"),
    )


def _by_source(corpus: Corpus, split: str, geometry: Geometry) -> dict[str, Clips]:
    file, rows = corpus.artifact.file(f"clips/{split}.safetensors"), corpus.records(split)
    try:
        with safe_open(file, "pt") as opened:
            count = opened.get_slice("frames").get_shape()[0]
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: not a readable file of clips ({error})") from error
    if count != len(rows):
        raise InputError(f"{file}: {count} clips, but index.jsonl lists {len(rows)}")
    found = {}
    for source in ("world", "footage"):
        index = [place for place, row in enumerate(rows) if row.source == source]
        found[source] = Clips(StoredClips(file, "frames", index, geometry), [rows[i].content for i in index])
    return found


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


def _fitted(clip: Tensor, geometry: Geometry) -> Tensor:
    """One uint8 clip (T, 3, H, W) at the corpus's size and at most its length."""
    clip = clip[: geometry.frames]
    if clip.shape[-2:] == (geometry.height, geometry.width):
        return clip
    small = resize(clip.float(), geometry.height, geometry.width, "bilinear")
    return small.round().clamp(0, 255).to(torch.uint8)


def judge_of(groups: Groups) -> Tensor | None:
    """(P, N) quality by the miniature world's exact judge, or None if the prompts are not of it."""
    from components.corpus.world.judge import judge
    from components.corpus.world.scene import parse_caption

    if not all(text is not None and parse_caption(text) is not None for text in groups.texts):
        return None
    return torch.tensor([[judge(clip).quality for clip in group] for group in groups.frames])
