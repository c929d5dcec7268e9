"""What a reward is to those who use it, whatever it is made of, and opening one of any kind."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import torch
from torch import Tensor

from components.reward.scoring.trained import BACKBONE_BLOCK, BLOCK, CONFIG, Rating, Scorer
from components.runtime.artifacts.artifact import Artifact
from components.runtime.errors import InputError

KINDS = ("ladders", "transformers", "weighted")
"""What "kind" in a reward's config.json may be: trained here, a regressor from elsewhere, a sum."""
NATIVE_SIDE = 1080
"""px up to which a clip keeps its own size for a reward that looks at it as it is."""
_ASIDE = {"plots", "mlflow", "refresh"}
"""Folders of a reward that decide no score."""


class Reward(Protocol):
    """Scores clips; higher is better. The level means nothing by itself: compare clips of one prompt."""

    def score(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Tensor:
        """(B,) float32 on the CPU for (B, T >= 2, 3, H, W) clips, uint8 0..255 or float 0..1.

        Args:
            fps: their frame rate, frames per second.
            prompts: the B texts they were made for. A reward that reads no text takes no notice; one that
                does scores clips without a text as made for the empty one.

        Raises:
            InputError: clips that cannot be scored.
        """

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        """Score, spread and aspects; arguments and errors as `score`."""


@dataclass(frozen=True)
class Reading:
    """How a reward wants clips handed over.

    Attributes:
        short_side: px; decoding at a larger size would be wasted.
        batch: clips of one shape that are scored together as cheaply as one.
    """

    short_side: int
    batch: int


def reading_of(reward: Reward) -> Reading:
    """What a reward says of itself.

    One trained here on statistics gets four times its size, so that its own antialiased resizing and not the
    decoder's decides; one with a backbone looks at fragments in the clip's own resolution.
    """
    if isinstance(reward, Scorer):
        if reward.params.backbone:
            return Reading(NATIVE_SIDE, BACKBONE_BLOCK)
        return Reading(4 * min(reward.geometry.height, reward.geometry.width), BLOCK)
    found = getattr(reward, "reading", None)
    return found if isinstance(found, Reading) else Reading(512, 1)


def open_reward(reward: str | Path | Artifact, device: str | torch.device = "auto") -> Reward:
    """A reward of any kind.

    Prints one line of warning for a reward that was never measured here: it has passed no gate.

    Args:
        reward: a reward's local folder, or its artifact, which `open_artifact` has checked.
        device: auto, cpu, cuda, cuda:N, or a torch device.

    Raises:
        InputError: not a reward, or damaged; the message names the file.
    """
    folder = reward.path if isinstance(reward, Artifact) else Path(reward)
    config = read_config(folder)
    where = str(device)
    kind = config.get("kind", "ladders")
    if config.get("measured") is False:
        print(
            f"warning: {folder}: unmeasured reward ({kind}): no card, no gate stands behind it",
            file=sys.stderr,
        )
    if kind == "ladders":
        return Scorer.load(folder, where)
    if kind == "transformers":
        from components.reward.scoring.transformers import Regressor

        return Regressor.load(folder, where)
    if kind == "weighted":
        from components.reward.scoring.weighted_sum import WeightedSum

        return WeightedSum.load(folder, where)
    raise InputError(f"{folder / CONFIG}: kind = {kind!r}: must be one of {', '.join(KINDS)}")


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
    except ValueError as error:
        raise InputError(f"{file}: not the description of a reward ({error})") from error
    if not isinstance(config, dict):
        raise InputError(f"{file}: not the description of a reward (a JSON object is needed)")
    return config


def scoring_files(names: Iterable[str]) -> list[str]:
    """Those of an artifact's files that decide its scores: config.json, weights, parts; no card, no plots."""
    return sorted(name for name in names if _decides(PurePosixPath(name)))


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
