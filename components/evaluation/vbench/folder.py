"""A folder of videos against a suite: what is there, and everything that is not as it should be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from components.evaluation.vbench.files import prompt_of, video_name
from components.evaluation.vbench.sample_record import INSIDE
from components.evaluation.vbench.suites import Suite
from components.runtime.errors import InputError
from components.video.names import VIDEO_SUFFIXES, composed, is_video_name

Kind = Literal["missing", "extra", "misnamed", "broken"]
KINDS: tuple[Kind, ...] = ("missing", "extra", "misnamed", "broken")


@dataclass(frozen=True)
class Problem:
    """One video that is not as it should be: its file name, and what is wrong with it."""

    kind: Kind
    name: str
    about: str


@dataclass(frozen=True)
class FolderVideos:
    """The videos of a suite that are there, by prompt in the suite's order, and what is wrong."""

    videos: dict[str, list[Path]]
    problems: list[Problem]


def find_videos(suite: Suite, folder: Path) -> FolderVideos:
    """Match the files of one flat folder with a suite's prompts by VBench's names, exactly.

    Names are compared in composed Unicode, the ending in either case. A file whose name differs from an
    expected one only in case, spaces, punctuation or a missing number is
    reported as misnamed, with the name it should have; it is not used. Numbers beyond those asked for are
    extra.

    Raises:
        InputError: the folder does not exist.
    """
    if not folder.is_dir():
        raise InputError(f"videos {folder}: no such folder")
    files = {path.name: path for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
    files.pop(INSIDE, None)
    if suite.samples == 0:
        return _as_they_are(suite, files)
    videos: dict[str, list[Path]] = {}
    files, problems = _by_plain_name(files)
    absent: dict[str, str] = {}
    for prompt, most in suite.wanted().items():
        here: dict[int, Path] = {}
        for index in range(most):
            names = [composed(video_name(prompt, index, suffix)) for suffix in VIDEO_SUFFIXES]
            name = next((name for name in names if name in files), None)
            if name is None:
                absent[_rough(names[0])] = names[0]
            else:
                here[index] = files.pop(name)
        videos[prompt] = list(here.values())
        # What is optional (flickering videos after the fifth) is missing where a later one is there.
        for index in range(max(suite.samples, max(here, default=-1) + 1)):
            if index not in here:
                name = video_name(prompt, index)
                problems.append(Problem("missing", name, f"no video {index} of {prompt!r}"))
    problems += [_left_over(path, absent) for path in files.values()]
    return FolderVideos(videos, problems)


def _by_plain_name(files: Mapping[str, Path]) -> tuple[dict[str, Path], list[Problem]]:
    """Files by their names in composed Unicode, endings in lower case, and those whose name is taken."""
    by_name: dict[str, Path] = {}
    doubles = []
    for path in files.values():
        name = composed(path.stem) + path.suffix.lower()
        if by_name.setdefault(name, path) is not path:
            doubles.append(Problem("extra", path.name, f"the same name as {by_name[name].name}"))
    return by_name, doubles


def counts(problems: Sequence[Problem]) -> dict[str, int]:
    """How many problems of each kind there are."""
    numbers = Counter(one.kind for one in problems)
    return {kind: numbers[kind] for kind in KINDS}


def _as_they_are(suite: Suite, files: dict[str, Path]) -> FolderVideos:
    """Every video of a folder that makes up its own suite."""
    videos: dict[str, list[Path]] = {one.prompt: [] for one in suite.entries}
    problems = []
    for path in files.values():
        prompt = suite.files.get(path.name, prompt_of(path.name))
        if is_video_name(path) and prompt in videos:
            videos[prompt].append(path)
        else:
            problems.append(Problem("extra", path.name, "not a video of the suite"))
    return FolderVideos(videos, problems)


def _left_over(path: Path, absent: dict[str, str]) -> Problem:
    """A file that nothing asks for; ``absent`` are the names without a file, by their `_rough` form."""
    if is_video_name(path) and not path.is_dir():
        for guess in (path.name, f"{path.stem}-0{path.suffix}"):
            meant = absent.get(_rough(guess))
            if meant is not None:
                return Problem("misnamed", path.name, f"probably meant {meant}")
    return Problem("extra", path.name, "no prompt of the suite asks for it")


def _rough(name: str) -> str:
    """A file name without what is easily got wrong: case, spaces, punctuation, suffix."""
    stem, _, index = Path(name).stem.rpartition("-")
    return f"{re.sub(r'[^a-z0-9]+', ' ', stem.casefold()).strip()}-{index.strip().lstrip('0') or '0'}"
