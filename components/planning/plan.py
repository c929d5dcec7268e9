"""Memory and time that an alignment takes of its GPUs, estimated without weights and without a GPU.

The real networks run on the meta device at the sizes that the params ask for: memory is what their tensors
hold at the worst moment of each phase, time is their operations over the GPU's stated rate times an assumed
share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from components.alignment.params import AlignmentParams
from components.alignment.policy.sharding import blocks_of, minority_dtype_parameters
from components.alignment.strategies import STRATEGIES
from components.generator.families import ModelFamily
from components.generator.params import SamplingParams
from components.planning.blueprints import Blueprint, build
from components.planning.gpus import Gpu
from components.planning.measure import fused_attention, peak_bytes
from components.video.clip import ClipFormat

#: Share of a GPU's stated rate that large matrix operations reach; an assumption, printed with the plan.
UTILISATION = 0.4
#: What the driver's context, libraries' workspaces and the allocator's fragments take; an assumption, bytes.
RESERVE = 4e9
#: What a plan takes for granted, for its reader.
ASSUMED = (
    "every prompt of an iteration gives a pair",
    "prompts are divided evenly over the GPUs; exchanging gradients and shards of weights takes no time",
    "encoding prompts (once each), scoring and reading from disk are not counted",
    f"{RESERVE / 1e9:g} GB for the driver's context, libraries' workspaces and the allocator's fragments",
)
#: Bytes of a trained weight, in float32: itself, in the policy or in the reference; its gradient and Adam's
#: two moments.
WEIGHT, OPTIMISER = 4, 3 * 4


@dataclass(frozen=True)
class Phase:
    """One part of an iteration on the GPU that has most to do.

    Attributes:
        peak: bytes at the worst moment, beside everything that lies there all the time.
        total: bytes at the worst moment, everything counted.
        flops: operations per iteration.
        seconds: time per iteration.
    """

    peak: float
    total: float
    flops: float
    seconds: float


@dataclass(frozen=True)
class MemoryPlan:
    """Memory and time of an alignment, per GPU: bytes, seconds and operations.

    Attributes:
        parameters: by component, and `lora` for one adapter where there is one.
        fsdp: whether each GPU holds a share of the weights.
        latents: shape (C, T, h, w) of a clip's latents.
        resident: bytes that lie on the GPU all the time, by part; text encoders apart, see `text_encoders`.
        text_encoders: bytes of the text encoders, which are needed only until prompts are encoded.
        phases: sampling, decoding, update, and update with gradient checkpointing where the network has it.
        seconds: per iteration, with checkpointing where the update does not fit without it.
        capacity: bytes of the GPU's stated memory.
        tflops: stated rate that the denoiser's products run at, 10^12 operations a second.
        checkpointing: whether the update needs gradient checkpointing to fit; None where it fits in no way.
    """

    base: str
    pipeline: str
    gpu: str
    gpus: int
    precision: str
    utilisation: float
    tflops: float
    clip: ClipFormat
    parameters: dict[str, int]
    fsdp: bool
    latents: tuple[int, int, int, int]
    resident: dict[str, float]
    text_encoders: float
    phases: dict[str, Phase]
    capacity: float
    checkpointing: bool | None
    seconds: float

    def fits(self, phase: str, with_text_encoders: bool = True) -> bool:
        """Whether a phase fits the GPU's stated memory."""
        text = self.text_encoders if with_text_encoders else 0.0
        return self.phases[phase].total + text <= self.capacity

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values, with what is assumed and what is left out."""
        return {
            **asdict(self),
            "fits": {name: self.fits(name) for name in self.phases},
            "fits_without_text_encoders": {name: self.fits(name, False) for name in self.phases},
            "assumed": list(ASSUMED),
        }


class _Network:
    """A family on the meta device with one adapter, or at rank 0 with all weights trained, and what running
    it costs."""

    def __init__(self, family: ModelFamily, geometry: ClipFormat, rank: int) -> None:
        self.family, self.shape = family, family.latent_shape(geometry)
        if rank:
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(family.lora_targets))
            with torch.device("meta"):
                family.denoiser.add_adapter(config, adapter_name="policy")
        else:
            family.denoiser.requires_grad_(True)
        trained = [p for p in family.denoiser.parameters() if p.requires_grad]
        for parameter in trained:
            if rank:
                parameter.data = parameter.data.float()
            else:
                parameter.register_post_accumulate_grad_hook(
                    _dropped
                )  # it moves on to float32, counted apart
        self.trained = sum(parameter.numel() for parameter in trained)
        modules = [m for m in family.pipeline.components.values() if isinstance(m, nn.Module)]
        self.known: list[Tensor] = [t for m in modules for t in (*m.parameters(), *m.buffers())]

    def predict(self, rows: int) -> Tensor:
        """Predict noise for `rows` of nothing."""
        family = self.family
        latents = torch.empty(rows, *self.shape, device="meta")
        text = torch.empty(rows, *family.embedding_shape, device="meta", dtype=family.denoiser.dtype)
        kind = family.noise_process.sample_times(1, torch.Generator()).dtype
        return family.predict(latents, torch.zeros(rows, device="meta", dtype=kind), text)

    @torch.no_grad()
    def sample(self, rows: int) -> None:
        """One call of the network as the sampler makes it."""
        self.predict(rows)

    @torch.no_grad()
    def decode(self, clips: int) -> None:
        """Decode clips as the rollout does."""
        self.family.decode(torch.empty(clips, *self.shape, device="meta"))

    def train(self, rows: int) -> None:
        """One forward and backward pass."""
        self.predict(rows).square().mean().backward()
        self.family.denoiser.zero_grad(set_to_none=True)

    def peak(self, action: Callable[[], None]) -> int:
        return peak_bytes(action, self.known)

    def flops(self) -> tuple[float, float]:
        """Operations of one row's forward pass, and of its forward and backward pass."""
        with fused_attention(), FlopCounterMode(display=False) as counter:
            error = self.predict(1).square().mean()
            forward = float(counter.get_total_flops())
            error.backward()
        self.family.denoiser.zero_grad(set_to_none=True)
        return forward, float(counter.get_total_flops())

    def decode_flops(self) -> float:
        """Operations of decoding one clip."""
        with fused_attention(), FlopCounterMode(display=False) as counter:
            self.decode(1)
        return float(counter.get_total_flops())


