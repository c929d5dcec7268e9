"""The method in one file is the step's method: the same pairs and losses, over syncs of the reference."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from examples.online_dpo import OracleReward, online_dpo
from tests.alignment.tiny import (
    PARAMS,
    PROMPTS,
    Brightness,
    ledger_rows,
    make_generator,
    make_trainer,
    save_tiny,
)


@pytest.mark.parametrize("loss", ["dpo", "dpop"])
def test_the_example_makes_the_pairs_and_losses_of_the_step(tmp_path: Path, loss: str) -> None:
    params = PARAMS.model_copy(update={"loss": loss})
    pipeline = save_tiny(tmp_path / "pipeline")
    loop = make_trainer(make_generator(pipeline), tmp_path / "run", params)
    loop.run()
    generator = make_generator(pipeline)
    example = list(online_dpo(generator, Brightness(), PROMPTS, params))
    # Eight updates, synced after the third and the sixth.
    assert loop.reference.version == 2 and len(example) == 4
    roles = {
        (row["iteration"], row["prompt_id"], row["role"]): row["candidate"]
        for row in ledger_rows(tmp_path / "run")
    }
    for number, (row, done) in enumerate(zip(loop.curve, example, strict=True)):
        assert done.loss == row["loss"] and done.reward == pytest.approx(row["reward_mean"])
        for decision in done.decisions:
            assert decision.accepted
            assert roles[number, decision.prompt_id, "winner"] == decision.winner
            assert roles[number, decision.prompt_id, "loser"] == decision.loser
    # And the policies that are left draw the same clips.
    first, second = (
        made.sample_latents([PROMPTS[0].text], [1]) for made in (generator, loop.setting.generator)
    )
    assert torch.equal(first, second)


def test_the_oracle_scores_clips_from_0_to_1() -> None:
    clips = torch.randint(0, 256, (2, 5, 3, 16, 16), dtype=torch.uint8)
    scores = OracleReward().rate(clips, 8.0).score
    assert scores.shape == (2,) and 0 <= float(scores.min()) <= float(scores.max()) <= 1


def test_it_is_one_short_file(repository: Path) -> None:
    assert len((repository / "examples" / "online_dpo.py").read_text().splitlines()) <= 150
