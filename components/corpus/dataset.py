"""The corpus as other steps see it: clips by split and source, prompts by split."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.corpus.prompts import Prompt
from components.runtime.artifacts.artifact import Artifact, open_artifact
from components.runtime.errors import InputError
from components.runtime.io.untrusted import read_json, read_json_lines

T = TypeVar("T")
SPLITS = ("train", "val", "test")
SOURCES = ("world", "footage")


@dataclass(frozen=True)
class ClipRecord:
    """Where a clip comes from.

    Attributes:
        id: unique in the corpus.
        source: "world" or "footage" (packaged or the user's).
        content: what is seen: world/<scene>/<number>, video/<name>, photo/<name>, file/<path>. Never in two
            splits.
        split: "train", "val" or "test".
        caption: the scene's caption; None for footage.
    """

    id: str
    source: str
    content: str
    split: str
    caption: str | None


#: A clip, uint8 (T, 3, H, W), and where it comes from.
RecordedClip = tuple[ClipRecord, Tensor]


class _Header(BaseModel):
    """corpus.json: rate in frames per second, and the shape of every clip."""

    fps: float = Field(gt=0, allow_inf_nan=False)
    frames: int = Field(ge=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)


class Corpus:
    """A finished corpus on disk. Open it with `Corpus.open`."""

    def __init__(self, artifact: Artifact) -> None:
        self.artifact = artifact
        header = _checked(_Header, read_json(artifact.file("corpus.json")), artifact.file("corpus.json"))
        self.fps, self.num_frames = header.fps, header.frames
        self.height, self.width = header.height, header.width
        self._records = _read_rows(ClipRecord, artifact.file("clips/index.jsonl"))
        self._prompts = _read_rows(Prompt, artifact.file("prompts.jsonl"))

    @classmethod
    def open(cls, uri: str | Path) -> Corpus:
        """Open and verify a corpus.

        Raises:
            InputError: missing, incomplete, altered, or the output of another step.
        """
        return cls(open_artifact(uri, step="corpus"))

    def records(self, split: str | None = None, source: str | None = None) -> list[ClipRecord]:
        """The clips' records in the order of their frames; None means any."""
        _known(split, SPLITS, "split")
        _known(source, SOURCES, "source")
        return [row for row in self._records if split in (None, row.split) and source in (None, row.source)]

    def clips(self, split: str, source: str | None = None) -> tuple[Tensor, list[ClipRecord]]:
        """uint8 (N, T, 3, H, W) and the N records that belong to them; N may be 0."""
        file = self.artifact.file(f"clips/{split}.safetensors") if split in SPLITS else Path(split)
        rows = self.records(split)
        try:
            frames = load_file(file)["frames"]
        except (SafetensorError, KeyError, OSError) as error:
            raise InputError(f"{file}: not a readable file of clips ({error})") from error
        shape = (self.num_frames, 3, self.height, self.width)
        if frames.dtype != torch.uint8 or tuple(frames.shape[1:]) != shape:
            raise InputError(
                f"{file}: {frames.dtype} {tuple(frames.shape)}, corpus.json promises uint8 (N, *{shape})"
            )
        if len(rows) != len(frames):
            raise InputError(f"{file}: {len(frames)} clips, but index.jsonl lists {len(rows)}")
        if source is None:
            return frames, rows
        kept = {row.id for row in self.records(split, source)}
        index = [place for place, row in enumerate(rows) if row.id in kept]
        return frames[torch.tensor(index, dtype=torch.long)], [rows[place] for place in index]

    def prompts(self, split: str | None = None) -> list[Prompt]:
        """Prompts of "train" or "heldout"; None means both."""
        _known(split, ("train", "heldout"), "split")
        return [prompt for prompt in self._prompts if split in (None, prompt.split)]


def write_corpus(
    folder: Path,
    header: dict[str, Any],
    clips: Sequence[RecordedClip],
    prompts: Iterable[Prompt],
) -> None:
    """Write the files that `Corpus` reads into a folder; clips are uint8 (T, 3, H, W), all alike."""
    (folder / "clips").mkdir(exist_ok=True)
    shape = (0, header["frames"], 3, header["height"], header["width"])
    ordered: list[ClipRecord] = []
    for split in SPLITS:
        chosen = [(record, frames) for record, frames in clips if record.split == split]
        stacked = (
            torch.stack([frames for _, frames in chosen]) if chosen else torch.empty(shape, dtype=torch.uint8)
        )
        save_file({"frames": stacked.contiguous()}, folder / "clips" / f"{split}.safetensors")
        ordered += [record for record, _ in chosen]
    write_rows(folder / "clips" / "index.jsonl", [asdict(record) for record in ordered])
    write_rows(folder / "prompts.jsonl", [asdict(prompt) for prompt in prompts])
    (folder / "corpus.json").write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """JSON Lines, UTF-8."""
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _read_rows(cls: type[T], file: Path) -> list[T]:
    return [_checked(cls, row, file) for row in read_json_lines(file)]


def _checked(cls: type[T], value: Any, file: Path) -> T:
    try:
        found: T = TypeAdapter(cls).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{file}: not a corpus's: {where + ': ' if where else ''}{first['msg']}") from None
    return found


def _known(value: str | None, allowed: Sequence[str], what: str) -> None:
    if value is not None and value not in allowed:
        raise ValueError(f"{what} {value!r} is not one of {', '.join(allowed)}")
