"""RAFT against torchvision's own implementation, and what a model is shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from components.evaluation.models.preprocessing import Preparation, middle, shorter_side
from components.evaluation.models.raft import Raft
from components.runtime.errors import InputError
from tests.evaluation.tiny_weights import raft_tensors

#: Flow (right, down) at five places (row, column), and the mean of each channel, as torchvision 0.28's RAFT
#: gives them for the same tensors and pictures with 6 updates.
TORCHVISION = {
    (0, 0): (0.37024, 0.36583),
    (17, 101): (0.44624, 1.15327),
    (64, 70): (0.69566, 1.64887),
    (129, 138): (0.31172, 0.5344),
    (90, 5): (0.63309, 0.26716),
}
TORCHVISION_MEANS = (0.527036, 1.168516)


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(130), torch.arange(139), indexing="ij")
    first = torch.stack([(x * 7 + y * 3) % 256, (x * y) % 256, (x // 4 * 40 + y // 5 * 30) % 256])
    first = first.to(torch.uint8)[None]
    return first, first.roll((2, 3), (-2, -1))


@pytest.fixture
def raft() -> Raft:
    tensors = raft_tensors(torch.Generator().manual_seed(11))
    for part in ("weight", "bias"):
        tensors[f"update_block.flow_head.conv2.{part}"] *= 0.02
    return Raft(tensors)


def test_raft_is_torchvisions(raft: Raft) -> None:
    flow = raft.flow(*pictures(), updates=6)
    assert flow.shape == (1, 2, 130, 139)
    for (row, column), expected in TORCHVISION.items():
        assert flow[0, :, row, column].tolist() == pytest.approx(expected, abs=1e-4)
    assert flow.mean(dim=(0, 2, 3)).tolist() == pytest.approx(TORCHVISION_MEANS, abs=1e-4)


def test_small_frames_are_enlarged_and_their_flow_is_in_their_own_pixels(raft: Raft) -> None:
    first, second = (picture[..., :48, :64] for picture in pictures())
    large = [picture.repeat_interleave(3, dim=-1).repeat_interleave(3, dim=-2) for picture in (first, second)]
    expected = raft.flow(*large, updates=2).unfold(2, 3, 3).unfold(3, 3, 3).mean(dim=(-1, -2)) / 3
    assert torch.allclose(raft.flow(first, second, updates=2), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("frames", "number", "expected"),
    [
        (16, 16, list(range(16))),
        (49, 16, [1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, 37, 40, 43, 46]),
        (5, 8, [0, 1, 2, 3, 4, 4, 4, 4]),
        (1, 3, [0, 0, 0]),
        (10, 4, [0, 3, 5, 8]),
    ],
)
def test_middle(frames: int, number: int, expected: list[int]) -> None:
    """49 frames in 16: borders at 0, 3, 6, ..., 45, 49."""
    assert middle(frames, number) == expected


def test_shorter_side() -> None:
    assert shorter_side(320, 512, 224) == (224, 358)
    assert shorter_side(512, 320, 224) == (358, 224)
    assert shorter_side(48, 48, 224) == (224, 224)


@pytest.mark.parametrize("settings", [{}, {"size": {"longest": 3}}, {"size": 3, "do_normalize": True}])
def test_another_preprocessor_is_one_clear_line(tmp_path: Path, settings: dict[str, object]) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"preprocessor_config\.json: not the preprocessing"):
        Preparation.read(tmp_path)
