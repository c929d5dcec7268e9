"""What counts as a video file, by its name: one rule for every command that looks through a folder."""

from __future__ import annotations

import unicodedata
from pathlib import PurePath

# fmt: off
#: Endings in order of preference, where a folder holds the same name with several.
VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif", ".3gp", ".mpg", ".mpeg", ".ts",
    ".m2ts", ".mts", ".ogv", ".ogg", ".flv", ".wmv", ".asf", ".y4m", ".ivf",
)
# fmt: on


def is_video_name(path: str | PurePath) -> bool:
    """Whether a file's name is that of a video.

    The ending decides, in upper or lower case. Hidden files are none: a desktop leaves `.DS_Store` and
    `._name.mp4` beside a user's videos.
    """
    name = PurePath(path).name
    return not name.startswith(".") and PurePath(name).suffix.lower() in VIDEO_SUFFIXES


def composed(name: str) -> str:
    """A file name in Unicode's composed form (NFC), in which names are compared.

    macOS hands out names in the decomposed form: "é" as "e" and an accent.
    """
    return unicodedata.normalize("NFC", name)
