"""Samples that are drawn again until they are valid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from afresh.alignment.best_of_n import CANDIDATE_STRIDE, Draw, Rows
from afresh.core import Cond, Space, UserError
from afresh.runs.run import join

ATTEMPTS = 50  # for each sample, at most


def valid_samples(
    draw: Draw, cond: Cond, accept: Callable[[Any], bool], space: Space, first: int = 0
) -> tuple[Rows, list[dict[str, Any]]]:
    """The first sample of each request that is accepted, and a record for each: the number of `attempts`. `first`: the
    number of the first sample.

    Attempt k of sample i is the candidate k of `best_of`, so that a sample that is valid at once is the same without
    this control. Raises UserError if a request has no valid sample within ATTEMPTS.
    """
    pending = torch.arange(cond.size)
    found: dict[int, tuple[Rows, int, int]] = {}  # by sample: the rows it is in, its place there, its attempts
    for attempt in range(ATTEMPTS):
        drawn = draw(cond.select(pending), first + pending + attempt * CANDIDATE_STRIDE)
        good = [accept(value) for value in drawn.values]
        for place, (index, is_good) in enumerate(zip(pending.tolist(), good, strict=True)):
            if is_good:
                found[index] = (drawn, place, attempt + 1)
        pending = pending[~torch.tensor(good, dtype=torch.bool)]
        if not len(pending):
            break
    if len(pending):
        raise UserError(
            f"{len(pending):,} of {cond.size:,} samples were not valid in {ATTEMPTS} attempts each. Train longer, or "
            "draw without `valid` to see them."
        )
    order = [found[i] for i in range(cond.size)]
    rows = join([r.x[place : place + 1] for r, place, _ in order], space)
    written = [r.written[place] for r, place, _ in order if r.written]
    return Rows([r.values[place] for r, place, _ in order], rows, written), [{"attempts": n} for *_, n in order]


def valid_line(attempts: list[int]) -> str:
    """A line with the share of all drawn samples that are valid."""
    return f"{len(attempts):,} valid samples of {sum(attempts):,} drawn: {len(attempts) / sum(attempts):.1%} are valid"
