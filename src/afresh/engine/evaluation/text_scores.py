"""What judges of texts and of programs ask of their scores."""

from __future__ import annotations

from collections.abc import Mapping

from afresh.core import Score
from afresh.engine.evaluation.verdict import VERBATIM, place, share_of_floor

REPEATED = 0.4  # collapsed: distinct three-word sequences are below this share of their floor
PREDICTED = 0.65  # good: bits per byte are below this share of those of lzma after the training text


def repeated(scores: Mapping[str, Score]) -> float | None:
    """The variety of texts as a share of that of real ones, if they repeat themselves; else None."""
    distinct = share_of_floor(scores.get("distinct_3"))
    return distinct if distinct < REPEATED else None


def copied_share(scores: Mapping[str, Score]) -> float | None:
    """The share of texts that occur in the training texts, if it is above that of held-out ones; else None."""
    copied = scores.get("verbatim_50")
    if copied is None:
        return None
    between = place(copied)
    return copied.value if (copied.value if between is None else 1 - between) > VERBATIM else None


def predicts_well(scores: Mapping[str, Score]) -> bool:
    """Whether unseen text is predicted far better than by a compressor."""
    bits = scores.get("bits_per_byte")
    return bits is not None and bits.control is not None and bits.value < PREDICTED * bits.control
