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


def predicts_well(scores: Mapping[str, Score]) -> tuple[bool | None, str]:
    """Whether unseen text is predicted far better than by a compressor, with both numbers in words; None if that was
    not measured."""
    bits = scores.get("bits_per_byte", scores.get("bits_per_byte/bound"))
    if bits is None or bits.control is None:
        return None, "how well unseen ones are predicted was not measured"
    most = "at most " if "/" in bits.name else ""
    numbers = f"unseen ones take {most}{bits.value:.2f} bits a byte, {bits.control:.2f} with a compressor"
    return bits.value < PREDICTED * bits.control, numbers
