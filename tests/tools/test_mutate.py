"""Small wrong changes are made where they are said to be, and the file is restored whatever the tests do."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from tools import mutate

SOURCE = """
def f(a: int = 1, *, b=2):  # é
    if not a <= b and a is not None:
        raise ValueError(f"{a + 1} > {b}")
    a += max(a, b)
    return g(a - b, key=a, other=True)
"""
LINES = {
    "comparison": {
        "if not a < b and a is not None:",
        "if not a > b and a is not None:",
        "if not a <= b and a is None:",
    },
    "and or": {"if not a <= b or a is not None:"},
    "sign": {"if  a <= b and a is not None:", "return g(a + b, key=a, other=True)"},
    "constant": {
        "def f(a: int = 2, *, b=2):  # é",
        "def f(a: int = 0, *, b=2):  # é",
        "def f(a: int = 1, *, b=3):  # é",
        "def f(a: int = 1, *, b=1):  # é",
        "return g(a - b, key=a, other=False)",
    },
    "swapped": {"a += min(a, b)", "a += max(b, a)", "return g(a - b, key=True, other=a)"},
    "dropped argument": {"return g(a - b, other=True)", "return g(a - b, key=a, )"},
    "dropped statement": {"pass"},
}


def test_every_kind_of_change_is_made_at_its_place() -> None:
    source, found = SOURCE.encode(), dict[str, set[str]]()
    for change in mutate.changes(source):
        lines = mutate.applied(source, change).decode().splitlines()
        found.setdefault(change.kind, set()).update(s.strip() for s in set(lines) - set(SOURCE.splitlines()))
    assert found == LINES


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("src/afresh/domains/x/y.py", "src/afresh/domains/x/in/z.py", "tests/domains/x/test_y_more.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a = 1 + 2\n")
    return tmp_path


def test_the_tests_of_a_file_are_its_own_those_of_its_folder_and_its_contracts(tree: Path) -> None:
    own, folder, contracts = mutate.selections(tree, tree / "src/afresh/domains/x/y.py")
    assert own == ("tests/domains/x/test_y_more.py",)
    assert folder == ("tests/domains/x", "--ignore=tests/domains/x/test_y_more.py") and contracts[-2:] == ("-k", "x")
    assert mutate.selections(tree, tree / "src/afresh/domains/x/in/z.py")[0] == ("tests/domains/x",)
    assert mutate.drawn(tree, "domains/x", 9, 1) == mutate.drawn(tree, "domains/x", 9, 1) != []


@pytest.mark.parametrize(
    ("passed", "clean", "says"),
    [
        (True, True, "survived"),
        (None, True, "unknown: longer"),
        (False, True, "noticed"),
        (False, False, "unknown: .*"),
    ],
)
def test_a_file_is_restored(
    passed: bool | None, clean: bool, says: str, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tree / "src/afresh/domains/x/y.py", list[str]()
    monkeypatch.setattr(mutate, "passes", lambda *given: (seen.append(path.read_text()), passed)[1])
    found = mutate.outcome(tree, path, b"a = 1 - 2\n", 5, lambda selection: clean, count(10**9))
    assert found.startswith(says.removesuffix(".*")) and path.read_text() == "a = 1 + 2\n"
    assert set(seen) == {"a = 1 - 2\n"}
    monkeypatch.setattr(mutate, "passes", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mutate.outcome(tree, path, b"a = 1 - 2\n", 5, lambda selection: clean, count(10**9))
    assert path.read_text() == "a = 1 + 2\n"
