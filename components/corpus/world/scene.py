"""The miniature world's language: what a scene is, and the sentence that describes it.

A scene is one plain-coloured shape that moves in a straight line over a plain background.
4 shapes x 6 colours x 4 directions x 2 speeds x 3 backgrounds = 576 scenes, each with exactly one caption.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "cross")
#: sRGB in 0..1. Hues are at least 40 degrees apart, so that a hue is read back without doubt.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "yellow": (0.90, 0.82, 0.10),
    "green": (0.14, 0.72, 0.18),
    "cyan": (0.10, 0.76, 0.82),
    "blue": (0.14, 0.24, 0.88),
    "magenta": (0.84, 0.16, 0.78),
}
#: Unit vectors (x to the right, y down, as in images).
DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
#: Path length over the whole clip as a fraction of the frame's side.
SPEEDS: dict[str, float] = {"slowly": 0.20, "quickly": 0.44}
#: Grey level in 0..1.
BACKGROUNDS: dict[str, float] = {"black": 0.08, "grey": 0.42, "white": 0.90}

_CAPTION = re.compile(
    r"^a (?P<colour>[a-z]+) (?P<shape>[a-z]+) moving (?P<direction>[a-z]+) (?P<speed>[a-z]+) "
    r"on a (?P<background>[a-z]+) background$"
)


@dataclass(frozen=True, slots=True)
class Scene:
    """What a caption says. Everything it leaves open (start, size, shade) is drawn from the clip's seed."""

    shape: str
    colour: str
    direction: str
    speed: str
    background: str

    def __post_init__(self) -> None:
        for value, allowed in (
            (self.shape, SHAPES),
            (self.colour, COLOURS),
            (self.direction, DIRECTIONS),
            (self.speed, SPEEDS),
            (self.background, BACKGROUNDS),
        ):
            if value not in allowed:
                raise ValueError(f"{value!r} is not one of {', '.join(allowed)}")

    @property
    def caption(self) -> str:
        return (
            f"a {self.colour} {self.shape} moving {self.direction} {self.speed} "
            f"on a {self.background} background"
        )


def all_scenes() -> list[Scene]:
    """Return every scene of the world, in a fixed order."""
    return [Scene(*values) for values in product(SHAPES, COLOURS, DIRECTIONS, SPEEDS, BACKGROUNDS)]


def parse_caption(text: str) -> Scene | None:
    """Return the scene a caption describes, or None when the text is not a sentence of this world."""
    match = _CAPTION.match(text)
    if match is None:
        return None
    try:
        return Scene(**match.groupdict())
    except ValueError:
        return None
