"""Noise processes against the formulas worked by hand and against diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    DDIMScheduler,
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from components.generator.families import ModelFamily
from components.generator.families.noise_process import DiscreteDiffusion, FlowMatching, NoiseProcess
from components.video.clip import ClipFormat
from tests.generator.theirs import last_of

COGVIDEOX = {
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
SHAPE = (4, 3, 2, 5, 5)


def pair(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(SHAPE, generator=generator, dtype=dtype), torch.randn(
        SHAPE, generator=generator, dtype=dtype
    )


def over(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1, 1, 1, 1)


def cogvideox_alpha_bar(shift: float) -> np.ndarray:
    """alpha_bar as CogVideoX's paper defines it: scaled linear betas, SNR shift, zero terminal SNR."""
    betas = np.linspace(0.00085**0.5, 0.0120**0.5, 1000) ** 2
    alpha_bar = np.cumprod(1 - betas)
    # Dividing the signal-to-noise ratio alpha_bar / (1 - alpha_bar) by the shift.
    snr = alpha_bar / (1 - alpha_bar) / shift
    root = np.sqrt(snr / (1 + snr))
    # Affine in sqrt(alpha_bar), first value kept, last value zero (arXiv 2305.08891, algorithm 1).
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def test_flow_matching_by_hand() -> None:
    clean, noise = pair()
    process, time = FlowMatching(), torch.tensor([0.0, 250.0, 500.0, 1000.0])
    noisy = process.add_noise(clean, noise, time)
    expected = over([1, 0.75, 0.5, 0]) * clean + over([0, 0.25, 0.5, 1]) * noise
    torch.testing.assert_close(noisy, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(process.target(clean, noise, time), noise - clean, atol=1e-12, rtol=0)
    # d x_t / dt is the target: the time unit of the path is 1, not 1000.
    slope = process.add_noise(clean, noise, time + 500.0) - noisy
    torch.testing.assert_close(slope, 0.5 * process.target(clean, noise, time), atol=1e-12, rtol=0)


def test_flow_matching_against_the_scheduler() -> None:
    clean, noise = pair(torch.float32)
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    time = scheduler.timesteps[[0, 10, 600, 999]]
    expected = scheduler.scale_noise(clean, time, noise)
    torch.testing.assert_close(FlowMatching().add_noise(clean, noise, time), expected, atol=1e-6, rtol=0)


def test_flow_matching_times_are_logit_normal() -> None:
    times = FlowMatching().sample_times(20_000, torch.Generator().manual_seed(2))
    assert times.shape == (20_000,)
    assert times.min() > 0 and times.max() < 1000
    # Quartiles of the logistic function of a standard normal: sigmoid(-0.6745), 1/2, sigmoid(0.6745).
    quartiles = torch.quantile(times, torch.tensor([0.25, 0.5, 0.75]))
    torch.testing.assert_close(quartiles, torch.tensor([337.5, 500.0, 662.5]), atol=8.0, rtol=0)


def test_shifted_times_are_drawn_as_the_samplers_steps_are_spread() -> None:
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=3.0)
    plain, shifted = (
        FlowMatching(shift=shift).sample_times(20_000, torch.Generator().manual_seed(2))
        for shift in (1.0, 3.0)
    )
    quartiles = torch.quantile(plain / 1000, torch.tensor([0.75, 0.5, 0.25]))
    scheduler.set_timesteps(sigmas=quartiles.tolist())
    torch.testing.assert_close(
        torch.quantile(shifted, torch.tensor([0.75, 0.5, 0.25])), scheduler.timesteps, atol=0.1, rtol=0
    )


def test_both_of_wans_experts_get_their_share_of_the_times(load_family: Callable[[str], ModelFamily]) -> None:
    times = load_family("wan-2.2-a14b").noise_process.sample_times(20_000, torch.Generator().manual_seed(2))
    # Logit-normal at a shift of 3: P(z > logit(0.875) - ln 3) = 0.1985.
    assert float((times >= 875).float().mean()) == pytest.approx(0.1985, abs=0.01)
    unshifted = load_family("wan-2.1").noise_process.sample_times(20_000, torch.Generator().manual_seed(2))
    assert float((unshifted >= 875).float().mean()) == pytest.approx(0.0258, abs=0.005)


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("scheduler", [CogVideoXDDIMScheduler, CogVideoXDPMScheduler])
def test_cogvideox_noise_levels(scheduler: type, shift: float) -> None:
    process = DiscreteDiffusion(scheduler(**COGVIDEOX, snr_shift_scale=shift))
    expected = torch.from_numpy(cogvideox_alpha_bar(shift))
    torch.testing.assert_close(process.alphas_cumprod, expected, atol=1e-9, rtol=0)
    assert process.alphas_cumprod[-1] == 0  # pure noise at the last timestep


