"""Exercises made for a gap: texts drawn from a run for a skill and a difficulty, and kept only if their answer holds.

What can be checked is checked: arithmetic is evaluated, a program is run against the tests that come with it in the
sandbox, and a cloze is made of a sentence of one's own, whose answer is known. Everything else is not offered.
"""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from afresh.core import Item, UserError
from afresh.data.text.kind import TEXT
from afresh.runs.run import Run
from afresh.sampling.request import Request
from afresh.sandbox.processes import Sandbox
from afresh.verbs.sample import Sampler

DRAWN = 16  # texts that are drawn for one exercise
TRIES = 3  # times that so many are drawn
HARD = ("difficulty", "level", "hardness", "grade")  # names of a number that says how difficult a text is
LARGEST = 10**12  # of a number in arithmetic, so that no power takes long
MOST_GAPS = 100  # words that a cloze is chosen from
GAP = "_____"
SENTENCE = re.compile(r"[^.!?\n]{20,240}[.!?]")
WORD = re.compile(r"[^\W\d_]{4,}")


@dataclass(frozen=True)
class Exercise:
    """A question with its answer, how the answer was checked, and an explanation that was checked too."""

    question: str
    answer: str
    checked: str
    skill: str = ""
    explanation: str = ""


# From a text to an exercise whose answer holds, or None.
Check = Callable[[str], Exercise | None]

# --------------------------------------------------------------------------- checks

SIDE = r"[\d\s.,()+*/x×÷^-]*\d[\d\s.,()+*/x×÷^-]*"
SUM = re.compile(rf"(?P<question>{SIDE})=\s*(?P<answer>-?\d+(?:[./]\d+)?)")
STEP = re.compile(rf"{SIDE}(?:=\s*{SIDE})+")  # 12 + 30 = 10 + 32 = 42
PIECE = re.compile(r"[\n;:!?]|[.,](?!\d)")  # what ends a step
OPERATORS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def value_of(expression: str) -> Fraction:
    """The exact value of a sum, such as 3 + 4 * (2 - 1/2). Raises ValueError for anything else."""
    for mark, meant in (("×", "*"), ("x", "*"), ("÷", "/"), ("^", "**"), (",", "")):
        expression = expression.replace(mark, meant)
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, OverflowError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a sum: {error}") from None


