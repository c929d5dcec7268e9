"""Groups without spread get more candidates: which, how many, by which seeds, and the same in any batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from torch import Tensor

from components.alignment.candidates.rollout import candidate_seed
from components.generator.generator import Generator
from components.reward.base import Rating
from tests.alignment.tiny import PARAMS, PROMPTS, Brightness, ledger_rows, make_trainer

ONE = PARAMS.model_copy(update={"iterations": 1, "prompts_per_iteration": len(PROMPTS)})


class Blind(Brightness):
    """Sees no difference between the first `blind` candidates of the prompts whose text has `colour`."""

    def __init__(self, colour: str, blind: int) -> None:
        super().__init__()
        self.colour, self.blind = colour, blind

    def rate(self, frames: Tensor, fps: float, prompts: Sequence[str] | None = None) -> Rating:
        rating = super().rate(frames, fps, prompts)
        assert prompts is not None
        for row, text in enumerate(prompts):
            if self.colour in text and self.blind > 0:
                rating.score[row] = 0.5
                self.blind -= 1
        return rating


def groups(folder: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for row in ledger_rows(folder, 1):
        found.setdefault(row["prompt_id"], []).append(row)
    return found


def test_only_groups_without_spread_are_refilled_and_seeds_go_on(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    params = ONE.model_copy(update={"dynamic_sampling": 3})
    trainer = make_trainer(new_generator(), tmp_path, params, reward=Blind("red", 6))
    trainer.run()
    found = groups(tmp_path)
    # p0 is the red one: two rounds of three alike, the third one differs.
    assert {name: len(rows) for name, rows in found.items()} == {"p0": 9, "p1": 3, "p2": 3, "p3": 3, "p4": 3}
    assert [row["candidate"] for row in found["p0"]] == list(range(9))
    assert [row["seed"] for row in found["p0"]] == [candidate_seed(0, 0, "p0", i) for i in range(9)]
    assert all(rows[0]["verdict"] == "accepted" for rows in found.values())
    row = trainer.curve[0]
    assert (row["refilled"], row["clips"], row["pairs"]) == (2, 21, 5)


def test_the_cap_ends_it_and_zero_asks_for_nothing(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    for refill, clips in ((0, 15), (1, 18), (2, 21)):
        folder = tmp_path / str(refill)
        params = ONE.model_copy(update={"dynamic_sampling": refill})
        trainer = make_trainer(new_generator(), folder, params, reward=Blind("red", 10**6))
        trainer.run()
        assert (trainer.curve[0]["clips"], trainer.curve[0]["refilled"]) == (clips, refill)
        assert groups(folder)["p0"][0]["verdict"] == "gap_too_small"


def test_the_pair_is_the_best_and_worst_of_all_rounds(
    new_generator: Callable[..., Generator], tmp_path: Path
) -> None:
    params = ONE.model_copy(update={"dynamic_sampling": 1})
    trainer = make_trainer(new_generator(), tmp_path, params, reward=Blind("red", 3))
    trainer.run()
    rows = groups(tmp_path)["p0"]
    rewards = [float(str(row["reward"])) for row in rows]
    assert rewards[:3] == [0.5] * 3 and len(set(rewards)) == 4
    roles = {row["role"]: float(str(row["reward"])) for row in rows if row["role"]}
    assert roles == {"winner": max(rewards), "loser": min(rewards)}


def test_refills_do_not_depend_on_the_batch(new_generator: Callable[..., Generator], tmp_path: Path) -> None:
    # A gap of 1.5 deviations: some groups have it at once, some after a refill, some never.
    params = PARAMS.model_copy(update={"dynamic_sampling": 2, "min_gap": 1.5, "iterations": 2})
    ledgers, refilled = [], []
    for batch in (2, 16):
        trainer = make_trainer(new_generator(batch=batch), tmp_path / str(batch), params)
        trainer.run()
        refilled.append([row["refilled"] for row in trainer.curve])
        rows = ledger_rows(tmp_path / str(batch), 2)
        ledgers.append([(r["iteration"], r["prompt_id"], r["seed"], r["role"], r["verdict"]) for r in rows])
    assert all(one == other for one, other in pairwise(ledgers)) and refilled[0] == refilled[1]
    assert sum(refilled[0]) > 0 and "accepted" in {row[-1] for row in ledgers[0]}
