"""Plain English in docstrings and messages: phrases that read like a translation, and counts that ignore the singular.

tests/wording.json holds how often each phrase occurs in src. These numbers may only fall: write a sentence otherwise
instead, as the documentation of requests, pandas or Stripe is written. `python -m tests.test_wording` writes what is
counted now, and `python -m tests.test_wording PHRASE` lists where one occurs.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import afresh

SOURCE, BOUNDS = Path(afresh.__file__).parent, Path(__file__).with_name("wording.json")
PHRASES = ("is no", "is none", "there is none", "what is", "whoever", "somebody", "nobody", "is told", "are told")
PHRASES += ("anew", "of which", "as many ... as", "a word is said", "is said only if", "times the minutes")
THINGS = "items|images|texts|files|rows|steps|characters|words|users|columns|pairs|molecules|sounds|events|minutes"
SINGULAR = "1 items"  # stands for all counts whose noun is a plural whatever the number: `counted` writes both
PATTERNS = {p: rf"\b{re.escape(p).replace(re.escape(' ... '), r' [^.;:]{1,40} ')}\b" for p in PHRASES}
PATTERNS[SINGULAR] = rf"(?<!most )(?<!than )\{{\}} (?:{THINGS})\b"


def texts() -> Iterator[tuple[str, str]]:
    """Each text in the code with its place: docstrings, literals, and f-strings, whose values are `{}`."""
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                whole = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", "".join(map(str, whole))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
                yield f"{path.relative_to(SOURCE)}:{node.lineno}", node.value


@cache
def places() -> dict[str, list[str]]:
    """Where each phrase occurs, with the words around it."""
    found: dict[str, list[str]] = {name: [] for name in PATTERNS}
    for place, text in texts():
        flat = " ".join(text.split())
        for name, pattern in PATTERNS.items():
            found[name] += [
                f"{place}: ...{flat[max(0, m.start() - 50) : m.end() + 50]}..."
                for m in re.finditer(pattern, flat, re.IGNORECASE)
            ]
    return found


@pytest.mark.parametrize("name", PATTERNS)
def test_odd_phrases_only_become_fewer(name: str) -> None:
    bound, found = json.loads(BOUNDS.read_text())[name], places()[name]
    assert len(found) <= bound, f"{name!r} occurs {len(found)} times, {bound} allowed:\n" + "\n".join(found)
    assert len(found) >= bound - 10, f"{name!r} occurs {len(found)} times: lower the bound of {bound}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("That is no name.", "is no"),
        ("as many samples as there are", "as many ... as"),
        ("{} items are read", SINGULAR),
        ("Whoever asks is told.", "whoever"),
    ],
)
def test_a_phrase_is_found(text: str, name: str) -> None:
    assert re.search(PATTERNS[name], text, re.IGNORECASE)


@pytest.mark.parametrize("text", ["That is not a name.", "at most {} items", "{} of them", "{} item"])
def test_other_words_are_left_alone(text: str) -> None:
    assert not [name for name, pattern in PATTERNS.items() if re.search(pattern, text, re.IGNORECASE)]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print("\n".join(places()[sys.argv[1]]))
    else:
        BOUNDS.write_text(json.dumps({name: len(found) for name, found in places().items()}, indent=2) + "\n")
