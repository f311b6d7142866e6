"""Text as a terminal, a notebook and a page may safely show it.

Names of files, labels and texts are written by others. A control character among them could command a terminal (move
the cursor, set the clipboard), a line end could forge a line of output, and a bidirectional override could show a name
in another order than the one it has. Here each of them becomes a symbol or an escape that a person can see.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Any

# C0 except tab and line feed, DEL and C1; separators of lines; embeddings, overrides and isolates of direction; lone
# surrogates; anchors of annotations; tags, which are invisible copies of ASCII.
CONTROLS = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f"
)
# Marks of direction are part of ordinary writing in some languages, but not of a name that has to be recognised.
MARKS = r"\u061c\u200e\u200f\ufeff"
TEXT = re.compile(f"[{CONTROLS}]")
LINE = re.compile(rf"[\t\n{CONTROLS}{MARKS}]")


def visible(text: str) -> str:
    """A text of several lines: control characters as their symbols or escapes."""
    return TEXT.sub(symbol, text.replace("\r\n", "\n"))


def visible_line(text: str) -> str:
    """The same on one line, for names and messages: tabs, line ends and marks of direction are shown, too."""
    return LINE.sub(symbol, text)


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """A value of JSON, with each of its texts changed, names of fields included."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(name): with_texts(inner, change) for name, inner in value.items()}
    return [with_texts(inner, change) for inner in value] if isinstance(value, list) else value


def shell_word(text: str) -> str:
    """A word of a shell; with control characters, in the form $'...', which bash and zsh read back to the same word."""
    if LINE.search(text) is None:
        return shlex.quote(text)
    return f"$'{''.join(octal(c) if c in _QUOTED or LINE.match(c) else c for c in text)}'"


_QUOTED = "\\'"


def symbol(found: re.Match[str]) -> str:
    """The picture of a control character of ASCII, the escape of any other character."""
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def octal(character: str) -> str:
    """The bytes of a character as a shell's $'...' reads them; a surrogate of a name that is not UTF-8 is one byte."""
    escaped = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", escaped))
