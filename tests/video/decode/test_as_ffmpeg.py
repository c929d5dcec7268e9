"""Whole files of every making are read as ffmpeg reads them: count, order, orientation, colours."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from components.runtime.errors import InputError
from components.video.clip import Clip
from components.video.codec import read_video, write_video
from components.video.decode.container import probe
from tests.video.decode import oracle
from tests.video.decode.oracle import Pictures, ffmpeg, make, numbers, pictures

COPY = ("-v", "error")


def ours(path: Path) -> Pictures:
    return np.ascontiguousarray(read_video(path).frames.permute(0, 2, 3, 1).numpy())


def assert_same(path: Path, stream: int = 0, count: int | None = None, within: float = 0.5) -> Pictures:
    """Read as ffmpeg reads it: as many frames, in the same order, the same pixels."""
    found, truth = ours(path), oracle.read(path, stream)
    assert found.shape == truth.shape
    assert numbers(found) == numbers(truth)
    if count is not None:
        assert len(found) == count
    difference = np.abs(found.astype(int) - truth.astype(int))
    assert difference.mean() <= within, difference.mean(axis=(0, 1, 2))
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 numbered pictures in H.264, a keyframe each 24."""
    path = tmp_path_factory.mktemp("whole") / "whole.mp4"
    options = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "24", "-bf", "0", "-crf", "8", "-threads", "1")
    return make(path, pictures(72), *options)


def test_an_edit_list_hides_what_a_cut_without_encoding_left_in_the_file(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "trim.mp4"
    ffmpeg(*COPY, "-ss", "1.8", "-i", whole, "-t", "0.5", "-c", "copy", path)
    found = assert_same(path)
    assert numbers(found) == list(range(numbers(found)[0], numbers(found)[0] + len(found)))
    assert len(found) < 24 and probe(path).frames == len(found)


def test_a_cut_among_frames_that_lean_on_later_ones(tmp_path: Path) -> None:
    """A copy that stops by the order of decoding leaves a hole before its last frame: shown as a hold."""
    whole = make(tmp_path / "whole.mp4", pictures(48))
    path = tmp_path / "cut.mp4"
    ffmpeg(*COPY, "-ss", "0.5", "-i", whole, "-t", "0.4", "-c", "copy", path)
    assert numbers(ours(path)) == numbers(oracle.read(path, timing="cfr"))


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".avi", ".mp4", ".mov", ".ts", ".flv"])
def test_each_piece_of_a_longer_video_is_whole(tmp_path: Path, suffix: str) -> None:
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4"}.get(suffix, "libx264")
    options = ("-c:v", codec, "-pix_fmt", "yuv420p", "-g", "24", "-threads", "1")
    source = make(tmp_path / f"whole{suffix}", pictures(72), *options)
    pattern = tmp_path / f"piece%d{suffix}"
    ffmpeg(*COPY, "-i", source, "-c", "copy", "-f", "segment", "-segment_time", "1", pattern)
    for piece in range(3):
        path = tmp_path / f"piece{piece}{suffix}"
        assert_same(path, count=24)
        assert read_video(path).fps == pytest.approx(24.0, rel=0.01)


