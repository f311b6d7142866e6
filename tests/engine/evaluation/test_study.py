"""Measuring: whatever a metric raises leaves out that metric, and the others are computed."""

from __future__ import annotations

from afresh.core import Evidence, Metric, Score, UserError
from afresh.core.events import Event, listening
from afresh.engine.evaluation.study import Unmeasurable, measure
from tests.engine.evaluation.evidence import digit_evidence


def failing(name: str, error: Exception) -> Metric:
    def compute(evidence: Evidence) -> list[Score]:
        raise error

    return Metric(name, lambda kind, space, conds: None, compute)


def test_a_metric_that_raises_is_left_out_with_its_reason() -> None:
    sound = Metric("sound", lambda *_: None, lambda evidence: [Score("sound", 0.5, None, None, 2, "none")])
    metrics = [
        failing("divides", ZeroDivisionError("division by zero")),
        failing("refuses", UserError("The model gives numbers that are not finite.", "not_finite")),
        failing("cannot", Unmeasurable("there are no held-out states")),
        sound,
    ]
    raised: list[Event] = []
    with listening(raised.append):
        found = measure(digit_evidence("real"), metrics, 4, modality="image", sampling={})
    assert [s.name for s in found.scores] == ["sound"]
    assert (
        found.failed
        == found.skipped
        == {
            "divides": "ZeroDivisionError: division by zero",
            "refuses": "The model gives numbers that are not finite.",
            "cannot": "there are no held-out states",
        }
    )
    warned = [(e.kind, e.fields["metric"]) for e in raised if e.code == "metric_failed"]
    assert warned == [("warning", "divides"), ("warning", "refuses")], "a metric that says why is not a surprise"
