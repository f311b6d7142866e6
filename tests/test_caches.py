"""No cache grows without end: a program that runs for days asks for ever other values."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import afresh

SOURCES = Path(afresh.__file__).parent
FEW = {  # unbounded caches whose arguments have few values, whatever is asked
    "compile_fault": "devices",
    "product_rate": "devices, threads and types",
    "even_numbers": "devices",
    "_generator": "two radii",
    "catalogue": "lists of alerts of RDKit",
    "vocabulary": "grids of scores",
    "parts": "groups of plug-ins",
    "_rest": "lengths of account numbers",
    "_bit": "bits of a fingerprint",
}


def cached(tree: ast.AST) -> Iterator[tuple[ast.FunctionDef, bool, bool]]:
    """Cached functions: whether the cache is unbounded, and whether it is of a method."""
    methods = {f for c in ast.walk(tree) if isinstance(c, ast.ClassDef) for f in c.body}
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        for decorator in function.decorator_list:
            words = ast.unparse(decorator)
            if words.rpartition(".")[2].split("(")[0] in ("cache", "lru_cache"):
                yield function, words.endswith("cache") or "None" in words, function in methods


def test_caches_are_bounded_or_have_few_keys_and_never_hold_objects_by_their_methods() -> None:
    known = set()
    for file in SOURCES.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        for function, unbounded, method in cached(ast.parse(text)) if "cache" in text else ():
            place = f"{file.relative_to(SOURCES)}: {function.name}"
            assert not method, f"{place}: a cache of a method keeps every object that it was called of"
            known.add(function.name)
            arguments = function.args.args or function.args.kwonlyargs
            assert not (unbounded and arguments) or function.name in FEW, f"{place} may grow without end"
    assert known >= set(FEW), "FEW names functions that are not cached any more"
