"""The losses of preference pairs. A new one is a function in this file and a name in the params."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from components.alignment.objectives.base import Objective, PairErrors, preference

#: DPOP's lambda; the value is our own, as none is known for diffusion models. At 1 a winner above its
#: reference is pulled down twice as hard as its loser is pushed up.
HINGE = 1.0
#: Of a pair's weight in Linear-DPO, by its preference: the values of the authors' code. Its 0.2 beta is per
#: difference of errors, which is twice a preference; its floor is that of its run on Stable Diffusion 1.5.
SLOPE, FLOOR = 0.4, 1e-3


def dpo(errors: PairErrors, beta: float) -> Tensor:
    """Return -log sigmoid(preference), (P,). Diffusion-DPO, arXiv 2311.12908, eq. 14.

    It only requires that the loser's error grows faster than the winner's: both may grow.
    """
    return -logsigmoid(preference(errors, beta))


def ipo(errors: PairErrors, beta: float) -> Tensor:
    """Return (preference - 1/2)^2, (P,). IPO, arXiv 2310.12036, eq. 17, on Diffusion-DPO's log ratios.

    The paper has (h - 1 / (2 tau))^2 of the difference h of log ratios; with tau = beta and preference =
    beta h this is it times beta^2, which moves no minimum and keeps the size of DPO's gradients.
    """
    return (preference(errors, beta) - 0.5).square()


def dpop(errors: PairErrors, beta: float) -> Tensor:
    """Return -log sigmoid(preference - HINGE (beta / 2) max(0, e_w - r_w)), (P,).

    DPO-Positive, arXiv 2402.13228, eq. 3: log(reference / policy) of a winner is (e_w - r_w) / 2 here.
    """
    worse = (errors.winner - errors.reference_winner).clamp_min(0.0)
    return -logsigmoid(preference(errors, beta) - HINGE * 0.5 * beta * worse)


@torch.no_grad()
def loser_scale(errors: PairErrors) -> Tensor:
    """Return lambda in 0..1, (P,): the largest share of the loser's gradient that leaves the winner no worse.

    A step along -(g_w - lambda g_l) changes the winner's error by -(|g_w|^2 - lambda g_w.g_l) to first order,
    which is not above 0 for lambda <= |g_w|^2 / g_w.g_l, and for every lambda where g_w.g_l <= 0. The
    gradients are those in the network's output, 2 (prediction - target), so the bound is the winner's error
    over the residuals' overlap. Diffusion-SDPO, arXiv 2511.03317 (safe coefficient in output space, without
    slack, at most 1). The guarantee is exact where winner and loser share the network's Jacobian, and an
    approximation elsewhere.
    """
    bound = errors.winner / errors.overlap.clamp_min(torch.finfo(errors.overlap.dtype).tiny)
    return torch.where(errors.overlap > 0, bound.clamp(max=1.0), 1.0)


def sdpo(errors: PairErrors, beta: float) -> Tensor:
    """Return DPO's losses (P,) with the loser's gradient times `loser_scale`; the values are DPO's."""
    held = errors.loser.detach()
    loser = held + loser_scale(errors) * (errors.loser - held)
    return dpo(replace(errors, loser=loser), beta)


def linear_dpo(errors: PairErrors, beta: float) -> Tensor:
    """Return losses (P,) whose derivative by the preference p is -clip(1/2 - SLOPE p, FLOOR, 1 - FLOOR).

    Linear-DPO, arXiv 2605.21123. The authors' code multiplies a weight without gradient by e_w - e_l; this is
    the function with that gradient, times beta / 2, so that it starts as steep as DPO, whose derivative is
    -sigmoid(-preference). A falling loss is then a growing preference. The method's other half, a moving
    average as reference, is `alignment.reference = ema`.
    """
    line = 0.5 - SLOPE * preference(errors, beta)
    weight = line.clamp(FLOOR, 1.0 - FLOOR)
    return (0.5 * weight.square() + weight * (line - weight)) / SLOPE


def sft(errors: PairErrors, beta: float) -> Tensor:
    """Return e_w, (P,): training on winners alone; beta has no effect."""
    return errors.winner


#: Every loss by name.
OBJECTIVES: dict[str, Objective] = {loss.__name__: loss for loss in (dpo, ipo, dpop, sdpo, linear_dpo, sft)}
