"""Samples that are drawn again until they are valid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Space, UserError, events
from afresh.engine.alignment.best_of_n import CANDIDATE_STRIDE, Draw, Rows
from afresh.runs.run import join

ATTEMPTS = 50  # for each sample, at most


def valid_samples(
    draw: Draw, cond: Cond, accept: Callable[[Any], bool], space: Space, first: int = 0
) -> tuple[Rows, Tensor, list[dict[str, Any]]]:
    """The first sample of each request that is accepted, the requests (n,) that have one, and a record for each: the
    number of `attempts`. `first`: the number of the first sample.

    Attempt k of sample i is the candidate k of `best_of`, so that a sample that is valid at once is the same without
    this control. Requests without a valid sample within ATTEMPTS are left out with a warning. Raises UserError if that
    is all of them.
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
        advice = "Train longer, or draw without `valid` to see them."
        none = f"{len(pending):,} of {cond.size:,} samples were not valid in {ATTEMPTS} attempts each"
        if not found:
            raise UserError(f"{none}. {advice}")
        events.warning(f"{none}, and are left out; the other {len(found):,} are kept. {advice}", "not_valid")
    kept = sorted(found)
    order = [found[i] for i in kept]
    rows = join([r.x[place : place + 1] for r, place, _ in order], space)
    written = [r.written[place] for r, place, _ in order if r.written]
    values = [r.values[place] for r, place, _ in order]
    return Rows(values, rows, written), torch.tensor(kept), [{"attempts": n} for *_, n in order]


def valid_line(attempts: list[int]) -> str:
    """A line with the share of all drawn samples that are valid."""
    return f"{len(attempts):,} valid samples of {sum(attempts):,} drawn: {len(attempts) / sum(attempts):.1%} are valid"
