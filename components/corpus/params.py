"""Params of the corpus step."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.runtime.params import Place, Section, StepParams


class ClipCounts(Section):
    """How many clips each split gets."""

    train: int = Field(default=240, ge=0, le=100_000, description="clips in the train split")
    val: int = Field(default=60, ge=0, le=100_000, description="clips in the val split")
    test: int = Field(default=100, ge=0, le=100_000, description="clips in the test split")


class CorpusParams(StepParams):
    """Pristine clips and prompts: their geometry, their sources, their number."""

    frames: int = Field(default=9, ge=2, le=257, description="frames per clip")
    height: int = Field(default=48, ge=16, le=2048, multiple_of=2, description="clip height in pixels")
    width: int = Field(default=48, ge=16, le=2048, multiple_of=2, description="clip width in pixels")
    fps: float = Field(default=8.0, gt=0, le=120, description="frames per second of every clip")
    sources: tuple[Literal["world", "packaged"], ...] = Field(
        default=("world", "packaged"),
        description="built-in sources: world (procedural captioned clips), packaged (videos and photographs "
        "that ship inside installed Python packages)",
    )
    footage: Annotated[str | None, Place()] = Field(
        default=None,
        description="folder, file or s3:// prefix of the user's own videos, added to the sources",
    )
    world_clips: ClipCounts = Field(default=ClipCounts(), description="clips of the miniature world by split")
    footage_clips: ClipCounts = Field(
        default=ClipCounts(train=200, val=50, test=80), description="clips of packaged footage by split"
    )
    clips_per_video: int = Field(
        default=8, ge=1, le=1000, description="clips taken from each of the user's videos"
    )
    prompts: Annotated[str | None, Place()] = Field(
        default=None,
        description="file or s3:// object with a list of prompts (UTF-8): a prompt a line, JSON, JSONL, CSV "
        "or YAML; instead of the world's captions",
    )

    @model_validator(mode="after")
    def _consistent(self) -> CorpusParams:
        if not self.sources and self.footage is None:
            raise ValueError("no source of clips: name world or packaged in sources, or set footage")
        if len(set(self.sources)) != len(self.sources):
            raise ValueError("sources names the same source twice")
        if "world" in self.sources and self.height != self.width:
            raise ValueError(
                f"the world's clips are square, but height is {self.height} and width {self.width}"
            )
        return self
