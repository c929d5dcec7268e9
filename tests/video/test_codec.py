from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

from components.runtime.errors import InputError
from components.video.clip import Clip
from components.video.codec import read_video, write_video
from components.video.decode.container import probe
from tests.video.files import encode, encode_sound


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    error = (a.double() - b.double()).square().mean()
    return float(10 * torch.log10(255**2 / error))


def line_about(path: Path, **options: int) -> str:
    """The one line with which a file is refused; it must name the file."""
    with pytest.raises(InputError) as caught:
        read_video(path, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert str(path) in message and "\n" not in message
    return message


def test_round_trip_keeps_rate_count_and_picture(drifting: Clip, tmp_path: Path) -> None:
    write_video(drifting, tmp_path / "a.mp4", scale=1)
    back = read_video(tmp_path / "a.mp4")
    assert back.frames.shape == drifting.frames.shape and back.fps == 24.0
    assert psnr(back.frames, drifting.frames) > 34


@pytest.mark.parametrize("fps", [8.0, 25.0, 30000 / 1001, 12.5])
def test_frame_rates_come_back_exactly(drifting: Clip, tmp_path: Path, fps: float) -> None:
    write_video(Clip(drifting.frames, fps), tmp_path / "a.mp4", scale=1)
    assert read_video(tmp_path / "a.mp4").fps == pytest.approx(fps, rel=1e-9)


def test_colours_do_not_shift(tmp_path: Path) -> None:
    colours = torch.tensor([[220, 30, 30], [40, 190, 50], [30, 60, 220], [128, 128, 128], [250, 250, 250]])
    frames = colours.to(torch.uint8).T.reshape(1, 3, 1, 5).repeat_interleave(16, 2).repeat_interleave(16, 3)
    write_video(Clip(frames.expand(3, -1, -1, -1).contiguous(), 8.0), tmp_path / "a.mp4", scale=1)
    back = read_video(tmp_path / "a.mp4").frames[1, :, 8, 8::16].T.long()
    assert (back - colours).abs().max() <= 4


def test_same_clip_same_bytes(drifting: Clip, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(drifting, tmp_path / name)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_tiny_and_odd_sizes_become_what_browsers_play(tmp_path: Path) -> None:
    write_video(Clip(torch.full((2, 3, 48, 48), 0.5), 8.0), tmp_path / "tiny.mp4")
    assert (probe(tmp_path / "tiny.mp4").width, probe(tmp_path / "tiny.mp4").height) == (240, 240)
    write_video(Clip(torch.full((1, 3, 31, 17), 0.5), 8.0), tmp_path / "odd.mp4", scale=1)
    back = read_video(tmp_path / "odd.mp4")
    assert (back.num_frames, back.height, back.width) == (1, 32, 18)


def test_the_beginning_of_a_file(drifting: Clip, tmp_path: Path) -> None:
    write_video(drifting, tmp_path / "a.mp4", scale=1)
    whole, part = read_video(tmp_path / "a.mp4"), read_video(tmp_path / "a.mp4", max_frames=4)
    assert torch.equal(part.frames, whole.frames[:4]) and part.fps == whole.fps


def test_shrinking_while_reading_averages(drifting: Clip, tmp_path: Path) -> None:
    write_video(drifting, tmp_path / "a.mp4", scale=1)
    small = read_video(tmp_path / "a.mp4", short_side=32)
    assert (small.height, small.width) == (32, 48)
    mean = drifting.frames.float().unflatten(2, (32, 2)).unflatten(4, (48, 2)).mean(dim=(3, 5))
    assert psnr(small.frames, mean) > 34
    assert read_video(tmp_path / "a.mp4", short_side=500).height == 64


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".webm", ".mov", ".ts"])
def test_other_containers(drifting: Clip, tmp_path: Path, suffix: str) -> None:
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    back = read_video(encode(drifting, tmp_path / f"a{suffix}", codec=codec))
    assert back.num_frames == 24 and back.fps == pytest.approx(24.0, rel=0.01)


@pytest.mark.parametrize("fast", [True, False], ids=["index first", "index last"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_mp4(drifting: Clip, tmp_path: Path, share: float, fast: bool) -> None:
    whole = encode(drifting, tmp_path / "whole.mp4", fast=fast).read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "truncated" in line_about(path)


def test_only_a_tag_at_the_end_cut_off_changes_nothing(drifting: Clip, tmp_path: Path) -> None:
    whole = encode(drifting, tmp_path / "whole.mp4", fast=False)
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:-8])
    assert torch.equal(read_video(tmp_path / "cut.mp4").frames, read_video(whole).frames)


