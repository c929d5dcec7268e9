"""VMAF of many clips in one process: the same as ffmpeg's own, one clip at a time."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from components.reward.labels import vmaf as module
from components.reward.labels.vmaf import ffmpeg, vmaf
from components.runtime.errors import InputError
from tests.reward.labels.conftest import at_levels


def plainly(reference: Tensor, distorted: Tensor, folder: Path, factor: int) -> list[float]:
    """One clip as anyone would run it: two video files of enlarged frames, two inputs, a log file.

    The files are Y4M with chroma of 128, whose luma is of limited range by the format's definition; nothing
    on the way to libvmaf has a reason to convert it.
    """
    files = []
    for name, clip in (("reference", reference), ("distorted", distorted)):
        red, green, blue = clip.double().numpy().transpose(1, 0, 2, 3)
        grey = 16 + np.rint(219 * ((0.299 * red + 0.587 * green + 0.114 * blue) / 255))
        large = grey.astype(np.uint8).repeat(factor, axis=1).repeat(factor, axis=2)
        height, width = large.shape[1:]
        chroma = bytes([128]) * (2 * ((height + 1) // 2) * ((width + 1) // 2))
        header = f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED\n".encode()
        files.append(folder / f"{name}.y4m")
        files[-1].write_bytes(header + b"".join(b"FRAME\n" + frame.tobytes() + chroma for frame in large))
    log = folder / "log.json"
    graph = f"[0][1]libvmaf=model='version=vmaf_v0.6.1neg\\:disable_clip=true':log_fmt=json:log_path={log}"
    command = [ffmpeg(), "-loglevel", "error", "-i", str(files[1]), "-i", str(files[0])]
    subprocess.run([*command, "-filter_complex", graph, "-f", "null", "-"], check=True)
    return [frame["metrics"]["vmaf"] for frame in json.loads(log.read_text())["frames"]]


def test_every_frame_scores_as_in_a_process_of_its_own(real: Tensor, tmp_path: Path) -> None:
    """Also next to its own original and to a copy of itself, where motion across the seam would be small."""
    damaged = at_levels(real, "h264")[:, 3]
    reference = torch.cat((real, real[:1], real[:1]))
    together = vmaf(reference, torch.cat((damaged, real[:1], damaged[:1])))
    for row in (0, 3, 5, 7):
        alone = plainly(real[row], damaged[row], tmp_path, 2)
        # Luma may round the other way where it lies between two 8-bit steps.
        assert together[row].tolist() == pytest.approx(alone, abs=0.02)
    assert torch.equal(together[0], together[9])


@pytest.mark.parametrize("name", ["blur", "jpeg", "ghost", "oversharpen", "darken"])
def test_losses_are_those_of_video_in_limited_range(real: Tensor, name: str, tmp_path: Path) -> None:
    """What the label reads, original against itself less original against copy; also at the range's ends."""
    damaged = at_levels(real, name)[:, 4]
    ours = vmaf(real, real) - vmaf(real, damaged)
    for row in (1, 6):
        alone = np.subtract(
            plainly(real[row], real[row], tmp_path, 2), plainly(real[row], damaged[row], tmp_path, 2)
        )
        assert ours[row].tolist() == pytest.approx(alone.tolist(), abs=0.04)


@pytest.mark.parametrize(("height", "width", "factor"), [(51, 49, 2), (99, 101, 1)])
def test_odd_sizes_are_measured_whole(height: int, width: int, factor: int, tmp_path: Path) -> None:
    stream = torch.Generator().manual_seed(1)
    clip = torch.randint(0, 256, (3, 3, height, width), generator=stream, dtype=torch.uint8)
    softer = (clip.float() * 0.6 + 50).round().to(torch.uint8)
    together = vmaf(clip[None], softer[None])[0]
    assert together.tolist() == pytest.approx(plainly(clip, softer, tmp_path, factor), abs=0.02)


