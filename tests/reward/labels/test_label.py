"""Labels of whole ladders: what they are made of, and that neither company nor order changes them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from components.reward.labels import label as module
from components.reward.labels.calibration import CALIBRATION
from components.reward.labels.label import label, measured
from components.reward.labels.losses import MEASURES, losses
from components.reward.labels.temporal import pool_over_time
from components.reward.labels.vmaf import vmaf
from components.runtime.compute.process_pool import ProcessPool
from components.runtime.errors import InputError
from tests.reward.labels.conftest import at_levels, fidelity


def test_losses_are_the_four_measures(real: Tensor) -> None:
    damaged = at_levels(real, "h264")[:, 4]
    found = losses(real, torch.arange(8), damaged)
    fall = pool_over_time((vmaf(real, real) - vmaf(real, damaged)) / 100)
    assert torch.allclose(found[:, 0], fall.clamp_min(0), atol=1e-6)
    assert bool((found > 0).all()) and MEASURES == ("vmaf", "structure", "colour", "temporal")
    without = found.clone()
    without[:, 0] = 0
    similar = fidelity(real.float() / 255.0, damaged.float() / 255.0)
    assert torch.allclose(similar.double(), 1 - CALIBRATION.damage(without), atol=1e-4)


def test_rows_do_not_depend_on_their_company(real: Tensor) -> None:
    ladder = torch.cat((at_levels(real[:4], "blur"), at_levels(real[4:], "freeze")))
    whole = measured(real, ladder)
    order = torch.tensor([5, 0, 7, 2])
    assert torch.equal(measured(real[order], ladder[order]), whole[order])
    assert torch.equal(measured(real[:1], ladder[:1, 3:4]), whole[:1, 3:4])


def test_an_untouched_clip_loses_exactly_nothing(real: Tensor) -> None:
    assert torch.equal(measured(real, real[:, None]), torch.zeros(8, 1, 4, dtype=torch.float64))


def test_levels_may_be_shared(real: Tensor) -> None:
    ladder, levels = at_levels(real[:3], "pixelate"), torch.arange(6)
    one = label(real[:3], ladder, levels)
    other = label(real[:3], ladder, levels.expand(3, -1), [1, 1, 1])
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert one[0].dtype == one[1].dtype == torch.float32


def test_no_ladders_are_no_work() -> None:
    labels, similarity = label(
        torch.zeros(0, 5, 3, 32, 32).byte(), torch.zeros(0, 4, 5, 3, 32, 32).byte(), torch.arange(4)
    )
    assert labels.shape == similarity.shape == (0, 4)


def test_what_does_not_fit_is_refused(real: Tensor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        label(real.float(), real[:, None].float(), torch.tensor([0]))
    with pytest.raises(ValueError, match="uint8"):
        label(real, real[:, None, :5], torch.tensor([0]))
    with pytest.raises(InputError, match="at least 11 x 11 px, got 8 x 48"):
        label(real[..., :8, :], real[:, None, ..., :8, :], torch.tensor([0]))


def test_same_labels_with_no_one_and_two_workers(
    real: Tensor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clips = torch.cat((real, real))
    ladder = torch.cat([at_levels(real, name) for name in ("blur", "shuffle")])
    here = measured(clips, ladder)
    monkeypatch.setattr(module, "TASK_CLIPS", 25)
    assert torch.equal(here, measured(clips, ladder, cache=tmp_path / "alone"))
    with ProcessPool(2) as two:
        assert torch.equal(here, measured(clips, ladder, pool=two, cache=tmp_path / "together"))
        assert torch.equal(here[3:4], measured(clips[3:4], ladder[3:4], pool=two))


SCRIPT = """
import torch
from components.reward.labels.label import measured
from components.runtime.compute.process_pool import ProcessPool

if __name__ == "__main__":
    clips = torch.randint(0, 256, (64, 60, 3, 64, 64), dtype=torch.uint8)
    print("ready", flush=True)
    with ProcessPool(2) as pool:
        measured(clips, torch.stack((clips, 255 - clips), dim=1), pool=pool)
"""


def descendants(session: int) -> dict[int, str]:
    """Living processes of a session, by id: their command lines."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found[int(folder.name)] = line
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_killed_parent_leaves_no_process_behind(number: int, tmp_path: Path) -> None:
    script = tmp_path / "labels.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parents[3])
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": root},
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    try:
        limit = time.monotonic() + 90
        while not any("ffmpeg" in line for line in descendants(process.pid).values()):
            assert time.monotonic() < limit and process.poll() is None, "no ffmpeg was ever started"
            time.sleep(0.05)
        os.kill(process.pid, number)
        process.wait(30)
        limit = time.monotonic() + 30
        while left := descendants(process.pid):
            assert time.monotonic() < limit, f"still there: {left}"
            time.sleep(0.1)
    finally:
        for left_over in descendants(process.pid):
            os.kill(left_over, signal.SIGKILL)
        process.kill()
        process.wait()
