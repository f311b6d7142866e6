"""What a text-to-image model was taught, beside its base: scores, and a verdict on them.

They compare the answers of the two networks for the same held-out images, noise and times
(`afresh.engine.evaluation.base_comparison`), so that a handful of images suffices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afresh.core import CondSpec, Evidence, ItemKind, Judgement, Metric, Question, Score, ScoreWords, Space
from afresh.domains.image.verdict import copied_share
from afresh.engine.evaluation.base_comparison import DRIFT, read_answers
from afresh.engine.evaluation.image_sets import image_space
from afresh.engine.evaluation.study import Unmeasurable
from afresh.engine.evaluation.tuning_monitor import comparison_of
from afresh.engine.training.best_checkpoint import GAIN, GAIN_ERROR


def told_texts(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for images that are told a text as a vector, else the reason why not."""
    if image_space(kind, space, conds) or not any(part.kind == "vector" for part in conds.values()):
        return "measures text-to-image models that were tuned from another"
    return None


def beside_base(run: Any, evidence: Evidence) -> dict[str, float] | None:
    """The comparison of a run with its base; None if it has none."""
    codec, heldout = run.codec, evidence.heldout
    comparison = comparison_of(run, evidence.train_items, heldout if codec is None else codec.encode(heldout))
    if comparison is None:
        return None
    comparison.base = read_answers(run.path)
    return None if comparison.base is None else comparison.measure(run.modules)


def taught(evidence: Evidence) -> list[Score]:
    """Gain and drift. Raises Unmeasurable for a run without a base."""
    found = evidence.tool(beside_base)
    if found is None:
        raise Unmeasurable("the run was not tuned from a text-to-image model")
    gain, width = found[GAIN], 1.96 * found[GAIN_ERROR]
    n = len(evidence.heldout)
    return [
        Score(GAIN, gain, gain - width, gain + width, n, "higher", control=0.0),
        Score(DRIFT, found[DRIFT], None, None, n, "lower"),
    ]


def judge_taught(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on a model that was taught something; None for others."""
    gain = scores.get(GAIN)
    if gain is None or gain.low is None:
        return None
    if gain.value <= 0:
        return "unchanged", (
            f"Held-out {plural} are predicted no better than by the base (gain {gain.value:.1%}): nothing was learnt."
        )
    copied = copied_share(scores)
    if copied is not None:
        return "memorised", f"{copied:.0%} of the {plural} are near copies of training {plural}."
    drift = scores[DRIFT].value if DRIFT in scores else 0.0
    return "cannot tell", (
        f"Held-out {plural} are predicted {gain.value:.0%} better than by the base, and answers to other texts have "
        f"moved by {drift:.0%} of what another text changes. Whether it is drawn well, and unasked, only samples tell."
    )


WORDS = {
    GAIN: ScoreWords(
        "gain over the base",
        "By which share the error on held-out images is lower than the base's, for the same noise.",
        Question.PREDICTS,
    ),
    DRIFT: ScoreWords(
        "drift of other texts",
        "How far the answers to other texts have moved, as a share of how far another text moves them.",
        Question.OBEYS,
    ),
}
METRICS = (Metric("taught", told_texts, taught, brief=True, words=WORDS, judge=judge_taught),)
