"""What the source weighs: lines of code for each folder, and names with two meanings. Both may only fall.

tests/weight.json holds the bounds. Lower them when you delete code: `python -m tests.test_weight` writes what is
counted now. A commit that raises one says why in a design note, and lowers another by as much.
"""

from __future__ import annotations

import ast
import io
import json
import tokenize
from collections import Counter
from functools import cache
from pathlib import Path

import afresh

SOURCE, BOUNDS = Path(afresh.__file__).parent, Path(__file__).with_name("weight.json")
REFERENCE = Path(__file__).parents[1] / "docs/reference/cli.md"
SLACK = 30  # lines by which a bound may lie above what is counted
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def weight() -> tuple[Counter[str], dict[str, set[str]]]:
    """Lines of code by top-level folder or module, and for each class name the modules that define it."""
    lines: Counter[str] = Counter()
    classes: dict[str, set[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        text, name = path.read_text("utf-8"), path.relative_to(SOURCE)
        tree = ast.parse(text)
        lines[name.parts[0]] += len(lines_of_code(text, tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.setdefault(node.name, set()).add(str(name))
    return lines, classes


def lines_of_code(text: str, tree: ast.AST) -> set[int]:
    """The numbers of lines that hold more than blanks, comments and docstrings."""
    out: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in LAYOUT:
            out.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            out -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return out


def counted() -> dict[str, object]:
    lines, classes = weight()
    twice = sum(len(modules) > 1 for modules in classes.values())
    options = sum(line.startswith("| `-") for line in REFERENCE.read_text("utf-8").splitlines())
    files = len(list(SOURCE.rglob("*.py")))
    return {"lines": dict(sorted(lines.items())), "files": files, "classes_of_two": twice, "options": options}


def test_blanks_comments_and_docstrings_weigh_nothing() -> None:
    text = '"""A module."""\n\n# why\nx = """a\nb"""\n\n\ndef f():\n    """Says\n\n    more."""\n    return 1  # one\n'
    assert lines_of_code(text, ast.parse(text)) == {4, 5, 8, 12}


def test_folders_weigh_no_more_than_they_may() -> None:
    lines, bounds = weight()[0], json.loads(BOUNDS.read_text())["lines"]
    wrong = [
        f"{f}: {n:,} lines of code, {bounds.get(f, 0):,} allowed" for f, n in lines.items() if n > bounds.get(f, 0)
    ]
    wrong += [f"{f}: {lines[f]:,} lines of code, lower the bound" for f, n in bounds.items() if n > lines[f] + SLACK]
    assert not wrong, "\n".join([*wrong, "`python -m tests.test_weight` writes what is counted"])


def test_there_are_no_more_options_than_there_may_be() -> None:
    """Options of all commands, a row of the reference each. A rare one is a setting."""
    bounds, now = json.loads(BOUNDS.read_text()), counted()
    assert now["options"] == bounds["options"], "`python -m tests.test_weight` writes what is counted"


def test_there_are_no_more_files_and_names_with_two_meanings_than_there_may_be() -> None:
    bounds, now = json.loads(BOUNDS.read_text()), counted()
    assert now["files"] <= bounds["files"], now["files"]  # type: ignore[operator]
    twice = {name: sorted(modules) for name, modules in weight()[1].items() if len(modules) > 1}
    assert len(twice) <= bounds["classes_of_two"], twice


if __name__ == "__main__":
    BOUNDS.write_text(json.dumps(counted(), indent=2) + "\n")
