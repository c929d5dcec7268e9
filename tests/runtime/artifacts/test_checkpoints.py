from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from components.runtime.artifacts import checkpoints
from components.runtime.artifacts.checkpoints import Checkpointer, pack_optimizer, unpack_optimizer


def layer_and_optimizer(seed: int) -> tuple[torch.nn.Module, torch.optim.AdamW]:
    torch.manual_seed(seed)
    layer = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 2))
    groups = [
        {"params": layer[0].parameters(), "lr": 3e-3},
        {"params": layer[1].parameters(), "lr": 1e-3, "weight_decay": 0.1, "betas": (0.8, 0.99)},
    ]
    return layer, torch.optim.AdamW(groups, amsgrad=True)


def train(layer: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        batch = torch.randn(4, 6, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        layer(batch).square().mean().backward()
        optimizer.step()


def test_adamw_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole, whole_optimizer = layer_and_optimizer(0)
    train(whole, whole_optimizer, range(12))

    first, first_optimizer = layer_and_optimizer(0)
    train(first, first_optimizer, range(5))
    tensors, state = pack_optimizer(first_optimizer)
    Checkpointer(tmp_path).save(5, {**first.state_dict(), **tensors}, {"optimizer": state, "lr": 0.1 + 0.2})

    second, second_optimizer = layer_and_optimizer(99)
    found = Checkpointer(tmp_path).latest()
    assert found is not None
    assert (found.step, found.state["lr"]) == (5, 0.1 + 0.2)
    second.load_state_dict({k: v for k, v in found.tensors.items() if not k.startswith("optimizer.")})
    unpack_optimizer(second_optimizer, found.tensors, found.state["optimizer"])
    assert second_optimizer.param_groups[1]["betas"] == (0.8, 0.99)
    train(second, second_optimizer, range(5, 12))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_odd_tensors_come_back(tmp_path: Path) -> None:
    base = torch.arange(12, dtype=torch.float32)
    tensors = {
        "view": base[3:7],
        "same": base,
        "again": base,
        "transposed": base.view(3, 4).T,
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
    }
    Checkpointer(tmp_path).save(1, tensors, {})
    found = Checkpointer(tmp_path).latest()
    assert found is not None
    for name, value in tensors.items():
        back = found.tensors[name]
        assert back.dtype == value.dtype
        assert torch.equal(torch.nan_to_num(back), torch.nan_to_num(value)), name


def test_keeps_the_newest(tmp_path: Path) -> None:
    keeper = Checkpointer(tmp_path, keep=2)
    for step in (1, 2, 10):
        keeper.save(step, {"x": torch.tensor([step])})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-0000000002", "step-0000000010"]
    keeper.save(10, {"x": torch.tensor([11])})
    found = keeper.latest()
    assert found is not None and found.tensors["x"].item() == 11


@pytest.mark.parametrize(
    "damage", ["truncate tensors", "flip tensors", "flip state", "empty state", "no tensors"]
)
def test_broken_newest_is_passed_over(
    damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keeper = Checkpointer(tmp_path)
    keeper.save(1, {"x": torch.ones(100)}, {"note": "one"})
    newest = keeper.save(2, {"x": torch.ones(100)}, {"note": "two"})
    tensors, state = newest / "tensors.safetensors", newest / "state.json"
    match damage:
        case "truncate tensors":
            tensors.write_bytes(tensors.read_bytes()[:-10])
        case "flip tensors":
            data = bytearray(tensors.read_bytes())
            data[-3] ^= 1
            tensors.write_bytes(bytes(data))
        case "flip state":
            state.write_text(state.read_text().replace("two", "twO"))
        case "empty state":
            state.write_text("")
        case "no tensors":
            tensors.unlink()
    found = keeper.latest()
    assert found is not None and (found.step, found.state["note"]) == (1, "one")
    assert "step-0000000002" in capsys.readouterr().err


def test_nothing_there(tmp_path: Path) -> None:
    assert Checkpointer(tmp_path / "absent").latest() is None


def test_a_full_disk_leaves_the_old_checkpoints_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Checkpointer(tmp_path)
    keeper.save(1, {"x": torch.ones(3)})

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        keeper.save(2, {"x": torch.ones(3)})
    assert [p.name for p in tmp_path.iterdir()] == ["step-0000000001"]


def test_other_groups_are_refused() -> None:
    _, optimizer = layer_and_optimizer(0)
    tensors, state = pack_optimizer(optimizer)
    other = torch.optim.AdamW(torch.nn.Linear(2, 2).parameters())
    with pytest.raises(ValueError, match="groups"):
        unpack_optimizer(other, tensors, state)
