"""Hostile input as a person would pass it on: one clear line or a result, in bounded time and memory."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from components.evaluation.vbench.files import video_name
from components.video.clip import Clip
from tests.video.files import drifting_clip, encode

LIMIT_S = 120
#: Importing a step takes most of it; what a bomb would take is a hundred times as much.
LIMIT_MIB = 1536
SMALL = (
    "corpus.sources=[world]",
    "corpus.world_clips.train=4",
    "corpus.world_clips.val=2",
    "corpus.world_clips.test=2",
)
#: Runs a module and writes the most memory that it held. The kernel's own figure for a child begins with
#: that of its parent, here a test process that may have held more than any command under test.
MEASURED = """
import atexit, pathlib, re, runpy, sys
def write():
    held = re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())
    pathlib.Path(into).write_text(held[1])
into, sys.argv = sys.argv[1], sys.argv[2:]
atexit.register(write)
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@dataclass(frozen=True)
class End:
    """How a command ended: exit code, and both streams as one text."""

    code: int
    said: str

    def refused(self, *words: str) -> None:
        """It ended as a mistake of the input does."""
        lines = self.said.strip().splitlines()
        assert self.code == 2 and len(lines) == 1 and lines[0].startswith("error: "), self.said[-2000:]
        for word in words:
            assert word in lines[0]
        assert all(sign.isprintable() for sign in lines[0])


def command(folder: Path, module: str, *arguments: str, **environment: str) -> End:
    """Run `python -m module` in a folder, within the limits."""
    log = folder.parent / f"{folder.name}.log"
    memory = log.with_suffix(".kib")
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", MEASURED, str(memory), module, *arguments],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), **environment},
        )  # fmt: skip
    return wait(process, log, memory)


