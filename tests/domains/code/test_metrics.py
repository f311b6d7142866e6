"""pass@k against enumeration, tasks of both forms, and answers that are cut where they end."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pytest

from afresh.core import Item, UserError
from afresh.domains.code.metrics import HOLES, completions, draw_holes, held, pass_at_k, pass_scores, task_of
from afresh.engine.evaluation.estimate import bootstrap
from afresh.engine.evaluation.study import Study, Unmeasurable
from tests.engine.evaluation.evidence import modules_evidence, parses_python


@pytest.mark.parametrize("n", range(1, 8))
def test_pass_at_k_is_the_share_of_choices_with_a_right_one(n: int) -> None:
    for correct in range(n + 1):
        right = [True] * correct + [False] * (n - correct)
        for k in range(1, n + 1):
            picked = [any(c) for c in combinations(right, k)]
            assert pass_at_k(n, correct, k) == pytest.approx(sum(picked) / len(picked), abs=1e-12)


def test_pass_at_k_of_many_answers() -> None:
    assert pass_at_k(200, 1, 100) == pytest.approx(0.5)
    exact = 1 - comb(9000, 100) / comb(10_000, 100)
    assert pass_at_k(10_000, 1000, 100) == pytest.approx(exact, rel=1e-9)
    for wrong in ((3, 4, 1), (3, 1, 0), (3, 1, 4), (3, -1, 1)):
        with pytest.raises(ValueError, match="pass@"):
            pass_at_k(*wrong)


def test_pass_at_k_is_unbiased() -> None:
    """Its mean over draws of n answers is the true probability for any n."""
    p, k, rng = 0.15, 3, np.random.default_rng(0)
    for n in (3, 5, 20):
        estimate = np.mean([pass_at_k(n, int(c), k) for c in rng.binomial(n, p, 40_000)])
        assert estimate == pytest.approx(1 - (1 - p) ** k, abs=0.01)


def test_the_interval_is_bootstrap() -> None:
    values = np.array([0.0] * 60 + [1.0] * 40)
    estimate = bootstrap(values)
    spread = 1.96 * (0.4 * 0.6 / 100) ** 0.5
    assert estimate.value == 0.4 and estimate.n == 100
    assert (estimate.low, estimate.high) == pytest.approx((0.4 - spread, 0.4 + spread), abs=0.03)
    none = bootstrap(np.zeros(50))
    assert (none.value, none.low) == (0.0, 0.0) and none.high is not None and 0.05 < none.high < 0.1


def test_scores_up_to_n() -> None:
    scores = pass_scores([0, 5, 10], 10, (1, 10, 100), 1.0, 0.0)
    assert [(s.name, round(s.value, 6), s.n) for s in scores] == [("pass@1", 0.5, 3), ("pass@10", round(2 / 3, 6), 3)]
    assert all((s.floor, s.control, s.better) == (1.0, 0.0, "higher") for s in scores)


MBPP = {"text": "Write a function to add.", "code": "def add(a, b):\r\n    return a + b", "task_id": 7,
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], "test_setup_code": "one = 1"}  # fmt: skip
HUMAN = {"task_id": "HumanEval/0", "prompt": 'def two():\n    """2"""\n', "entry_point": "two",
         "canonical_solution": "    return 2\n", "test": "def check(f):\n    assert f() == 2\n"}  # fmt: skip


def test_a_task_of_mbpp() -> None:
    task = task_of(MBPP, 1)
    assert task.prompt == '"""\nWrite a function to add.\nassert add(1, 2) == 3\nassert add(0, 0) == 0\n"""\n'
    assert task.reference == "def add(a, b):\n    return a + b"
    assert (task.setup, task.tests) == ("one = 1", "assert add(1, 2) == 3\nassert add(0, 0) == 0")
    assert task.answer("def add(a, b):\n    return a\n\nassert add(1, 1) == 2\n") == "def add(a, b):\n    return a\n"


def test_a_task_of_humaneval() -> None:
    task = task_of(HUMAN, 1)
    assert task.prompt == HUMAN["prompt"] and task.reference is not None
    assert (task.entry, task.tests) == ("two", f"{HUMAN['test']}\ncheck(two)")
    assert task.answer("    return 2\n\ndef three():\n    return 3\n") == "    return 2\n"


def test_only_the_line_with_the_mark_counts() -> None:
    assert held("text\n\nMARK 2\n", "MARK", 3) == 2 and held("\nMARK 2\nmore", "MARK", 3) == 2
    assert held("", "MARK", 3) == held("MARK", "MARK", 3) == held("\nMARK 2 3\n", "MARK", 3) == 0
    assert held("\nMARK 99999\n", "MARK", 3) == 3 and held("\nMARK -1\n", "MARK", 3) == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "needs test_list"),
        ({"text": "x", "test_list": []}, "needs test_list"),
        ({"text": "x", "test_list": "assert"}, "needs test_list"),
        ({"test_list": ["assert 1"]}, "no text in text or prompt.*Given: test_list"),
        ({"entry_point": "f", "prompt": "p"}, "no text in test"),
        ({"entry_point": "f", "test": "t", "prompt": 3}, "no text in prompt"),
    ],
)
def test_records_that_are_not_tasks_are_refused(row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        task_of(row, 4)


# --------------------------------------------------------------------------- completions


def test_holes_make_a_valid_file_invalid() -> None:
    study = Study(modules_evidence(None), 4)
    holes = draw_holes(study)
    texts = {i.source: i.value for i in study.heldout_items}
    assert len(holes) == HOLES and len({name for _, _, name, _ in holes}) == 3
    for before, after, name, middle in holes:  # the first character may be the end of the line before
        assert before + middle + after == texts[name] and not parses_python(before + after)
        assert middle[1:].count("\n") <= 2 and (after == "" or after[0] == "\n")
    assert holes == draw_holes(Study(modules_evidence(None), 4))


def test_the_original_scores_one_and_nothing_scores_zero() -> None:
    study = Study(modules_evidence(None), 4)
    real = {(before, after): middle for before, after, _, middle in draw_holes(study)}
    for fills, value in ((lambda a, b: real[a, b], 1.0), (lambda a, b: "", 0.0), (lambda a, b: "]" * 3, 0.0)):
        valid, exact = completions(modules_evidence(fills))
        assert (valid.name, valid.value, valid.n) == ("completions_valid", value, HOLES)
        assert (exact.name, exact.value, exact.floor, exact.control) == ("completions_exact", value, 1.0, 0.0)
    (first, *_) = completions(modules_evidence(lambda a, b: real[a, b] + "  # the same"))
    assert first.value > 0.5


def test_uninformative_holes_are_not_measured() -> None:
    with pytest.raises(Unmeasurable, match="not trained to fill"):
        completions(modules_evidence(None))
    prose = [Item("words and more words\n" * 9)]
    with pytest.raises(Unmeasurable, match="even with a hole in it"):
        completions(replace(modules_evidence(None), heldout_items=prose, accepts=lambda value: True))
    with pytest.raises(Unmeasurable, match="no held-out file"):
        completions(replace(modules_evidence(None), heldout_items=[Item("def f(:")]))
