"""Suites of prompts: VBench's own, a list of prompts, or the prompts of a folder of videos."""

from __future__ import annotations

import hashlib
import json
import lzma
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.evaluation.dimensions.catalogue import catalogue
from components.evaluation.dimensions.names import QUALITY, SEMANTIC
from components.evaluation.vbench.files import prompt_of, stem
from components.evaluation.vbench.sample_record import recorded_prompts
from components.runtime.artifacts.artifact import cache_dir
from components.runtime.errors import InputError, one_line
from components.runtime.io.files import write_atomically
from components.runtime.io.prompt_lists import FORMATS, read_prompt_list
from components.runtime.io.untrusted import content, parse_json
from components.video.names import VIDEO_SUFFIXES, composed, is_video_name

#: The published wheel that VBench's prompts are read from, as package data; its code is never imported.
WHEEL = "vbench==0.1.5"
INFO = "vbench/VBench_full_info.json"
MAX_INFO_BYTES = 64 * 2**20
#: Videos of each prompt, and of each prompt for temporal flickering, which loses some to the static filter.
SAMPLES, FLICKERING_SAMPLES = 5, 25
_FLICKERING = "temporal_flickering"
#: With errors of Python's own, what zipfile makes of a damaged archive, or of one with a password or a method
#: it does not know.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)


@dataclass(frozen=True)
class SuiteEntry:
    """One prompt, the dimensions it is for, and what the suite says about it for some of them."""

    prompt: str
    dimensions: tuple[str, ...]
    auxiliary: Mapping[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """By dimension, what the suite says; {} where it says nothing more than the prompt."""
        return {name: self.auxiliary.get(name, {}) for name in self.dimensions}


@dataclass(frozen=True)
class Suite:
    """Prompts in order.

    Attributes:
        name: where they come from.
        entries: the prompts; a prompt may occur in several.
        samples: videos of each prompt.
        most: videos that are used of a prompt for temporal flickering, where there are more.
        augmented: by prompt, the text to sample its videos from, where that is another one.
        files: by file name, the prompt of a video whose name alone does not give it.
        digest: SHA-256 of the entries.
    """

    name: str
    entries: tuple[SuiteEntry, ...]
    samples: int = SAMPLES
    most: int = SAMPLES
    augmented: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of the entries alone: the same prompts have the same one wherever they were read from."""
        plain = [[one.prompt, list(one.dimensions), dict(one.auxiliary)] for one in self.entries]
        return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    @property
    def dimensions(self) -> list[str]:
        """The dimensions that any entry is for, in the catalogue's order."""
        wanted = {name for entry in self.entries for name in entry.dimensions}
        return [name for name in catalogue() if name in wanted]

    def wanted(self) -> dict[str, int]:
        """Number of videos of each different prompt, in order."""
        numbers: dict[str, int] = {}
        for one in self.entries:
            number = self.most if _FLICKERING in one.dimensions else self.samples
            numbers[one.prompt] = max(number, numbers.get(one.prompt, 0))
        return numbers

    def only(self, dimensions: Sequence[str]) -> Suite:
        """The entries that are for any of these dimensions, and those dimensions only.

        Raises:
            InputError: a name is unknown, or nothing is left.
        """
        unknown = [name for name in dimensions if name not in QUALITY + SEMANTIC]
        if unknown:
            raise InputError(
                f"dimension {unknown[0]!r}: unknown; allowed are {', '.join(QUALITY + SEMANTIC)}"
            )
        parts = [
            replace(one, dimensions=tuple(name for name in one.dimensions if name in dimensions))
            for one in self.entries
        ]
        entries = tuple(one for one in parts if one.dimensions)
        if not entries:
            raise InputError(f"suite {self.name}: no prompt is for {', '.join(dimensions)}")
        return replace(self, entries=entries)

    def augmented_by(self, file: str, before: Suite | None = None) -> Suite:
        """The same suite, its videos drawn from the rewritten prompts of a file, one for each entry in order.

        Where a prompt has several entries, the first one counts: they ask for the same videos.

        Args:
            file: a list of prompts in any format of `read_prompt_list`.
            before: the suite that this one is a part of; the file may be for the whole of it instead.

        Raises:
            InputError: the list cannot be read, or has another number of prompts.
        """
        texts = read_prompt_list(file, distinct=False)
        sources = [one for one in (before, self) if one is not None]
        source = next((one for one in sources if len(one.entries) == len(texts)), None)
        if source is None:
            wanted = " or ".join(dict.fromkeys(str(len(one.entries)) for one in sources))
            raise InputError(
                f"--augmented {file}: {len(texts)} prompts, suite {self.name} needs {wanted}: one for each "
                "of its prompts, in its order"
            )
        rewritten: dict[str, str] = {}
        for entry, text in zip(source.entries, texts, strict=True):
            rewritten.setdefault(entry.prompt, text)
        return replace(self, augmented=rewritten)


def load_suite(place: str, samples: int | None = None) -> Suite:
    """The suite that ``place`` names.

    Args:
        place: ``vbench`` (the published wheel, found in the cache or downloaded by pip), a ``.whl`` or
            ``.json`` file with VBench's entries, a list of prompts in any format of `read_prompt_list`, or a
            folder of videos, whose prompts are those noted when they were drawn, else their file names.
        samples: videos of each prompt; None: five, and 25 for VBench's flickering prompts.

    Raises:
        InputError: there is no such thing, or it cannot be read.
    """
    path = Path(place)
    if place == "vbench":
        return _vbench(_published(), WHEEL, samples)
    if path.is_dir():
        return _of_folder(path)
    if not path.is_file():
        raise InputError(
            f"suite {place}: no such file; allowed are vbench, a .whl or .json file of VBench's, a list of "
            f"prompts ({FORMATS}), a folder"
        )
    if path.suffix == ".whl":
        return _vbench(_from_wheel(path), path.name, samples)
    if path.suffix == ".json" and _names_dimensions(entries := content(path, f"suite {path}")):
        return _vbench(entries, path.name, samples)
    return _of_list(path, samples)


def custom_dimensions(prompt: str) -> tuple[str, ...]:
    """The dimensions that need nothing but the video and its prompt."""
    free = [
        name
        for name in QUALITY + SEMANTIC
        if any(not one.fact and one.needs != "world" for one in catalogue()[name])
    ]
    return tuple(name for name in free if name != "human_action" or "person is " in prompt.lower())


def _names_dimensions(entries: bytes) -> bool:
    """Whether a JSON text is VBench's list of entries rather than a list of prompts."""
    try:
        tree = parse_json(entries, "")
    except InputError:
        return False
    return isinstance(tree, list) and any(isinstance(one, dict) and "dimension" in one for one in tree)


def _of_list(path: Path, samples: int | None) -> Suite:
    number = samples or SAMPLES
    entries = tuple(SuiteEntry(one, custom_dimensions(one)) for one in read_prompt_list(path))
    return _checked(Suite(path.name, entries, number, number))


def _of_folder(path: Path) -> Suite:
    names = sorted(file.name for file in path.iterdir() if is_video_name(file))
    if not names:
        raise InputError(f"suite {path}: no video in the folder (looked for {', '.join(VIDEO_SUFFIXES)})")
    noted = {composed(name): prompt for name, prompt in recorded_prompts(path).items()}
    files = {name: noted.get(composed(name)) or prompt_of(name) for name in names}
    entries = tuple(SuiteEntry(one, custom_dimensions(one)) for one in dict.fromkeys(files.values()))
    return Suite(path.resolve().name, entries, 0, 0, files=files)


def _vbench(content: bytes, name: str, samples: int | None) -> Suite:
    try:
        entries = tuple(
            SuiteEntry(str(one["prompt_en"]), tuple(one["dimension"]), dict(one.get("auxiliary_info", {})))
            for one in parse_json(content, f"suite {name}")
        )
        unknown = {one for entry in entries for one in entry.dimensions} - set(QUALITY + SEMANTIC)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"suite {name}: expected a list of {{prompt_en, dimension, auxiliary_info}}: {error!r}"
        ) from error
    if unknown:
        raise InputError(
            f"suite {name}: dimension {sorted(map(str, unknown))[0]!r} is not one of VBench's sixteen"
        )
    return _checked(Suite(name, entries, samples or SAMPLES, samples or FLICKERING_SAMPLES))


