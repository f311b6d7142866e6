"""Makes small wrong changes of the source, one at a time, and counts those that the tests of the place notice.

`python -m tools.mutate domains/field data/storage/lock.py --count 20 --json found.json` draws 20 changes of each folder
or file of src/afresh, the same ones for the same seed. It works on a copy of the tree. For each change the tests of the
file run first, then those of its folder, then its contracts, without the slow ones. A selection that takes longer than
`--seconds` is counted as unknown.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PRELOADED = ("torch", "numpy", "scipy.stats", "pandas", "PIL.Image", "pydantic", "pyarrow.parquet", "pytest")
WRONG = "< <=,< >,<= <,<= >,> >=,> <,>= >,>= <,== !=,!= ==,is is_not,is_not is,in not_in,not_in in,and or,or and"
WRONG += ",+ -,- +,* /,/ *"
OPERATOR = re.compile(rb"is not|not in|[<>=!]=|[-+*/<>]|\b(?:and|or|is|in|not)\b")
OTHERS = {"any": b"all", "all": b"any", "min": b"max", "max": b"min"}
UNCHANGED = {"annotation", "returns", "decorator_list"}  # fields of nodes that no change enters


class Change(NamedTuple):
    """Bytes start to end of a file become `new`."""

    kind: str
    start: int
    end: int
    new: bytes


def changes(source: bytes) -> list[Change]:
    """All small changes of a module after which it still parses, and says something else."""
    starts = [0, *itertools.accumulate(map(len, source.splitlines(keepends=True)))]
    tree, out = ast.parse(source), list[Change]()

    def span(node: Any) -> tuple[int, int]:
        return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset

    def operator(kind: str, start: int, end: int, others: Sequence[str] = ()) -> Iterator[Change]:
        """The operator between two nodes becomes another."""
        if found := OPERATOR.search(source, start, end):
            old = found[0].decode().replace(" ", "_")
            for new in others or [rule.split()[1] for rule in WRONG.split(",") if rule.split()[0] == old]:
                yield Change(kind, *found.span(), new.replace("_", " ").encode())

    def swapped(first: ast.AST, second: ast.AST) -> Change:
        (a, b), (c, d) = span(first), span(second)
        return Change("swapped", a, d, source[c:d] + source[b:c] + source[a:b])

    def of(node: Any) -> Iterator[Change]:
        match node:
            case ast.Compare():
                for left, right in itertools.pairwise([node.left, *node.comparators]):
                    yield from operator("comparison", span(left)[1], span(right)[0])
            case ast.BoolOp():
                for left, right in itertools.pairwise(node.values):
                    yield from operator("and or", span(left)[1], span(right)[0])
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
                yield from operator("sign", span(node.left)[1], span(node.right)[0])
            case ast.UnaryOp(op=ast.USub() | ast.Not()):
                yield from operator("sign", span(node)[0], span(node.operand)[0], [""])
            case ast.Constant(value=bool()):
                yield Change("constant", *span(node), repr(not node.value).encode())
            case ast.Constant(value=int() | float()):
                yield from (Change("constant", *span(node), repr(node.value + d).encode()) for d in (1, -1))
            case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise():
                yield Change("dropped statement", *span(node), b"pass")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield Change("dropped statement", *span(node), b"pass")
            case ast.Call():
                if isinstance(node.func, ast.Name) and node.func.id in OTHERS:
                    yield Change("swapped", *span(node.func), OTHERS[node.func.id])
                named = [k for k in node.keywords if k.arg is not None]
                for start, end in map(span, named):
                    comma = re.compile(rb"\s*,\s*|").match(source, end)
                    yield Change("dropped argument", start, comma.end() if comma else end, b"")
                yield from (swapped(a.value, b.value) for a, b in itertools.pairwise(named))
                yield from itertools.starmap(swapped, itertools.pairwise(node.args))

    def enter(node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr):  # positions in it are exact from Python 3.12 on
            return
        out.extend(of(node))
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if name not in UNCHANGED and isinstance(child, ast.AST):
                    enter(child)

    def differs(change: Change) -> bool:
        with contextlib.suppress(SyntaxError):
            return ast.dump(ast.parse(applied(source, change))) != before
        return False

    before = ast.dump(tree)
    enter(tree)
    return [change for change in out if differs(change)]


def applied(source: bytes, change: Change) -> bytes:
    return source[: change.start] + change.new + source[change.end :]


def drawn(root: Path, target: str, count: int, seed: int) -> list[tuple[Path, Change]]:
    """Changes of files of src/afresh/TARGET without repeats, each kind as likely as another."""
    place, by_kind = root / "src/afresh" / target, defaultdict[str, list[tuple[Path, Change]]](list)
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        for change in changes(path.read_bytes()):
            by_kind[change.kind].append((path, change))
    generator, out = random.Random(f"{seed} {target}"), list[tuple[Path, Change]]()
    while len(out) < count and (kinds := sorted(k for k, left in by_kind.items() if left)):
        left = by_kind[generator.choice(kinds)]
        out.append(left.pop(generator.randrange(len(left))))
    return out


def selections(root: Path, path: Path) -> list[tuple[str, ...]]:
    """The arguments of pytest for the tests of a file: its own, those of its folder, and its contracts."""
    inside = path.relative_to(root / "src/afresh")
    folder = root / "tests" / inside.parent
    own = [str(p.relative_to(root)) for p in sorted(folder.glob(f"test_{inside.stem}*.py"))]
    while not any(folder.glob("test_*.py")):
        folder = folder.parent
    out = [tuple(own)] if own else []
    out.append((str(folder.relative_to(root)), *(f"--ignore={p}" for p in own)))
    if inside.parts[0] == "domains":
        out.append(("tests/contracts/test_metrics.py", "tests/contracts/test_modalities.py", "-k", inside.parts[1]))
    return out


def passes(root: Path, selection: Sequence[str], seconds: float) -> bool | None:
    """Whether tests pass in a fork of this process; None if they take longer."""
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            os.setsid()
            os.chdir(root)
            silent = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silent, stream)
            os.environ["PYTHONPATH"] = str(root / "src")
            sys.path[:] = [str(root / "src"), str(root), *(p for p in sys.path if Path(p).resolve() != ROOT)]
            options = ("-x", "-m", "not slow and not browser", "-p", "no:cacheprovider")
            code = int(importlib.import_module("pytest").main([*selection, *options]))
        finally:
            os._exit(code)
    until = time.monotonic() + seconds
    while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < until:
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):  # and what tests have started
        os.killpg(pid, signal.SIGKILL)
    if ended[0] == 0:
        os.waitpid(pid, 0)
        return None
    return os.waitstatus_to_exitcode(ended[1]) in (0, 5)  # 5: every test is slow


def outcome(root: Path, path: Path, changed: bytes, seconds: float, clean: Any, moments: Iterator[int]) -> str:
    """Noticed by which tests, survived, or why neither is known. The file is restored."""
    original, late = path.read_bytes(), False
    for selection in selections(root, path):
        try:
            write(path, changed, next(moments))
            passed = passes(root, selection, seconds)
        finally:
            write(path, original, next(moments))
        if passed is False:
            return f"noticed by {selection[0]}" if clean(selection) else f"unknown: {selection[0]} fails unchanged"
        late |= passed is None
    return f"unknown: longer than {seconds:g} s" if late else "survived"


def write(path: Path, content: bytes, moment: int) -> None:
    """A file with a time of its own, without which Python takes compiled code of the same length for its own."""
    path.write_bytes(content)
    os.utime(path, (moment, moment))


def copied(to: Path) -> Path:
    """The files of the tree that git knows or would add."""
    listed = subprocess.check_output(["git", "ls-files", "-zco", "--exclude-standard"], cwd=ROOT).decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def preload() -> None:
    """Import what takes seconds, with one thread as in tests, and leave the tests themselves to each fork."""
    sys.path.insert(0, str(ROOT))
    for name in ("tests.conftest", *PRELOADED):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "afresh")]:
        del sys.modules[name]


def main() -> None:
    parser = argparse.ArgumentParser("tools.mutate")
    parser.add_argument("targets", nargs="+", help="folders or files of src/afresh")
    parser.add_argument("--count", type=int, default=20, help="changes of each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=120, help="bound of each selection of tests")
    parser.add_argument("--json", type=Path, help="a file for every change and its outcome")
    given, rows, moments = parser.parse_args(), list[dict[str, Any]](), itertools.count(10**9)
    preload()
    with tempfile.TemporaryDirectory() as folder:
        root = copied(Path(folder).resolve())
        clean = cache(lambda selection: passes(root, selection, given.seconds) is True)
        for target in given.targets:
            for path, change in drawn(root, target, given.count, given.seed):
                began, source = time.monotonic(), path.read_bytes()
                changed = applied(source, change)
                found = outcome(root, path, changed, given.seconds, clean, moments)
                before, after = (text.decode().splitlines() for text in (source, changed))
                lines = [str(path.relative_to(root)), *list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]]
                row = {"target": target, "kind": change.kind, "diff": "\n".join(lines), "outcome": found}
                rows.append({**row, "seconds": round(time.monotonic() - began, 1)})
                print(f"{row['diff']}\n    {change.kind}: {found}\n", file=sys.stderr, flush=True)
                if given.json:
                    given.json.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(*(row["diff"] + "\n" for row in rows if row["outcome"] == "survived"), sep="\n")
    print(f"{'':40}{'noticed':>10}{'survived':>10}{'unknown':>10}")
    for target in given.targets:
        count = Counter(row["outcome"].split()[0].rstrip(":") for row in rows if row["target"] == target)
        print(f"{target:40}{count['noticed']:10}{count['survived']:10}{count['unknown']:10}")


if __name__ == "__main__":
    main()
