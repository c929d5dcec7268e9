from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.corpus.camera import CameraMove, draw_move, film


def photo(height: int = 200, width: int = 260) -> Tensor:
    noise = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(2))
    return F.interpolate(noise, size=(height, width), mode="bicubic").clamp(0, 1)[0]


def test_a_still_camera_at_scale_one_shows_the_photograph_itself() -> None:
    picture = photo()
    clip = film(picture, CameraMove((130, 100), 1.0, (0, 0), 0, 0), (48, 64), 3)
    cut = picture[:, 100 - 24 : 100 + 24, 130 - 32 : 130 + 32]
    assert clip.shape == (3, 3, 48, 64) and clip.dtype == torch.uint8
    assert (clip.float() / 255 - cut).abs().max() < 0.03


def test_a_pan_by_whole_pixels_shifts_the_picture_by_them() -> None:
    clip = film(photo(), CameraMove((130, 100), 1.0, (16, -8), 0, 0), (48, 48), 9).float()
    # Eight steps of (2, -1): what is at (x, y) now was at (x + 2, y - 1) a frame ago.
    assert (clip[5, :, 1:, :-2] - clip[4, :, :-1, 2:]).abs().max() <= 2


def test_a_pan_by_half_pixels_moves_evenly() -> None:
    ramp = torch.linspace(0, 1, 260).expand(3, 200, 260).contiguous()
    clip = film(ramp, CameraMove((130, 100), 1.0, (4, 0), 0, 0), (48, 48), 9).float()
    steps = clip.mean(dim=(1, 2, 3)).diff()
    assert (steps - 0.5 * 255 / 259).abs().max() < 0.1


def test_a_turn_and_a_zoom_end_where_they_should() -> None:
    picture = photo()
    turned = film(picture, CameraMove((130, 100), 1.0, (0, 0), 0, math.pi), (48, 48), 3)
    # From -90 to +90 degrees: the first frame is the last one turned by half a circle.
    assert (turned[0].float() - turned[2].flip(1, 2).float()).abs().max() <= 2
    zoomed = film(picture, CameraMove((130, 100), 1.0, (0, 0), 2 * math.log(2), 0), (48, 48), 3).float()
    inner = F.avg_pool2d(zoomed[1:2], 2)[0]
    assert (zoomed[2, :, 12:36, 12:36] - inner).abs().mean() < 4


def test_drawn_moves_never_look_past_the_border() -> None:
    height, width = 140, 200
    found = 0
    for seed in range(300):
        move = draw_move(np.random.default_rng(seed), (height, width), (48, 48), 9)
        if move is None:
            continue
        found += 1
        for time in (-0.5, 0.0, 0.5):
            scale = move.scale * math.exp(move.zoom * time)
            for x, y in ((-24, -24), (24, -24), (-24, 24), (24, 24)):
                cos, sin = math.cos(move.turn * time), math.sin(move.turn * time)
                across = move.centre[0] + scale * (cos * x - sin * y) + move.scale * move.pan[0] * time
                along = move.centre[1] + scale * (sin * x + cos * y) + move.scale * move.pan[1] * time
                assert 0 <= across <= width and 0 <= along <= height
    assert found > 200


def test_no_room_in_a_tiny_photograph() -> None:
    assert draw_move(np.random.default_rng(0), (50, 50), (48, 48), 9) is None
