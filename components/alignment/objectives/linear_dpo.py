"""Linear-DPO: DPO's sigmoid weight of a pair replaced by a clipped line."""

from __future__ import annotations

from torch import Tensor

from components.alignment.objectives.base import PairErrors, preference

#: Of a pair's weight, by its preference: the values of the authors' code. Its 0.2 beta is per difference of
#: errors, which is twice a preference; its floor is that of its run on Stable Diffusion 1.5.
SLOPE, FLOOR = 0.4, 1e-3


def linear_dpo(errors: PairErrors, beta: float) -> Tensor:
    """Return losses (P,) whose derivative by the preference p is -clip(1/2 - SLOPE p, FLOOR, 1 - FLOOR).

    Linear-DPO, arXiv 2605.21123. The authors' code multiplies a weight without gradient by e_w - e_l; this is
    the function with that gradient, times beta / 2, so that it starts as steep as DPO, whose derivative
    is -sigmoid(-preference). A falling loss is then a growing preference. The method's other half, a moving
    average as reference, is ``alignment.reference = ema``.
    """
    line = 0.5 - SLOPE * preference(errors, beta)
    weight = line.clamp(FLOOR, 1.0 - FLOOR)
    return (0.5 * weight.square() + weight * (line - weight)) / SLOPE
