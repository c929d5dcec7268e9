"""What the reward learns from and is measured on, read from the corpus and the generator's artifact."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from components.corpus.dataset import Corpus
from components.reward.filtering import resize
from components.reward.scorer import Geometry
from components.runtime.artifacts import Artifact
from components.runtime.errors import InputError
from components.runtime.seeds import torch_generator

SAMPLES = "samples.safetensors"
SAMPLE_ROWS = "samples.jsonl"


@dataclass(frozen=True)
class Clips:
    """uint8 (N, T, 3, H, W) clips and the name of what each one shows; clips of one content never meet two
    splits."""

    frames: Tensor
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
        names = [f"prompt/{prompt}" for prompt in self.prompts for _ in range(self.frames.shape[1])]
        return Clips(self.frames.flatten(0, 1), names)


@dataclass(frozen=True)
class Material:
    """Everything a reward is made from, in one geometry; training and held-out parts share no content."""

    geometry: Geometry
    train: dict[str, Clips]
    test: dict[str, Clips]
    samples_train: Groups
    samples_card: Groups
    reconstructed: Tensor
    originals: Tensor


def gather(corpus: Corpus, generator: Artifact, card_share: float, seed: int) -> Material:
    """Reads clips, samples and reconstructions.

    Clips of the generator are resized to the corpus's frame size. Its prompts are split at random:
    `card_share` of them
    is kept away from training.

    Raises:
        InputError: the corpus has no train or no test clips, or the generator's samples are missing or
            malformed.
    """
    geometry = Geometry(corpus.num_frames, corpus.height, corpus.width, corpus.fps)
    train, test = _by_source(corpus, "train"), _by_source(corpus, "test")
    for split, found in (("train", train), ("test", test)):
        if not any(len(clips) for clips in found.values()):
            raise InputError(
                f"{corpus.artifact.path}: no clips in the {split} split; the reward needs both train and test"
            )
    file = generator.file(SAMPLES)
    try:
        tensors = load_file(file)
        frames = tensors["frames"]
        reconstructed, originals = tensors["reconstructions"], tensors["reconstructed_from"]
    except (SafetensorError, KeyError, OSError) as error:
        raise InputError(
            f"{file}: must hold the tensors frames, reconstructions and reconstructed_from ({error})"
        ) from error
    if frames.ndim != 6 or frames.dtype != torch.uint8 or frames.shape[0] < 2 or frames.shape[1] < 2:
        raise InputError(
            f"{file}: frames must be uint8 (prompts >= 2, samples >= 2, T, 3, H, W), "
            f"got {frames.dtype} {tuple(frames.shape)}"
        )
    names, texts = _prompts(generator, frames.shape[0])
    by_id = {prompt.id: prompt.text for prompt in corpus.prompts()}
    texts = [text or by_id.get(name) for name, text in zip(names, texts, strict=True)]
    frames = _fitted(frames.flatten(0, 1), geometry).unflatten(0, frames.shape[:2])
    order = torch.randperm(len(names), generator=torch_generator(seed, "card prompts")).tolist()
    kept = max(1, min(len(order) - 1, round(card_share * len(order))))
    card, rest = sorted(order[:kept]), sorted(order[kept:])

    def groups(rows: list[int]) -> Groups:
        return Groups(frames[rows], [names[i] for i in rows], [texts[i] for i in rows])

    return Material(
        geometry=geometry,
        train=train,
        test=test,
        samples_train=groups(rest),
        samples_card=groups(card),
        reconstructed=_fitted(reconstructed, geometry),
        originals=_fitted(originals, geometry),
    )


def _by_source(corpus: Corpus, split: str) -> dict[str, Clips]:
    found = {}
    for source in ("world", "footage"):
        frames, records = corpus.clips(split, source)
        found[source] = Clips(frames, [record.content for record in records])
    return found


def _prompts(generator: Artifact, count: int) -> tuple[list[str], list[str | None]]:
    """The prompt of each group of samples, by the rows of samples.jsonl: one a group, or one a sample in
    group order."""
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


def _fitted(frames: Tensor, geometry: Geometry) -> Tensor:
    """uint8 clips (N, T, 3, H, W) at the corpus's size and at most its length."""
    frames = frames[:, : geometry.frames]
    if frames.shape[-2:] == (geometry.height, geometry.width):
        return frames
    parts = [
        (resize(part.float(), geometry.height, geometry.width, "bilinear"))
        .round()
        .clamp(0, 255)
        .to(torch.uint8)
        for part in frames.split(16)
    ]
    return (
        torch.cat(parts)
        if parts
        else frames.new_zeros((0, *frames.shape[1:-2], geometry.height, geometry.width))
    )


def judge_of(groups: Groups) -> Tensor | None:
    """(P, N) quality by the miniature world's exact judge, or None where the prompts are not of that
    world."""
    from components.corpus.world.judge import judge
    from components.corpus.world.scene import parse_caption

    if not all(text is not None and parse_caption(text) is not None for text in groups.texts):
        return None
    return torch.tensor([[judge(clip).quality for clip in group] for group in groups.frames])
