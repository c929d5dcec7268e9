"""A published ledger read back; what is missing, altered or of somebody else is one clear line."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from components.alignment.ledger import LedgerReader, LedgerWriter, read_pairs
from components.runtime.artifacts.publish import publish
from components.runtime.errors import InputError
from components.runtime.params import StepParams
from tests.alignment.ledger.made import PROMPTS, group, make_base, make_reward, publish_ledger, write


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Two iterations: one pair of three, one pair and one tie."""
    writer = LedgerWriter(tmp_path / "parts")
    write(writer, 0, [group(PROMPTS[0], [0.0, 1.0, 2.0])])
    write(writer, 1, [group(PROMPTS[1], [3.0, 1.0]), group(PROMPTS[2], [5.0, 5.0])], policy=4)
    return publish_ledger(tmp_path / "ledger", writer, 2)


def refusal(uri: Path, **given: object) -> str:
    with pytest.raises(InputError) as caught:
        read_pairs(uri, **given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_pairs_come_back_with_their_latents(made: Path) -> None:
    ledger = read_pairs(made)
    assert [(pair.iteration, pair.prompt, pair.gap) for pair in ledger.pairs] == [
        (0, PROMPTS[0], 2.0),
        (1, PROMPTS[1], 2.0),
    ]
    assert (ledger.iterations, len(ledger.rows)) == (2, 7)
    first = group(PROMPTS[0], [0.0, 1.0, 2.0])
    winner, loser = ledger.latents(ledger.pairs[0])
    assert torch.equal(winner, first.latents[2]) and torch.equal(loser, first.latents[0])
    assert (ledger.pairs[0].winner["seed"], ledger.pairs[0].loser["seed"]) == (72, 70)


def test_half_precision_comes_back_as_float32(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "parts")
    own = group(PROMPTS[0], [0.0, 1.0])
    write(writer, 0, [own], half=True)
    ledger = read_pairs(publish_ledger(tmp_path / "ledger", writer, 1))
    winner, _ = ledger.latents(ledger.pairs[0])
    assert winner.dtype == torch.float32 and torch.equal(winner, own.latents[1].half().float())


def test_missing_or_foreign(tmp_path: Path, made: Path) -> None:
    assert "no artifact there" in refusal(tmp_path / "nowhere")
    assert "made by step reward, holds no ledger" in refusal(make_reward(tmp_path, "reward").path)
    with publish(tmp_path / "bare", step="alignment", params=StepParams()) as workspace:
        workspace.write_metrics({})
    assert "has no file ledger.parquet" in refusal(tmp_path / "bare")


def test_altered(made: Path) -> None:
    file = made / "latents/000000.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    assert "000000.safetensors" in refusal(made) and "truncated" in refusal(made)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "altered" in refusal(made)
    file.unlink()
    assert "000000.safetensors" in refusal(made)


def test_latents_that_are_not_what_their_name_says(made: Path) -> None:
    ledger = read_pairs(made)
    pair, file = ledger.pairs[0], made / "latents/000000.safetensors"
    kept = load_file(file)
    save_file({name: clip + 1 for name, clip in kept.items()}, file)
    with pytest.raises(InputError, match="do not match their digest"):
        ledger.latents(pair)
    save_file({"another": torch.zeros(1)}, file)
    with pytest.raises(InputError, match="cannot be read"):
        ledger.latents(pair)


def test_an_older_ledger(tmp_path: Path, made: Path) -> None:
    table = pq.read_table(made / "ledger.parquet").drop_columns(["policy_version", "used"])
    with publish(tmp_path / "old", step="alignment", params=StepParams()) as workspace:
        pq.write_table(table, workspace.dir / "ledger.parquet")
        workspace.write_metrics({})
    assert "has no column policy_version, used" in refusal(tmp_path / "old")
    with publish(tmp_path / "torn", step="alignment", params=StepParams()) as workspace:
        (workspace.dir / "ledger.parquet").write_bytes(b"PAR1")
        workspace.write_metrics({})
    assert "not a readable ledger" in refusal(tmp_path / "torn")


def test_of_another_base(tmp_path: Path, tiny_folder: Path) -> None:
    base, other = make_base(tmp_path, tiny_folder), make_base(tmp_path, tiny_folder, "other")
    writer = LedgerWriter(tmp_path / "parts")
    write(writer, 0, [group(PROMPTS[0], [0.0, 1.0])])
    own = publish_ledger(tmp_path / "ledger", writer, 1, base)
    assert read_pairs(own, base).pairs
    assert "a ledger of another base" in refusal(own, generator=other)


def test_nothing_to_train_from(tmp_path: Path) -> None:
    ties = LedgerWriter(tmp_path / "ties")
    write(ties, 0, [group(PROMPTS[0], [1.0, 1.0])])
    assert "none of 1 groups gave a pair" in refusal(publish_ledger(tmp_path / "one", ties, 1))
    bare = LedgerWriter(tmp_path / "bare")
    write(bare, 0, [group(PROMPTS[0], [0.0, 1.0])], keep="none")
    out = publish_ledger(tmp_path / "two", bare, 1)
    assert "1 of 1 pairs have no latents" in refusal(out)
    assert len(LedgerReader.open(out).rows) == 2
