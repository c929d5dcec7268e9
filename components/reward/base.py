"""What every reward is: the interface, a rating, and the files that decide a score."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from components.runtime.errors import InputError
from components.runtime.io.files import sha256_file
from components.runtime.params import canonical_json

T = TypeVar("T")
#: The file in every reward's folder that says what kind it is, and how to open it.
CONFIG = "config.json"
#: Folders of a reward that decide no score.
_ASIDE = {"plots", "mlflow", "refresh"}


@dataclass(frozen=True)
class Rating:
    """What a reward says of B clips, each (B,) float32 on the CPU.

    Attributes:
        score: mean of the ensemble; higher is better.
        uncertainty: standard deviation of the ensemble's members, in units of the score; 0 where there is no
            ensemble. Two clips whose scores lie closer than this cannot be told apart.
        aspects: one score for each family of damage, higher is better; not on the scale of `score`.
    """

    score: Tensor
    uncertainty: Tensor
    aspects: dict[str, Tensor]


class Reward(Protocol):
    """Scores clips; higher is better. The level means nothing by itself: compare clips of one prompt.

    A reward may have an attribute `input_spec`, see `input_spec_of`.
    """

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        """(B,) float32 on the CPU for (B, T >= 2, 3, H, W) clips, uint8 0..255 or float 0..1.

        Args:
            fps: their frame rate, frames per second.
            prompts: the B texts they were made for. A reward that reads no text ignores them; one that does
                scores clips without a text as made for the empty one.

        Raises:
            InputError: clips that cannot be scored.
        """

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        """Score, uncertainty and aspects; arguments and errors as `score`."""


@dataclass(frozen=True)
class InputSpec:
    """How a reward wants clips handed over.

    Attributes:
        short_side: px; decoding at a larger size would be wasted.
        batch: clips of one shape that are scored together as cheaply as one.
    """

    short_side: int
    batch: int


def input_spec_of(reward: Reward) -> InputSpec:
    """The reward's own `input_spec`, or 512 px and one clip at a time."""
    spec = getattr(reward, "input_spec", None)
    return spec if isinstance(spec, InputSpec) else InputSpec(512, 1)


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a reward's folder.

    Raises:
        InputError: missing or not a JSON object.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}; every reward folder holds it") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not the description of a reward ({error})") from error
    if not isinstance(config, dict):
        raise InputError(f"{file}: not the description of a reward (a JSON object is needed)")
    return config


def description_of(kind: type[T], folder: Path, what: str) -> T:
    """The config.json of a reward's folder as a dataclass; `what` it describes, for the error.

    Raises:
        InputError: missing, or not such a description; the message names the file and the first wrong key.
    """
    config = read_config(folder)
    try:
        return TypeAdapter(kind).validate_python(config)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(
            f"{folder / CONFIG}: not the description of {what} ({key}: {first['msg']})"
        ) from error


def scoring_files(names: Iterable[str]) -> list[str]:
    """Those of an artifact's files that decide its scores: config.json, weights, parts; no card, no plots."""
    return sorted(name for name in names if _decides(PurePosixPath(name)))


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 over the SHA-256 of each file that decides a reward's scores, by name; others do not count.

    Two rewards of one digest give every clip the same score.
    """
    kept = {name: files[name] for name in scoring_files(files)}
    return hashlib.sha256(canonical_json(kept).encode()).hexdigest()


def digest_of_folder(folder: Path) -> str:
    """`digest_of` the files that lie in a reward's folder."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    return digest_of({name: sha256_file(folder / name) for name in sorted(names)})


def check_clips(frames: Tensor, fps: float, prompts: Sequence[str] | None) -> None:
    """What every reward asks of its clips.

    Raises:
        InputError: wrong shape, fewer than 2 frames, non-positive rate, values that are not finite, or
            another number of prompts than of clips.
    """
    if frames.ndim != 5 or frames.shape[2] != 3 or frames.shape[1] < 2 or 0 in frames.shape[1:]:
        raise InputError(f"clips to score must be (B, T >= 2, 3, H, W), got {tuple(frames.shape)}")
    if not fps > 0:
        raise InputError(f"clips to score need a frame rate above 0, got {fps}")
    if frames.dtype != torch.uint8 and not bool(torch.isfinite(frames).all()):
        raise InputError("clips to score hold values that are not finite")
    if prompts is not None and len(prompts) != len(frames):
        raise InputError(f"{len(prompts)} prompts for {len(frames)} clips: one for each is needed")


def _decides(file: PurePosixPath) -> bool:
    if len(file.parts) > 1:
        return file.parts[0] not in _ASIDE
    return file.name == CONFIG or file.suffix == ".safetensors"
