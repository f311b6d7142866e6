"""Which pieces of other files come first: BM25 against its formula, and what a cursor's surroundings name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.data.text.repository import (
    LINES,
    Snippet,
    as_comment,
    query_at,
    rank_snippets,
    read_files,
    read_repository,
    snippets_of,
    words,
)


def test_bm25_is_its_formula() -> None:
    """Three pieces, words counted by hand, k1 = 1.2, b = 0.75."""
    pieces = [Snippet("aa.py", "cat cat dog"), Snippet("bb.py", "cat bird"), Snippet("cc.py", "fish")]
    found = {p.name: s for s, p in rank_snippets(pieces, ["cat", "fish", "cow"])}
    mean = (4 + 3 + 2) / 3

    def part(count: int, length: int, holding: int) -> float:
        weight = math.log(1 + (3 - holding + 0.5) / (holding + 0.5))
        return weight * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * length / mean))

    assert found == pytest.approx({"aa.py": part(2, 4, 2), "bb.py": part(1, 3, 2), "cc.py": part(1, 2, 1)})
    assert rank_snippets(pieces, ["cow"]) == [] and rank_snippets([], ["cat"]) == []


def test_rare_words_and_paths_determine_the_rank() -> None:
    files = {
        "noise.py": "self self self return self\n",
        "pkg/rates.py": "BASE = 3\n",
        "use.py": "def other(self):\n    return self.compute_rate(3)\n",
    }
    query = query_at("from pkg.rates import BASE\n\nself.x = self.compute_rate(", ")\n")
    order = [p.name for _, p in rank_snippets(snippets_of(files), query)]
    assert order[-1] == "noise.py" and set(order[:2]) == {"pkg/rates.py", "use.py"}


def test_the_query_is_words_near_the_cursor_and_imports() -> None:
    far = "import distant_module\nfar_away = 1\n" + "pass\n" * 100
    found = query_at(far + "near_before = ", "near_after\n" + "pass\n" * 100 + "beyond = 2\n")
    assert {"distant_module", "near_before", "near_after"} <= set(found)
    assert not {"far_away", "beyond"} & set(found)
    assert words("a1 = foo_bar(Über, 12, x)") == ["a1", "foo_bar", "Über"]


def test_snippets_cover_files_without_blank_ones() -> None:
    text = "\n".join(f"line {i}" for i in range(2 * LINES + 5)) + "\n" + "\n" * LINES
    pieces = snippets_of({"a.py": text, "b.py": "\n\n"})
    assert len(pieces) == 3 and "\n".join(p.text for p in pieces).rstrip() == text.rstrip()


def test_comments_are_in_the_language_of_the_file() -> None:
    piece = Snippet("lib/a.py", "x = 1\n\ny = 2")
    assert as_comment(piece, "b.py") == "# lib/a.py\n# x = 1\n#\n# y = 2\n"
    for name, mark in (("b.rs", "//"), ("b.lua", "--"), ("b.lisp", ";"), ("b.tex", "%"), ("strange", "//")):
        assert as_comment(piece, name).splitlines()[0] == f"{mark} lib/a.py"


def test_a_repository_is_read_without_the_file_itself(tmp_path: Path) -> None:
    for name, text in {
        "a.py": "a = 1\n",
        "sub/b.py": "b = 1\n",
        "node_modules/c.js": "c",
        "data.bin": "\0",
        "broken.py": "\0",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    files, notes = read_repository(tmp_path, tmp_path / "sub" / ".." / "a.py")
    assert files == {"sub/b.py": "b = 1\n"} and not notes
    assert set(read_repository(tmp_path)[0]) == {"a.py", "sub/b.py"}
    with pytest.raises(UserError, match="is not a folder"):
        read_repository(tmp_path / "a.py")
    assert list(read_files([tmp_path / "a.py"]).values()) == ["a = 1\n"]
    for bad in ("none.py", "broken.py"):
        with pytest.raises(UserError, match=f"context file .*{bad}"):
            read_files([tmp_path / bad])