def plan(
    blueprint: Blueprint,
    sampling: SamplingParams,
    params: AlignmentParams,
    gpu: Gpu,
    gpus: int,
    utilisation: float = UTILISATION,
) -> MemoryPlan:
    """Work out what an alignment of `blueprint` takes on `gpus` GPUs of one kind.

    Every prompt of an iteration is taken to give a pair: the most there can be. Encoding prompts (once each),
    scoring and the exchange of gradients are not counted.

    Raises:
        InputError: a base that no family serves, or a clip that it cannot make.
    """
    geometry = ClipFormat(sampling.num_frames, sampling.height, sampling.width, sampling.fps)
    whole = build(blueprint, sampling.precision)
    experts = len(whole.denoisers)
    # Experts are alike and a call takes one of them, so one is measured.
    others = set(whole.denoisers[1:])
    single = replace(
        blueprint,
        parts={name: part for name, part in blueprint.parts.items() if name not in others},
        config={k: v for k, v in blueprint.config.items() if not (others and k == "boundary_ratio")},
    )
    network = _Network(build(single, sampling.precision), geometry, params.lora_rank)
    family = network.family
    family.set_conditioning(sampling.fps, sampling.guidance)

    prompts = -(-params.prompts_per_iteration // gpus)
    clips, pairs = prompts * params.num_generations, prompts * params.timesteps_per_pair
    passes = 2 if sampling.guidance != 1.0 and not family.guidance_distilled else 1
    batch, rows = min(sampling.batch, clips), 2 * min(params.pairs_per_forward, pairs)
    forward, trained = network.flops()
    full, vae_full = (m.dtype == torch.float32 for m in (family.denoiser, family.pipeline.vae))
    rate = (gpu.tflops_32 if full else gpu.tflops_16) * 1e12 * utilisation
    vae_rate = (gpu.tflops_tf32 if vae_full else gpu.tflops_16) * 1e12 * utilisation

    text, weights = _bytes(whole, whole.text_encoders), network.trained * experts
    fsdp, trained_here = params.fsdp and gpus > 1, float(weights)
    resident = {"denoiser": _bytes(whole, whole.denoisers), "vae": _bytes(whole, ("vae",))}
    if fsdp:
        denoisers = [getattr(whole.pipeline, name) for name in whole.denoisers]
        shares = [_share(network, gpus, trained=not params.lora_rank) for network in denoisers]
        resident["denoiser"] = sum(size for _, size in shares)
        resident["gathered weights"] = _gathered(denoisers, trained=not params.lora_rank)
        if not params.lora_rank:
            trained_here = sum(count for count, _ in shares)
    if params.lora_rank:
        resident["lora (policy, reference)"] = 2.0 * WEIGHT * trained_here
    else:
        # An adapter is switched off; a trained network needs the base beside it, which serves as a reference
        # that is fixed.
        fixed = (params.reference or STRATEGIES[params.strategy].reference) == "fixed"
        resident["base"] = resident["denoiser"]
        resident["policy" if fixed else "policy, reference"] = (1.0 if fixed else 2.0) * WEIGHT * trained_here
    resident |= {"optimiser (gradient, moments)": OPTIMISER * trained_here, "reserve": RESERVE}
    held = sum(resident.values())

    def phase(peak: float, flops: float, per_second: float) -> Phase:
        return Phase(peak, held + peak, flops, flops / per_second)

    # Of each pair and draw: both sides through the policy and back, and through the reference.
    both = 2 * pairs * params.inner_updates
    drift = 2 * prompts
    update = both * (trained + forward) + drift * forward
    phases = {
        "sampling": phase(
            network.peak(lambda: network.sample(batch * passes)),
            clips * sampling.steps * passes * forward,
            rate,
        ),
        "decoding": phase(
            network.peak(lambda: network.decode(batch)), clips * network.decode_flops(), vae_rate
        ),
        "update": phase(network.peak(lambda: network.train(rows)), update, rate),
    }
    if getattr(family.denoiser, "_supports_gradient_checkpointing", False):
        family.denoiser.enable_gradient_checkpointing()
        peak = network.peak(lambda: network.train(rows))
        phases["update, checkpointed"] = phase(peak, update + both * forward, rate)

    capacity = gpu.memory_gb * 1e9
    fitting = [name for name in phases if name.startswith("update") and phases[name].total <= capacity]
    chosen = fitting[0] if fitting else list(phases)[-1]
    return MemoryPlan(
        base=blueprint.base,
        pipeline=blueprint.pipeline,
        gpu=gpu.label,
        gpus=gpus,
        precision=sampling.precision,
        utilisation=utilisation,
        tflops=gpu.tflops_32 if full else gpu.tflops_16,
        clip=geometry,
        parameters={
            name: sum(p.numel() for p in getattr(whole.pipeline, name).parameters())
            for name in (*whole.denoisers, "vae", *whole.text_encoders)
        }
        | ({"lora": weights} if params.lora_rank else {}),
        fsdp=fsdp,
        latents=network.shape,
        resident=resident,
        text_encoders=text,
        phases=phases,
        capacity=capacity,
        checkpointing=(chosen != "update") if fitting else None,
        seconds=sum(phases[name].seconds for name in ("sampling", "decoding", chosen)),
    )


def _dropped(parameter: Tensor) -> None:
    parameter.grad = None


def _share(network: nn.Module, gpus: int, *, trained: bool) -> tuple[float, float]:
    """Parameters and bytes that each GPU has of a network that is sharded evenly."""
    whole = {id(value) for value in minority_dtype_parameters(network)} if trained else set()
    count = size = 0.0
    for value in network.parameters():
        part = value.numel() / (1 if id(value) in whole else gpus)
        count, size = count + part, size + part * value.element_size()
    return count, size


def _gathered(networks: Sequence[nn.Module], *, trained: bool) -> float:
    """Bytes of gathered (unsharded) weights at the worst moment.

    Those outside of blocks stay for a call, and two blocks: the one that computes and the next, on its way.
    Where they are trained, gradients stay whole until a block is through, and are exchanged in float32.
    """
    outside = largest = numbers = 0.0
    for network in networks:
        blocks = blocks_of(network)
        inside = {id(value) for block in blocks for value in block.parameters()}
        outside += sum(_size(value) for value in network.parameters() if id(value) not in inside)
        for block in blocks:
            if (size := sum(map(_size, block.parameters()))) > largest:
                largest, numbers = size, sum(value.numel() for value in block.parameters())
    gradients = outside + largest + WEIGHT * numbers if trained else 0.0
    return outside + 2 * largest + gradients


def _size(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _bytes(family: ModelFamily, names: tuple[str, ...]) -> float:
    modules = [getattr(family.pipeline, name) for name in names]
    return float(sum(_size(p) for m in modules for p in m.parameters()))
