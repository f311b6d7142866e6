"""Alarms of an alignment run: each speaks where its number says so, and only there; and the rule that ends a run."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest

from afresh.core import UserError
from afresh.engine.alignment.monitoring.health import alarms, stop_reason

Rows = list[dict[str, Any]]
ROWS = 41
EVERY = 5  # rows to an evaluation


def run(seed: int = 0, rows: int = ROWS, **changed: Any) -> Rows:
    """A healthy run with the noise of small batches; `changed`: name -> function of the progress 0..1, or None."""
    rng = np.random.default_rng(seed)
    healthy: dict[str, Any] = {
        "reward": lambda t: 0.2 + 0.6 * t + rng.normal(0, 0.02),
        "reward_deviation": lambda t: 0.3,
        "kl": lambda t: 6 * t + rng.normal(0, 0.05),
        "kl_error": lambda t: 0.05,
        "entropy": lambda t: 2 - 0.8 * t + rng.normal(0, 0.05),
        "length": lambda t: 60 + 10 * t + rng.normal(0, 4),
        "diversity": lambda t: 1 - 0.25 * t + rng.normal(0, 0.02),
        "flat": lambda t: 0.3 + rng.normal(0, 0.05),
        "gap": lambda t: 0.004,
        "clipped": lambda t: 0.1,
        "heldout_loss": lambda t: 2 + 0.1 * t,
        "accuracy": lambda t: 0.55 + 0.15 * t + rng.normal(0, 0.01),
        "heldout_reward": lambda t: 0.1 + 0.3 * t + rng.normal(0, 0.02),
        "heldout_reward_error": lambda t: 0.02,
    }
    made = {k: f for k, f in {**healthy, **changed}.items() if f is not None}
    out: Rows = []
    for i in range(rows):
        values = {k: float(f(i / (rows - 1))) for k, f in made.items()}
        kept = {k: v for k, v in values.items() if i % EVERY == 0 or not k.startswith("heldout_reward")}
        out.append({"step": 10 * i, **kept})
    return out


def names(rows: Rows, **options: float) -> list[str]:
    return [a.name for a in alarms(rows, **options)]


def test_a_healthy_run_has_no_alarm() -> None:
    assert [a for seed in range(20) for a in alarms(run(seed))] == []
    assert alarms([]) == [] and alarms([{"step": 0}]) == [] and alarms(run(rows=2)) == []


late = 0.5  # of the way from which each thing goes wrong: row 20, step 200 of 400


@pytest.mark.parametrize(
    "name, key, right, wrong",
    [
        ("kl", "kl", 9.9, 10.1),
        ("entropy", "entropy", 0.61, 0.59),
        ("diversity", "diversity", 0.61, 0.59),
        ("flat", "flat", 0.79, 0.81),
        ("gap", "gap", 0.049, 0.051),
        ("clipped", "clipped", 0.49, 0.51),
        ("length", "length", 89.0, 91.0),
        ("length", "length", 31.0, 29.0),
        ("heldout_loss", "heldout_loss", 2.19, 2.21),
        ("accuracy", "accuracy", 0.51, 0.49),
    ],
)
def test_each_limit_is_where_it_says(name: str, key: str, right: float, wrong: float) -> None:
    """Against first values of 2 (entropy, loss), 1 (diversity), 60 (length), 0.55 (accuracy)."""
    first = {"entropy": 2.0, "heldout_loss": 2.0, "diversity": 1.0, "length": 60.0, "accuracy": 0.55, "kl": 5.0}
    begin = first.get(key, 0.0)
    for value, speaks in ((right, False), (wrong, True)):
        changed: dict[str, Any] = {key: lambda t, value=value: begin if t < late else value}
        rows = run(**changed)
        found = [a for a in alarms(rows) if a.name == name]
        assert len(found) == speaks, (value, found)
        if speaks:
            (alarm,) = found
            said = f"{wrong:.0%}" if key in ("flat", "clipped") else f"{wrong:g}"
            assert 200 <= alarm.step <= 220 and f" {said}" in f" {alarm.message}"


def test_the_limit_of_the_divergence_is_a_parameter() -> None:
    assert names(run(), kl_limit=3.0) == ["kl"] and names(run(kl=lambda t: 90 * t), kl_limit=math.inf) == []
    (alarm,) = alarms(run(), kl_limit=3.0)
    assert "limit is 3" in alarm.message and 200 <= alarm.step <= 230  # 6 t passes 3 half way, medians a little later
    for limit in (0.0, -1.0, math.nan):
        with pytest.raises(UserError, match="above 0"):
            alarms(run(), kl_limit=limit)


def test_what_is_told_is_the_last_value_and_not_the_median() -> None:
    rows = run(kl=lambda t: 6 * t)
    rows[-1]["kl"] = 58.9
    (alarm,) = alarms(rows, kl_limit=5.0)
    assert "58.9 nats" in alarm.message and alarm.step < rows[-1]["step"]
    rows[-1]["kl"] = 1.0  # the last row is fine, so that nothing is said of the present
    assert alarms(rows, kl_limit=5.0) == []


def test_one_odd_batch_is_no_alarm_and_what_is_over_neither() -> None:
    rows = run()
    rows[-1].update(kl=50.0, entropy=0.01, flat=1.0, gap=1.0, clipped=1.0, diversity=0.1, length=500.0)
    assert names(rows) == []
    assert names(run(kl=lambda t: 30 if 0.2 < t < 0.6 else 6 * t)) == []


def test_a_divergence_that_buys_nothing() -> None:
    level: dict[str, Any] = {"reward": lambda t: 0.5 + 0.01 * (-1) ** round(40 * t)}
    (alarm,) = alarms(run(**level))
    assert alarm.name == "kl without reward" and "20 rows" in alarm.message
    assert names(run(**level, kl=lambda t: 5.0)) == []  # it does not grow either
    assert names(run(**level, kl=lambda t: 5.0 + 0.5 * t)) == []  # hardly: 0.13 nats between the halves


def test_a_divergence_below_0() -> None:
    """Three errors of the mean of five rows: 3 x 0.05 / sqrt(5) = 0.067."""
    assert names(run(kl=lambda t: -0.06)) == []
    (alarm,) = alarms(run(kl=lambda t: -0.08))
    assert alarm.name == "negative kl" and "-0.08" in alarm.message and "0.022" in alarm.message
    rng = np.random.default_rng(0)
    assert names(run(kl=lambda t: rng.normal(0, 0.05))) == []
    assert names(run(kl=lambda t: -0.2 + rng.normal(0, 0.05), kl_error=None)) == ["negative kl"]
    assert names(run(kl=lambda t: -1e-5, kl_error=lambda t: 0.0)) == []  # rounding, at the base


def test_length_counts_only_while_the_reward_rises() -> None:
    longer: dict[str, Any] = {"length": lambda t: 60 + 80 * t}
    assert names(run(**longer)) == ["length"]
    rng = np.random.default_rng(0)
    assert names(run(**longer, reward=lambda t: 0.5 + rng.normal(0, 0.02), kl=None)) == []


def test_a_reward_that_never_differs() -> None:
    same: dict[str, Any] = {"reward": lambda t: 0.0, "kl": None}
    assert names(run(**same, reward_deviation=lambda t: 0.0)) == ["constant reward"]
    assert names(run(**same, reward_deviation=None)) == ["constant reward"]
    assert names(run(**same)) == []  # samples of a batch differ: there is a signal
    assert names(run(rows=4, reward=lambda t: 0.0, reward_deviation=None)) == []  # too early
    (alarm,) = alarms(run(reward=lambda t: min(1.0, 2 * t), reward_deviation=lambda t: 0.1 * (t < 0.5), kl=None))
    assert alarm.step == 200 and "reward has been 1 " in alarm.message and "stop" in alarm.message


def test_numbers_that_are_none() -> None:
    rows = run()
    rows[-1]["loss"] = math.nan
    (alarm,) = alarms(rows)
    assert alarm.name == "not finite" and "loss" in alarm.message and alarm.step == 400
    rows[-1]["loss"], rows[20]["kl"] = 0.0, math.inf
    assert names(rows) == []  # it is over, and the other values stand


@pytest.mark.parametrize("seed", range(5))
def test_over_optimisation(seed: int) -> None:
    """The held-out reward peaks half way: then the alarm says so, and when it was."""
    rng = np.random.default_rng(seed)
    rows = run(seed, heldout_reward=lambda t: 0.3 - 2 * (t - 0.5) ** 2 + rng.normal(0, 0.02))
    (alarm,) = alarms(rows)
    assert alarm.name == "over-optimisation" and "is being exploited" in alarm.message
    assert 100 <= int(alarm.message.split("Since step ")[1].split(" ")[0]) <= 300
    assert alarms(rows[:24]) == []
    falls = [{**row, "reward": 0.5 - 0.01 * i, "kl": 0.1} for i, row in enumerate(rows)]
    assert names(falls) == []  # both fall: it is not an exploitation


def test_rows_of_one_step_are_one_and_need_a_step() -> None:
    rows = run(gap=lambda t: 0.2)
    halves = [
        {k: v for k, v in r.items() if k == "step" or (k < "h") == first} for r in rows for first in (True, False)
    ]
    assert alarms(halves) == alarms(rows) == alarms(list(reversed(rows)))
    for bad in ({"kl": 1.0}, {"step": "3"}, {"step": True}, {"step": -1}):
        with pytest.raises(UserError, match=r"Row 2 .* step"):
            alarms([{"step": 0}, bad])
    with pytest.raises(UserError, match=r"step 7 .* kl is 'far'"):
        alarms([{"step": 7, "kl": "far"}])


# --------------------------------------------------------------------------- when to stop


def evaluations(*values: float, error: float | None = 0.03) -> Rows:
    """The standard error of a difference is error x sqrt(2): twice that is 0.085."""
    return [
        {"step": 5 * i, "heldout_reward": v, **({} if error is None else {"heldout_reward_error": error})}
        for i, v in enumerate(values)
    ]


@pytest.mark.parametrize(
    "values, patience, stops",
    [
        ((0.1, 0.5, 0.41, 0.41), 2, True),
        ((0.1, 0.5, 0.42, 0.42), 2, False),  # by less than two errors
        ((0.1, 0.5, 0.41), 2, False),
        ((0.1, 0.5, 0.41), 1, True),
        ((0.1, 0.5, 0.3, 0.49, 0.3), 2, False),  # not in a row
        ((0.1, 0.5, 0.3, 0.3, 0.3), 3, True),
        ((0.1, 0.5, 0.3, 0.3, 0.51), 2, False),  # back
        ((0.5, 0.3, 0.3), 2, True),  # the base was best
        ((), 2, False),
        ((0.5,), 1, False),
    ],
)
def test_when_to_stop(values: tuple[float, ...], patience: int, stops: bool) -> None:
    said = stop_reason(evaluations(*values), patience)
    assert bool(said) == stops
    if stops:
        assert f" at step {5 * values.index(max(values))} and is " in said and "0.03" in said


def test_what_is_no_evaluation_does_not_stop() -> None:
    falling = (0.1, 0.5, 0.3, 0.3)
    assert stop_reason(evaluations(*falling, error=None)) == ""
    rows = evaluations(*falling)
    assert stop_reason([*rows, {"step": 99, "reward": 1.0}])
    assert stop_reason([*rows, {"step": 99, "heldout_reward": math.nan, "heldout_reward_error": 0.1}])
    wrong: tuple[dict[str, Any], ...] = ({"patience": 0}, {"errors": 0.0}, {"errors": math.nan})
    for bad in wrong:
        with pytest.raises(UserError, match="patience"):
            stop_reason(rows, **bad)


def mistakes(errors: float, rise: float = 0.0, runs: int = 400, count: int = 10) -> float:
    """The share of runs ended at some evaluation, where the truth rises by `rise` standard errors at each."""
    values = np.random.default_rng(0).normal(0, 1, (runs, count)) + rise * np.arange(count)
    rows = [evaluations(*v, error=1.0) for v in values.tolist()]
    return float(np.mean([any(stop_reason(r[:n], errors=errors) for n in range(3, count + 1)) for r in rows]))


def test_how_often_chance_ends_a_run() -> None:
    """As the docstring says: 9% of runs of ten evaluations, 0.1% with three. 0.043 is three errors of 400 runs."""
    assert mistakes(2.0) == pytest.approx(0.09, abs=0.043)
    assert mistakes(3.0) <= 0.01
    assert mistakes(2.0, rise=-2.0) == 1.0


def test_many_rows_are_quick() -> None:
    """Linear in the rows: 20,000 take about a second, where the square of it would take minutes."""
    rows = run(rows=20_000)
    begun = time.perf_counter()
    alarms(rows)
    assert time.perf_counter() - begun < 20
