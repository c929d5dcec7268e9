"""Every objective against its formula worked by hand, and what all of them must keep."""

from __future__ import annotations

import math
from pathlib import Path
from typing import get_args

import pytest
import torch

from components.alignment.objectives import OBJECTIVES, PairErrors
from components.alignment.objectives.losses import FLOOR, HINGE, dpo, dpop, ipo, linear_dpo, sft
from components.alignment.params import AlignmentParams
from tests.alignment.objectives.errors import errors

#: d_w = .30 - .40 = -.10, d_l = .55 - .50 = +.05; at beta 20 the preference is -10 (-.10 - .05) = 1.5.
LEARNT = (0.30, 0.55, 0.40, 0.50)
#: d_w = +.02, d_l = -.01; at beta 20 the preference is -10 (.02 + .01) = -.3, and the winner got worse.
WRONG = (0.42, 0.49, 0.40, 0.50)
ALIKE = (0.3, 0.6, 0.3, 0.6)
FROM_PREFERENCE = sorted(set(OBJECTIVES) - {"sft"})


def test_every_objective_but_the_one_of_best_of_n_can_be_asked_for() -> None:
    asked = get_args(AlignmentParams.model_fields["loss"].annotation)
    assert set(asked) == set(OBJECTIVES) - {"sft"}


def test_the_readme_tells_of_every_objective(repository: Path) -> None:
    text = (repository / "components" / "alignment" / "README.md").read_text()
    assert [name for name in OBJECTIVES if f"`{name}`" not in text] == []


def test_dpo_by_hand() -> None:
    assert dpo(errors(LEARNT, WRONG), 20.0).tolist() == pytest.approx(
        [math.log1p(math.exp(-1.5)), math.log1p(math.exp(0.3))]
    )
    assert dpo(errors(ALIKE), 150.0).item() == pytest.approx(math.log(2.0))


def test_ipo_by_hand() -> None:
    # The paper's form: h = preference / beta = .075 and -.015 against 1 / (2 beta) = .025, times beta^2.
    expected = [400 * (0.075 - 0.025) ** 2, 400 * (-0.015 - 0.025) ** 2]
    assert ipo(errors(LEARNT, WRONG), 20.0).tolist() == pytest.approx(expected)


def test_dpop_by_hand() -> None:
    # The first winner is below its reference: DPO. The second lies .02 above: -.3 - HINGE * 10 * .02.
    expected = [math.log1p(math.exp(-1.5)), math.log1p(math.exp(0.3 + HINGE * 0.2))]
    assert dpop(errors(LEARNT, WRONG), 20.0).tolist() == pytest.approx(expected)


def test_linear_dpo_by_hand() -> None:
    pair = errors(WRONG, LEARNT, (0.9, 0.1, 0.4, 0.5), gradient=True)
    linear_dpo(pair, 20.0).sum().backward()
    # The authors' weights clip(.2 beta difference + .5) of differences .03, -.15 and .9, times beta / 2.
    expected = [10 * 0.62, 10 * FLOOR, 10 * (1 - FLOOR)]
    assert pair.winner.grad is not None and pair.loser.grad is not None
    assert pair.winner.grad.tolist() == pytest.approx(expected)
    assert pair.loser.grad.tolist() == pytest.approx([-value for value in expected])


def test_linear_dpo_starts_out_as_steep_as_dpo() -> None:
    slopes = []
    for objective in (dpo, linear_dpo):
        pair = errors(ALIKE, gradient=True)
        objective(pair, 20.0).sum().backward()
        assert pair.winner.grad is not None
        slopes.append(pair.winner.grad.item())
    assert slopes == pytest.approx([5.0, 5.0])


def test_linear_dpo_is_the_integral_of_its_weight() -> None:
    # Preferences from 3 down to -3 by differences of errors; the trapezoid rule sums the weights up.
    differences = torch.linspace(-0.3, 0.3, 2001, dtype=torch.float64)
    zeros = torch.zeros_like(differences)
    losses = linear_dpo(PairErrors(differences, zeros, zeros, zeros, zeros), 20.0)
    weights = (0.2 * 20.0 * differences + 0.5).clamp(FLOOR, 1 - FLOOR)
    assert (losses[-1] - losses[0]).item() == pytest.approx(
        10.0 * torch.trapezoid(weights, differences).item(), rel=1e-6
    )


def test_sft_is_the_winners_error_alone() -> None:
    pair = errors(LEARNT, WRONG, gradient=True)
    losses = sft(pair, 20.0)
    losses.sum().backward()
    assert losses.tolist() == [0.30, 0.42]
    assert pair.winner.grad is not None
    assert pair.winner.grad.tolist() == [1.0, 1.0] and pair.loser.grad is None


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_gradient_against_finite_differences(name: str) -> None:
    reference = (torch.tensor([0.4, 0.2], dtype=torch.float64), torch.tensor([0.5, 0.3], dtype=torch.float64))
    # With no overlap SDPO takes the whole of the loser's gradient; what it takes else is tested by itself.
    none = torch.zeros(2, dtype=torch.float64)

    def loss(winner: torch.Tensor, loser: torch.Tensor) -> torch.Tensor:
        return OBJECTIVES[name](PairErrors(winner, loser, *reference, none), 30.0)

    start = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in ([0.38, 0.21], [0.47, 0.35])]
    assert torch.autograd.gradcheck(loss, tuple(start))


@pytest.mark.parametrize("name", FROM_PREFERENCE)
def test_an_undecided_pair_pulls_the_winner_down_and_pushes_the_loser_up(name: str) -> None:
    pair = errors(ALIKE, gradient=True)
    OBJECTIVES[name](pair, 20.0).sum().backward()
    assert pair.winner.grad is not None and pair.loser.grad is not None
    assert pair.winner.grad.item() > 0 > pair.loser.grad.item()


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_a_pair_does_not_feel_the_others(name: str) -> None:
    alone = [OBJECTIVES[name](errors(pair, overlap=0.3), 20.0).item() for pair in (LEARNT, WRONG)]
    assert OBJECTIVES[name](errors(LEARNT, WRONG, overlap=0.3), 20.0).tolist() == pytest.approx(alone)
