"""Noise processes: how clean latents become noisy ones, and what the network is asked to predict."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class NoiseProcess(ABC):
    """Forward process of a diffusion or flow model; tensors (B, C, T, h, w), times (B,)."""

    @abstractmethod
    def sample_times(self, count: int, generator: torch.Generator) -> Tensor:
        """Return `count` training times, (B,), drawn from the host `generator`."""

    @abstractmethod
    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return the noisy latents x_t."""

    @abstractmethod
    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        """Return what the network should output at x_t."""


def _over_latents(values: Tensor, like: Tensor) -> Tensor:
    return values.to(device=like.device, dtype=like.dtype).view(-1, *([1] * (like.ndim - 1)))


class FlowMatching(NoiseProcess):
    """Rectified flow as Wan trains it (arXiv 2210.02747).

    x_t = (1 - t) x + t eps, target eps - x, model time 1000 t.

    Args:
        scale: training times run over (0, scale); 1000 for the released models.
        shift: drawn times are moved towards noise as a sampler's shift moves its steps,
            t -> shift t / (1 + (shift - 1) t); 1 leaves them.
    """

    def __init__(self, scale: float = 1000.0, shift: float = 1.0) -> None:
        self.scale, self.shift = scale, shift

    def sample_times(self, count: int, generator: torch.Generator) -> Tensor:
        """Logit-normal times (arXiv 2403.03206), in (0, scale)."""
        t = torch.sigmoid(torch.randn(count, generator=generator))
        return self.shift * t / (1.0 + (self.shift - 1.0) * t) * self.scale

    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        t = _over_latents(time / self.scale, clean)
        return (1.0 - t) * clean + t * noise

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        return noise - clean


class DiscreteDiffusion(NoiseProcess):
    """Variance-preserving diffusion over integer timesteps, with epsilon- or v-prediction.

    x_t = a_t x + s_t eps with a_t = sqrt(alpha_bar_t), s_t = sqrt(1 - alpha_bar_t) (DDPM, arXiv 2006.11239);
    target eps, or v = a_t eps - s_t x (arXiv 2202.00512).

    Args:
        scheduler: a diffusers scheduler with `alphas_cumprod` and `config.prediction_type`.
    """

    def __init__(self, scheduler: Any) -> None:
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod.double()
        self.prediction_type: str = scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(f"prediction_type {self.prediction_type!r}: epsilon or v_prediction is allowed")

    def sample_times(self, count: int, generator: torch.Generator) -> Tensor:
        """Uniform integer timesteps in [0, number of training timesteps)."""
        return torch.randint(len(self.alphas_cumprod), (count,), generator=generator)

    def _coefficients(self, time: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha_bar = self.alphas_cumprod[time.long().cpu()]
        return _over_latents(alpha_bar.sqrt(), like), _over_latents((1.0 - alpha_bar).sqrt(), like)

    def add_noise(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        signal, sigma = self._coefficients(time, clean)
        return signal * clean + sigma * noise

    def target(self, clean: Tensor, noise: Tensor, time: Tensor) -> Tensor:
        if self.prediction_type == "epsilon":
            return noise
        signal, sigma = self._coefficients(time, clean)
        return signal * noise - sigma * clean
