"""Measuring a model: what metrics share, which of them run, and the protocol card of their scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from afresh import __version__
from afresh.core import CondSpec, Drawn, Evidence, Examples, Item, ItemKind, Metric, Score, Space, events
from afresh.core.errors import reason_of
from afresh.core.memory import give_back
from afresh.core.rng import Rng
from afresh.engine.evaluation.card import ProtocolCard, split_hash
from afresh.engine.evaluation.time_budget import LATE, Effort, OutOfTime

T = TypeVar("T")


class Unmeasurable(Exception):
    """Raised by a metric that applies to the space, but cannot be computed from this data or this model; says why."""


class Study:
    """Evidence with a fixed number of samples, which caches everything that metrics share. Implements `Evidence`."""

    def __init__(self, evidence: Evidence, n: int, folder: Path | None = None, effort: Effort | None = None) -> None:
        if n < 2:
            raise ValueError(f"measuring needs at least 2 samples, not {n}")
        self.evidence, self.n, self.folder = evidence, n, folder
        self.effort = effort or Effort()
        self.kind: ItemKind = evidence.kind
        self.space: Space = evidence.space
        self.conds: CondSpec = evidence.conds
        self.train: Examples = evidence.train
        self.heldout: Examples = evidence.heldout
        self.train_items: Sequence[Item] = evidence.train_items
        self.heldout_items: Sequence[Item] = evidence.heldout_items
        self.rng: Rng = evidence.rng
        self.likelihood, self.token_nats, self.valid = evidence.likelihood, evidence.token_nats, evidence.valid
        self.bound, self.limited = evidence.bound, self.effort.seconds is not None
        self.things = evidence.kind.plural  # what items are called in notes
        self.notes: list[str] = []
        self.judges: dict[str, str] = {}  # encoders and classifiers in use: name -> hash of the weights
        self.reference, self.reference_size = "held-out split", len(evidence.heldout_items)
        self._cache: dict[str, Any] = {}

    @cached_property
    def drawn(self) -> Drawn:
        return self.evidence.samples(self.n)

    def samples(self, n: int) -> Drawn:
        return self.drawn if n == self.n else self.evidence.samples(n)

    def tool(self, make: Callable[[Any, Evidence], T], study: Evidence | None = None) -> T:
        return self.evidence.tool(make, study or self)

    def once(self, key: str, make: Callable[[], T]) -> T:
        """The result of `make`, which is called only when `key` is requested for the first time."""
        if key not in self._cache:
            self._cache[key] = make()
        value: T = self._cache[key]
        return value

    def note(self, text: str) -> None:
        """Add a note on the scores, unless it is empty or already there."""
        if text and text not in self.notes:
            self.notes.append(text)


def study_of(evidence: Evidence) -> Study:
    """The study in which a metric runs: the evidence itself if `measure` created it, else one of a default size."""
    if isinstance(evidence, Study):
        return evidence
    return Study(evidence, max(2, min(len(evidence.heldout_items), 1000)))


@dataclass(frozen=True)
class Measurement:
    """Scores with their card, the metrics that did not run with reasons, and notes. `failed` are those of `skipped`
    that apply to the data and could not be computed."""

    card: ProtocolCard
    scores: tuple[Score, ...]
    skipped: Mapping[str, str]  # metric -> reason
    notes: tuple[str, ...]
    failed: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        """{card, metrics: [{name, value, low, high, n, better, floor, control}], skipped, notes}."""
        return {
            "card": self.card.model_dump(mode="json"),
            "metrics": [asdict(s) for s in self.scores],
            "skipped": dict(self.skipped),
            "notes": list(self.notes),
        }


def measure(
    evidence: Evidence,
    metrics: Sequence[Metric],
    n: int,
    *,
    modality: str,
    sampling: Mapping[str, str | int | float | bool | Mapping[str, float] | None],
    folder: Path | None = None,
    effort: Effort | None = None,
) -> Measurement:
    """Run the metrics that apply on n samples. Encoders are cached in `folder`, if given.

    With a limit of seconds in `effort`, encoders learn for less long, the metrics of the verdict come first, others
    whose turn comes too late are left out, and one that takes much longer than the seconds is ended.

    `sampling`: the settings with which `evidence.samples` draws, for the card. A metric that does not apply is listed
    in `skipped` with the reason, and so is one that raises an error, whatever it is: training that is done stays done.
    """
    study = Study(evidence, n, folder, effort)
    scores: list[Score] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    for metric in sorted(metrics, key=lambda m: study.limited and not m.brief):
        reason = metric.applies(study.kind, study.space, study.conds)
        if reason is None and study.effort.over and not metric.brief:
            reason = failed[metric.name] = LATE
        if reason is None:
            give_back()  # what the metric before held
            study.effort.report(metric.name.replace("_", " "))
            try:
                with study.effort.bounded():
                    scores += metric.compute(study)
                continue
            except (Unmeasurable, OutOfTime) as error:
                reason = failed[metric.name] = str(error)
            except Exception as error:
                reason = failed[metric.name] = reason_of(error)
                events.warning(f"The metric {metric.name} is left out. {reason}", "metric_failed", metric=metric.name)
        skipped[metric.name] = reason
    card = ProtocolCard(
        version=__version__,
        modality=modality,
        split=split_hash(study.train_items, study.heldout_items, study.kind),
        train_size=len(study.train_items),
        heldout_size=len(study.heldout_items),
        samples=n,
        reference=study.reference,
        reference_size=study.reference_size,
        judges=study.judges,
        seed=study.rng.seed,
        sampling=sampling,
    )
    return Measurement(card, tuple(scores), skipped, tuple(study.notes), failed)
