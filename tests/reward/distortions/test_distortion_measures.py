"""What a distortion says of itself, measured on what it does: widths, variances, periods, slopes, shares."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from components.reward.distortions import LEVELS, REGISTRY
from components.video.filters import luma

levels = pytest.mark.parametrize("level", range(1, LEVELS + 1))

GREY = torch.full((2, 6, 3, 48, 48), 0.5)


def value(name: str, level: int) -> float:
    return REGISTRY[name].levels[level - 1]


def numbered(time: int, side: int = 8) -> Tensor:
    """(1, T, 3, side, side): frame t is plain, of brightness (t + 1) / (T + 1)."""
    shades = torch.arange(1, time + 1) / (time + 1)
    return shades[None, :, None, None, None].expand(1, time, 3, side, side).contiguous()


def order_of(shown: Tensor) -> list[int]:
    """Which frames of `numbered` a clip shows."""
    time = shown.shape[1]
    return (shown[0, :, 0, 0, 0] * (time + 1) - 1).round().int().tolist()


def ramps(time: int = 5, side: int = 48) -> Tensor:
    """(1, T, 3, side, side): red and blue tell a pixel's column, green its row, in units of the side."""
    axis = torch.arange(side) / side
    columns, rows = axis.expand(side, side), axis[:, None].expand(side, side)
    return torch.stack((columns, rows, columns))[None, None].expand(1, time, 3, side, side).contiguous()


