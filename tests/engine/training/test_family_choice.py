"""The choice of a family: curves between measurements, and what is chosen for few and for many examples."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from afresh.core import Space, registry
from afresh.engine.training import family_choice
from afresh.engine.training.family_choice import Reached, ReachedTable, choose, curves_for, shortfall, table
from afresh.engine.training.plan import Task, Trial
from tests.contracts.rows import examples

PICTURES = Space("field", (3, 64, 64), std=0.5, axes=("height", "width"))


def row(family: str, seen: int, score: float, data: str = "photos", items: int = 200, side: int = 64) -> Reached:
    return Reached(data=data, timed=False, items=items, side=side, family=family, examples=seen, score=score)


KNOWN = ReachedTable(
    [
        row("vae", 1000, 1000),
        row("vae", 4000, 500),
        row("flow", 4000, 1600),
        row("flow", 16000, 400),
        row("flow", 64000, 100),
        row("vae", 1000, 77, "digits", 1500, 8),
    ],
    {"photos": 800.0, "digits": 50.0},
)


def test_curves_pass_through_the_measurements_and_are_straight_in_logarithms() -> None:
    curves = curves_for(PICTURES, 200, KNOWN)
    assert curves is not None and curves.data == "photos"
    assert curves.expected("vae", 1000) == pytest.approx(1000)
    assert curves.expected("vae", 2000) == pytest.approx(707.1, rel=1e-3)  # half-way between 1,000 and 500
    assert curves.expected("flow", 32000) == pytest.approx(200)
    assert curves.expected("vae", 8000) == pytest.approx(353.6, rel=1e-3)  # as between the last two measurements ...
    assert curves.expected("vae", 10**9) == pytest.approx(250)  # ... for two doublings
    assert curves.expected("flow", 2000) == pytest.approx(1600 * 1.5)  # fourfold for 4 times is steeper than assumed
    assert curves.expected("vae", 500) == pytest.approx(1000 * 2**0.5)


def test_enough_examples_are_those_at_which_samples_become_recognisable() -> None:
    curves = curves_for(PICTURES, 200, KNOWN)
    assert curves is not None
    assert curves.enough("flow") == 8000 and curves.enough("vae") == pytest.approx(1561, abs=2)
    small = curves_for(Space("field", (1, 8, 8), axes=("height", "width")), 1500, KNOWN)
    assert small is not None and small.data == "digits" and small.enough("vae") is None


def test_nothing_is_known_of_tokens_and_waves() -> None:
    assert curves_for(Space("tokens", (64,), vocab=(10,)), 100, KNOWN) is None
    assert curves_for(Space("field", (1, 8000), axes=("time",)), 100, KNOWN) is None


def task(family: str, seconds: float) -> Task:
    space = Space("field", (1, 8, 8), axes=("height", "width"))
    known: dict[str, Any] = {"conds": {}, "machine": None, "seed": 0, "set_family": {}, "set_train": {}}
    return Task(
        registry.family(family), space, examples=examples(space), seconds=seconds, steps=None, tokens=None, **known
    )


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each family sees 100 examples in a second."""

    def sized(given: Task) -> Trial:
        assert given.seconds is not None
        return Trial(given, None, SimpleNamespace(batch=1), 0.01, round(100 * given.seconds))  # type: ignore[arg-type]

    monkeypatch.setattr(family_choice, "sized", sized)
    monkeypatch.setattr(family_choice, "smallest_trial", sized)


@pytest.mark.usefixtures("speeds")
@pytest.mark.parametrize(("seconds", "family"), [(10, "vae"), (60, "vae"), (400, "flow"), (2000, "flow")])
def test_the_family_that_reaches_most_in_the_minutes_is_chosen_and_explained(seconds: float, family: str) -> None:
    curves = curves_for(PICTURES, 200, KNOWN)
    assert curves is not None
    chosen, (decision,) = choose(task("flow", seconds), curves)
    assert chosen.task.family.name == decision.value == family
    assert f"after the {100 * seconds:,} that it would see" in decision.reason and "photos" in decision.reason


@pytest.mark.usefixtures("speeds")
def test_a_family_of_the_user_with_too_few_minutes_is_told_what_works() -> None:
    curves = curves_for(PICTURES, 200, KNOWN)
    assert curves is not None
    text = shortfall(family_choice.sized(task("flow", 30)), curves)
    assert text is not None and "3,000 examples" in text and "about 8,000" in text
    assert "`minutes=2`" in text and "`family=vae`" in text
    assert shortfall(family_choice.sized(task("flow", 200)), curves) is None
    assert shortfall(family_choice.sized(task("gan", 1)), curves) is None  # of which nothing was measured


def test_the_table_of_this_version_can_be_read_and_names_only_known_families() -> None:
    ours = table()
    assert {r.family for r in ours.rows} <= set(registry.family_names())
    assert {r.data for r in ours.rows} == set(ours.recognisable)
    for r in ours.rows:
        points = [x.examples for x in ours.rows if (x.data, x.family) == (r.data, r.family)]
        assert len(points) == len(set(points))
