"""The fonts that pictures are labelled with: prompts and file names come in every script.

DejaVu Sans comes with matplotlib and has Latin, Greek, Cyrillic, Arabic, Hebrew and most signs. It has no
Chinese, Japanese, Korean or Indian scripts: for a text in those a font of the system is taken that has all
its characters (Noto Sans CJK, for example). Where there is none, a missing character is written as its code,
`\\u732b`, so that two labels never look the same.
"""

from __future__ import annotations

import contextlib
import unicodedata
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont


def label(text: str, pixels: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """What to write and the font to write it with.

    Args:
        text: may have several lines.
        pixels: height of the font.
    """
    own = _own_font()
    wanted = frozenset(ord(character) for character in text if not character.isspace())
    if text.isascii() or wanted <= _characters(own):
        return text, _opened(own, pixels, _engine(text))
    for file in _installed():
        if wanted <= _characters(file):
            with contextlib.suppress(OSError):  # a font of pictures has no such size
                return text, _opened(file, pixels, None)
    have = _characters(own)
    shown = "".join(
        character if character.isspace() or ord(character) in have else _code(character) for character in text
    )
    return shown, _opened(own, pixels, _engine(shown))


def _engine(text: str) -> ImageFont.Layout | None:
    """Pillow's basic layout, which every machine has; its default if a letter is written from right to left.

    Raqm, where it is installed, places Latin letters a little differently: a picture's bytes would depend on
    the machine.
    """
    right_to_left = any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)
    return None if right_to_left else ImageFont.Layout.BASIC


def _own_font() -> str:
    # Importing matplotlib to ask where it keeps its files would take most of a second.
    spec = find_spec("matplotlib")
    assert spec is not None and spec.submodule_search_locations
    return str(Path(spec.submodule_search_locations[0]) / "mpl-data/fonts/ttf/DejaVuSans.ttf")


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


@cache
def _installed() -> list[str]:
    """The system's fonts, in order of their paths, so that the choice is stable."""
    from matplotlib.font_manager import findSystemFonts

    return sorted(findSystemFonts())


@lru_cache(maxsize=512)
def _characters(file: str) -> frozenset[int]:
    """Code points that a font has; none for a file that is no font."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(file).get_charmap())
    except (RuntimeError, OSError, ValueError):
        return frozenset()


@lru_cache(maxsize=16)
def _opened(file: str, pixels: int, engine: ImageFont.Layout | None) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, pixels, layout_engine=engine)
