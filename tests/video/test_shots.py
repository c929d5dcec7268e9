from __future__ import annotations

import torch

from components.video.clip import Clip
from components.video.shots import cuts, shots


def test_a_cut_is_found_where_two_videos_are_joined(drifting: Clip) -> None:
    other = drifting.frames.flip(3).roll(30, dims=2)
    joined = Clip(torch.cat([drifting.frames, other, drifting.frames[:5]]), 24.0)
    assert cuts(joined) == [24, 48]
    assert [shot.num_frames for shot in shots(joined)] == [24, 24, 5]
    assert torch.equal(shots(joined)[1].frames, other)


def test_motion_and_a_flash_of_speed_are_no_cuts(drifting: Clip) -> None:
    assert cuts(drifting) == []
    fast = torch.stack([drifting.frames[0].roll(9 * k, dims=2) for k in range(20)])
    assert cuts(Clip(fast, 24.0)) == []


def test_one_frame_has_no_cut(drifting: Clip) -> None:
    assert [shot.num_frames for shot in shots(Clip(drifting.frames[:1], 24.0))] == [1]