def test_transport_streams_put_one_after_the_other(tmp_path: Path) -> None:
    parts = [make(tmp_path / f"{place}.ts", pictures(24, 24 * place)) for place in range(2)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert numbers(assert_same(joined, count=48)) == list(range(48))


# Display matrices: every turn by 90 degrees, with and without a mirror.
@pytest.mark.parametrize(("turn", "mirror"), itertools.product((0, 90, 180, 270), ("", "h", "v")))
def test_all_orientations(whole: Path, tmp_path: Path, turn: int, mirror: str) -> None:
    path = tmp_path / "turned.mp4"
    flip = (f"-display_{mirror}flip",) if mirror else ()
    ffmpeg(*COPY, "-display_rotation", str(turn), *flip, "-t", "0.2", "-i", whole, "-c", "copy", path)
    found, truth = ours(path), oracle.read(path)
    assert found.shape == truth.shape
    assert np.abs(found.astype(int) - truth.astype(int)).mean() < 0.5


@pytest.mark.parametrize(
    ("form", "codec", "more"),
    [
        ("yuv420p", "libx264", ()),
        ("yuv422p", "libx264", ()),
        ("yuv444p", "libx264", ()),
        ("yuv420p10le", "libx264", ()),
        ("yuvj420p", "mjpeg", ()),
        ("yuv420p", "libx264", ("-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709")),
        ("yuv420p", "libx264", ("-vf", "scale=out_range=full", "-color_range", "pc")),
        ("gray", "ffv1", ()),
        ("rgb24", "ffv1", ()),
    ],
)
def test_colours(tmp_path: Path, form: str, codec: str, more: tuple[str, ...]) -> None:
    path = make(tmp_path / "a.mkv", pictures(4), *more, "-pix_fmt", form, "-c:v", codec, "-threads", "1")
    assert_same(path, count=4)


def test_shrinking_averages_the_colours_too(tmp_path: Path) -> None:
    """Red and blue stripes, 4:2:0: against the area average of the RGB pictures themselves."""
    stripes = np.zeros((1, 144, 256, 3), np.uint8)
    stripes[:, :, :, 0], stripes[:, :, :, 2] = 220, 30
    stripes[:, :, (np.arange(256) // 16) % 2 == 1] = (30, 60, 220)
    options = ("-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709", "-pix_fmt", "yuv420p")
    path = make(tmp_path / "a.mp4", stripes, *options, "-c:v", "libx264", "-qp", "4", "-threads", "1")
    small = read_video(path, short_side=36).frames[0].permute(1, 2, 0).numpy().astype(float)
    truth = stripes[0].astype(float).reshape(36, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - truth).mean(axis=(0, 1)).max() < 1.0


def test_the_default_stream_is_shown_not_a_preview_before_it(whole: Path, tmp_path: Path) -> None:
    preview = ("-filter_complex", "[0:v]scale=24:16[p]", "-map", "[p]", "-map", "0:v")
    code = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-threads", "1")
    told, untold = tmp_path / "told.mp4", tmp_path / "untold.mkv"
    ffmpeg(*COPY, "-i", whole, *preview, *code, "-disposition:v:0", "0", "-disposition:v:1", "default", told)
    ffmpeg(*COPY, "-i", whole, *preview, *code, "-disposition:v:0", "0", "-disposition:v:1", "0", untold)
    for path in (told, untold):
        assert (probe(path).width, probe(path).height) == (96, 64)
        assert_same(path, stream=1, count=72)


def test_a_cover_picture_is_no_video(whole: Path, tmp_path: Path) -> None:
    cover = tmp_path / "cover.png"
    Image.fromarray(np.full((600, 800, 3), 90, np.uint8)).save(cover)
    covered, song = tmp_path / "covered.mp4", tmp_path / "song.m4a"
    picture = ("-map", "1", "-c", "copy", "-disposition:v:1", "attached_pic")
    ffmpeg(*COPY, "-i", whole, "-i", cover, "-map", "0", *picture, covered)
    assert_same(covered, count=72)
    tone = ("-f", "lavfi", "-i", "sine=d=0.2", "-i", cover, "-map", "0", "-map", "1")
    ffmpeg(*COPY, *tone, "-c:a", "aac", "-c:v", "png", "-disposition:v:0", "attached_pic", "-f", "mp4", song)
    with pytest.raises(InputError, match="no video stream in the file"):
        read_video(song)


def test_a_phones_wide_colours_of_high_range_come_out_as_the_picture_was(tmp_path: Path) -> None:
    """SDR put into HDR by the formulas of ITU-R BT.2100 in float64: white at 203 cd/m2, a gamma of 2.4."""
    row = np.array(oracle.COLOURS, np.uint8).repeat(16, axis=0)
    shown = np.broadcast_to(row, (3, 48, *row.shape))
    to_2020 = np.array(
        [[0.627404, 0.329283, 0.043313], [0.069097, 0.919540, 0.011362], [0.016391, 0.088013, 0.895595]]
    )
    light = 203 * (shown / 255.0) ** 2.4 @ to_2020.T  # cd/m2
    luminance = np.maximum(light @ (0.2627, 0.6780, 0.0593), 1e-9)[..., None] / 1000
    scene = light / 1000 * luminance ** (1 / 1.2 - 1)
    hlg = np.where(scene <= 1 / 12, np.sqrt(3 * scene), 0.0)
    bright = scene > 1 / 12
    hlg[bright] = 0.17883277 * np.log(12 * scene[bright] - 0.28466892) + 0.55991073
    power = (light / 10000) ** (2610 / 16384)
    pq = ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375
    for name, signal in (("arib-std-b67", hlg), ("smpte2084", pq)):
        path = tmp_path / f"{name}.mov"
        coded = np.round(signal * 65535).astype("<u2")
        size = f"{coded.shape[2]}x{coded.shape[1]}"
        source = ("-f", "rawvideo", "-pix_fmt", "rgb48le", "-s", size, "-r", "24", "-i", "-")
        form = ("-vf", "scale=out_color_matrix=bt2020nc:flags=accurate_rnd", "-pix_fmt", "yuv444p10le")
        tags = f"log-level=none:qp=4:colorprim=bt2020:transfer={name}:colormatrix=bt2020nc"
        ffmpeg(*COPY, *source, *form, "-c:v", "libx265", "-x265-params", tags, path, data=coded.tobytes())
        middle = ours(path)[1, 24, 8::16].astype(int)
        error = np.abs(middle - np.array(oracle.COLOURS))
        # Black of 10 bits is a step of several levels in a dark channel beside a bright one.
        assert error.mean() < 4 and error.max() <= 30, (name, middle)
        assert error[6:].max() <= 5  # white, black, grey and the colours of objects


def test_colours_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mov"
    params = "log-level=none:colormatrix=ictcp"
    make(path, pictures(2), "-pix_fmt", "yuv420p", "-c:v", "libx265", "-x265-params", params)
    with pytest.raises(InputError, match=r"a\.mov: its colours are ICtCp"):
        read_video(path)


@pytest.mark.parametrize(("lines", "matrix"), [(240, b"smpte170m/bt709/bt709"), (720, b"bt709")])
def test_written_files_say_which_matrix_they_were_written_with(
    tmp_path: Path, lines: int, matrix: bytes
) -> None:
    """Two ways to see it: the tag as ffmpeg prints it, and the colours as ffmpeg reads them by that tag."""
    colours = torch.tensor([[220, 30, 30], [40, 190, 50], [30, 60, 220], [128, 128, 128]], dtype=torch.uint8)
    frames = colours.T.reshape(1, 3, 1, 4).repeat_interleave(lines, 2).repeat_interleave(64, 3)
    path = tmp_path / "a.mp4"
    write_video(Clip(frames.repeat(2, 1, 1, 1), 8.0), path, scale=1)
    said = ffmpeg("-i", path, "-f", "null", "-").stderr
    assert b"yuv420p(tv, " + matrix in said, said
    for found in (ours(path), oracle.read(path)):
        difference = found[0, lines // 2, 32::64].astype(int) - colours.numpy()
        assert np.abs(difference).max() <= 3


def test_names_that_look_like_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip = Clip(torch.from_numpy(pictures(3)).permute(0, 3, 1, 2).contiguous(), 8.0)
    for name in ("Zoom: in-0.mp4", "concat:a.mp4", "http:b.mp4"):
        write_video(clip, name, scale=1)
        assert probe(name).frames == 3
        assert read_video(Path(name)).num_frames == 3
