"""Text in pictures, in a font that has its letters."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

from afresh.core import events

MOST_FONTS = 4_000  # fonts of the system in which a letter is looked for
PILLOW = frozenset("©«°±´·»‘’“”…‹›⁄™")  # what Pillow's own font has beside ASCII
STYLES = ("bold", "italic", "oblique", "light", "black", "thin", "mono", "serif")  # plain fonts are taken before these
_reported: set[str] = set()  # letters of which a warning has said that no font has them


def font_file(text: str) -> Path | None:
    """The file of a font with all letters of a text: DejaVu Sans, else a font of the system. None for text that
    Pillow's own font has. If no font has all of them, the one with most is returned, with one warning."""
    letters = _letters(text)
    if not letters:
        return None
    path, missing = _best_font(letters)
    if new := sorted(missing - _reported):
        _reported.update(new)
        events.warning(
            f"No font on this machine has {' '.join(new[:20])}: labels in pictures show a box instead. Install a font "
            "with these letters, such as Noto Sans."
        )
    return path


class Lettering:
    """Writes labels of `size` pixels, all in one font where one has the letters of all `texts`."""

    def __init__(self, texts: Iterable[str], size: float) -> None:
        self.size, letters = size, _letters(_line("".join(texts)))
        self.path: Path | None
        self.path, missing = _best_font(letters) if letters else (None, letters)
        self.common = letters - missing

    def font(self, line: str) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        path = self.path if _letters(line) <= self.common else font_file(line)
        return _font(path, self.size)

    def width(self, text: str) -> float:
        """In pixels."""
        line = _line(text)
        return float(self.font(line).getlength(line))

    def draw(self, pen: Any, at: tuple[float, float], text: str, fill: Any = (0, 0, 0), anchor: str = "la") -> None:
        """Draw one line with the `ImageDraw` pen, at a point that its anchor (as in Pillow) lies on."""
        line = _line(text)
        pen.text(at, line, fill, self.font(line), anchor=anchor)

    def shortened(self, text: str, width: float) -> str:
        """The text on one line, shortened to `width` pixels with an ellipsis."""
        line = _line(text)
        font = self.font(line)
        if font.getlength(line) <= width:
            return line
        while line and font.getlength(line + "…") > width:
            line = line[:-1]
        return line + "…"


def _line(text: str) -> str:
    """One line, with letters and their accents as one character, which file names of macOS keep apart."""
    return unicodedata.normalize("NFC", " ".join(text.split()))


def _letters(text: str) -> frozenset[str]:
    """What Pillow's own font lacks, but for characters that change the one before or have no shape of their own."""
    lacking = frozenset(c for c in text if not c.isascii() and not c.isspace()) - PILLOW
    return frozenset(c for c in lacking if unicodedata.category(c) not in ("Mn", "Me", "Cf", "Cc"))


@lru_cache(64)
def _font(path: Path | None, size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


@lru_cache(1024)
def _best_font(letters: frozenset[str]) -> tuple[Path, frozenset[str]]:
    """The first font with all letters, else that with most, and the letters that it lacks."""
    import matplotlib

    best = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    lacking = _lacking(best, letters)
    if lacking:
        from matplotlib.font_manager import findSystemFonts

        plain_first = sorted(findSystemFonts(), key=lambda p: (any(s in Path(p).name.lower() for s in STYLES), p))
        for path in map(Path, plain_first[:MOST_FONTS]):
            less = _lacking(path, letters)
            if len(less) < len(lacking):
                best, lacking = path, less
            if not lacking:
                break
    return best, lacking


def _lacking(path: Path, letters: frozenset[str]) -> frozenset[str]:
    """The letters that a font file does not have: all of them if it cannot be drawn with."""
    from matplotlib.ft2font import FT2Font

    try:
        ImageFont.truetype(path, 12)  # fails for bitmaps of one size
        face = FT2Font(str(path))
    except (OSError, RuntimeError, ValueError):
        return letters
    return frozenset(c for c in letters if not face.get_char_index(ord(c)))
