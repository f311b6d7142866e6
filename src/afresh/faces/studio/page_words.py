"""Messages of the program in words for people who only have the page."""

from __future__ import annotations

import re

BRACKETS = re.compile(r" \(([^()]*)\)")
CODE = re.compile(r"`[^`]*`")
CALL = re.compile(r": `(afresh[ .]|model\.)[^`]*`")
# What is written in a terminal or in Python: options, settings, commands, calls.
TYPED = re.compile(
    r"(?<![\w'\"-])--[a-z]|`(data|train|family|sampling)\.[a-z_]+(=[^`]*)?`|`modality=|`verbose`"
    r"|\bafresh [a-z]+ (?=[A-Z]{2}|--|\S*/)|\bmodel\.\w+\(|\bpip install\b|\bhf download\b"
)
SENTENCES = re.compile(r"(?<=[.!?])\s+")
# An absolute path of the server, of which a page shows the last part; not that of an example, nor of an address.
PATH = re.compile(r"(?<![\w:/.~])/(?!home/you\b)(?:[^\s/`'\",;]+/)+([^\s/`'\",;]+)")
CLAUSES = re.compile(r"(; |: |, or |, and |, )")
PURPOSE = re.compile(r"(To|For|If) [^,]*")  # what is left of a sentence that gave advice


def plain_words(text: str) -> str:
    """A message without advice that only helps in a terminal or in Python, but all of it if it says nothing else; marks
    of code go, and paths of the server are names."""
    lines = [" ".join(filter(None, map(_without_typed, SENTENCES.split(line)))) for line in text.split("\n")]
    return PATH.sub(r"\1", "\n".join(filter(None, lines)) or text).replace("`", "")


def _without_typed(sentence: str) -> str:
    """A sentence up to the first clause in which something is typed; nothing if only a purpose is left of it."""
    sentence = CALL.sub("", BRACKETS.sub(_without_code, sentence))
    if not TYPED.search(sentence):
        return sentence
    parts = CLAUSES.split(sentence)  # clauses, and what stands between them
    first = next((i for i in range(0, len(parts), 2) if TYPED.search(parts[i])), len(parts))
    said = "".join(parts[: max(0, first - 1)])
    return "" if not said or PURPOSE.fullmatch(said) else said + ("." if sentence.endswith(".") else "")


def _without_code(brackets: re.Match[str]) -> str:
    return "" if CODE.fullmatch(brackets[1]) or TYPED.search(brackets[1]) else brackets[0]
