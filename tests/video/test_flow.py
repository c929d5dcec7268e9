from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from components.video.flow import interpolate_middle, optical_flow


def texture(size: int = 80) -> Tensor:
    """Smooth random blobs, (3, size, size) float in 0..1."""
    noise = torch.rand(1, 3, size // 5, size // 5, generator=torch.Generator().manual_seed(3))
    return F.interpolate(noise, size=(size, size), mode="bicubic").clamp(0, 1)[0]


@pytest.mark.parametrize(("right", "down"), [(1, 0), (-2, 0), (0, 2), (2, -1), (0, 0)])
def test_known_translation(right: int, down: int) -> None:
    big = texture()
    first = big[:, 16:64, 16:64]
    second = big[:, 16 - down : 64 - down, 16 - right : 64 - right]
    flow = optical_flow(first, second)[:, 6:-6, 6:-6]
    assert flow[0].median() == pytest.approx(right, abs=0.15)
    assert flow[1].median() == pytest.approx(down, abs=0.15)


def test_fraction_of_a_pixel_and_uint8() -> None:
    big = texture(160)
    first = F.avg_pool2d(big[None, :, 32:128, 32:128], 2)[0]
    second = F.avg_pool2d(big[None, :, 32:128, 31:127], 2)[0]
    flow = optical_flow((first * 255).round().to(torch.uint8), (second * 255).round().to(torch.uint8))
    assert flow[0, 6:-6, 6:-6].median() == pytest.approx(0.5, abs=0.15)


def disc(x: float, y: float, size: int = 48) -> Tensor:
    grid = torch.arange(size) + 0.5
    cover = (7.5 - torch.hypot(grid[None] - x, grid[:, None] - y)).clamp(0, 1)
    colour = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    return cover * colour + (1 - cover) * 0.5


def test_the_middle_of_a_moving_disc_is_nearer_the_truth_than_a_blend() -> None:
    first, second, truth = disc(20, 24), disc(23, 24), disc(21.5, 24)
    made = interpolate_middle(first, second)
    blend = (first + second) / 2
    assert (made - truth).square().mean() < 0.25 * (blend - truth).square().mean()


def test_the_middle_of_twice_the_same_frame_is_that_frame() -> None:
    frame = texture(48)
    assert torch.allclose(interpolate_middle(frame, frame), frame, atol=1e-3)


def test_sizes_must_match() -> None:
    with pytest.raises(ValueError, match="frames expected"):
        optical_flow(torch.zeros(3, 8, 8), torch.zeros(3, 8, 9))


def test_a_thing_of_the_same_luma_as_its_background_is_seen_to_move() -> None:
    def scene(x: float) -> Tensor:
        grid = torch.arange(48) + 0.5
        cover = (7.5 - torch.hypot(grid[None] - x, grid[:, None] - 24)).clamp(0, 1)
        green = torch.tensor([0.14, 0.72, 0.18])[:, None, None]
        return cover * green + (1 - cover) * 0.485

    flow = optical_flow(scene(20), scene(22))
    assert flow[0, 18:30, 16:26].median() == pytest.approx(2.0, abs=0.3)