def point(side: int = 47) -> Tensor:
    frames = torch.zeros(1, 2, 3, side, side)
    frames[..., side // 2, side // 2] = 1.0
    return frames


def spread(picture: Tensor) -> np.ndarray:
    """Variances (px^2) along both principal axes of a picture taken as a density, larger first."""
    weight = picture.double() / picture.double().sum()
    ys, xs = torch.meshgrid(torch.arange(picture.shape[0]), torch.arange(picture.shape[1]), indexing="ij")
    places = torch.stack((ys, xs)).double()
    centre = (weight * places).sum((1, 2), keepdim=True)
    apart = places - centre
    covariance = torch.einsum("hw,ihw,jhw->ij", weight, apart, apart)
    return np.sort(np.linalg.eigvalsh(covariance.numpy()))[::-1]


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(float((a - b).square().mean()))


@levels
def test_blur_is_as_wide_as_it_says(level: int) -> None:
    """The derivative of a blurred edge is the kernel."""
    edge = torch.zeros(1, 2, 3, 48, 48)
    edge[..., 24:] = 1.0
    slope = REGISTRY["blur"](edge, level, [0])[0, 0, 0, 20].diff()
    places = torch.arange(47.0)
    mean = (slope * places).sum() / slope.sum()
    width = float(((slope * (places - mean) ** 2).sum() / slope.sum()).sqrt())
    assert width == pytest.approx(value("blur", level), rel=0.06)


@levels
def test_lens_blur_is_a_disc_of_the_radius_it_says(level: int) -> None:
    """A disc of radius r has variance r^2 / 4 along every axis, and a pixel 1/12 of its own."""
    frames = point()
    picture = REGISTRY["lens_blur"](frames, level, [0])[0, 0, 0]
    radius = value("lens_blur", level) * 47 / 48
    assert float(picture.sum()) == pytest.approx(1.0, abs=1e-3)
    assert spread(picture) == pytest.approx([radius**2 / 4 + 1 / 12] * 2, rel=0.2)
    reached = math.ceil(radius + 0.5)
    assert float(picture[:, : 23 - reached].abs().max()) < 1e-5


@levels
def test_motion_blur_is_a_line_of_the_length_it_says(level: int) -> None:
    """A line of length l has variance l^2 / 12 along itself; bilinear taps add up to 1/4 px^2 across."""
    picture = REGISTRY["motion_blur"](point(), level, [3])[0, 0, 0]
    along, across = spread(picture)
    # The taps stand on the line's ends too, which makes a comb of n taps (n + 1) / (n - 1) as wide.
    length = value("motion_blur", level) * 47 / 48
    taps = max(3, math.ceil(length) + 1)
    assert along == pytest.approx(length**2 / 12 * (taps + 1) / (taps - 1), rel=0.15, abs=0.3)
    assert across < 0.3


@levels
@pytest.mark.parametrize("name", ["frame_noise", "fixed_noise"])
def test_noise_has_the_power_it_says(name: str, level: int) -> None:
    sigma = value(name, level)
    noisy = REGISTRY[name](GREY, level, [0, 1])
    assert psnr(noisy, GREY) == pytest.approx(-20 * math.log10(sigma), abs=0.15)
    assert torch.equal(noisy[:, 0], noisy[:, 1]) == (name == "fixed_noise")


@levels
def test_multiplicative_noise_goes_with_brightness(level: int) -> None:
    for shade in (0.2, 0.4):
        noisy = REGISTRY["multiplicative_noise"](GREY / 0.5 * shade, min(level, 4), [0, 1])
        assert float(noisy.std()) == pytest.approx(
            shade * value("multiplicative_noise", min(level, 4)), rel=0.02
        )


@levels
def test_chroma_noise_leaves_brightness_alone(level: int) -> None:
    noisy = REGISTRY["chroma_noise"](GREY, min(level, 4), [0, 1])
    # Where no channel clips.
    assert float(((luma(noisy) - 0.5).abs() > 1e-5).float().mean()) < 0.02
    blue = (noisy[:, :, 2] - luma(noisy)) * 0.564
    assert float(blue.std()) == pytest.approx(value("chroma_noise", min(level, 4)), rel=0.03)


@levels
def test_colour_bleed_leaves_brightness_alone(level: int, clips: Tensor) -> None:
    soft = clips[4:] * 0.4 + 0.3
    bled = REGISTRY["colour_bleed"](soft, level, [0] * 4)
    assert float((luma(bled) - luma(soft)).abs().max()) < 1e-4
    assert not torch.allclose(bled, soft, atol=0.01)


@levels
def test_impulses_hit_the_share_of_pixels_they_say(level: int) -> None:
    hit = (REGISTRY["impulse_noise"](GREY, level, [0, 1]) != 0.5).float().mean()
    assert float(hit) == pytest.approx(value("impulse_noise", level), rel=0.12)


@levels
def test_posterise_leaves_as_many_tones_as_it_says(level: int) -> None:
    tones = REGISTRY["posterise"](ramps(), level, [5]).unique()
    assert len(tones) <= math.ceil(value("posterise", level)) + 1


@levels
def test_colour_fringe_shifts_red_against_blue_by_what_it_says(level: int) -> None:
    """On a ramp a shift shows as a difference of brightness; two seeds' angles are told by two ramps."""
    frames = ramps()
    frames[:, :, 2] = frames[:, :, 0]
    seen = REGISTRY["colour_fringe"](frames, level, [7])[0, 0]
    turned = REGISTRY["colour_fringe"](frames.transpose(-1, -2), level, [7])[0, 0]
    middle = (slice(12, 36), slice(12, 36))
    across = float((seen[0] - seen[2])[middle].mean()) * 48
    down = float((turned[0] - turned[2])[middle].mean()) * 48
    assert math.hypot(across, down) == pytest.approx(value("colour_fringe", level), abs=0.15)  # cubic


@levels
@pytest.mark.parametrize("name", ["warp", "pixel_jitter"])
def test_displacements_are_as_large_as_they_say(name: str, level: int) -> None:
    """Red and green of `ramps` tell where each pixel came from."""
    frames = ramps(9)
    moved = (REGISTRY[name](frames, level, [2]) - frames)[0, :, :2] * 48
    inner = moved[..., 8:-8, 8:-8]
    assert float(inner.square().mean().sqrt()) == pytest.approx(value(name, level), rel=0.2)


@levels
def test_jitter_moves_whole_frames(level: int) -> None:
    frames = ramps(9)
    moved = (REGISTRY["jitter"](frames, level, [2]) - frames)[0, :, :2, 16:-16, 16:-16] * 48
    assert float(moved.std(dim=(-2, -1)).max()) < 0.02
    many = torch.cat([REGISTRY["jitter"](frames, level, [seed]) - frames for seed in range(20)]) * 48
    steps = many[:, :, :2, 24, 24]
    assert float(steps.std()) == pytest.approx(value("jitter", level), rel=0.15)


@levels
def test_misplaced_patches_show_pixels_of_the_frame_and_grow_in_number(level: int) -> None:
    frames = ramps()
    changed = [
        (REGISTRY["misplaced_patches"](frames, at, [1]) != frames).any(2)[0, 0] for at in (level - 1, level)
    ]
    assert int(changed[1].sum()) >= int(changed[0].sum())
    assert int(changed[1].sum()) <= value("misplaced_patches", level) * 81
    shown = REGISTRY["misplaced_patches"](frames, level, [1])
    assert torch.equal(shown[0, 0], shown[0, -1])
    pairs = {tuple(p) for p in frames[0, 0].flatten(1).T.tolist()}
    assert {tuple(p) for p in shown[0, 0].flatten(1).T.tolist()} <= pairs


@levels
def test_colour_blocks_cover_at_most_what_they_say_and_keep_the_earlier_ones(level: int) -> None:
    covered = [(REGISTRY["colour_blocks"](GREY, at, [1, 2]) != 0.5).any(2)[:, 0] for at in (level - 1, level)]
    assert bool((covered[1] | ~covered[0]).all())
    assert int(covered[1][0].sum()) <= value("colour_blocks", level) * 49


def test_desaturate_at_level_5_is_grey_and_oversaturate_is_not(clips: Tensor) -> None:
    grey = REGISTRY["desaturate"](clips, 5, [0] * 8)
    assert float((grey - grey.mean(2, keepdim=True)).abs().max()) < 1e-5
    rich = REGISTRY["oversaturate"](clips, 3, [0] * 8)
    assert float((rich - luma(rich).unsqueeze(2)).abs().mean()) > 1.3 * float(
        (clips - luma(clips).unsqueeze(2)).abs().mean()
    )


def test_darken_and_brighten_go_their_ways(clips: Tensor) -> None:
    for name, sign in (("darken", -1), ("brighten", 1)):
        means = torch.stack([REGISTRY[name](clips, level, [0] * 8).mean() for level in range(6)])
        assert bool((sign * means.diff() > 0).all())


def test_blank_at_level_5_shows_nothing(clips: Tensor) -> None:
    assert float(REGISTRY["blank"](clips, 5, [0] * 8).std(dim=(-2, -1)).max()) < 1e-5


def test_erase_takes_the_object_and_leaves_the_background() -> None:
    clip = torch.full((1, 3, 3, 48, 48), 0.9)
    clip[..., 18:30, 20:32] = torch.tensor([0.8, 0.1, 0.1])[:, None, None]
    erased = REGISTRY["erase"](clip, 5, [0])
    assert float((erased - 0.9).abs().max()) < 0.05


@levels
def test_freeze_holds_the_share_of_the_clip_it_says(level: int) -> None:
    shown = order_of(REGISTRY["freeze"](numbered(21), level, [4]))
    assert len(set(shown)) == 21 - round(value("freeze", level) * 20)
    if level == LEVELS:
        assert len(set(shown)) == 1


@levels
def test_stutter_repeats_the_share_of_frames_it_says(level: int) -> None:
    shown = order_of(REGISTRY["stutter"](numbered(201), level, [4]))
    assert shown == sorted(shown)
    assert 1 - (len(set(shown)) - 1) / 200 == pytest.approx(value("stutter", level), abs=0.1)


@levels
def test_low_frame_rate_shows_as_many_pictures_as_it_says(level: int) -> None:
    shown = order_of(REGISTRY["low_frame_rate"](numbered(24), level, [0]))
    assert len(set(shown)) == math.ceil(24 / value("low_frame_rate", level))


@levels
@pytest.mark.parametrize("time", [2, 3, 9, 17, 24])
def test_a_loop_has_the_period_it_says(level: int, time: int) -> None:
    shown = order_of(REGISTRY["loop"](numbered(time), level, [level + time]))
    period = len(set(shown))
    assert all(a == b for a, b in zip(shown, shown[period:], strict=False))
    assert period < time
    if time >= 9:
        assert period == max(2, round(value("loop", level) * time))


@levels
def test_shuffle_keeps_every_frame_near_its_place(level: int) -> None:
    shown = order_of(REGISTRY["shuffle"](numbered(40), level, [0]))
    assert sorted(shown) == list(range(40)) and shown != list(range(40))
    assert max(abs(frame - place) for place, frame in enumerate(shown)) < max(value("shuffle", level), 2)


@levels
def test_judder_errs_in_time_by_at_most_what_it_says(level: int) -> None:
    shown = order_of(REGISTRY["judder"](numbered(40), level, [0]))
    worst = max(abs(frame - place) for place, frame in enumerate(shown))
    assert 1 <= worst <= round(value("judder", level)) or (level == 1 and worst == 1)


@levels
def test_jump_leaves_frames_out_and_never_goes_back(level: int) -> None:
    shown = order_of(REGISTRY["jump"](numbered(21), level, [0]))
    assert shown == sorted(shown) and max(np.diff(shown)) > 1


def test_temporal_distortions_use_only_frames_of_the_clip(clips: Tensor) -> None:
    for name in ("freeze", "stutter", "low_frame_rate", "loop", "shuffle", "judder", "jump"):
        out = REGISTRY[name](clips[4:6], 4, [0, 1])
        for clip, damaged in zip(clips[4:6], out, strict=True):
            assert all(any(torch.equal(frame, original) for original in clip) for frame in damaged), name


@levels
def test_brightness_ramps_with_the_slope_it_says(level: int) -> None:
    at = min(level, 4)  # at level 5 grey clips
    grey = torch.full((1, 9, 3, 8, 8), 0.5)
    for seed in range(4):
        means = REGISTRY["brightness_ramp"](grey, at, [seed])[0].mean(dim=(1, 2, 3))
        slope, start = np.polyfit(np.arange(9), means.numpy(), 1)
        assert abs(slope) * 8 == pytest.approx(value("brightness_ramp", at), rel=1e-3)
        assert start == pytest.approx(0.5, abs=1e-3)


@levels
@pytest.mark.parametrize("name", ["flicker_sine", "flicker_white"])
def test_flicker_has_the_gain_it_says(name: str, level: int) -> None:
    shade = 0.4
    means = REGISTRY[name](GREY[:1] / 0.5 * shade, level, [3]).mean(dim=(2, 3, 4))
    gain = means / shade - 1
    assert float(gain.square().mean().sqrt()) == pytest.approx(value(name, level), rel=0.02)


@levels
def test_colour_drift_tints_the_last_frame_by_what_it_says(level: int) -> None:
    out = REGISTRY["colour_drift"](GREY, level, [0, 1])
    tint = out[:, -1].mean(dim=(-2, -1)) - 0.5
    assert torch.allclose(
        tint.square().mean(1).sqrt(), torch.tensor(value("colour_drift", level)), rtol=0.02
    ) or (
        level == 5  # clips
    )
    assert torch.equal(out[:, 0], GREY[:, 0])


@levels
def test_hue_flicker_leaves_brightness_alone(level: int) -> None:
    frames = ramps() * 0.2 + 0.4
    out = REGISTRY["hue_flicker"](frames, level, [0])
    assert torch.allclose(luma(out), luma(frames), atol=1e-5)
    assert float((out - frames).abs().mean()) > 0.002


def test_lattice_repeats_and_is_still() -> None:
    plain = torch.full((4, 3, 3, 48, 48), 0.5)
    out = REGISTRY["lattice"](plain, 3, [0, 1, 2, 3])
    assert torch.allclose(out[..., 8:], out[..., :-8], atol=1e-6)
    assert torch.equal(out[:, 0], out[:, 1])
    assert float(out.std()) > 0.03


@levels
def test_crawl_slides_by_one_and_a_half_px_a_frame(level: int) -> None:
    texture = (REGISTRY["crawl"](GREY, min(level, 4), [5, 6]) - 0.5).mean(2)
    for clip in texture:
        first, later = torch.fft.fft2(clip[0]), torch.fft.fft2(clip[4])
        peak = int(torch.fft.ifft2(first.conj() * later).real.flatten().argmax())
        dy, dx = ((place + 24) % 48 - 24 for place in divmod(peak, 48))
        assert math.hypot(dy, dx) == pytest.approx(6.0, abs=0.8)


def test_what_needs_motion_leaves_a_still_picture_alone(clips: Tensor) -> None:
    still = clips[:, :1].expand(-1, 6, -1, -1, -1)
    for name in (
        "ghost",
        "local_freeze",
        "freeze",
        "stutter",
        "low_frame_rate",
        "loop",
        "shuffle",
        "judder",
        "jump",
    ):
        assert torch.allclose(REGISTRY[name](still, 5, [0] * 8), still, atol=1e-6), name