def test_v_prediction_by_hand() -> None:
    clean, noise = pair()
    process, time = DiscreteDiffusion(CogVideoXDDIMScheduler(**COGVIDEOX)), torch.tensor([0, 300, 700, 999])
    alpha_bar = cogvideox_alpha_bar(3.0)[time.numpy()]
    signal, sigma = over(np.sqrt(alpha_bar).tolist()), over(np.sqrt(1 - alpha_bar).tolist())
    noisy, target = signal * clean + sigma * noise, signal * noise - sigma * clean
    torch.testing.assert_close(process.add_noise(clean, noise, time), noisy, atol=1e-8, rtol=0)
    torch.testing.assert_close(process.target(clean, noise, time), target, atol=1e-8, rtol=0)


@pytest.mark.parametrize(
    "scheduler",
    [
        CogVideoXDDIMScheduler(**COGVIDEOX),
        CogVideoXDPMScheduler(**COGVIDEOX, snr_shift_scale=1.0),
        DDPMScheduler(prediction_type="v_prediction"),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_v_prediction_against_the_scheduler(scheduler: Any) -> None:
    clean, noise = pair()
    process, time = DiscreteDiffusion(scheduler), torch.tensor([0, 1, 500, 999])
    expected = scheduler.add_noise(clean, noise, time)
    torch.testing.assert_close(process.add_noise(clean, noise, time), expected, atol=1e-7, rtol=0)
    expected = scheduler.get_velocity(clean, noise, time)
    torch.testing.assert_close(process.target(clean, noise, time), expected, atol=1e-7, rtol=0)


def test_epsilon_prediction() -> None:
    clean, noise = pair()
    scheduler: Any = DDIMScheduler(
        prediction_type="epsilon", beta_schedule="scaled_linear", clip_sample=False
    )
    process, time = DiscreteDiffusion(scheduler), torch.tensor([0, 20, 500, 999])
    noisy = process.add_noise(clean, noise, time)
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, time), atol=1e-7, rtol=0)
    assert torch.equal(process.target(clean, noise, time), noise)


def test_discrete_times_cover_every_timestep_evenly() -> None:
    process = DiscreteDiffusion(DDIMScheduler(num_train_timesteps=10))
    times = process.sample_times(20_000, torch.Generator().manual_seed(2))
    assert not times.is_floating_point()
    counts = torch.bincount(times, minlength=10)
    assert len(counts) == 10
    assert (counts - 2000).abs().max() < 5 * (20_000 * 0.1 * 0.9) ** 0.5  # five standard deviations


@pytest.mark.parametrize("process", [FlowMatching(), DiscreteDiffusion(DDIMScheduler())])
def test_times_come_from_the_generator_alone(process: NoiseProcess) -> None:
    one, other = (process.sample_times(8, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one, process.sample_times(8, torch.Generator().manual_seed(8)))


def test_a_prediction_type_without_a_formula_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'sample': epsilon or v_prediction is allowed"):
        DiscreteDiffusion(DDIMScheduler(prediction_type="sample"))


@pytest.mark.parametrize("steps", [2, 4])
def test_the_schedulers_last_step_from_the_exact_target_ends_clean(
    family: ModelFamily, geometry: ClipFormat, steps: int
) -> None:
    scheduler = family.sampling_scheduler()
    family.set_timesteps(scheduler, steps, family.latent_shape(geometry))
    last = scheduler.timesteps[-1]
    clean, noise = pair(torch.float32)
    time = last.expand(len(clean))
    noisy, target = (
        family.noise_process.add_noise(clean, noise, time),
        family.noise_process.target(clean, noise, time),
    )
    ended = scheduler.step(target, last, noisy, return_dict=False)[0]
    # UniPC gives its timesteps as integers, cut off below one thousandth of the noise level it works with.
    rounding = 1e-3 * float(target.abs().max()) if type(scheduler).__name__.startswith("UniPC") else 0.0
    assert (ended - last_of(family, clean, noise)).abs().max() < 1e-5 + rounding
