"""The step's params: every key is listed here, so that a new one is a decision; and the default recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.alignment.params import AlignmentParams
from components.alignment.step import run
from components.runtime.errors import InputError
from components.runtime.params import load_step_params


def test_every_param_is_listed() -> None:
    assert set(AlignmentParams.model_fields) - {"run"} == {
        # where pairs come from
        "strategy", "iterations", "prompts_per_iteration", "num_generations", "dynamic_sampling", "min_gap",
        "noise_gap", "motion_floor",
        # what is learnt from them
        "loss", "beta", "loss_reduction", "sft_weight", "inner_updates", "timesteps_per_pair",
        "learning_rate", "lora_rank",
        # what changes on the way
        "reference", "reference_sync_every", "refresh_reward_every",
        # memory, and what is kept and watched
        "pairs_per_forward", "gradient_checkpointing", "fsdp", "reward_device", "keep_latents", "guards",
        "checkpoint_every",
    }  # fmt: skip


def test_the_default_is_online_dpo_with_a_share_of_winner_sft() -> None:
    params = AlignmentParams()
    assert (params.strategy, params.loss, params.sft_weight) == ("online", "dpop", 0.2)
    assert (params.reference, params.reference_sync_every, params.dynamic_sampling) == (None, 40, 0)


def test_the_keys_of_the_last_release_are_still_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(AlignmentParams.renamed_keys.values()) <= set(AlignmentParams.model_fields)
    old = "candidates"
    params = load_step_params(AlignmentParams, "alignment", None, [f"alignment.{old}=9"])
    assert params.num_generations == 9
    assert f"alignment.{old} is deprecated; use alignment.num_generations" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["alignment.loss=kto"], "alignment.loss = 'kto': must be 'dpo', 'ipo'"),
        (["alignment.reference=none"], "alignment.reference = 'none': must be 'fixed'"),
        (
            ["alignment.strategy=best_of_n", "alignment.loss=sdpo"],
            "alignment: loss = sdpo has no effect with strategy = best_of_n",
        ),
        (
            ["alignment.strategy=offline", "alignment.refresh_reward_every=1"],
            "alignment: refresh_reward_every = 1: the reward is refreshed with the policy's samples",
        ),
        (
            ["alignment.reference=judged", "alignment.guards.every=0"],
            "alignment: reference = judged needs the held-out judge",
        ),
    ],
)
def test_wrong_values_are_one_clear_line(overrides: list[str], part: str) -> None:
    with pytest.raises(InputError) as caught:
        load_step_params(AlignmentParams, "alignment", None, overrides)
    assert str(caught.value).startswith(part)


@pytest.mark.parametrize(
    ("settings", "option", "part"),
    [
        (
            {},
            "ledger",
            r"--ledger x: alignment.strategy = online samples its own candidates; offline is allowed",
        ),
        ({"guards": {"every": 0}}, "judge", r"--judge x: no effect with alignment.guards.every = 0"),
    ],
)
def test_options_without_effect_are_refused_before_any_work(
    tmp_path: Path, settings: dict[str, object], option: str, part: str
) -> None:
    inputs = {name: tmp_path / "nowhere" for name in ("corpus", "generator", "reward")}
    with pytest.raises(InputError, match=part):
        run(AlignmentParams.model_validate(settings), **inputs, out=tmp_path / "out", **{option: "x"})
    assert not list(tmp_path.iterdir())
