"""Ladders that need a generator: what its VAE loses, and what it draws when it is not at its best.

They are the hardest negatives there are: their faults are the policy's own. They cannot stand in the
registry, whose distortions take nothing but a clip; catalogue and card know them by `GENERATIVE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from components.reward.distortions.base import LEVELS, Draws, Family, Needs
from components.runtime.compute.seeds import torch_generator
from components.runtime.errors import InputError

if TYPE_CHECKING:
    from components.generator.generator import Generator

BLOCK = 4
"""Clips encoded and decoded at once, always this many: other batch sizes round differently."""


@dataclass(frozen=True)
class GenerativeLadder:
    """A ladder whose rungs a generator makes.

    Attributes:
        needs: "vae" for a ladder on any clip, "sampler" for one on prompts.
        make: (generator, clips or prompts, value, seeds) -> uint8 (B, T, 3, H, W); value None for level 0.
    """

    name: str
    family: Family
    levels: tuple[float, ...]
    unit: str
    summary: str
    needs: Needs
    make: Callable[[Generator, Any, float | None, Sequence[int]], Tensor]

    def build(
        self, generator: Generator, material: Tensor | Sequence[str], level: int, seeds: Sequence[int]
    ) -> Tensor:
        """One rung for each clip or prompt.

        Args:
            generator: the base, or the policy of the moment.
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
            raise InputError(f"ladder {self.name} stands on {wanted}, got {type(material).__name__}")
        if isinstance(material, Tensor) and (material.ndim != 5 or material.dtype != torch.uint8):
            raise InputError(
                f"ladder {self.name}: clips must be uint8 (B, T, 3, H, W), "
                f"got {material.dtype} {tuple(material.shape)}"
            )
        if not 0 <= level <= LEVELS:
            raise InputError(f"ladder {self.name}: level {level} is outside 0..{LEVELS}")
        if len(seeds) != len(material):
            raise InputError(f"ladder {self.name}: {len(seeds)} seeds for {len(material)} clips")
        if isinstance(material, Tensor) and (level == 0 or not len(material)):
            return material.cpu().clone()
        return self.make(generator, material, self.levels[level - 1] if level else None, seeds)


GENERATIVE: dict[str, GenerativeLadder] = {}
"""Every ladder that needs a generator, by name."""

Make = Callable[["Generator", Any, float | None, Sequence[int]], Tensor]


def generative(needs: Needs, levels: Sequence[float], unit: str) -> Callable[[Make], Make]:
    """Registers the decorated function under its own name; its docstring's first line describes it."""

    def register(make: Make) -> Make:
        name = make.__name__
        summary = (make.__doc__ or "").strip().splitlines()[0].rstrip(".")
        GENERATIVE[name] = GenerativeLadder(
            name, "diffusion", tuple(float(v) for v in levels), unit, summary, needs, make
        )
        return make

    return register


@generative("vae", (0.0, 0.15, 0.3, 0.5, 0.8), "noise on the latents, in their standard deviations")
def vae_round_trip(generator: Generator, clips: Tensor, value: float | None, seeds: Sequence[int]) -> Tensor:
    """Through the generator's VAE and back; from level 2 on with noise on the way."""
    family, pipeline = generator.family, generator.family.pipeline
    time, _, height, width = clips.shape[1:]
    multiple = int(getattr(pipeline, "vae_scale_factor_spatial", 8))
    # Video VAEs take a first frame and then four at a time; what is added here is cut off again.
    padded = _padded(
        clips, 4 * -(-(time - 1) // 4) + 1, *(multiple * -(-side // multiple) for side in (height, width))
    )
    out = []
    for start in range(0, len(clips), BLOCK):
        block, own = padded[start : start + BLOCK], list(seeds[start : start + BLOCK])
        missing = BLOCK - len(block)
        block = torch.cat((block, block[-1:].expand(missing, *block.shape[1:])))
        latents = family.encode(block.to(family.device))
        if value:
            noise = Draws([*own, *own[-1:] * missing], "vae_round_trip", latents.device).normal(
                *latents.shape[1:]
            )
            latents = latents + value * noise
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

    Of a short schedule the share alone would leave levels that are the same. One step is not asked for: with
    the usual spacing the second and last of two steps lies next to the end and changes nothing.
    """
    least = LEVELS + 1 - GENERATIVE["few_steps"].levels.index(share)
    return min(steps, max(round(steps * share), least))


@generative("sampler", (0.05, 0.1, 0.16, 0.23, 0.31), "noise on the weights, in their standard deviations")
def noisy_weights(
    generator: Generator, prompts: Sequence[str], value: float | None, seeds: Sequence[int]
) -> Tensor:
    """The generator's own sample of the same prompt and noise, with errors in its weights.

    Stands for an early checkpoint, which a published base does not come with.
    """
    with _disturbed(generator.family.denoiser, value or 0.0):
        return generator.sample(prompts, seeds)[0]


@contextmanager
def _disturbed(denoiser: torch.nn.Module, amount: float) -> Iterator[None]:
    """Noise on every matrix of a network for the time being; afterwards the very same weights."""
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
            for name, weight in denoiser.named_parameters():
                if name in kept:
                    weight.copy_(kept[name])


def _padded(clips: Tensor, time: int, height: int, width: int) -> Tensor:
    """uint8 clips made longer and larger by repeating the last frame, row and column."""
    have = clips.shape[1]
    longer = torch.cat((clips, clips[:, -1:].expand(-1, time - have, -1, -1, -1)), dim=1)
    add = (0, width - clips.shape[-1], 0, height - clips.shape[-2])
    if not any(add):
        return longer
    grown = F.pad(longer.flatten(0, 1).float(), add, mode="replicate").to(torch.uint8)
    return grown.unflatten(0, longer.shape[:2])
