"""Files that were cut: held against what ffmpeg says of them, container by container, cut by cut."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from components.runtime.errors import InputError
from components.video.codec import read_video
from tests.video.decode import oracle
from tests.video.decode.oracle import ffmpeg, make, pictures

H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "12", "-threads", "1")
FRAMES = 48

#: By name, how the file is made; index first means that a cut leaves the header alone.
KINDS = {
    "first.mp4": (*H264, "-movflags", "faststart"),
    "last.mp4": H264,
    "fragments.mp4": (*H264, "-movflags", "frag_keyframe+empty_moov"),
    "a.mov": (*H264, "-movflags", "faststart"),
    "a.3gp": (*H264, "-movflags", "faststart"),
    "hevc.mp4": ("-c:v", "libx265", "-x265-params", "log-level=none", "-movflags", "faststart"),
    "av1.mp4": ("-c:v", "libaom-av1", "-cpu-used", "8", "-movflags", "faststart"),
    "a.mkv": H264,
    "a.webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    "a.avi": ("-c:v", "mpeg4", "-q:v", "3"),
    "h264.avi": (*H264, "-bf", "0"),
    "motion.avi": ("-c:v", "mjpeg", "-q:v", "3"),
    "a.flv": H264,
    "a.ts": (*H264, "-bf", "0"),
    "mpeg2.ts": ("-c:v", "mpeg2video", "-q:v", "3"),
    "a.mpg": ("-c:v", "mpeg2video", "-q:v", "3"),
    "a.wmv": ("-c:v", "wmv2", "-q:v", "3"),
    "a.ogv": ("-c:v", "libtheora", "-q:v", "7"),
    "a.gif": (),
    "a.ivf": ("-c:v", "libvpx", "-deadline", "realtime"),
}
SHARES = (0.35, 0.6, 0.8, 0.9, 0.96)


def verdict(path: Path) -> str | int:
    """How many frames were read, or the line of the refusal."""
    try:
        return read_video(path).num_frames
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return str(error)


@pytest.mark.parametrize("name", KINDS)
def test_a_cut_file_is_refused_and_the_whole_one_is_not(tmp_path: Path, name: str) -> None:
    options = KINDS[name] or ("-f", "gif")
    whole = make(tmp_path / name, pictures(FRAMES), *options)
    assert verdict(whole) == FRAMES
    data = whole.read_bytes()
    draws = random.Random(name)
    for share in SHARES:
        cut = tmp_path / f"cut.{name}"
        cut.write_bytes(data[: int(len(data) * share) + draws.randrange(40)])
        frames, errors = oracle.complaints(cut)
        found = verdict(cut)
        if errors or not frames:
            assert isinstance(found, str), (share, found, errors)
        elif isinstance(found, int):
            # Nothing tells that a stream without promises was longer; an index may be all that is cut.
            assert found == frames and (frames == FRAMES or name.endswith((".ts", ".mpg"))), (share, found)


@pytest.mark.parametrize("name", ["first.mp4", "a.mkv", "a.webm", "a.avi"])
def test_a_cut_between_two_frames_is_seen(tmp_path: Path, name: str) -> None:
    """No decoder can notice; the container's own promise does."""
    whole = make(tmp_path / name, pictures(FRAMES), *KINDS[name])
    data = whole.read_bytes()
    import av

    with av.open(str(whole)) as container:
        places = sorted(packet.pos for packet in container.demux(video=0) if packet.pos)
    cut = tmp_path / f"cut.{name}"
    for place in places[len(places) // 2 :: 6]:
        # In Matroska a block's head stands before its data, in AVI eight bytes.
        cut.write_bytes(data[: place - (8 if name == "a.avi" else 0)])
        found = verdict(cut)
        assert isinstance(found, str) and "truncated" in found, (place, found)


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.avi", "last.mp4"])
def test_what_follows_the_pictures_may_be_missing(tmp_path: Path, name: str) -> None:
    """The last bytes of an index or a tag are no part of the video."""
    whole = make(tmp_path / name, pictures(FRAMES), *KINDS[name])
    (tmp_path / f"cut.{name}").write_bytes(whole.read_bytes()[:-8])
    assert oracle.complaints(tmp_path / f"cut.{name}")[0] == FRAMES
    assert verdict(tmp_path / f"cut.{name}") == FRAMES


def test_broken_sound_is_no_matter(tmp_path: Path) -> None:
    """A file cut in the sound that lies after all pictures shows every picture."""
    silent = make(tmp_path / "silent.mp4", pictures(FRAMES), *H264)
    path = tmp_path / "loud.mp4"
    # The sound is longer than the pictures, so that the last bytes are sound.
    tone = ("-f", "lavfi", "-i", "sine=d=6")
    ffmpeg("-v", "error", "-i", silent, *tone, "-c:v", "copy", "-c:a", "aac", "-movflags", "faststart", path)
    path.write_bytes(path.read_bytes()[:-2000])
    assert oracle.complaints(path)[0] == FRAMES
    assert verdict(path) == FRAMES
