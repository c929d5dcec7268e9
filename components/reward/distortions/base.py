"""The registry of distortions: one decorator makes a function a catalogued, tested, five-level ladder.

A distortion is written as `fn(frames, value, draws) -> frames`, decorated with `@distortion(...)`. Nothing
else has to know it: the catalogue, the ladders, the card, the command line and the tests read the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from components.runtime.compute.seeds import derive, torch_generator
from components.runtime.errors import InputError

Family = Literal["spatial", "codec", "temporal", "diffusion"]
FAMILIES: tuple[Family, ...] = ("spatial", "codec", "temporal", "diffusion")
#: What a ladder needs besides a clip: nothing, a generator's VAE, or its sampler.
Needs = Literal["", "vae", "sampler"]
#: Severity levels of every distortion; level 0 is the untouched clip.
LEVELS = 5
#: Lengths in px are given for a frame with this short side and grow in proportion with larger frames.
BASE_SIDE = 48.0
#: The unit of such a length, for the catalogue.
PX = f"px at a {BASE_SIDE:g} px short side"


class Draws:
    """Random numbers of one distortion call: one independent stream per clip.

    The stream depends on the clip's seed and the distortion's name only, never on the level or on the other
    clips of the batch. So a batch equals its clips one by one, and the levels of a ladder share one draw: a
    higher level is the same damage, larger.
    """

    def __init__(self, seeds: Sequence[int], name: str, device: torch.device) -> None:
        self.device = device
        self._streams = [torch_generator(seed, "distortion", name) for seed in seeds]

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """(B, *shape) float32, uniform in [low, high)."""
        drawn = torch.stack([torch.rand(shape, generator=stream) for stream in self._streams])
        return (low + (high - low) * drawn).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """(B, *shape) float32, standard normal."""
        return torch.stack([torch.randn(shape, generator=stream) for stream in self._streams]).to(self.device)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """(B, *shape) int64 in low..high-1."""
        drawn = [torch.randint(low, high, shape, generator=stream) for stream in self._streams]
        return torch.stack(drawn).to(self.device)

    def signs(self, *shape: int) -> Tensor:
        """(B, *shape) float32, each -1 or +1."""
        return self.integers(0, 2, *shape).float() * 2.0 - 1.0


Damage = Callable[[Tensor, float, Draws], Tensor]


@dataclass(frozen=True)
class CatalogueEntry:
    """What the catalogue knows of a ladder: five `levels` in `unit`, made by `function`."""

    name: str
    family: Family
    levels: tuple[float, ...]
    unit: str
    summary: str
    needs: Needs
    function: Callable[..., Tensor]

    @classmethod
    def of(
        cls, function: Callable[..., Tensor], family: Family, levels: Sequence[float], unit: str, needs: Needs
    ) -> Self:
        """The entry that a decorated function describes: its name, and its docstring's first line.

        Raises:
            ValueError: not five levels.
        """
        name = function.__name__
        if len(levels) != LEVELS:
            raise ValueError(f"distortion {name!r} has {len(levels)} levels, needs {LEVELS}")
        summary = (function.__doc__ or "").strip().splitlines()[0].rstrip(".")
        return cls(name, family, tuple(map(float, levels)), unit, summary, needs, function)

    def check(self, level: int, seeds: Sequence[int], clips: int) -> None:
        """Raises InputError where the level is outside 0 to 5 or there is not one seed a clip."""
        if not 0 <= level <= LEVELS:
            raise InputError(f"distortion {self.name}: level {level} is outside 0..{LEVELS}")
        if len(seeds) != clips:
            raise InputError(f"distortion {self.name}: {len(seeds)} seeds for {clips} clips")


@dataclass(frozen=True)
class Distortion(CatalogueEntry):
    """A registered distortion: its catalogue entry, and a call that damages clips."""

    def __call__(self, frames: Tensor, level: int, seeds: Sequence[int]) -> Tensor:
        """Distorts a batch of clips.

        Args:
            frames: (B, T >= 2, 3, H, W) float in 0..1.
            level: 0 (identity) to 5 (worst).
            seeds: one integer per clip; the same seed gives the same bytes.

        Returns:
            (B, T, 3, H, W) float in 0..1, same dtype and device.

        Raises:
            InputError: wrong shape, dtype, level or number of seeds.
        """
        if frames.ndim != 5 or frames.shape[1] < 2 or frames.shape[2] != 3 or not frames.is_floating_point():
            raise InputError(
                f"distortion {self.name}: frames must be a float tensor (B, T >= 2, 3, H, W), "
                f"got {frames.dtype} {tuple(frames.shape)}"
            )
        self.check(level, seeds, frames.shape[0])
        if level == 0 or frames.shape[0] == 0:
            return frames.clone()
        damaged = self.function(frames, self.levels[level - 1], Draws(seeds, self.name, frames.device))
        return damaged.clamp(0.0, 1.0).to(frames.dtype)


#: Every distortion by name, in the order in which its module declares it.
REGISTRY: dict[str, Distortion] = {}


def distortion(family: Family, levels: Sequence[float], unit: str) -> Callable[[Damage], Damage]:
    """Registers the decorated function under its own name; its docstring's first line describes it."""

    def register(damage: Damage) -> Damage:
        if damage.__name__ in REGISTRY:
            raise ValueError(f"distortion {damage.__name__!r} is declared twice")
        REGISTRY[damage.__name__] = Distortion.of(damage, family, levels, unit, "")
        return damage

    return register


def find(name: str) -> Distortion:
    """The distortion of that name.

    Raises:
        InputError: there is none; the message lists those there are.
    """
    if name not in REGISTRY:
        raise InputError(f"unknown distortion {name!r}; known: {', '.join(sorted(REGISTRY))}")
    return REGISTRY[name]


#: One to four distortion names, applied in that order, all at the same level.
Recipe = tuple[str, ...]


def apply_recipe(recipe: Recipe, frames: Tensor, level: int, seeds: Sequence[int]) -> Tensor:
    """Applies every distortion of the recipe in order at one level; shapes as `Distortion.__call__`.

    In a composition of n each distortion is milder than alone (level - (n-1)/2, at least 1), so that a
    composition of four is heavily damaged but not noise.

    Raises:
        InputError: not 1 to 4 names, or an unknown one.
    """
    if not 1 <= len(recipe) <= 4:
        raise InputError(f"a composition holds 1 to 4 distortions, got {len(recipe)}: {', '.join(recipe)}")
    eased = level if len(recipe) == 1 or level == 0 else max(1, level - (len(recipe) - 1) // 2)
    out = frames.clone()
    for position, name in enumerate(recipe):
        out = find(name)(out, eased, [derive(seed, "part", position) for seed in seeds])
    return out


def random_recipe(seed: int, names: Sequence[str], count: int) -> Recipe:
    """Draws `count` different distortions from `names` in random order, deterministic in the seed."""
    order = torch.randperm(len(names), generator=torch_generator(seed, "recipe")).tolist()
    return tuple(names[i] for i in order[:count])


def scaled(frames: Tensor, pixels: float) -> float:
    """A length given in px at a 48 px short side, in px of these frames."""
    return pixels * min(frames.shape[-2:]) / BASE_SIDE
