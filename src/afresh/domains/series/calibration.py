"""How much wider or narrower the intervals of forecasts must be to hold what they say, from forecasts of what was held
out.

A member of a forecast is moved away from the median, or towards it, so that the 50 and the 90% intervals of each step
ahead hold half and nine tenths of the values of the earlier part of what is held out: split conformal prediction with
the distance from the median in units of the interval's half on its side as the score (Lei et al. 2018; Romano et al.
2019, CQR, in units of the width). Series change, so that the shares hold for what comes as far as it resembles that
part; the report tells them of the later part, which has no say in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from afresh.core import Item
from afresh.core.safe_json import read_model
from afresh.core.space import evenly_spaced
from afresh.data.storage.files import replace_file
from afresh.domains.series.known import Layout
from afresh.domains.series.scores import INTERVALS, Array
from afresh.engine.evaluation.estimate import held_between
from afresh.runs.manifest import FITTED_FOLDER
from afresh.runs.run import Run

FILE = f"{FITTED_FOLDER}/intervals.json"
REFERENCE = 64  # members whose quantiles tell how far apart all are, so that one does not depend on their number
ORIGINS, LEAST = 32, 3  # windows at most; stretches as long as the horizon that do not overlap at least
SEED = 1_000_004
SMALL = 1e-9
Factor = Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)]


def few_members(members: int) -> tuple[str, ...]:
    """What to know of the 90% intervals of less than REFERENCE members."""
    if members >= REFERENCE:
        return ()
    return (
        f"The 90% intervals are those of {members} members, which hold about {held_between(members, 0.9):.0%} of what "
        f"comes. With more `members`, they hold more: {held_between(200, 0.9):.0%} with 200.",
    )


class Widening(BaseModel):
    """By how much the 50 and the 90% intervals of each step ahead are wider than those that are drawn."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    half: tuple[Factor, ...] = Field(min_length=1, max_length=1 << 16)
    most: tuple[Factor, ...] = Field(min_length=1, max_length=1 << 16)


def divided_in_time(items: Sequence[Item], layout: Layout) -> tuple[list[int], list[int]]:
    """The numbers of held-out windows whose horizon lies in the earlier half of what is held out of their series, and
    in the later half. All are later ones if the earlier half holds fewer than LEAST horizons."""
    places: dict[str, list[tuple[int, int]]] = {}
    for number, item in enumerate(items):
        name, begin = item.images["place"]
        places.setdefault(name, []).append((begin, number))
    early, late, room = [], [], 0
    for found in places.values():
        begins = [begin for begin, _ in found]
        middle = (min(begins) + max(begins) + layout.horizon) / 2  # of all horizons, less the context
        early += [number for begin, number in found if begin + layout.horizon <= middle]
        late += [number for begin, number in found if begin >= middle]
        room += int((middle - min(begins)) // layout.horizon)
    return (early, sorted(late)) if room >= LEAST and late else ([], list(range(len(items))))


def around(members: Array) -> tuple[Array, Array, Array]:
    """The medians (..., H) of members (M, ..., H), and on each side of them, (2, ..., H), how far the ends of the
    50 and of the 90% intervals are."""
    ends = [p for pair in INTERVALS.values() for p in pair]
    middle, *found = np.quantile(members[:REFERENCE], [0.5, *ends], axis=0)
    half, most = (np.abs(np.stack(found[k : k + 2]) - middle) for k in (0, 2))
    return middle, half, most


def widening(members: Array, truth: Array, smooth: int) -> Widening:
    """Of members (M, N, C, H) of N windows and what came (N, C, H); each step ahead shares the values of those that are
    up to `smooth` steps from it."""
    middle, *widths = around(members)
    above = truth >= middle
    factors: list[tuple[float, ...]] = []
    for share, width in zip(INTERVALS, widths, strict=True):
        score = np.abs(truth - middle) / np.maximum(np.where(above, width[1], width[0]), SMALL)
        near = (score[..., max(0, k - smooth) : k + smooth + 1] for k in range(score.shape[-1]))
        factors.append(tuple(float(np.clip(np.nanquantile(s, share), SMALL, 100)) for s in near))
    return Widening(half=factors[0], most=factors[1])


def widened(members: NDArray[Any], by: Widening) -> NDArray[Any]:
    """Members (M, ..., H), with H beyond the steps that were calibrated as the last of these. Their order stays, and so
    does what all of them have in common, as values that are given."""
    middle, half, most = around(members.astype(np.float64))
    steps = np.minimum(np.arange(members.shape[-1]), len(by.half) - 1)
    near, far = np.asarray(by.half)[steps], np.asarray(by.most)[steps]
    away = members - middle
    inner, outer = (np.where(away >= 0, w[1], w[0]) for w in (half, most))
    slope = np.maximum(far * outer - near * inner, 0) / np.maximum(outer - inner, SMALL)
    distance = np.abs(away)
    moved = np.where(distance <= inner, near * distance, near * inner + slope * (distance - inner))
    return (middle + np.sign(away) * moved).astype(members.dtype)


def horizons(run: Run, items: Sequence[Item], members: int, seed: int) -> Array:
    """Members (M, N, C, H) of the horizon of each window, as the run draws them, in the units of the data."""
    encoder: Any = run.encoder
    cond = encoder.encode(items).cond.repeat(members)
    drawn = run.draw(run.modules, cond, seed, run.settings({}), torch.arange(cond.size))
    found = encoder.physical(drawn).astype(np.float64).reshape(len(items), members, *encoder.space.shape)
    return np.ascontiguousarray(found[..., encoder.layout.context :].swapaxes(0, 1))


def calibrate(run: Run, heldout: Sequence[Item]) -> None:
    """Write how much intervals are to be widened into the run's folder, if enough is held out."""
    encoder: Any = run.encoder
    file, (early, _) = run.path / FILE, divided_in_time(heldout, encoder.layout)
    if not early:
        file.unlink(missing_ok=True)
        return
    items = [heldout[early[i]] for i in evenly_spaced(len(early), min(ORIGINS, len(early))).tolist()]
    truth = np.stack([np.asarray(i.value, np.float64)[:, encoder.layout.context :] for i in items])
    if not np.isfinite(truth).any((0, 1)).all():
        return
    found = widening(horizons(run, items, REFERENCE, SEED), truth, encoder.layout.period // 2)
    file.parent.mkdir(exist_ok=True)
    replace_file(file, found.model_dump_json().encode())


def widening_of(run: Run) -> Widening | None:
    """That of a run; None if none was found. Raises UserError if its file is damaged."""
    file = run.path / FILE
    return read_model(file, Widening, "the calibration of a run on series") if file.is_file() else None
