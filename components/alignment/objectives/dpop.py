"""DPOP: DPO with a hinge on winners that got worse than under the reference."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from components.alignment.objectives.base import PairErrors, preference

#: The paper's lambda; the value is our own, as none is known for diffusion models. At 1 a winner above its
#: reference is pulled down twice as hard as its loser is pushed up.
HINGE = 1.0


def dpop(errors: PairErrors, beta: float) -> Tensor:
    """Return -log sigmoid(preference - HINGE (beta / 2) max(0, e_w - r_w)), (P,).

    DPO-Positive, arXiv 2402.13228, eq. 3: log(reference / policy) of a winner is (e_w - r_w) / 2 here.
    """
    worse = (errors.winner - errors.reference_winner).clamp_min(0.0)
    return -F.logsigmoid(preference(errors, beta) - HINGE * 0.5 * beta * worse)