@pytest.mark.parametrize("share", [0.01, 0.4, 0.7])
def test_truncated_mkv(drifting: Clip, tmp_path: Path, share: float) -> None:
    whole = encode(drifting, tmp_path / "whole.mkv").read_bytes()
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "truncated" in line_about(path)


@pytest.mark.parametrize("size", [1, 7, 100])
def test_first_bytes_only(drifting: Clip, tmp_path: Path, size: int) -> None:
    path = tmp_path / "stub.mp4"
    path.write_bytes(encode(drifting, tmp_path / "whole.mp4").read_bytes()[:size])
    assert "damaged" in line_about(path)


def test_missing_empty_folder_and_text(tmp_path: Path) -> None:
    assert "no such file" in line_about(tmp_path / "none.mp4")
    assert "no such file" in line_about(tmp_path)
    (tmp_path / "empty.mp4").touch()
    assert "empty" in line_about(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("not a video\n" * 1000)
    assert "not a video" in line_about(tmp_path / "text.mp4")


def test_sound_only(tmp_path: Path) -> None:
    assert "no video stream" in line_about(encode_sound(tmp_path / "sound.mp4"))


def test_header_without_frames(drifting: Clip, tmp_path: Path) -> None:
    one = Clip(drifting.frames[:1], 24.0)
    path = encode(one, tmp_path / "one.mkv")
    data = path.read_bytes()
    cluster = data.index(bytes.fromhex("1f43b675"))
    (tmp_path / "none.mkv").write_bytes(data[:cluster])
    line_about(tmp_path / "none.mkv")


def test_a_header_that_claims_a_giant_frame(drifting: Clip, tmp_path: Path) -> None:
    data = bytearray(encode(drifting, tmp_path / "a.avi", codec="rawvideo").read_bytes())
    # BITMAPINFOHEADER: its size (40), width, height, little endian.
    place = data.index(struct.pack("<III", 40, 96, 64)) + 4
    data[place : place + 8] = struct.pack("<II", 100_000, 100_000)
    (tmp_path / "giant.avi").write_bytes(data)
    assert "too large" in line_about(tmp_path / "giant.avi")
    raw = b"YUV4MPEG2 W100000 H100000 F24:1 C420\nFRAME\n" + bytes(1000)
    (tmp_path / "giant.y4m").write_bytes(raw)
    assert "giant.y4m" in line_about(tmp_path / "giant.y4m")


def test_more_pixels_than_allowed(drifting: Clip, tmp_path: Path) -> None:
    path = encode(drifting, tmp_path / "a.mp4")
    assert read_video(path, max_pixels=24 * 64 * 96).num_frames == 24
    message = line_about(path, max_pixels=24 * 64 * 96 - 1)
    assert "too large" in message and "147,455" in message


def test_a_playlist_cannot_reach_other_files(drifting: Clip, tmp_path: Path) -> None:
    secret = encode(drifting, tmp_path / "secret.ts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n{secret}\n#EXT-X-ENDLIST\n"
    (tmp_path / "list.mp4").write_text(playlist)
    line_about(tmp_path / "list.mp4")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{secret.name}'\n")
    line_about(tmp_path / "concat.mp4")


def test_damaged_in_the_middle_ends_in_a_line_or_a_clip(drifting: Clip, tmp_path: Path) -> None:
    """Random damage may be concealed by the decoder or refused, but nothing else may happen."""
    whole = encode(drifting, tmp_path / "whole.mp4").read_bytes()
    draws = torch.Generator().manual_seed(5)
    for trial in range(40):
        data = bytearray(whole)
        for place in torch.randint(0, len(data), (1 + trial,), generator=draws).tolist():
            data[place] ^= 0xFF
        path = tmp_path / f"{trial}.mp4"
        path.write_bytes(data)
        try:
            assert read_video(path).num_frames >= 1
        except InputError as error:
            assert str(path) in str(error) and "\n" not in str(error)


def test_probe_reads_the_header_alone(drifting: Clip, tmp_path: Path) -> None:
    info = probe(encode(drifting, tmp_path / "a.mp4"))
    assert (info.width, info.height, info.fps, info.frames) == (96, 64, 24.0, 24)
