"""A plan as text for a person."""

from __future__ import annotations

import math
from collections.abc import Iterator

from components.planning.plan import ASSUMED, Plan


def as_table(plan: Plan) -> str:
    """Return a plan as lines of text: what it is for, parameters, memory, time, what is assumed."""
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    clip, latents = plan.clip, " x ".join(map(str, plan.latents))
    held = ", which hold the weights together" if plan.shard else ""
    yield f"{plan.base} ({plan.pipeline}, {plan.precision}) on {plan.gpus} x {plan.gpu}{held}"
    yield (
        f"clip: {clip.num_frames} frames of {clip.height} x {clip.width} px at {clip.fps:g} fps; "
        f"latents {latents}, {4 * math.prod(plan.latents) / 1e6:.1f} MB in float32"
    )
    yield ""
    yield "parameters"
    for name, count in plan.parameters.items():
        yield f"  {name:<32}{count:>18,}"
    yield ""
    yield f"memory per GPU, GB of 10^9 bytes, of {plan.capacity / 1e9:g}"
    for name, size in plan.resident.items():
        yield f"  {name:<32}{size / 1e9:>10.2f}"
    yield f"  {'text encoders':<32}{plan.text_encoders / 1e9:>10.2f}   needed until prompts are encoded"
    yield f"  {'phase':<32}{'peak':>10}{'in all':>10}{'+ text encoders':>18}"
    for name, phase in plan.phases.items():
        total, text = phase.total, phase.total + plan.text_encoders
        yield (
            f"  {name:<32}{phase.peak / 1e9:>10.2f}{total / 1e9:>10.2f}{text / 1e9:>18.2f}   "
            f"{_verdict(plan, name)}"
        )
    yield ""
    yield (
        f"time per iteration, at {plan.utilisation:.0%} (assumed) of {plan.tflops:g} TFLOP/s (stated), "
        "on the GPU that has most to do"
    )
    for name, phase in plan.phases.items():
        yield f"  {name:<32}{phase.flops / 1e12:>14,.1f} TFLOP{_duration(phase.seconds):>12}"
    how = {True: "update checkpointed", False: "update not checkpointed", None: "the update does not fit"}
    yield f"  {'in all':<32}{'':>20}{_duration(plan.seconds):>12}   {how[plan.checkpointing]}"
    yield ""
    yield "assumed: " + "; ".join(ASSUMED)


def _verdict(plan: Plan, phase: str) -> str:
    if plan.fits(phase):
        return "fits"
    return "fits without text encoders" if plan.fits(phase, with_text_encoders=False) else "does not fit"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
