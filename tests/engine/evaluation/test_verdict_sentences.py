"""Every sentence of a verdict names the number that it stands for, and makes one claim, whatever the kind of data."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

import afresh
from afresh.core import registry

SOURCE = Path(afresh.__file__).parent
NUMBERS = ("digits", "beside", "counted", "heard_of")  # functions that put a number into words
OPPOSITES = {"good": ("noise", "blurred", "copies"), "noise": ("real ones that", "as varied"), "memorised": ("noise",)}


def judges() -> Iterator[tuple[str, ast.FunctionDef]]:
    """The functions that return a judgement, with the file."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "Judgement" in (text := path.read_text("utf-8")):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef) and "Judgement" in ast.unparse(node.returns or ast.Constant(None)):
                    yield str(path.relative_to(SOURCE)), node


def said(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """The word and the sentence of each judgement that a function returns."""
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            word, sentence = node.value.elts
            yield ast.unparse(word).strip("'"), sentence


def names_a_number(sentence: ast.expr, function: ast.FunctionDef) -> bool:
    """Whether every way in which a sentence is put together has a formatted number in it."""
    if isinstance(sentence, ast.IfExp):
        return names_a_number(sentence.body, function) and names_a_number(sentence.orelse, function)
    if isinstance(sentence, ast.JoinedStr):
        return any(names_a_number(part, function) for part in sentence.values)
    if isinstance(sentence, ast.FormattedValue):
        return sentence.format_spec is not None or names_a_number(sentence.value, function)
    if isinstance(sentence, ast.Call):
        parts = (node for node in ast.walk(sentence) if isinstance(node, ast.JoinedStr))
        named = isinstance(sentence.func, ast.Name) and sentence.func.id in NUMBERS
        return named or any(names_a_number(part, function) for part in parts)
    if isinstance(sentence, ast.Name):
        return any(names_a_number(value, function) for value in assigned(sentence.id, function))
    return False


def assigned(name: str, function: ast.FunctionDef) -> Iterator[ast.expr]:
    """What a function assigns to a name."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    yield node.value
                elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    pairs = zip(target.elts, node.value.elts, strict=True)
                    yield from (v for t, v in pairs if isinstance(t, ast.Name) and t.id == name)


@pytest.mark.parametrize(("place", "judge"), list(judges()), ids=lambda x: x if isinstance(x, str) else x.name)
def test_every_sentence_names_a_number_and_makes_one_claim(place: str, judge: ast.FunctionDef) -> None:
    sentences = list(said(judge))
    assert sentences or any(isinstance(n, ast.Return) for n in ast.walk(judge))
    assert [word for word, sentence in sentences if not names_a_number(sentence, judge)] == []
    for word, sentence in sentences:
        text = "".join(str(n.value) for n in ast.walk(sentence) if isinstance(n, ast.Constant))
        assert not [other for other in OPPOSITES.get(word, ()) if re.search(rf"\b{other}\b", text)], text


def test_all_judges_are_looked_at() -> None:
    metrics = chain.from_iterable(registry.metrics(name) for name in (*registry.modality_names(), ""))
    named = {m.judge.__name__ for m in metrics if m.judge is not None}
    assert named <= {function.name for _, function in judges()} and len(named) >= 10


def test_a_sentence_without_a_number_is_noticed() -> None:
    (function,) = ast.parse('def f():\n    why = f"a{b}"\n    return "good", f"It is good {why}."\n').body
    assert isinstance(function, ast.FunctionDef)
    assert not any(names_a_number(sentence, function) for _, sentence in said(function))
