"""A plan as text for a person."""

from __future__ import annotations

import math
from collections.abc import Iterator

from components.planning.plan import ASSUMED, MemoryPlan
from components.runtime.tables import columns


def as_table(plan: MemoryPlan) -> str:
    """Return a plan as lines of text: what it is for, parameters, memory, time, what is assumed."""
    return "\n".join(_lines(plan))


def _lines(plan: MemoryPlan) -> Iterator[str]:
    clip, latents = plan.clip, " x ".join(map(str, plan.latents))
    sharded = ", which share the weights (FSDP2)" if plan.fsdp else ""
    yield f"{plan.base} ({plan.pipeline}, {plan.precision}) on {plan.gpus} x {plan.gpu}{sharded}"
    yield (
        f"clip: {clip.frames} frames of {clip.height} x {clip.width} px at {clip.fps:g} fps; "
        f"latents {latents}, {4 * math.prod(plan.latents) / 1e6:.1f} MB in float32"
    )
    yield ""
    yield "parameters"
    yield from columns([(name, f"{count:,}") for name, count in plan.parameters.items()], indent=2)
    yield ""
    yield f"memory per GPU, GB of 10^9 bytes, of {plan.capacity / 1e9:g}"
    held: list[tuple[str, ...]] = [(name, _gigabytes(size)) for name, size in plan.resident.items()]
    held.append(("text encoders", _gigabytes(plan.text_encoders), "needed until prompts are encoded"))
    yield from columns(held, left=(0, 2), indent=2)
    phases: list[tuple[str, ...]] = [("phase", "peak", "in all", "+ text encoders")]
    for name, phase in plan.phases.items():
        sizes = (phase.peak, phase.total, phase.total + plan.text_encoders)
        phases.append((name, *map(_gigabytes, sizes), _verdict(plan, name)))
    yield from columns(phases, left=(0, 4), indent=2)
    yield ""
    yield (
        f"time per iteration, at {plan.utilisation:.0%} (assumed) of {plan.tflops:g} TFLOP/s (stated), "
        "on the GPU that has most to do"
    )
    how = {True: "update checkpointed", False: "update not checkpointed", None: "the update does not fit"}
    times: list[tuple[str, ...]] = [
        (name, f"{phase.flops / 1e12:,.1f} TFLOP", _duration(phase.seconds))
        for name, phase in plan.phases.items()
    ]
    times.append(("in all", "", _duration(plan.seconds), how[plan.checkpointing]))
    yield from columns(times, left=(0, 3), indent=2)
    yield ""
    yield "assumed: " + "; ".join(ASSUMED)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f}"


def _verdict(plan: MemoryPlan, phase: str) -> str:
    if plan.fits(phase):
        return "fits"
    return "fits without text encoders" if plan.fits(phase, with_text_encoders=False) else "does not fit"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
