"""Whether scores decide a verdict: what else the word could be, given their intervals, and what would decide it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from afresh.core import Judgement, Question, Score, Word
from afresh.core.plural import digits
from afresh.engine.evaluation.score_descriptions import words_of

Judge = Callable[[Mapping[str, Score], str], Judgement | None]
STEPS = 20  # of the bisection for the value at which the word changes


@dataclass(frozen=True)
class Doubt:
    """Another word that the intervals of the scores allow.

    score: the one whose interval allows it. border: its value at which the word changes. times: how many times the
    observations would exclude it, if the score keeps its value. heldout: whether these are held-out items, which are
    given, and not samples, of which more can be drawn.
    """

    word: Word
    score: Score
    border: float
    times: float
    heldout: bool

    def sentence(self, word: Word, modality: str) -> str:
        """Why `word` is not settled, with the score, its interval and the border."""
        score, side = self.score, "above" if self.border < self.score.value else "below"
        return (
            f'The verdict "{word}" is not settled. It holds only if this score is {side} {digits(self.border)}: '
            f"{words_of([score.name], modality)[score.name].name}. Measured on {score.n:,}, it is "
            f"{digits(score.value)}, and its interval reaches from {digits(score.low)} to {digits(score.high)}."
        )


def doubt_of(judge: Judge, scores: Mapping[str, Score], plural: str, word: Word, modality: str = "") -> Doubt | None:
    """The most stubborn doubt about a judge's word; None where every value within the intervals gives the same.

    One score at a time is moved to an end of its interval. The width of an interval falls with the square root of the
    number of observations, so the place in it at which the word changes says how many are needed.
    """
    doubts = []
    for name, score in scores.items():
        for end in (score.low, score.high):
            if end is None or not math.isfinite(end) or end == score.value:
                continue

            def said(share: float, name: str = name, score: Score = score, end: float = end) -> Word | None:
                moved = replace(score, value=score.value + share * (end - score.value))
                found = judge({**scores, name: moved}, plural)
                return None if found is None else found[0]

            other = said(1.0)
            if other in (None, word, "cannot tell"):
                continue
            same, changed = 0.0, 1.0
            for _ in range(STEPS):
                middle = (same + changed) / 2
                same, changed = (middle, changed) if said(middle) in (word, "cannot tell") else (same, middle)
            heldout = words_of([name], modality)[name].question == Question.PREDICTS
            border = score.value + changed * (end - score.value)
            doubts.append(Doubt(said(changed) or word, score, border, changed**-2, heldout))
    return max(doubts, key=lambda d: d.times, default=None)
