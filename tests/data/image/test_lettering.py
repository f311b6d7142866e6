"""Labels in pictures are drawn with the letters that they consist of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from afresh.core.events import Event, listening
from afresh.data.image import lettering
from afresh.data.image.lettering import Lettering, font_file

MISSING = "\U0010fffd"  # private: in no font


@pytest.fixture(autouse=True)
def _afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered of fonts that other tests found or did not find."""
    lettering._best_font.cache_clear()
    monkeypatch.setattr(lettering, "_reported", set())


def drawn(text: str, size: int = 24) -> np.ndarray:
    image = Image.new("L", (40 * size, 2 * size), 255)
    Lettering([text], size).draw(ImageDraw.Draw(image), (4, 4), text, 0)
    return np.asarray(image)


def font_with(letter: str, path: Path) -> Path:
    """A font whose only letter is a triangle."""
    pen = TTGlyphPen(None)
    for place, move in enumerate(((0, 0), (1000, 0), (500, 1000))):
        (pen.lineTo if place else pen.moveTo)(move)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "letter"])
    builder.setupCharacterMap({ord(letter): "letter"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "letter": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "letter": (1000, 0)})
    builder.setupHorizontalHeader(ascent=1000, descent=-200)
    builder.setupNameTable({"familyName": "One letter", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)
    return path


@pytest.mark.parametrize("text", ["äÖüß", "éèç", "ñ¿", "łódź", "Ωμέγα", "Живот", "x – y"])
def test_letters_of_european_scripts_are_drawn_as_they_are(text: str) -> None:
    boxes = [drawn(text.replace(c, MISSING)) for c in text if not c.isascii()]
    assert all(not np.array_equal(drawn(text), box) for box in boxes)
    assert font_file(text) is not None
    each = {drawn(c).tobytes() for c in text}
    assert len(each) == len(set(text)), "two letters look the same, as boxes do"


def test_a_font_of_the_system_is_taken_for_letters_that_it_alone_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged, font = tmp_path / "a.ttf", font_with("猫", tmp_path / "b.ttf")
    damaged.write_bytes(b"no font")
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: [str(damaged), str(font)])
    events: list[Event] = []
    with listening(events.append):
        assert font_file("猫") == font
        assert font_file("Bär") != font
        assert (drawn("猫") < 128).sum() > 100
    assert not events


@pytest.mark.skipif(bool(lettering._best_font(frozenset("猫"))[1]), reason="no such font")
def test_chinese_where_a_font_is_there() -> None:
    assert not np.array_equal(drawn("猫"), drawn("狗"))


def test_letters_that_no_font_has_are_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", list)
    events: list[Event] = []
    with listening(events.append):
        for _ in range(3):
            drawn(f"Bär {MISSING}")
        drawn("Bär")
    assert [e.text.count(MISSING) for e in events] == [1]


def test_accents_that_are_characters_of_their_own_join_their_letter() -> None:
    assert np.array_equal(drawn("Ba\u0308r"), drawn("Bär"))


def test_labels_of_one_picture_share_a_font() -> None:
    letters = Lettering(["Bär", "cat"], 12)
    assert letters.font("cat").getname() == letters.font("Bär").getname()
    assert Lettering(["cat"], 12).font("cat").getname() != letters.font("cat").getname()


def test_shortened_labels_end_with_an_ellipsis_and_fit() -> None:
    letters = Lettering(["Größe und Länge"], 12)
    short = letters.shortened("Größe und Länge", 50)
    assert short.endswith("…") and letters.font(short).getlength(short) <= 50
    assert letters.shortened("Bär", 50) == "Bär"
