"""A measurement within some seconds: what it still does, what it leaves out, and what it reports."""

from __future__ import annotations

import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from afresh.core.events import Event, listening
from afresh.domains.image.metrics import METRICS
from afresh.engine.evaluation import time_budget
from afresh.engine.evaluation.study import measure
from afresh.engine.evaluation.time_budget import LATE, Effort, OutOfTime
from afresh.engine.evaluation.verdict import KnownFacts, verdict
from tests.engine.evaluation.evidence import digit_evidence


def test_without_a_limit_everything_is_done_and_nothing_is_tried() -> None:
    effort = Effort()
    assert effort.affordable(300, 20, 0.3, lambda: pytest.fail("tried")) == 300
    assert effort.left() is None and not effort.over


def test_with_a_limit_there_is_as_much_as_fits_and_never_less_than_the_least() -> None:
    assert Effort(seconds=1e9).affordable(300, 20, 0.3, lambda: None) == 300
    assert Effort(seconds=0.0).affordable(300, 20, 0.3, lambda: None) == 20
    assert Effort(seconds=1e9).affordable(5, 20, 0.3, lambda: pytest.fail("tried")) == 5
    calls: list[int] = []

    def slow() -> None:
        calls.append(1)
        time.sleep(0.02)

    fits = Effort(seconds=2.0).affordable(300, 2, 0.5, slow)
    assert 2 <= fits <= 50 and len(calls) <= 2  # at most one second's worth of 20 ms


def test_progress_is_reported_seldom_and_ends() -> None:
    raised: list[Event] = []
    with listening(raised.append):
        effort = Effort("digits", seconds=100.0)
        for step in range(50):
            effort.report("an encoder learns", step / 50)
        effort.report("", 1.0, ended=True)
    assert len(raised) <= 4 and all((e.kind, e.code) == ("progress", "measuring") for e in raised)
    assert raised[0].fields["stage"] == "an encoder learns" and 0 < raised[0].fields["seconds_left"] <= 100
    assert raised[-1].fields["ended"] and "measured in" in raised[-1].text


def test_when_the_seconds_are_over_only_the_metrics_of_the_verdict_are_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time_budget, "GRACE", 1e9)
    evidence = digit_evidence("real")
    late = measure(evidence, METRICS, 40, modality="image", sampling={}, effort=Effort(seconds=0.0))
    assert {m.name for m in METRICS if m.brief} == {m.name for m in METRICS} - set(late.skipped)
    assert set(late.skipped.values()) == {LATE}
    assert any("learnt for 20 of" in note for note in late.notes)


def test_what_is_late_is_ended_at_the_next_evaluation_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(time_budget, "time", clock)
    net, calls, raised = nn.Linear(1, 1), 0, list[Event]()
    effort = Effort("digits", seconds=30.0, begun=0.0)
    effort.report("samples are drawn", 0.5)
    with listening(raised.append), pytest.raises(OutOfTime, match="keep the minutes"), effort.bounded():
        while calls < 100:
            net(torch.zeros(1, 1))
            calls, clock.now = calls + 1, clock.now + 7.0
    assert calls == 9, "the evaluation at 56 s is the last one within twice the 30 seconds"
    assert [e.fields["seconds_left"] for e in raised[:3]] == [23.0, 16.0, 9.0], "each evaluation reports progress"
    assert {e.fields["stage"] for e in raised} == {"samples are drawn"}
    net(torch.zeros(1, 1))


def test_a_part_gets_half_of_the_seconds_that_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=10.0, monotonic=lambda: clock.now)
    monkeypatch.setattr(time_budget, "time", clock)
    part = Effort("digits", seconds=30.0, begun=0.0).half()
    assert part.left() == 10.0
    clock.now = 20.0
    assert part.over and Effort("digits", seconds=30.0, begun=0.0).left() == 10.0
    assert Effort().half().left() is None


def test_a_verdict_that_does_not_fit_the_minutes_names_the_command_that_measures_it() -> None:
    some = measure(digit_evidence("real"), METRICS, 40, modality="image", sampling={}, effort=Effort(seconds=0.0))
    late = replace(some, scores=(), failed={m.name: LATE for m in METRICS})
    word = verdict(late, KnownFacts("images", run="runs/x"))
    assert (word.word, word.command) == (
        "not measured",
        "afresh measure runs/x",
    ) and "keep the minutes" in word.sentence
