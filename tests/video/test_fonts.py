"""Labels in scripts that Pillow's own font lacks: what is drawn is no box, or says which character it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import get_data_path
from PIL import ImageFont

from components.video import fonts
from components.video.clip import Clip
from components.video.contact_sheets import contact_sheet, side_by_side
from components.video.fonts import label

MISSING = "\uffff"  # no font has it: it is drawn as the box


def glyph(text: str, font: ImageFont.FreeTypeFont) -> bytes:
    return bytes(font.getmask(text))


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_installed", list)


@pytest.mark.parametrize("text", ["un café crème", "Žluťoučký kůň", "кот бежит", "μια γάτα", "“—”…", "a → b"])
@pytest.mark.usefixtures("no_system_fonts")
def test_every_character_is_drawn_as_itself(text: str) -> None:
    written, font = label(text, 14)
    assert written == text
    box = glyph(MISSING, font)
    assert all(glyph(character, font) != box for character in text if not character.isspace())


@pytest.mark.usefixtures("no_system_fonts")
def test_a_script_without_a_font_is_written_as_codes() -> None:
    assert label("a 猫\nb 犬 é", 14)[0] == "a \\u732b\nb \\u72ac é"


def test_a_font_of_the_system_is_taken_where_it_has_every_character(monkeypatch: pytest.MonkeyPatch) -> None:
    """STIX's integrals stand in for a script: matplotlib has the font, DejaVu Sans lacks these signs."""
    folder = Path(get_data_path()) / "fonts" / "ttf"
    stix = str(folder / "STIXNonUni.ttf")
    monkeypatch.setattr(fonts, "_installed", lambda: [str(folder / "cmr10.ttf"), stix])
    own = fonts._characters(fonts._own_font())
    sign = chr(min(code for code in fonts._characters(stix) - own if code > 0xFF))
    written, font = label(sign, 14)
    assert written == sign and font.path == stix
    assert glyph(sign, font) != glyph(MISSING, font)


def test_sheets_tell_labels_apart_that_the_old_font_drew_alike() -> None:
    clip = Clip(torch.full((2, 3, 48, 48), 250, dtype=torch.uint8), 8.0)
    one, other = (np.asarray(contact_sheet([clip], [text], title=text)) for text in ("кот", "дом"))
    assert one.shape != other.shape or (one != other).any()
    first, second = (side_by_side([clip], [text], height=240).frames for text in ("猫", "犬"))
    assert not torch.equal(first, second)


def test_latin_text_is_placed_alike_with_and_without_raqm() -> None:
    assert label("a red circle, é, кот", 14)[1].layout_engine == ImageFont.Layout.BASIC
    assert label("שלום", 14)[1].layout_engine == ImageFont.truetype(fonts._own_font(), 14).layout_engine
