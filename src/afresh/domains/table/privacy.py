"""Whether synthetic rows give training rows away: exact copies, rows nearer to training rows than chance has it, and an
attack that guesses who was in the training data.

None of this is a proof, as differential privacy would be: it finds what these attacks find.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from afresh.domains.table.frame import Floats, Frame
from afresh.domains.table.row import Row

BLOCK = 500  # rows whose distances are held at a time


def copies(rows: Sequence[Row], known: Sequence[Row]) -> int:
    """How many rows are equal to one of the known ones."""
    every = {row.cells for row in known}
    return sum(row.cells in every for row in rows)


def ranked(reference: Frame, frame: Frame) -> list[Floats]:
    """Columns (N,) in which numbers are their share of the reference's below them, so that all columns weigh alike."""
    out = []
    for known, column, levels in zip(reference.columns, frame.columns, frame.levels, strict=True):
        if levels:
            out.append(column)
            continue
        ordered = np.sort(known[~np.isnan(known)])
        places = (np.searchsorted(ordered, column, "left") + np.searchsorted(ordered, column, "right")) / 2
        out.append(np.where(np.isnan(column), np.nan, places / max(1, len(ordered))))
    return out


def nearest(reference: Frame, rows: Frame, known: Frame) -> Floats:
    """The distance of each row to the nearest known one, (N,): the mean over columns of the difference of ranks, and of
    0 or 1 for categories and where one is missing (Gower 1971)."""
    a, b = ranked(reference, rows), ranked(reference, known)
    out = []
    for start in range(0, len(rows), BLOCK):
        total = np.zeros((min(BLOCK, len(rows) - start), len(known)), np.float32)
        for x, y, levels in zip(a, b, rows.levels, strict=True):
            x, y = x[start : start + BLOCK, None].astype(np.float32), y[None].astype(np.float32)
            if levels:
                total += x != y
            else:
                apart = np.abs(x - y)
                lost = np.isnan(apart)
                total += np.where(lost, (np.isnan(x) != np.isnan(y)).astype(np.float32), apart) if lost.any() else apart
        out.append(total.min(1) / len(a))
    return np.concatenate(out).astype(np.float64)


def membership(reference: Frame, members: Frame, others: Frame, synthetic: Frame) -> tuple[Floats, Floats]:
    """The attack's score of each member and of each other row: how near the nearest synthetic row is (Chen et al. 2020,
    GAN-Leaks, sec. 4.1, the attack that sees samples alone)."""
    return -nearest(reference, members, synthetic), -nearest(reference, others, synthetic)
