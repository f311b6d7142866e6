"""Control characters, line ends of names and overrides of direction are shown and never sent to a terminal."""

from __future__ import annotations

import json
import subprocess
from io import StringIO

import pytest

from afresh.core import UserError, events
from afresh.core.events import Event, JsonLines, PlainLines
from afresh.core.safe_text import shell_word, visible, visible_line

# The clipboard code of terminals, a bell, a C1 code, an override of direction, a tag, and a byte that is not UTF-8.
EVIL = "a\x1b]52;c;ZXZpbA==\x07b\x9b31m\u202egnp\u2066\U000e0041\udcff"


def test_a_text_keeps_its_lines_and_tabs_alone() -> None:
    assert visible("a\r\nb\tc") == "a\nb\tc"
    assert visible("\x00\x1b\x7f\r") == "\u2400\u241b\u2421\u240d"
    assert visible("\x9b\u202e\udcff\U000e0041") == r"\x9b\u202e\udcff\U000e0041"
    assert visible("naïve 日本 👩\u200d👧 שלום\u200f") == "naïve 日本 👩\u200d👧 שלום\u200f"


def test_a_name_is_one_line() -> None:
    assert visible_line("a\nwarning: b\tc\r\nd\u2028e") == "a\u240awarning: b\u2409c\u240d\u240ad\\u2028e"
    assert visible_line("a\u200fb") == r"a\u200fb"
    assert visible_line(EVIL).isprintable()
    assert visible_line("naïve 日本") == "naïve 日本"


@pytest.mark.parametrize("name", ["a b", "it's", "x\n'q\\", EVIL, "plain"])
def test_a_word_of_a_shell_is_read_back(name: str) -> None:
    word = shell_word(name)
    assert visible_line(word) == word
    read = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True).stdout
    assert read == name.encode("utf-8", "surrogateescape")


def test_an_error_has_only_the_lines_of_its_own() -> None:
    error = UserError(f"no {EVIL}\nerror: forged", lines=["first\nx", "second"])
    assert str(error).count("\n") == 2 and str(error).splitlines()[1:] == ["  first\u240ax", "  second"]
    assert str(error).replace("\n", "").isprintable()


def test_every_event_is_safe_for_every_listener() -> None:
    plain, lines = StringIO(), StringIO()
    for listener in (PlainLines(plain), JsonLines(lines)):
        with events.listening(listener):
            events.note(f"data: {EVIL}\nforged", path=EVIL)
    assert plain.getvalue().count("\n") == 1 and plain.getvalue().strip("\n").isprintable()
    found = json.loads(lines.getvalue())
    assert found["text"] == visible_line(f"data: {EVIL}\nforged") and found["path"] == EVIL, "programs get the name"
    assert Event("error", "c", "a\n  b\x1b").text == "a\n  b\u241b"
