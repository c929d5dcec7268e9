"""The interface of a text-to-video model, whatever its architecture.

A family is one small class around a diffusers pipeline. Everything outside this folder sees latents as
(B, C, T, h, w) float32 tensors, prompts as opaque embeddings with the batch in front, and time as the
family's own training time; the family turns these into its model's call.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from components.generator.families.noise_process import NoiseProcess
from components.generator.offload import at_work
from components.runtime.errors import InputError, one_line
from components.runtime.io.files import sort_safetensors_header
from components.video.clip import ClipFormat

CONFIG = "config.json"
LORA_FILE = "pytorch_lora_weights.safetensors"
#: Where an aligned model lies in its artifact: an adapter, or all of the denoiser's weights.
LORA_FOLDER, WEIGHTS_FOLDER = "lora", "weights"


@dataclass(frozen=True)
class MemoryHints:
    """How a family's released models use a GPU's memory.

    Attributes:
        weights: type that denoiser and text encoders run in where memory counts.
        vae: type that the VAE runs in there; some VAEs overflow or lose detail in 16 bits.
        decode_pixels: pixels (frames x height x width) to decode or encode at once; at least a clip.
    """

    weights: torch.dtype = torch.bfloat16
    vae: torch.dtype = torch.bfloat16
    decode_pixels: int = 2**21


class ModelFamily(ABC):
    """A text-to-video model behind the interface that sampling, alignment and planning share.

    Attributes:
        pipeline_class: name of the diffusers pipeline class in `model_index.json`; it selects the family.
        lora_targets: module name endings of the denoiser that LoRA adapts by default.
        denoisers: components of the pipeline that predict; more than one are experts for spans of time.
        text_encoders: components of the pipeline that only `encode_prompts` needs.
        hints: how the released models use memory.
        pipeline: the diffusers pipeline; its parts are frozen and in evaluation mode.
        noise_process: the noise process the model was trained with.
        fps: frames per second of the clips, for a network that takes them as an input.
        guidance: guidance scale, for a guidance-distilled network.
    """

    pipeline_class: ClassVar[str]
    lora_targets: ClassVar[tuple[str, ...]] = (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "ff.net.0.proj",
        "ff.net.2",
    )
    denoisers: tuple[str, ...] = ("transformer",)
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    hints: ClassVar[MemoryHints] = MemoryHints()
    noise_process: NoiseProcess

    def __init__(self, pipeline: Any) -> None:
        self.pipeline = pipeline
        self.fps, self.guidance = 8.0, 1.0
        for module in self.pipeline.components.values():
            if isinstance(module, nn.Module):
                module.eval().requires_grad_(False)

    # -- where things lie ------------------------------------------------------------------------------

    @property
    def denoiser(self) -> Any:
        """The network that is trained; it has diffusers' `add_adapter`, `set_adapter` and their like."""
        return getattr(self.pipeline, self.denoisers[0])

    @property
    def device(self) -> torch.device:
        """Device of the denoiser; text encoders and VAE may be on the host until they run."""
        return next(self.denoiser.parameters()).device

    @property
    def text_device(self) -> torch.device:
        """Device of the text encoders."""
        return next(getattr(self.pipeline, self.text_encoders[0]).parameters()).device

    # -- prompts ---------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def embedding_shape(self) -> tuple[int, int]:
        """The shape (L, D) of one prompt's embeddings, as `encode_prompts` makes them."""

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Return prompt embeddings (B, L, D) in the denoiser's dtype; the empty prompt is unconditional.

        What a network needs beside token embeddings (a mask, a pooled embedding) is packed into the same
        tensor and unpacked by `predict`, so that one tensor per prompt is all there is to keep.
        """
        return self.embed(list(prompts)).to(self.device, self.denoiser.dtype)

    def embed(self, prompts: list[str]) -> Tensor:
        """Return what `encode_prompts` returns, on any device and in any type."""
        embeddings: Tensor = self.pipeline.encode_prompt(
            prompts,
            do_classifier_free_guidance=False,
            max_sequence_length=self.embedding_shape[0],
            device=self.text_device,
        )[0]
        return embeddings

    # -- geometry --------------------------------------------------------------------------------------

    @property
    def compression(self) -> tuple[int, int]:
        """Frames, and pixels per side, that one latent of the VAE stands for."""
        return self.pipeline.vae_scale_factor_temporal, self.pipeline.vae_scale_factor_spatial

    @property
    def patch(self) -> tuple[int, int, int]:
        """Frames, rows and columns of latents that make one token of the denoiser."""
        return 1, 1, 1

    def latent_shape(self, geometry: ClipFormat) -> tuple[int, int, int, int]:
        """Return (C, T, h, w) of one clip's latents.

        Raises:
            InputError: a size that the model cannot make.
        """
        self.check_frames(geometry.frames)
        (time, space), (_, rows, columns) = self.compression, self.patch
        for name, pixels, unit in (
            ("height", geometry.height, space * rows),
            ("width", geometry.width, space * columns),
        ):
            if pixels < 1 or pixels % unit:
                raise InputError(f"{name} = {pixels}: this model needs a multiple of {unit} pixels")
        frames = (geometry.frames - 1) // time + 1
        return self.denoiser.config.in_channels, frames, geometry.height // space, geometry.width // space

    def check_frames(self, frames: int, period: int | None = None) -> None:
        """Raise an `InputError` for a number of frames that the model cannot make.

        Args:
            period: clips are a multiple of it and one frame more; None takes the VAE's compression.
        """
        time, patch = self.compression[0], self.patch[0]
        period = period or time
        if frames < 1 or (frames - 1) % period or ((frames - 1) // time + 1) % patch:
            allowed = f"this model makes {period}k + 1 frames" if period > 1 else "at least 1 is needed"
            units = f" in multiples of {patch} latent frames" if patch > 1 else ""
            raise InputError(f"num_frames = {frames}: {allowed}{units}")

    # -- the network -----------------------------------------------------------------------------------

    @property
    def guidance_distilled(self) -> bool:
        """Whether the network takes the guidance scale as an input (embedded guidance, arXiv 2210.03142).

        Such a network needs no second, unconditional pass.
        """
        return False

    def set_conditioning(self, fps: float, guidance: float) -> None:
        """Set the inputs that some networks take beside prompt and time, for sampling and training alike."""
        self.fps, self.guidance = fps, guidance

    def predict(self, latents: Tensor, time: Tensor, embeddings: Tensor) -> Tensor:
        """Return the network's output, float32 (B, C, T, h, w), for noisy latents at training times (B,)."""
        return self.denoise(latents, time, embeddings)

    def denoise(self, latents: Tensor, time: Tensor, embeddings: Tensor, **inputs: Any) -> Tensor:
        """Call the denoiser, on latents laid out as it takes them, with further inputs; float32."""
        output: Tensor = self.denoiser(
            hidden_states=latents.to(self.denoiser.dtype),
            timestep=time.to(latents.device),
            encoder_hidden_states=embeddings,
            return_dict=False,
            **inputs,
        )[0]
        return output.float()

    def sampling_scheduler(self) -> Any:
        """Return a fresh, deterministic scheduler for sampling (ODE or DDIM with eta 0)."""
        return type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)

    def set_timesteps(self, scheduler: Any, steps: int, shape: Sequence[int]) -> None:
        """Space a scheduler's `steps` as the pipeline does for latents of `shape` (C, T, h, w)."""
        scheduler.set_timesteps(steps, device=self.device)

    # -- pixels ----------------------------------------------------------------------------------------

    def latent_statistics(self, device: torch.device) -> tuple[Tensor, Tensor] | None:
        """Return mean and deviation of the VAE's latents by channel, (C,); None where it has one scale."""
        return None

    def scaled(self, raw: Tensor) -> Tensor:
        """Turn the VAE's own latents (B, c, t, h, w) into those the denoiser knows."""
        if (statistics := self.latent_statistics(raw.device)) is None:
            return raw * self.pipeline.vae.config.scaling_factor
        mean, deviation = (value.view(1, -1, 1, 1, 1) for value in statistics)
        return (raw - mean) / deviation

    def unscaled(self, latents: Tensor) -> Tensor:
        """Turn the denoiser's latents into the VAE's own: undoes `scaled`."""
        if (statistics := self.latent_statistics(latents.device)) is None:
            return latents / self.pipeline.vae.config.scaling_factor
        mean, deviation = (value.view(1, -1, 1, 1, 1) for value in statistics)
        return latents * deviation + mean

    def vae_encode(self, video: Tensor) -> Tensor:
        """Return the posterior's mode (B, c, t, h, w) of a video (B, 3, T, H, W) in [-1, 1]."""
        mode: Tensor = self.pipeline.vae.encode(video).latent_dist.mode()
        return mode

    def vae_decode(self, raw: Tensor) -> Tensor:
        """Return a video (B, 3, T, H, W) around [-1, 1] from the VAE's own latents (B, c, t, h, w)."""
        video: Tensor = self.pipeline.vae.decode(raw, return_dict=False)[0]
        return video

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Return frames, uint8 (B, T, 3, H, W), of clean latents (B, C, T, h, w).

        As many clips at once as `hints.decode_pixels` holds.
        """
        vae, (time, space) = self.pipeline.vae, self.compression
        parts = []
        with at_work([vae], self.device):
            for part in latents.split(self._clips_at_once(latents[0, 0].numel() * time * space**2)):
                raw = self.unscaled(part.to(vae.device)).to(vae.dtype)
                video = self.vae_decode(raw).float().clamp(-1, 1).add(1).mul(127.5).round().to(torch.uint8)
                parts.append(video.transpose(1, 2))
        return torch.cat(parts).to(latents.device)

    @torch.no_grad()
    def encode(self, frames: Tensor) -> Tensor:
        """Return clean latents, float32 (B, C, T, h, w), the posterior's mode, of uint8 (B, T, 3, H, W)."""
        vae = self.pipeline.vae
        parts = []
        with at_work([vae], self.device):
            for part in frames.split(self._clips_at_once(frames[0, :, 0].numel())):
                video = part.to(vae.device).float().div(127.5).sub(1).transpose(1, 2).to(vae.dtype)
                parts.append(self.scaled(self.vae_encode(video).float()))
        return torch.cat(parts).to(self.device)

    def _clips_at_once(self, pixels_per_clip: int) -> int:
        return max(1, self.hints.decode_pixels // pixels_per_clip)

    # -- LoRA ------------------------------------------------------------------------------------------

    def save_lora(self, folder: Path, adapter: str) -> None:
        """Write one adapter as `pytorch_lora_weights.safetensors`, which `load_lora_weights` reads.

        Where there are several denoisers, those after the first write theirs into a folder of their name.
        """
        for name in self.denoisers:
            network = getattr(self.pipeline, name)
            state = get_peft_model_state_dict(network, adapter_name=adapter)
            layers = {key: value.detach().cpu().contiguous() for key, value in state.items()}
            # peft keeps module names in sets, whose order changes from process to process;
            # equal weights shall be equal files.
            config = network.peft_config[adapter].to_dict()
            metadata = {
                key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
            }
            # The loader looks for the first denoiser's name in every file, its own experts' included.
            prefix = self.denoisers[0]
            self.pipeline.save_lora_weights(
                self._lora_folder(folder, name),
                **{f"{prefix}_lora_layers": layers, f"{prefix}_lora_adapter_metadata": metadata},
                safe_serialization=True,
            )
            sort_safetensors_header(self._lora_folder(folder, name) / LORA_FILE)

    def load_lora(self, folder: Path) -> None:
        """Load what `save_lora` wrote, by the pipeline's own `load_lora_weights`.

        Raises:
            InputError: a file is missing or does not fit the model.
        """
        for name in self.denoisers:
            place = self._lora_folder(folder, name)
            others = {} if name == self.denoisers[0] else {f"load_into_{name}": True}
            try:
                self.pipeline.load_lora_weights(
                    str(place), use_safetensors=True, local_files_only=True, **others
                )
            except (OSError, ValueError, RuntimeError) as error:
                raise InputError(f"{place}: the LoRA cannot be loaded: {one_line(error)}") from error

    # -- all weights -----------------------------------------------------------------------------------

    def save_weights(self, folder: Path, networks: Mapping[str, Any] | None = None) -> None:
        """Write each denoiser as `save_pretrained` does, into a folder of its name: a pipeline's part.

        Args:
            networks: what to write by the denoisers' names; None writes the pipeline's own.
        """
        for name in self.denoisers:
            network = getattr(self.pipeline, name) if networks is None else networks[name]
            network.save_pretrained(folder / name, safe_serialization=True)
            # Where the base was read from is no property of the weights.
            config = json.loads((folder / name / CONFIG).read_text())
            config.pop("_name_or_path", None)
            (folder / name / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")

    def load_weights(self, folder: Path) -> None:
        """Load what `save_weights` wrote into the denoisers as they are, in their type.

        Raises:
            InputError: a file is missing or does not fit the model.
        """
        for name in self.denoisers:
            files = sorted((folder / name).glob("*.safetensors"))
            try:
                state = {key: value for file in files for key, value in load_file(file).items()}
                getattr(self.pipeline, name).load_state_dict(state)
            except (OSError, SafetensorError, RuntimeError) as error:
                raise InputError(
                    f"{folder / name}: the weights cannot be loaded: {one_line(error)}"
                ) from error

    def load_aligned(self, folder: Path) -> None:
        """Load an aligned model from the folder that it lies in: an adapter or all weights.

        Raises:
            InputError: as `load_lora` and `load_weights`.
        """
        if folder.name == WEIGHTS_FOLDER:
            self.load_weights(folder)
        else:
            self.load_lora(folder)

    def _lora_folder(self, folder: Path, denoiser: str) -> Path:
        return folder if denoiser == self.denoisers[0] else folder / denoiser