def _checked(suite: Suite) -> Suite:
    """The suite itself; one without a prompt, or with prompts of one file name, is an InputError."""
    if not suite.entries:
        raise InputError(f"suite {suite.name}: no prompt in it")
    taken: dict[str, str] = {}
    for prompt in suite.wanted():
        other = taken.setdefault(stem(prompt), prompt)
        if other != prompt:
            raise InputError(
                f"suite {suite.name}: the videos of {prompt[:60]!r} and of {other[:60]!r} would have the "
                f"same names ({stem(prompt)[:60]}-0.mp4 ...); reword one of the prompts, or name the suite "
                "that they were rewritten from and give this list as --augmented"
            )
    return suite


def _published() -> bytes:
    """The suite's file in the published wheel, kept in the cache once it has been downloaded."""
    kept = cache_dir() / "suites" / f"{WHEEL.replace('==', '-')}.json"
    if kept.is_file():
        return kept.read_bytes()
    with tempfile.TemporaryDirectory() as aside:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", aside, WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = sorted(Path(aside).glob("*.whl"))
        if done.returncode or not wheels:
            reason = one_line(done.stderr)[-200:]
            raise InputError(
                f"suite vbench: pip could not download {WHEEL}; name the wheel instead: {reason}"
            )
        content = _from_wheel(wheels[0])
    write_atomically(kept, content)
    return content


def _from_wheel(path: Path) -> bytes:
    try:
        with zipfile.ZipFile(path) as wheel, wheel.open(INFO) as stream:
            content = stream.read(MAX_INFO_BYTES + 1)
    except (*_DAMAGED, KeyError, OSError, EOFError, ValueError, RuntimeError) as error:
        raise InputError(
            f"suite {path}: not VBench's wheel, {INFO} cannot be read from it: {error}"
        ) from error
    # Bytes that were unpacked are counted: the size that an archive claims is its maker's word.
    if len(content) > MAX_INFO_BYTES:
        raise InputError(f"suite {path}: {INFO} unpacks to more than {MAX_INFO_BYTES:,} bytes")
    return content