def test_labels_measured_by_another_graph_are_not_reused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache's key holds `identity`: whatever changes the scores must change it."""
    now = module.identity(ffmpeg())
    for name, other in (("AS_IT_IS", "null"), ("MODEL", "version=vmaf_v0.6.1"), ("SHORT_SIDE", 192)):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, other)
            module.identity.cache_clear()
            assert module.identity(ffmpeg()) != now, name
    module.identity.cache_clear()
    assert module.identity(ffmpeg()) == now


def test_without_its_guards_a_clip_would_see_its_neighbour(real: Tensor, tmp_path: Path) -> None:
    damaged = at_levels(real, "h264")[:, 3]
    run = plainly(torch.cat((real[5], real[6])), torch.cat((damaged[5], damaged[6])), tmp_path, 2)
    assert run[9] != pytest.approx(float(vmaf(real[6:7], damaged[6:7])[0, 0]), abs=0.01)


def test_parts_and_company_make_no_difference(real: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = at_levels(real, "blur")[:, 2]
    whole = vmaf(real, damaged)
    monkeypatch.setattr(module, "BATCH_BYTES", 1)
    assert torch.equal(vmaf(real, damaged), whole)
    assert torch.equal(vmaf(real[2:3], damaged[2:3])[0], whole[2])


@pytest.mark.parametrize("name", ["blur", "frame_noise", "jpeg", "h264", "oversharpen", "warp"])
def test_falls_with_severity_on_world_and_footage(real: Tensor, name: str) -> None:
    ladder = at_levels(real, name)
    reference = real[:, None].expand_as(ladder).flatten(0, 1)
    means = vmaf(reference, ladder.flatten(0, 1)).reshape(8, 6, 9).mean(2)
    assert float((means[:, 1:] < means[:, :-1]).float().mean()) > 0.9
    assert bool((means[:, 0] > 95).all()) and bool((means[:, 5] < means[:, 0] - 20).all())


@pytest.mark.parametrize(
    "shape", [(1, 1, 3, 48, 48), (2, 2, 3, 11, 30), (1, 3, 3, 49, 35), (1, 2, 3, 100, 98)]
)
def test_any_size_and_length(shape: tuple[int, ...]) -> None:
    clips = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scores = vmaf(clips, clips)
    assert scores.shape == shape[:2] and bool((scores > 90).all())


def test_no_clips_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere")
    assert vmaf(torch.zeros(0, 9, 3, 48, 48).byte(), torch.zeros(0, 9, 3, 48, 48).byte()).shape == (0, 9)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo \"[AVFilterGraph @ 0x1] No such filter: 'libvmaf'\" >&2; exit 8", "no libvmaf filter"),
        ("cat >/dev/null; echo 'something broke' >&2; exit 3", "exit status 3: something broke"),
        ("cat >/dev/null", "exit status 0: no message"),
        ("cat >/dev/null; echo '{\"frames\": []}'", "exit status 0"),
        ('cat >/dev/null; echo \'{"frames": [{"metrics": {}}]}\'', "exit status 0"),
    ],
)
def test_a_failing_ffmpeg_is_one_clear_line(
    script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    clips = torch.zeros(1, 2, 3, 48, 48, dtype=torch.uint8)
    with pytest.raises(InputError, match=message) as caught:
        vmaf(clips, clips)
    assert "\n" not in str(caught.value) and str(fake) in str(caught.value)


def test_a_missing_ffmpeg_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    clips = torch.zeros(1, 2, 3, 48, 48, dtype=torch.uint8)
    with pytest.raises(InputError, match="/nowhere/ffmpeg: cannot be run"):
        vmaf(clips, clips)


def test_a_hanging_ffmpeg_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(fake))
    monkeypatch.setattr(module, "PATIENCE_S", 0.5)
    clips = torch.zeros(1, 2, 3, 48, 48, dtype=torch.uint8)
    with pytest.raises(InputError, match="not finished after"):
        vmaf(clips, clips)
