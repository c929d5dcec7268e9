"""What the evaluation reads: four artifacts and their digests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from components.evaluation.samples import Request
from components.reward.base import scoring_files
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.errors import InputError
from components.runtime.params import canonical_json

#: Folders of an alignment in which trained weights lie (a LoRA, or all weights), by the name of their digest.
KINDS = {"lora_digest": "lora/", "weights_digest": "weights/"}


@dataclass(frozen=True)
class TrainedWeights:
    """What an alignment trained: its folder, and a SHA-256 of its weights under the name for its kind."""

    folder: Path
    digest: dict[str, str]


@dataclass(frozen=True)
class Inputs:
    """The opened artifacts."""

    corpus: Artifact
    generator: Artifact
    reward: Artifact
    alignment: Artifact

    @classmethod
    def open(cls, **places: str | Path) -> Self:
        """Open each step's artifact.

        Raises:
            InputError: one is missing, altered or of another step.
        """
        return cls(**{step: open_artifact(place, step=step) for step, place in places.items()})

    @property
    def fps(self) -> float:
        """Frames per second of the generator's clips."""
        return frame_rate(self.generator)

    def digests(self, requests: Sequence[Request]) -> dict[str, str]:
        """Digests of what two evaluations must share to be comparable, and of what was evaluated."""
        files = self.reward.manifest.files
        return {
            "requests_digest": _digest([asdict(request) for request in requests]),
            "reward_digest": _digest({name: files[name].sha256 for name in scoring_files(files)}),
            "generator_digest": self.generator.manifest.digest,
        } | trained_by(self.alignment).digest


def frame_rate(generator: Artifact) -> float:
    """Frames per second that a generator's artifact says it draws."""
    return float(json.loads(generator.file("generator.json").read_text(encoding="utf-8"))["fps"])


def trained_by(alignment: Artifact) -> TrainedWeights:
    """Find a LoRA, or all of the denoiser's weights, in an alignment's artifact.

    Raises:
        InputError: it has neither.
    """
    for name, folder in KINDS.items():
        digests = [
            entry.sha256
            for file, entry in sorted(alignment.manifest.files.items())
            if file.startswith(folder) and file.endswith(".safetensors")
        ]
        if digests:
            whole = digests[0] if len(digests) == 1 else _digest(digests)
            return TrainedWeights(alignment.path / folder, {name: whole})
    raise InputError(f"{alignment.path}: no aligned weights in {' or '.join(KINDS.values())}")


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
