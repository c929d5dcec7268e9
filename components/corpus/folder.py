"""The user's own videos, from a folder, a single file, or an s3 prefix."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from components.corpus.dataset import RecordedClip
from components.corpus.footage import (
    FootageReport,
    FootageSource,
    draw_clips,
    footage_records,
    read_footage,
    video_draw,
)
from components.corpus.params import CorpusParams
from components.corpus.world.splits import ClipSplit
from components.runtime.errors import InputError
from components.runtime.io.files import sha256_file
from components.runtime.io.storage import download_dir, is_remote
from components.video.names import VIDEO_SUFFIXES, is_video_name

REASONS_SHOWN = 5
STILL = "no part of it both shows something and moves"


def take_folder(
    uri: str, params: CorpusParams, after_each: Callable[[], None] = lambda: None
) -> tuple[list[RecordedClip], list[FootageReport]]:
    """Clips from every usable video under a folder, file or s3 prefix, and one report for each file.

    Videos are split whole. Their order for that is the order of their digests, so it depends neither on names
    nor on the file system; a file with the same bytes as another is left out. Two videos give train and test,
    one train only.

    Args:
        uri: where the videos are.
        params: the corpus's.
        after_each: called after each file.

    Raises:
        InputError: the place does not exist or cannot be reached, or no video in it is usable.
    """
    with tempfile.TemporaryDirectory(prefix="onlinevpo-footage-") as folder:
        root = Path(uri).expanduser()
        if is_remote(uri):
            download_dir(uri, Path(folder))
            root = Path(folder)
        files = _video_files(root, uri)
        taken: dict[str, tuple[str, list[Tensor]]] = {}
        left_out: list[FootageReport] = []
        for file in files:
            name = file.name if root.is_file() else file.relative_to(root).as_posix()
            try:
                digest = sha256_file(file)
                if digest in taken:
                    raise InputError(f"the same bytes as {taken[digest][0]}")
                taken[digest] = (name, _take(file, name, params))
            except InputError as error:
                reason = str(error).removeprefix(f"{file}: ")
                left_out.append(FootageReport(name, uri, None, 0, reason))
            except OSError as error:
                left_out.append(FootageReport(name, uri, None, 0, f"cannot be read ({error.strerror})"))
            after_each()
    if not taken:
        reasons = "; ".join(f"{report.name}: {report.reason}" for report in left_out[:REASONS_SHOWN])
        more = f"; and {len(left_out) - REASONS_SHOWN} more" if len(left_out) > REASONS_SHOWN else ""
        raise InputError(f"{uri}: none of its {len(files)} video files can be used ({reasons}{more})")
    records: list[RecordedClip] = []
    kept = []
    for digest, split in zip(sorted(taken), splits_of(len(taken), params), strict=True):
        name, clips = taken[digest]
        records += footage_records(f"file/{name}", split, clips)
        kept.append(FootageReport(name, uri, split, len(clips), None))
    return records, kept + left_out


def splits_of(count: int, params: CorpusParams) -> list[ClipSplit]:
    """A split for each of `count` videos in proportion to footage_clips; from 3 videos on none is empty."""
    if count < 3:
        few: list[ClipSplit] = ["train", "test"]
        return few[:count]
    wanted = params.footage_clips
    total = max(1, wanted.train + wanted.val + wanted.test)
    test = max(1, round(count * wanted.test / total))
    val = max(1, round(count * wanted.val / total))
    while test + val >= count:
        test, val = (test - 1, val) if test > val else (test, val - 1)
    train: list[ClipSplit] = ["train"]
    return train * (count - val - test) + ["val"] * val + ["test"] * test


def _take(file: Path, name: str, params: CorpusParams) -> list[Tensor]:
    # Which split it goes to is known only when all files are, and the draws do not depend on it.
    source = FootageSource(f"file/{name}", "train", 1.0, video_draw(read_footage(file, params), params))
    clips = draw_clips(source, params.clips_per_video, params.run.seed)
    if not clips:
        raise InputError(f"{file}: {STILL}")
    return clips


def _video_files(root: Path, uri: str) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise InputError(f"{uri}: no such folder or file")
    # A link could lead out of the folder that was named, or back into it for ever.
    files = sorted(
        file for file in root.rglob("*") if is_video_name(file) and file.is_file() and not file.is_symlink()
    )
    if not files:
        raise InputError(f"{uri}: no video files in it ({' '.join(sorted(VIDEO_SUFFIXES))})")
    return files
