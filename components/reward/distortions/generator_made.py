"""Ladders that need a generator: what its VAE loses, and what it draws when it is not at its best.

They are the hardest negatives: their faults are the policy's own. The registry's distortions take nothing but
a clip, so these have a registry of their own, `GENERATIVE`, which the catalogue and the card read too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from components.reward.distortions.base import LEVELS, CatalogueEntry, Draws, Needs
from components.runtime.compute.seeds import torch_generator
from components.runtime.errors import InputError

if TYPE_CHECKING:
    from components.generator.generator import Generator

#: Clips encoded and decoded at once, always this many: other batch sizes round differently.
BLOCK = 4
#: (generator, clips or prompts, value, seeds) -> uint8 (B, T, 3, H, W); value None for level 0.
Make = Callable[["Generator", Any, float | None, Sequence[int]], Tensor]


@dataclass(frozen=True)
class GenerativeLadder(CatalogueEntry):
    """A ladder whose clips a generator makes. `needs`: "vae" for clips, "sampler" for prompts."""

    def build(
        self, generator: Generator, material: Tensor | Sequence[str], level: int, seeds: Sequence[int]
    ) -> Tensor:
        """One clip for each clip or prompt, at one severity level.

        Args:
            generator: the base, or the current policy.
            material: uint8 (B, T, 3, H, W) clips where the ladder needs the VAE, B prompts where it needs the
                sampler.
            level: 0 (the clip itself; the generator's own sample of the prompt) to 5 (worst).
            seeds: one a clip; for the sampler the seeds of the samples' noise, the same at every level.

        Returns:
            uint8 (B, T, 3, H, W) on the host.

        Raises:
            InputError: material of the wrong kind, a level out of range, or not one seed a clip.
        """
        if (self.needs == "vae") != isinstance(material, Tensor):
            wanted = "clips" if self.needs == "vae" else "prompts"
            raise InputError(f"ladder {self.name} takes {wanted}, got {type(material).__name__}")
        if isinstance(material, Tensor) and (material.ndim != 5 or material.dtype != torch.uint8):
            raise InputError(
                f"ladder {self.name}: clips must be uint8 (B, T, 3, H, W), "
                f"got {material.dtype} {tuple(material.shape)}"
            )
        self.check(level, seeds, len(material))
        if isinstance(material, Tensor) and (level == 0 or not len(material)):
            return material.cpu().clone()
        return self.function(generator, material, self.levels[level - 1] if level else None, seeds)


#: Every ladder that needs a generator, by name.
GENERATIVE: dict[str, GenerativeLadder] = {}


def generative(needs: Needs, levels: Sequence[float], unit: str) -> Callable[[Make], Make]:
    """Registers the decorated function under its own name; its docstring's first line describes it."""

    def register(make: Make) -> Make:
        GENERATIVE[make.__name__] = GenerativeLadder.of(make, "diffusion", levels, unit, needs)
        return make

    return register


@generative("vae", (0.0, 0.15, 0.3, 0.5, 0.8), "noise on the latents, in their standard deviations")
def vae_round_trip(generator: Generator, clips: Tensor, value: float | None, seeds: Sequence[int]) -> Tensor:
    """Through the generator's VAE and back; from level 2 on with noise on the way."""
    family, pipeline = generator.family, generator.family.pipeline
    time, _, height, width = clips.shape[1:]
    multiple = int(getattr(pipeline, "vae_scale_factor_spatial", 8))
    # Video VAEs take a first frame and then four at a time; what is added here is cut off again.
    tall, wide = (multiple * -(-side // multiple) for side in (height, width))
    padded = _padded(clips, 4 * -(-(time - 1) // 4) + 1, tall, wide)
    out = []
    for start in range(0, len(clips), BLOCK):
        block, own = padded[start : start + BLOCK], list(seeds[start : start + BLOCK])
        missing = BLOCK - len(block)
        block = torch.cat((block, block[-1:].expand(missing, *block.shape[1:])))
        latents = family.encode(block.to(family.device))
        if value:
            draws = Draws([*own, *[own[-1]] * missing], "vae_round_trip", latents.device)
            latents = latents + value * draws.normal(*latents.shape[1:])
        out.append(family.decode(latents)[: BLOCK - missing].cpu())
    return torch.cat(out)[:, :time, :, :height, :width].contiguous()


@generative("sampler", (0.6, 0.4, 0.25, 0.15, 0.08), "share of the generator's sampling steps")
def few_steps(
    generator: Generator, prompts: Sequence[str], value: float | None, seeds: Sequence[int]
) -> Tensor:
    """The generator's own sample of the same prompt and noise, drawn in fewer steps."""
    if value is None:
        return generator.sample(prompts, seeds)[0]
    steps = steps_at(generator.settings.steps, value)
    hasty = type(generator)(generator.family, generator.settings.model_copy(update={"steps": steps}))
    return hasty.sample(prompts, seeds)[0]


def steps_at(steps: int, share: float) -> int:
    """Steps that a level of `few_steps` takes: 50 become 30, 20, 12, 8, 4, and 8 become 6, 5, 4, 3, 2.

    In a short schedule the share alone would make two levels equal. No level takes one step: with the usual
    spacing the second and last of two steps lies next to the end and changes nothing.
    """
    least = LEVELS + 1 - GENERATIVE["few_steps"].levels.index(share)
    return min(steps, max(round(steps * share), least))


@generative("sampler", (0.05, 0.1, 0.16, 0.23, 0.31), "noise on the weights, in their standard deviations")
def noisy_weights(
    generator: Generator, prompts: Sequence[str], value: float | None, seeds: Sequence[int]
) -> Tensor:
    """The generator's own sample of the same prompt and noise, with errors in its weights.

    It stands for an early checkpoint, which published models do not include.
    """
    with _disturbed(generator.family.denoiser, value or 0.0):
        return generator.sample(prompts, seeds)[0]


@contextmanager
def _disturbed(denoiser: torch.nn.Module, amount: float) -> Iterator[None]:
    """Noise on every matrix of a network inside the block; afterwards the same weights as before."""
    kept: dict[str, Tensor] = {}
    try:
        with torch.no_grad():
            for name, weight in denoiser.named_parameters() if amount else ():
                if weight.ndim < 2:
                    continue
                kept[name] = weight.detach().clone()
                noise = torch.randn(weight.shape, generator=torch_generator(0, "noisy weights", name))
                weight.add_((amount * noise * weight.float().std().cpu()).to(weight.device, weight.dtype))
        yield
    finally:
        with torch.no_grad():
            for name, original in kept.items():
                denoiser.get_parameter(name).copy_(original)


def _padded(clips: Tensor, time: int, height: int, width: int) -> Tensor:
    """uint8 clips made longer and larger by repeating the last frame, row and column."""
    add = (0, width - clips.shape[-1], 0, height - clips.shape[-2], 0, time - clips.shape[1])
    grown = F.pad(clips.transpose(1, 2).float(), add, mode="replicate")
    return grown.to(torch.uint8).transpose(1, 2).contiguous()