def _value(node: ast.AST) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        found = Fraction(str(node.value))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        found = -_value(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        left, right = _value(node.left), _value(node.right)
        if isinstance(node.op, ast.Pow) and (right.denominator != 1 or not 0 <= right <= 12 or abs(left) > 1000):
            raise ValueError("a power that is too large, or none of whole numbers")
        found = Fraction(OPERATORS[type(node.op)](left, right))
    else:
        raise ValueError("not a sum of numbers")
    if abs(found.numerator) > LARGEST or found.denominator > LARGEST:
        raise ValueError("a number that is too large")
    return found


def arithmetic(text: str) -> Exercise | None:
    """The first sum of a text that has two numbers at least, if the answer that is written with it is right. What
    follows explains it, if it has sums and all of them are right."""
    for found in SUM.finditer(text):
        question = " ".join(found["question"].split())
        if len(re.findall(r"\d+", question)) < 2:
            continue
        with suppress(ValueError):
            if value_of(question) == value_of(found["answer"]):
                return Exercise(f"{question} = ?", found["answer"], "computed", explanation=steps(text[found.end() :]))
        return None
    return None


def steps(text: str) -> str:
    """The text, if it has sums and each of them is right; otherwise nothing."""
    sums = [found[0].split("=") for piece in PIECE.split(text) for found in STEP.finditer(piece)]
    try:
        right = all(len({value_of(side) for side in sides}) == 1 for sides in sums)
    except ValueError:
        return ""
    return text.lstrip(" .,;:\n").rstrip() if sums and right else ""


def program(sandbox: Sandbox) -> Check:
    """Exercises in Python: a function with its description, and at least one assertion about it, which must hold for it
    and must not hold for a function that does nothing."""

    def check(text: str) -> Exercise | None:
        code = found[0] if (found := re.findall(r"```(?:python)?\n(.*?)```", text, re.DOTALL)) else text
        try:
            tree = ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
        tests = [n for n in tree.body if isinstance(n, ast.Assert)]
        if not functions or not tests:
            return None
        first = functions[0]
        empty = ast.parse(f"def {first.name}(*given, **named):\n    return None")
        rest = [n for n in tree.body if n is not first]
        with_nothing = ast.unparse(ast.Module([*empty.body, *rest], []))
        if sandbox.run(ast.unparse(tree)).status != "ok" or sandbox.run(with_nothing).status == "ok":
            return None
        about = ast.get_docstring(first) or ""
        asked = "\n".join(map(ast.unparse, tests))
        question = f"Write {first.name}({ast.unparse(first.args)}).{' ' + about if about else ''}\n{asked}"
        return Exercise(question, ast.unparse(first), f"{len(tests)} tests run in the sandbox")

    return check


def clozes(
    corpus: str, likely: Callable[[Sequence[tuple[str, str]]], Sequence[float]], success: float, n: int
) -> list[Exercise]:
    """Sentences of a corpus with a word left out, whose chance under a model, by `likely` [(before, word)], is nearest
    to `success`: what is to be practised is neither obvious nor a guess."""
    found = []
    for sentence in dict.fromkeys(m.group().strip() for m in SENTENCE.finditer(corpus)):
        words = list(WORD.finditer(sentence))[1:]
        found += [(sentence, w.start(), w.group()) for w in words]
    if not found:
        return []
    found = found[:: -(-len(found) // MOST_GAPS)]  # evenly spaced over the corpus
    chances = likely([(sentence[:start], word) for sentence, start, word in found])
    ranked = sorted(zip(found, chances, strict=True), key=lambda f: abs(f[1] - success))
    out: list[Exercise] = []
    used: set[str] = set()
    for (sentence, start, word), _ in ranked:
        if sentence not in used:
            used.add(sentence)
            question = sentence[:start] + GAP + sentence[start + len(word) :]
            out.append(Exercise(question, word, "a sentence of the corpus"))
        if len(out) == n:
            break
    return out


def cloze(run: Run, corpus: Path, success: float) -> Exercise:
    """A sentence of a text file with a word left out, whose chance under a run on texts is nearest to `success`. Raises
    UserError for a run on something else, and for a file without such a sentence."""
    if run.encoder.kind is not TEXT:
        raise UserError(f"{run.path} makes {run.encoder.kind.plural}. A cloze is made by a run on texts.")
    try:
        text = corpus.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{corpus} cannot be read as text: {error}. Give a text file in UTF-8.") from None
    found = clozes(text, word_chances(run), success, 1)
    if not found:
        raise UserError(f"{corpus} has no sentence of 20 to 240 characters with a word of four letters to leave out.")
    return found[0]


# --------------------------------------------------------------------------- drawing


def material(
    run: Run, skill: str, difficulty: float, n: int = 1, *, seed: int = 0, checks: Sequence[Check] | None = None
) -> list[Exercise]:
    """At most n exercises of a skill, drawn from a run on texts and checked.

    The run is asked for the label that is named like the skill, and for `difficulty` (0 to 1, the share of people who
    are to fail) on the scale of its number difficulty, level, hardness or grade. `checks` are tried in turn; by default
    arithmetic, and programs where there is a sandbox.

    Raises UserError for a run that does not make texts or has no such skill, and if nothing that was drawn could be
    checked.
    """
    if run.encoder.kind is not TEXT:
        raise UserError(f"{run.path} makes {run.encoder.kind.plural}. Material is made by a run on texts.")
    label = label_of(run, skill)
    numbers = {name: run.conds[name].mean + (2 * difficulty - 1) * 1.7 * run.conds[name].std for name in scale_of(run)}
    tried = checks or [arithmetic, *_programs()]
    out: dict[str, Exercise] = {}
    for attempt in range(TRIES):
        request = Request(label=label, number=numbers or None)
        drawn = Sampler(run, DRAWN, request, seed + attempt, {"length": 200})()
        for text in drawn:
            found = next((e for check in tried if (e := check(text)) is not None), None)
            if found is not None:
                out.setdefault(found.question, replace(found, skill=skill))
        if len(out) >= n:
            break
    if not out:
        raise UserError(
            f"{run.path} drew {TRIES * DRAWN} texts for {skill}, and none has an answer that can be checked (a sum "
            "with its right result, or a Python function with assertions that hold)."
        )
    return list(out.values())[:n]


def label_of(run: Run, skill: str) -> dict[str, str]:
    """The label of a run that is named like a skill; none if the run has no labels. Raises UserError, naming them, if
    there are labels and none is the skill."""
    parts = {name: part.classes for name, part in run.conds.items() if part.kind == "label"}
    for name, classes in parts.items():
        hit = next((c for c in classes if c.lower() == skill.lower()), None)
        if hit is not None:
            return {name: hit}
    if parts and skill:
        known = ", ".join(c for classes in parts.values() for c in classes[:10])
        raise UserError(f"{run.path} has no label {skill!r}. Its labels: {known}.")
    return {}


def scale_of(run: Run) -> list[str]:
    """The number of a run that says how difficult a text is, if it has one."""
    return [name for name in HARD if name in run.conds and run.conds[name].kind == "number"][:1]


def _programs() -> list[Check]:
    box = Sandbox()
    try:
        box.check()
    except UserError:
        return []
    return [program(box)]


def word_chances(run: Run) -> Callable[[Sequence[tuple[str, str]]], Sequence[float]]:
    """The chance of each word after what stands before it, under a run on texts."""
    from math import exp

    from afresh.verbs.likelihoods import score_items

    def likely(asked: Sequence[tuple[str, str]]) -> list[float]:
        out = []
        for before, word in asked:
            found = score_items(run, [Item(word, "the word")], Request(before or None), end=False)
            out.append(exp(min(0.0, found[0].nats)))
        return out

    return likely
