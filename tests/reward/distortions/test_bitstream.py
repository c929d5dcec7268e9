"""Streams: real ones, read back by another decoder, and what is left of them when they are damaged."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2ycbcr
from torch import Tensor

from components.reward.distortions import REGISTRY, bitstream
from components.reward.distortions.codec import X264
from components.runtime.errors import InputError
from tests.reward.conftest import textured, world

MPEG = {"qmin": "4", "qmax": "4", "bf": "0", "g": "12"}
CODECS: dict[str, tuple[str, str, dict[str, str], str]] = {
    "h264": ("libx264", "h264", {**X264, "crf": "22"}, "h264"),
    "h265": (
        "libx265",
        "hevc",
        {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "x265-params": "pools=none:frame-threads=1:log-level=none",
        },
        "hevc",
    ),
    "mpeg2": ("mpeg2video", "mpeg2video", MPEG, "mpegvideo"),
    "mpeg4": ("mpeg4", "mpeg4", MPEG, "m4v"),
}


@pytest.fixture(scope="module")
def planes() -> np.ndarray[Any, Any]:
    """uint8 (9, 72, 48) of a moving texture."""
    picked: np.ndarray[Any, Any] = bitstream.to_planes(textured(1, 9, 48).float() / 255)[0]
    return picked


@pytest.mark.parametrize("name", CODECS)
def test_the_streams_are_real(name: str, planes: np.ndarray[Any, Any]) -> None:
    """The ffmpeg program decodes them to the very frames that we get."""
    encoder, decoder, options, container = CODECS[name]
    packets = bitstream.encode(planes, encoder, options)
    assert len(packets) == 9 and sum(map(len, packets)) < planes.size / 4
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-v",
        "error",
        "-f",
        container,
        "-i",
        "-",
        "-fps_mode",
        "passthrough",
    ]
    done = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "yuv420p", "-"],
        input=b"".join(packets),
        capture_output=True,
        check=True,
    )
    theirs = np.frombuffer(done.stdout, np.uint8).reshape(-1, 72, 48)
    ours = bitstream.decode(packets, decoder, (72, 48))
    assert np.array_equal(ours, theirs)
    assert np.abs(ours.astype(int) - planes).mean() < 12


def test_planes_are_bt601(clips: Tensor) -> None:
    """Luma as scikit-image has it, chroma on plain colours; and there and back again."""
    made = bitstream.to_planes(clips)
    theirs = rgb2ycbcr(clips.movedim(2, -1).numpy())
    assert np.abs(made[..., :48, :].astype(float) - theirs[..., 0]).max() < 1.01
    plain = torch.rand(5, 1, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(5, 1, 3, 16, 16)
    wanted = rgb2ycbcr(plain.movedim(2, -1).numpy())[:, 0, 0, 0]
    got = bitstream.to_planes(plain)[:, 0].reshape(5, -1)
    assert np.abs(got[:, [0, 256, 320]] - wanted).max() < 1.01
    back = bitstream.from_planes(torch.from_numpy(bitstream.to_planes(plain)))
    assert float((back - plain).abs().max()) < 0.012


def test_small_and_odd_frames_are_padded_and_cropped() -> None:
    tiny = torch.rand(1, 2, 3, 9, 11)
    assert bitstream.to_planes(tiny).shape == (1, 2, 24, 16)
    out = bitstream.through(tiny, "libx264", "h264", {**X264, "crf": "1"})
    assert out.shape == tiny.shape


def test_an_encoder_that_is_not_there_is_one_line() -> None:
    with pytest.raises(InputError, match="no encoder libnothing"):
        bitstream.encode(np.zeros((2, 24, 16), np.uint8), "libnothing", {})


def test_slices_are_lost_at_the_rate_that_is_asked_for(planes: np.ndarray[Any, Any]) -> None:
    options = {**X264, "x264-params": "threads=1:slices=3:keyint=250"}
    packets = bitstream.encode(planes, "libx264", options)

    def slices(data: bytes) -> int:
        return sum(unit[0] & 31 in (1, 5) for unit in bitstream.H264_START.split(data) if unit)

    assert [slices(packet) for packet in packets] == [3] * 9
    for lost in range(4):
        kept = bitstream.lose_h264_slices(packets[4], [True] * lost + [False] * (3 - lost))
        assert slices(kept) == 3 - lost
    whole = [bitstream.lose_h264_slices(packet, [False] * 3) for packet in packets]
    shape = planes.shape[1:]
    assert np.array_equal(bitstream.decode(whole, "h264", shape), bitstream.decode(packets, "h264", shape))


def test_only_the_slices_that_are_hit_are_damaged(planes: np.ndarray[Any, Any]) -> None:
    packets = bitstream.encode(planes, "mpeg2video", MPEG)
    noise = bytes(range(1, 7))
    damaged = bitstream.damage_mpeg2_slices(packets[3], [False, True, False], [0.0, 0.5, 0.0], noise)
    assert len(damaged) == len(packets[3])
    wrong = [i for i, (a, b) in enumerate(zip(packets[3], damaged, strict=True)) if a != b]
    assert 1 <= len(wrong) <= 6 and wrong[-1] - wrong[0] < 6
    starts = [match.start() for match in bitstream.MPEG2_SLICE.finditer(packets[3])]
    assert len(starts) == 3 and starts[1] + 5 <= wrong[0] and wrong[-1] < starts[2]


@pytest.mark.parametrize("name", ["slice_loss", "packet_loss", "bit_errors"])
def test_damage_shows_after_the_first_picture_and_differs_from_clip_to_clip(name: str) -> None:
    frames = torch.cat([textured(1, 9, 48)] * 3).float() / 255
    light, heavy = (REGISTRY[name](frames, level, [0, 1, 2]) for level in (1, 5))
    assert torch.equal(light[:, 0], heavy[:, 0])
    assert float((heavy - frames)[:, 0].abs().mean()) < 0.05
    assert float((heavy - light).abs().mean()) > 0.005
    assert not torch.equal(heavy[0], heavy[1])


def test_a_lost_packet_repeats_the_picture_before_it(planes: np.ndarray[Any, Any]) -> None:
    packets = bitstream.encode(planes, "mpeg4", MPEG)
    whole = bitstream.decode(packets, "mpeg4", planes.shape[1:])
    gone = bitstream.decode([*packets[:8], b""], "mpeg4", planes.shape[1:])
    assert np.array_equal(gone[:8], whole[:8]) and np.array_equal(gone[8], whole[7])
    first = bitstream.decode([packets[0], *[b""] * 8], "mpeg4", planes.shape[1:])
    assert all(np.array_equal(picture, whole[0]) for picture in first)
    late = bitstream.decode([b"", *packets[:8]], "mpeg4", planes.shape[1:])
    assert np.array_equal(late[0], whole[0]) and np.array_equal(late[1:], whole[:8])


def test_packets_are_lost_at_the_rate_that_is_said() -> None:
    """A lost packet is a picture shown twice; on a clip that always moves, nothing else is."""
    frames = textured(1, 60, 32, seed=3).float() / 255
    for level in (2, 4):
        out = REGISTRY["packet_loss"](torch.cat([frames] * 3), level, [0, 1, 2])
        held = (out[:, 1:] == out[:, :-1]).flatten(2).all(2).float().mean()
        assert float(held) == pytest.approx(REGISTRY["packet_loss"].levels[level - 1], abs=0.08)


@settings(max_examples=30, deadline=None)
@given(
    name=st.sampled_from(["h264", "mpeg2", "mpeg4"]),
    places=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 10_000), st.integers(0, 255)), max_size=12),
    cut=st.integers(0, 60),
)
def test_whatever_happens_to_a_stream_it_gives_its_frames_and_the_same_twice(
    name: str, places: list[tuple[int, int, int]], cut: int
) -> None:
    encoder, decoder, options, _ = CODECS[name]
    planes = bitstream.to_planes(world(1, 5, 32).float() / 255)[0]
    packets = [bytearray(packet) for packet in bitstream.encode(planes, encoder, options)]
    for packet, place, byte in places:
        packets[packet][place % len(packets[packet])] = byte
    broken = [bytes(packet) for packet in packets]
    broken[-1] = broken[-1][cut:]
    first = bitstream.decode(broken, decoder, planes.shape[1:])
    assert first.shape == planes.shape
    assert np.array_equal(first, bitstream.decode(broken, decoder, planes.shape[1:]))


def test_compression_costs_more_bytes_for_more_quality(planes: np.ndarray[Any, Any]) -> None:
    sizes = [
        sum(map(len, bitstream.encode(planes, "libx264", {**X264, "crf": str(crf)})))
        for crf in (20, 30, 40, 50)
    ]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > 3 * sizes[-1]


def test_an_encoder_leaves_the_process_an_ordinary_one(planes: np.ndarray[Any, Any]) -> None:
    """As root, SVT-AV1 makes the thread that calls it a real-time one."""
    before = os.sched_getscheduler(0)
    REGISTRY["av1"](torch.rand(1, 4, 3, 48, 48), 3, [1])
    assert os.sched_getscheduler(0) == before


def stalling(times: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Makes the first `times` encodings sleep for ever, as SVT-AV1 was seen to; returns who tried."""
    true, tries, never = bitstream._encode, list[int](), threading.Event()

    def encode(*given: Any) -> bitstream.Packets:
        tries.append(threading.get_ident())
        if len(tries) <= times:
            never.wait()
        return true(*given)

    monkeypatch.setattr(bitstream, "_encode", encode)
    return tries


def test_an_encoder_that_stands_still_is_left_and_the_clip_begun_again(
    planes: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"preset": "12", "svtav1-params": "lp=1:rtc=1", "crf": "40"}
    expected = bitstream.encode(planes, "libsvtav1", options)
    monkeypatch.setattr(bitstream, "PATIENCE_S", 2.0)
    tries = stalling(1, monkeypatch)
    assert bitstream.encode(planes, "libsvtav1", options) == expected
    assert len(set(tries)) == 2 and threading.get_ident() not in tries


def test_one_that_always_stands_still_is_an_error(
    planes: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bitstream, "PATIENCE_S", 0.05)
    stalling(3, monkeypatch)
    with pytest.raises(RuntimeError, match=r"libsvtav1 hung for 0\.05 s, 3 times"):
        bitstream.encode(planes, "libsvtav1", {"preset": "12"})
