"""Exercises that are made for a gap: only those whose answer holds are offered."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import pytest

import afresh
from afresh.core import UserError
from afresh.domains.exercises.material import GAP, arithmetic, cloze, clozes, label_of, material, program, value_of
from afresh.runs.run import Run
from afresh.sandbox.processes import Limits, Sandbox
from tests import needs


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3 + 4 * 2", 11),
        ("(1/2 + 1/3) × 6", 5),
        ("-2^3", -8),
        ("7 ÷ 2", Fraction(7, 2)),
        ("0.1 + 0.2", Fraction(3, 10)),
    ],
)
def test_sums_are_exact(text: str, value: Fraction) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "1 +", "1 / 0", "9**9**9", "2**0.5", "__import__('os')", "a + 1", "1 if 1 else 2", "(" * 500, "10**11*10**11"],
)
def test_what_is_no_sum_or_too_large_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        value_of(text)


def test_only_a_right_sum_is_an_exercise() -> None:
    found = arithmetic("Add these: 12 + 30 = 42.")
    assert found is not None and (found.question, found.answer) == ("12 + 30 = ?", "42")
    assert arithmetic("12 + 30 = 43") is None and arithmetic("no sum") is None and arithmetic("x = 5") is None


@pytest.mark.parametrize(
    ("text", "explanation"),
    [
        ("12 + 30 = 42\nFirst 10 + 30 = 40, then 2 + 40 = 42.", "First 10 + 30 = 40, then 2 + 40 = 42."),
        ("12 + 30 = 42. It is 30 + 10 + 2 = 40 + 2 = 42", "It is 30 + 10 + 2 = 40 + 2 = 42"),
        ("12 + 30 = 42, as 10 + 30 = 50", ""),
        ("12 + 30 = 42, as everybody knows", ""),
        ("12 + 30 = 42, as 12 + = 42", ""),
    ],
)
def test_an_explanation_is_shown_if_all_its_sums_are_right(text: str, explanation: str) -> None:
    found = arithmetic(text)
    assert found is not None and found.answer == "42" and found.explanation == explanation


@needs.sandbox
def test_a_program_must_pass_its_tests_and_nothing_must_not() -> None:
    check = program(Sandbox(Limits(seconds=5)))
    good = 'def twice(x):\n    """Double it."""\n    return 2 * x\n\nassert twice(2) == 4\n'
    found = check(f"Try this:\n```python\n{good}```")
    assert found is not None and "Write twice(x). Double it." in found.question and "return 2 * x" in found.answer
    for wrong in (good.replace("== 4", "== 5"), good.replace("twice(2) == 4", "True"), "def f(:", "x = 1"):
        assert check(wrong) is None


def test_a_cloze_leaves_out_the_word_nearest_to_the_wanted_chance() -> None:
    def likely(asked: Sequence[tuple[str, str]]) -> list[float]:
        return [{"barked": 0.7, "loudly": 0.1}.get(word, 0.99) for _, word in asked]

    found = clozes("Yesterday the old dog barked rather loudly. Short.", likely, 0.7, 3)
    assert [(e.question, e.answer) for e in found] == [(f"Yesterday the old dog {GAP} rather loudly.", "barked")]
    assert clozes("Short.", likely, 0.7, 1) == []


def test_a_cloze_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A black cat sat on a mat and looked at a bird. " * 20)
    model = afresh.train(tmp_path / "a.txt", steps=2, out=tmp_path / "run", data={"context": 64}, quiet=True)
    run = Run.open(model.path)
    found = cloze(run, tmp_path / "a.txt", 0.5)
    assert GAP in found.question and found.answer in ("black", "looked", "bird")
    (tmp_path / "short.txt").write_text("No.")
    for name, message in (("short.txt", "has no sentence"), ("gone.txt", "cannot be read as text")):
        with pytest.raises(UserError, match=message):
            cloze(run, tmp_path / name, 0.5)


def test_texts_are_drawn_for_a_skill_and_checked(tmp_path: Path) -> None:
    for skill in ("add", "subtract"):
        (tmp_path / "data" / skill).mkdir(parents=True)
        for i in range(40):
            (tmp_path / "data" / skill / f"{i}.txt").write_text(f"{skill} {i}: 1 + 1 = 2\n")
    model = afresh.train(
        tmp_path / "data", steps=2, out=tmp_path / "run", data={"context": 16, "folder_labels": True}, quiet=True
    )
    run = Run.open(model.path)
    assert label_of(run, "Add") == {"label": "add"}
    with pytest.raises(UserError, match="no label 'divide'"):
        label_of(run, "divide")
    with pytest.raises(UserError, match="none has an answer that can be checked"):
        material(run, "add", 0.5, checks=[lambda text: None])
    made = material(run, "add", 0.5, checks=[lambda text: arithmetic("1 + 1 = 2")])
    assert made[0].answer == "2" and made[0].skill == "add"
