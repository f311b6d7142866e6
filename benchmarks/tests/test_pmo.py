"""Calls are counted as PMO counts them, and areas are those of its own code."""

from __future__ import annotations

import io
import os
import pickle
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rdkit")

from benchmarks.molecules.peers.pmo_models import Unpickler
from benchmarks.molecules.pmo import EVERY, MODELS, OBJECTIVES, TASKS, Oracle, auc, valued


def lengths(names: Sequence[str]) -> list[float]:
    return [len(n) / 10 for n in names]


def test_there_are_23_tasks() -> None:
    assert len(TASKS) == 23 and set(TASKS) == {*OBJECTIVES, *MODELS}


def test_repeated_and_invalid_molecules_cost_nothing() -> None:
    oracle = Oracle(lengths, 10)
    assert oracle(["CCO", "OCC", "C1CC", "", "CO"]) == [0.3, 0.3, 0.0, 0.0, 0.2]
    assert oracle(["C(O)C"]) == [0.3]
    assert list(oracle.asked) == ["CCO", "CO"]
    assert (oracle.repeated, oracle.invalid, oracle.spent) == (2, 2, False)


def test_a_budget_is_never_exceeded() -> None:
    oracle = Oracle(lengths, 2)
    assert oracle(["C", "CC", "CCC", "C"]) == [0.1, 0.2, 0.0, 0.1]
    assert oracle.spent and oracle(["CCCC", "CC"]) == [0.0, 0.2]
    assert list(oracle.asked) == ["C", "CC"]


LENGTHS = "import json, sys; [print(len(json.loads(r)['text']), flush=True) for r in sys.stdin]"


def test_a_program_is_asked_about_more_than_its_pipe_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFRESH_PMO_MODELS", shlex.join([sys.executable, "-c", LENGTHS]))
    names = ["C" * (1 + n % 60) for n in range(50_000)]
    with valued("jnk3") as (value, _):
        assert value(names) == [float(len(n)) for n in names]


class Call:
    """A pickle of it calls a function when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made",)


def test_a_model_that_names_anything_else_is_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pickle.UnpicklingError, match=r"the model names \w+\.mkdir"):
        Unpickler(io.BytesIO(pickle.dumps(Call()))).load()
    assert not (tmp_path / "made").exists()


def test_an_area_of_a_constant_loses_the_rise_to_the_first_point() -> None:
    assert auc([1.0] * 1000, 10, 1000) == pytest.approx(1 - EVERY / 2 / 1000)
    assert auc([1.0] * EVERY, 10, 1000) == pytest.approx(1 - EVERY / 2 / 1000)  # stopped early
    assert auc([0.5], 1, 10) == pytest.approx((0.25 + 9 * 0.5) / 10)


@pytest.mark.parametrize("n", [37, 100, 250, 500])
@pytest.mark.parametrize("top", [1, 10])
def test_areas_are_trapezoids_between_points(n: int, top: int) -> None:
    values = np.random.default_rng(n).random(n).tolist()
    points = [0, *range(EVERY, n, EVERY), n, 500]
    heights = [0.0, *(float(np.mean(sorted(values[:p])[-top:])) for p in points[1:])]
    assert auc(values, top, 500) == pytest.approx(np.trapezoid(heights, points) / 500)
