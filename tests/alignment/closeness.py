"""Two runs that differ in rounding only: what may be asked of their weights.

The same sums in another order, or by another processor's kernels, differ in their last digits. Adam divides
each gradient by its own size: where a gradient is nothing but rounding, so is the whole step, in either
direction. So optimizers are made steady first, and differences are measured by the size of the update.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from components.alignment.loop import AlignmentLoop
from components.alignment.policy.updater import Updater

#: What Adam adds to a gradient's size before it divides by it: rounding is far below, gradients are above.
FLOOR = 1e-3


def steady(loop: AlignmentLoop) -> AlignmentLoop:
    """Let the steps follow their gradients smoothly; for before a run, and again where it is resumed."""
    for group in loop.updater.optimizer.param_groups:
        group["eps"] = FLOOR
    return loop


def by_gradient(updater: Updater) -> Updater:
    """Let one step be the gradient itself."""
    updater.optimizer = torch.optim.SGD(updater.weights, lr=1.0)
    return updater


def largest_difference(
    found: Mapping[str, Tensor], expected: Mapping[str, Tensor], start: Mapping[str, Tensor]
) -> tuple[float, str]:
    """Return the largest difference of a tensor as a share of its own update, and the tensor's name.

    Updates that are less than a thousandth of all tensors' are measured by that thousandth: what cancels out
    all but wholly, as a key's bias does, is rounding.

    Args:
        start: the weights before, as `policy/<name>`.
    """
    assert found.keys() == expected.keys()
    moved = {n: value - start[f"policy/{n.partition('/')[2]}"] for n, value in expected.items()}
    whole = float(torch.stack([value.double().norm() for value in moved.values()]).norm())
    assert whole > 0
    return max(
        (float((found[n] - expected[n]).double().norm()) / max(float(moved[n].norm()), 1e-3 * whole), n)
        for n in expected
    )