def wait(process: subprocess.Popen[bytes], log: Path, memory: Path) -> End:
    """The end of a process, which is ended where it takes too long."""
    try:
        code = process.wait(LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail(f"still running after {LIMIT_S} s")
    assert int(memory.read_text()) / 1024 < LIMIT_MIB
    return End(code, log.read_text(errors="replace"))


def settings(*values: str) -> list[str]:
    return [part for value in values for part in ("--set", value)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def bomb() -> str:
    """A billion laughs: 600 bytes of YAML that stand for 9^10 values."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for before, name in zip("abcdefghi", "bcdefghij", strict=True):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]")
    return "\n".join(lines) + "\n"


@pytest.mark.slow  # many commands; the parsers' own tests and fuzzer are in the default run
@pytest.mark.parametrize(
    ("text", "word"),
    [
        (bomb(), "aliases stand for"),
        ("[" * 100_000, "not readable as YAML"),
        ("a: &a [*a]", "alias"),
        ('corpus: !!python/object/apply:os.system ["touch pwned"]', "python/object/apply"),
        ("corpus: {note: " + "x" * 5_000_000 + "}", "more than 4,194,304 bytes"),
        ("corpus: {\x1b[2Jsource: 1}", "not readable as YAML"),
    ],
    ids=["bomb", "deep", "self", "tag", "long", "terminal"],
)
def test_params_that_are_a_trap(text: str, word: str, folder: Path) -> None:
    (folder / "params.yaml").write_text(text)
    command(folder, "components.corpus", "run", "--params", "params.yaml").refused(word)
    (folder / "params.yaml").rename(folder / "gate.yaml")
    command(folder, "components.registry", "promote", "--gate", "gate.yaml").refused("gate.yaml")
    assert [path.name for path in folder.iterdir()] == ["gate.yaml"]


def test_files_without_an_end(folder: Path) -> None:
    command(folder, "components.corpus", "run", "--params", "/dev/zero").refused("more than 4,194,304 bytes")
    command(folder, "components.corpus", "run", *settings("corpus.prompts=/dev/zero")).refused("/dev/zero")
    command(folder, "components.evaluation", "totals", "--results", "/dev/zero").refused("/dev/zero")
    command(folder, "pipelines", "lint", "/dev/zero").refused("/dev/zero")
    assert not list(folder.iterdir())


@pytest.mark.slow  # many commands; the parsers' own tests and fuzzer are in the default run
@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"x" * 10_000_000, "too large"),
        (b"a red circle\n" * 800_000, "too large"),
        (b"x" * 100_000 + b"\na red circle", "line 1"),
        (b"a red circle\nclear \x1b[2J the screen", "line 2: control characters"),
        (b"a red circle\nfile \x00 name", "line 2: control characters"),
        ("a red circle\nright \u202e to left".encode(), "line 2: control characters"),
        (b"\xff\xfe a red circle", "not UTF-8"),
    ],
    ids=["10 MB line", "10 MB", "long line", "terminal", "null", "direction", "no text"],
)
def test_prompts_that_are_a_trap(content: bytes, word: str, folder: Path) -> None:
    (folder / "p.txt").write_bytes(content)
    command(folder, "components.corpus", "run", *settings("corpus.prompts=p.txt")).refused("p.txt", word)
    assert [path.name for path in folder.iterdir()] == ["p.txt"]


NASTY = (
    "<img src=x onerror=alert(1)>", '"><script>alert(1)</script> a circle', "../../../../etc/passwd",
    "/etc/cron.d/job", "$(touch pwned) `touch pwned` ; touch pwned", "a | b * c ? d", "..", "-rf --out /",
    "con.mp4", "%2e%2e%2f", "a" * 900, "{{ 7 * 7 }} ${oc.env:HOME}", "🟥 движется", "x' OR '1'='1",
)  # fmt: skip


def test_prompts_are_text_and_nothing_else(folder: Path) -> None:
    """They are not a path, a shell's or a page's code, or a template, wherever a prompt is written."""
    (folder / "p.txt").write_text("\n".join(NASTY))
    end = command(
        folder, "components.corpus", "run", *settings(*SMALL, "corpus.prompts=p.txt"), "--out", "out"
    )
    assert end.code == 0, end.said
    rows = [json.loads(line) for line in (folder / "out" / "prompts.jsonl").read_text().splitlines()]
    assert {row["text"] for row in rows} == set(NASTY)
    assert {path.name for path in folder.iterdir()} == {"p.txt", "out"}
    for prompt in NASTY:
        name = video_name(prompt, 0)
        assert Path(name).name == name and not name.startswith(".") and len(name.encode()) < 256


def claiming(frames: int, whole: bytes) -> bytes:
    """An MP4 whose table of times claims a number of frames."""
    data = bytearray(whole)
    place = data.index(b"stts") + 12  # after the type, version and flags, and the number of entries
    data[place : place + 4] = struct.pack(">I", frames)
    return bytes(data)


def test_a_folder_of_traps_instead_of_videos(folder: Path) -> None:
    """None is taken for a video, none costs memory or time, links and pipes are not opened."""
    videos = folder / "videos"
    videos.mkdir()
    clip = drifting_clip()
    whole = encode(clip, videos / "good.mp4").read_bytes()
    (videos / "billion.mp4").write_bytes(claiming(10**9, whole))
    raw = bytearray(encode(clip, videos / "giant.avi", codec="rawvideo").read_bytes())
    place = raw.index(struct.pack("<III", 40, clip.width, clip.height)) + 4
    raw[place : place + 8] = struct.pack("<II", 100_000, 100_000)
    (videos / "giant.avi").write_bytes(raw)
    still = Clip(torch.zeros(1, 3, 16, 16, dtype=torch.uint8).expand(6000, -1, -1, -1), 24.0)
    encode(still, videos / "endless.mp4")
    (videos / "playlist.mp4").write_text("ffconcat version 1.0\nfile '/etc/passwd'\n")
    (videos / "link.mp4").symlink_to("/dev/zero")
    (videos / "loop.mp4").symlink_to("loop.mp4")
    (videos / "out").symlink_to("/")
    os.mkfifo(videos / "pipe.mp4")
    (videos / "<b>\x1b[31mred.mp4").write_bytes(b"no video")
    end = command(folder, "components.corpus", "run", *settings("corpus.footage=videos"), "--out", "out")
    assert end.code == 2, end.said
    # The good one is too short for a clip; two links, a folder and a pipe are not among the files.
    assert "none of its 6 video files can be used" in end.said
    for part in ("<b>\\x1b[31mred.mp4: ", "giant.avi: ", "good.mp4: 1.00 s without a shot"):
        assert part in end.said
    assert "\x1b" not in end.said and "Traceback" not in end.said
    assert not (folder / "out").exists()


def test_a_manifest_whose_names_climb(folder: Path) -> None:
    made = command(folder, "components.corpus", "run", *settings(*SMALL), "--out", "corpus")
    assert made.code == 0, made.said
    manifest = folder / "corpus" / "manifest.json"
    about = json.loads(manifest.read_text())
    about["files"]["../../../../etc/passwd"] = {"sha256": "0" * 64, "bytes": 1}
    manifest.write_text(json.dumps(about))
    command(folder, "components.generator", "run", "--corpus", "corpus", "--out", "generator").refused(
        "etc/passwd"
    )
    assert not (folder / "generator").exists()


SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAHOSTILETEST", "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-the-store",
    "AWS_SESSION_TOKEN": "t0ken-of-the-store", "HF_TOKEN": "hf_t0ken-of-the-hub",
    "MLFLOW_TRACKING_TOKEN": "t0ken-of-tracking",
}  # fmt: skip


@pytest.mark.slow  # many commands; the parsers' own tests and fuzzer are in the default run
@pytest.mark.parametrize(
    "uri",
    [
        "http://user:hunter2secret@127.0.0.1:9/", "ftp://127.0.0.1/x", "javascript:alert(1)", "databricks",
        "file:///proc/1/root/none", "\x1b[31mred", "../../..",
    ],
    ids=["nobody", "ftp", "script", "another", "file", "terminal", "folder"],
)  # fmt: skip
def test_tracking_pointed_elsewhere_costs_a_warning_and_no_secret(uri: str, folder: Path) -> None:
    out = ("--out", "out")
    end = command(
        folder, "components.corpus", "run", *settings(*SMALL), *out,
        ONLINEVPO_TRACKING="on", MLFLOW_TRACKING_URI=uri, **SECRETS,
    )  # fmt: skip
    assert end.code == 0, end.said
    assert (folder / "out" / "manifest.json").is_file()
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for secret in (*SECRETS.values(), "hunter2secret"):
        assert secret not in end.said and all(secret.encode() not in content for content in written)
    assert "\x1b" not in end.said and "Traceback" not in end.said
