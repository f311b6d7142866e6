"""The scores of two runs beside each other, where they were measured alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from afresh.core import Score, UserError
from afresh.engine.evaluation.card import ProtocolCard, compare
from afresh.engine.evaluation.score_descriptions import words_of

SCORES = TypeAdapter(list[Score])


@dataclass(frozen=True)
class RunPair:
    """A score of two runs. `better`: which of them is nearer to what is wanted by more than their intervals; empty if
    that cannot be said."""

    name: str
    meaning: str
    first: Score
    second: Score
    better: Literal["first", "second", ""]


def scores_in(facts: Mapping[str, Any]) -> list[Score]:
    """The scores of a run's facts (verbs/capabilities.py); none if its report holds something else."""
    try:
        return SCORES.validate_python(facts["measures"])
    except ValidationError:
        return []


def card_in(facts: Mapping[str, Any]) -> ProtocolCard | None:
    """How they were measured; None if the run was not measured, or its report is of another version."""
    try:
        return ProtocolCard.model_validate({k: v for k, v in facts["card"].items() if k != "id"})
    except ValidationError:
        return None


def compare_runs(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[RunPair]:
    """The main scores that both have. `first`, `second`: facts of runs.

    Raises UserError, saying what differs, if they were not measured alike; settings of sampling may differ where the
    families do, since each has its own.
    """
    cards = card_in(first), card_in(second)
    if cards[0] is None or cards[1] is None:
        raise UserError(
            "Only models that were measured can be compared. Measure the other one first: `model.measure()`.",
            "not_measured",
        )
    compare(cards[0], cards[1], ("sampling",) if first["family"] != second["family"] else ())
    others = {s.name: s for s in scores_in(second)}
    both = [(s, others[s.name]) for s in scores_in(first) if s.name in others and "/" not in s.name]
    words = words_of((a.name for a, _ in both), cards[0].modality)
    return [RunPair(words[a.name].name, words[a.name].meaning, a, b, better(a, b)) for a, b in both]


def better(first: Score, second: Score) -> Literal["first", "second", ""]:
    """Which score is better, if its interval does not touch that of the other; empty without intervals."""
    ends: Sequence[float | None] = (first.low, first.high, second.low, second.high)
    if first.better == "none" or None in ends:
        return ""
    a_low, a_high, b_low, b_high = ends
    assert a_low is not None and a_high is not None and b_low is not None and b_high is not None
    if a_high < b_low:
        return "first" if first.better == "lower" else "second"
    if b_high < a_low:
        return "second" if first.better == "lower" else "first"
    return ""
