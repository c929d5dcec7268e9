"""A text-to-video model ready to draw clips: weights and sampler settings, as it is or aligned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from torch import Tensor
from transformers.utils import logging as transformers_logging

from components.generator.families import ModelFamily, family_of
from components.generator.offload import at_work, place
from components.generator.params import SamplingParams
from components.generator.sampling import sample_latents
from components.runtime.artifacts.artifact import open_artifact
from components.runtime.artifacts.manifest import MANIFEST
from components.runtime.artifacts.pretrained import fetch
from components.runtime.errors import InputError, one_line
from components.runtime.io import storage
from components.video.clip import ClipFormat

#: The sampler's settings, beside the pipeline in the generator's artifact.
SETTINGS = "generator.json"
PIPELINE = "pipeline"
#: Files of a hub's repository that a pipeline's part is loaded from; pickled weights are not among them.
WANTED = ("*.json", "*.safetensors", "*.model", "*.txt")
#: Prompts that the text encoders take in one call.
ENCODED_AT_ONCE = 64
#: Host memory for embeddings that may be asked for again; a released model's take 1 to 4 MB a prompt.
KEPT_BYTES = 4 * 2**30


def load_family(folder: Path, device: torch.device, precision: str = "float32") -> ModelFamily:
    """Load a diffusers folder as the family that its `model_index.json` names.

    Args:
        precision: "float32", or "half" for the types that the family's hints name.

    Raises:
        InputError: no pipeline in the folder, or one whose class no family serves. Only safetensors weights
            are read.
    """
    index = folder / "model_index.json"
    try:
        name = json.loads(index.read_text())["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index}: not a diffusers pipeline: {error}") from error
    family = family_of(name, index)
    half = {"vae": family.hints.vae, "default": family.hints.weights}
    # Their bars say nothing of a step's own progress, and a log file gets every redraw of them.
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            folder,
            dtype=half if precision == "half" else torch.float32,
            use_safetensors=True,
            local_files_only=True,
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: weights cannot be loaded: {one_line(error)}") from error
    pipeline.set_progress_bar_config(disable=True)
    place(pipeline, (*family.text_encoders, "vae"), device)
    return family(pipeline)


class Generator:
    """Draws clips. Prompt embeddings are computed once per prompt and kept, in the host's memory.

    On a GPU, the text encoders and the VAE stay on the host and are moved only while they run.
    """

    def __init__(self, family: ModelFamily, settings: SamplingParams) -> None:
        self.family = family
        self.settings = settings
        self.geometry = ClipFormat(settings.num_frames, settings.height, settings.width, settings.fps)
        family.set_conditioning(settings.fps, settings.guidance)
        self._embeddings: dict[str, Tensor] = {}

    @classmethod
    def load(
        cls, folder: str | Path, device: torch.device | str = "cpu", aligned: str | Path | None = None
    ) -> Generator:
        """Load a generator artifact, as it is or aligned.

        `aligned` is the folder `lora` or `weights` of an alignment: a LoRA, or all of the denoiser's
        weights, in the diffusers format.

        Raises:
            InputError: settings or weights are missing or do not fit.
        """
        folder = Path(folder)
        try:
            settings = SamplingParams.model_validate_json((folder / SETTINGS).read_text())
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / SETTINGS}: not a generator: {one_line(error)}") from error
        return cls.over(folder / PIPELINE, settings, torch.device(device), aligned)

    @classmethod
    def over(
        cls,
        pipeline: Path,
        settings: SamplingParams,
        device: torch.device,
        aligned: str | Path | None = None,
    ) -> Generator:
        """Load a diffusers folder, as it is or aligned; `aligned` as for `load`.

        Raises:
            InputError: weights are missing or do not fit.
        """
        family = load_family(pipeline, device, settings.precision)
        if aligned is not None:
            family.load_aligned(Path(aligned))
        return cls(family, settings)

    @property
    def fps(self) -> float:
        """Frames per second of the clips."""
        return self.geometry.fps

    def embeddings(self, prompts: Sequence[str]) -> Tensor:
        """Return prompt embeddings (B, L, D) on the denoiser's device, computed once per distinct prompt."""
        self._encode(prompts)
        return torch.stack([self._embeddings[prompt] for prompt in prompts]).to(self.family.device)

    def _encode(self, prompts: Sequence[str]) -> None:
        """Encode what is missing of some prompts, and forget the oldest others where all take too much."""
        asked = set(prompts)
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._embeddings]
        if not missing:
            return
        encoders = [getattr(self.family.pipeline, name) for name in self.family.text_encoders]
        with at_work(encoders, self.family.device):
            for start in range(0, len(missing), ENCODED_AT_ONCE):
                part = missing[start : start + ENCODED_AT_ONCE]
                # Copies, not views: a row's memory is to go when the row goes.
                rows = [row.clone() for row in self.family.encode_prompts(part).cpu()]
                self._embeddings.update(zip(part, rows, strict=True))
        one = self._embeddings[missing[0]]
        surplus = len(self._embeddings) - KEPT_BYTES // (one.numel() * one.element_size())
        for prompt in [prompt for prompt in self._embeddings if prompt not in asked][: max(0, surplus)]:
            del self._embeddings[prompt]

    def sample_latents(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        """Return clean latents, float32 (B, C, T, h, w), one clip per prompt and seed."""
        if len(prompts) != len(seeds):
            raise ValueError(f"{len(prompts)} prompts and {len(seeds)} seeds: one seed per prompt")
        self._encode([*prompts, ""])
        parts = []
        for start in range(0, len(prompts), self.settings.batch):
            here = slice(start, start + self.settings.batch)
            parts.append(
                sample_latents(
                    self.family,
                    self.embeddings(prompts[here]),
                    self.embeddings([""]),
                    seeds[here],
                    self.geometry,
                    steps=self.settings.steps,
                    guidance=self.settings.guidance,
                )
            )
        return torch.cat(parts)

    def decode(self, latents: Tensor) -> Tensor:
        """Return frames, uint8 (B, T, 3, H, W) on the host, decoded in batches."""
        return torch.cat([self.family.decode(part).cpu() for part in latents.split(self.settings.batch)])

    def reconstruct(self, clips: Tensor) -> Tensor:
        """Return clips, uint8 (B, T, 3, H, W), passed through the VAE and back, on the host."""
        parts = [self.family.decode(self.family.encode(part)).cpu() for part in clips.split(16)]
        return torch.cat(parts)

    def sample(self, prompts: Sequence[str], seeds: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return frames, uint8 (B, T, 3, H, W), and the latents (B, C, T, h, w) they were decoded from."""
        latents = self.sample_latents(prompts, seeds)
        return self.decode(latents), latents


def refuse_other_folder(base: str) -> None:
    """Look at a folder or an s3:// prefix before anything is copied from it; a hub id is left alone.

    Raises:
        InputError: no pipeline of a known family is there; the message names the base as the user does.
    """
    if not storage.is_remote(base) and not Path(base).is_dir():
        return
    index = f"{base.rstrip('/')}/model_index.json"
    content = storage.read_bytes(index)
    if content is None:
        raise InputError(
            f"generator.base = {base!r}: no diffusers pipeline, there is no model_index.json in it; "
            "allowed are a folder or an s3:// prefix with one, or a hub id owner/name"
        )
    try:
        name = str(json.loads(content)["_class_name"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"generator.base = {base!r}: {index} is no pipeline's index ({error})") from error
    family_of(name, f"generator.base = {base!r}")


def fetch_base(base: str, revision: str | None = None) -> Path:
    """Return a local folder with the base model.

    As `pretrained.fetch` does it; of a hub's repository only what its `model_index.json` names, and of that
    only safetensors and texts. Clusters set HF_HUB_OFFLINE, and mirror weights in S3.

    Raises:
        InputError: nothing there, the hub cannot be reached, or a revision that would have no effect.
    """
    local = storage.is_remote(base) or storage.local_path(base).is_dir()
    if local and revision is not None:
        raise InputError(
            f"generator.revision = {revision!r}: has no effect on {base}; only a hub id has revisions"
        )
    if local:
        # Our own base carries digests: an altered weight is found here, not in strange samples.
        if storage.read_bytes(f"{base.rstrip('/')}/{MANIFEST}") is not None:
            return open_artifact(base).path
        return fetch(base)
    # Many repositories hold the same weights again as single files, for other programs.
    first = fetch(base, "generator.base =", revision=revision, files=["model_index.json"])
    try:
        index = json.loads((first / "model_index.json").read_text())
        parts = sorted(name for name, value in index.items() if isinstance(value, list) and value[0])
    except (OSError, ValueError) as error:
        raise InputError(f"generator.base = {base!r}: not a diffusers pipeline: {error}") from error
    wanted = [f"{part}/{ending}" for part in parts for ending in WANTED]
    # A snapshot's folder is named after its commit: both calls are to see the same one.
    return fetch(base, "generator.base =", revision=first.name, files=["model_index.json", *wanted])
