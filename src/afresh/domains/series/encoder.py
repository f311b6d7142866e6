"""Windows in units of each column's deviation and back, with what is told of each as a condition."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from afresh.core import Abilities, Batch, Cond, CondSpec, Examples, Item, Space, UserError
from afresh.core.rng import Rng
from afresh.data.encoder_file import FileEncoder, with_tuples
from afresh.domains.series.calibration import calibrate
from afresh.domains.series.kind import SERIES
from afresh.domains.series.known import Layout, hidden, part_of
from afresh.domains.series.reading.step import Step, step_of, written_time

TOLD = "told"  # the condition that holds what is known of each column of a window
BESIDE = "beside"  # and that which holds columns known in advance and the calendar
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MOST_DIGITS = 9  # after the point, beyond which numbers are not rounded
Size = Annotated[int, Field(ge=1, le=1 << 20)]


@dataclass(frozen=True, kw_only=True)
class SeriesEncoder(FileEncoder):
    """Arrays (C, L) with NaN for what is missing, to fields of about unit deviation in each channel, and back. `mean`,
    `std`: of each channel, and `known` of each column known in advance. `digits`: after the point, of each channel that
    is rounded, and `floors`, below which it never is; both are empty in runs of earlier versions.

    `Item.images` holds the phases of the calendar, (2 cycles, L), the columns that are known in advance, (D, L), and
    the place of the window: the name of its series, and the step at which it begins.
    """

    format: Literal["afresh.series"] = "afresh.series"
    version: Literal[1] = 1
    columns: tuple[str, ...]
    step: str
    counted: bool
    context: Size
    horizon: Size
    period: Size
    cycles: tuple[Literal["day", "week", "year"], ...]
    known: dict[str, tuple[Number, Positive]]
    mean: tuple[Number, ...]
    std: tuple[Positive, ...]
    digits: tuple[Annotated[int, Field(ge=0, le=MOST_DIGITS)] | None, ...] = ()
    floors: tuple[Number | None, ...] = ()
    conds: CondSpec
    options: dict[str, Any]
    notes: tuple[str, ...] = ()
    later = ("digits", "floors")
    kind = SERIES
    suffix = ".csv"
    abilities = Abilities(family="ensemble", calibrate=calibrate)

    @cached_property
    def layout(self) -> Layout:
        extra = len(self.known) + 2 * len(self.cycles)
        return Layout(len(self.mean), extra, self.context, self.horizon, self.period)

    @property
    def grid(self) -> Step:
        return step_of(self.step, self.counted)

    @property
    def space(self) -> Space:
        return Space("field", (self.layout.channels, self.layout.length), axes=("step",))

    @property
    def settled(self) -> Mapping[str, Any]:
        """How other data is read in the same way."""
        return with_tuples(self.options)

    def unit(self, values: NDArray[Any]) -> Tensor:
        """Values (..., C, L) in units of each channel's deviation; NaN stays."""
        mean, std = (np.asarray(v)[:, None] for v in (self.mean, self.std))
        return torch.from_numpy(np.asarray((np.asarray(values, np.float64) - mean) / std, np.float32))

    def physical(self, x: Tensor) -> NDArray[np.float32]:
        """Windows (..., C, L) in the units of the data."""
        mean, std = (np.asarray(v)[:, None] for v in (self.mean, self.std))
        return self.allowed(x.detach().cpu().double().numpy() * std + mean)

    def allowed(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Values (..., C, L) as the columns can have them: with their digits, so that counts are whole, and none below
        the floor of its column."""
        out = np.array(values, np.float64)
        for c, (digits, floor) in enumerate(zip(self.digits, self.floors, strict=True)):
            if digits is not None:
                out[..., c, :] = np.round(out[..., c, :], digits) + 0.0
            if floor is not None:
                out[..., c, :] = np.maximum(out[..., c, :], floor)
        return np.asarray(out, np.float32)

    def written(self, values: NDArray[Any], channel: int, more: int = 0) -> NDArray[np.float64]:
        """Values of a channel with as many digits as its column has, and `more`; where that is not known, with those
        that float32 tells apart."""
        digits = self.digits[channel] if self.digits else None
        if digits is None:
            return np.asarray(values, np.float32).astype(str).astype(np.float64)
        return np.asarray(np.round(np.asarray(values, np.float64), digits + more) + 0.0, np.float64)

    def word(self, value: float, channel: int) -> str:
        """A value for people, to four digits; that of a whole column as it is."""
        return f"{value:.0f}" if self.digits and self.digits[channel] == 0 else f"{value:.4g}"

    def extra(self, item: Item) -> Tensor:
        """(E, L): the columns known in advance in units of their deviation, 0 where missing, and the phases."""
        length = self.layout.length
        known = np.asarray(item.images.get("known", np.zeros((0, length))), np.float64)
        calendar = np.asarray(item.images.get("calendar", np.zeros((0, length))), np.float32)
        if known.shape != (len(self.known), length) or calendar.shape != (2 * len(self.cycles), length):
            raise UserError(
                f"{item.source} has {len(known)} columns known in advance and {len(calendar)} phases of the calendar, "
                f"and the model is told {len(self.known)} and {2 * len(self.cycles)}."
            )
        scales = list(self.known.values())
        rows = [np.nan_to_num((row - mean) / std) for row, (mean, std) in zip(known, scales, strict=True)]
        return torch.from_numpy(np.concatenate([np.asarray(rows, np.float32).reshape(-1, length), calendar]))

    def encode(self, items: Sequence[Item]) -> Examples:
        """x (N, C, L), float32, with what stands for missing values in their places. Every value of the context that is
        there is known, and every one of the horizon is to be drawn; in training other values are hidden as well
        (`known.hidden`). Raises UserError for a window of another shape."""
        for item in items:
            if item.value.shape != self.space.shape:
                raise UserError(f"{item.source} is a window of shape {item.value.shape}, not {self.space.shape}.")
        if not items:
            return Examples(torch.zeros(0, *self.space.shape), Cond.unconditional(self.conds, 0))
        x = torch.stack([self.unit(item.value) for item in items])
        extra = torch.stack([self.extra(item) for item in items])
        there = torch.isfinite(x)
        future = torch.arange(self.layout.length) >= self.layout.context
        x, cond = self.told(x, there & ~future, there & future, extra)
        return Examples(x, cond, bytes=x.numel() * 4, vary=self.vary)

    def told(self, x: Tensor, known: Tensor, drawn: Tensor, extra: Tensor) -> tuple[Tensor, Cond]:
        """x (B, C, L) with what stands for values that are neither known nor drawn, and the condition."""
        part = part_of(x, known, drawn, self.layout.period)
        c = self.layout.channels
        x = torch.where(known | drawn, x, part[:, -2 * c : -c])
        parts = {TOLD: part, BESIDE: extra} if self.layout.extra else {TOLD: part}
        return x, Cond(len(x), parts, {name: torch.ones(len(x), dtype=torch.bool) for name in parts})

    def vary(self, batch: Batch, rng: Rng) -> Batch:
        """The batch with other values hidden, by the number of each draw."""
        part, layout = batch.cond.parts[TOLD], self.layout
        there = layout.known(part) | layout.drawn(part)
        hide = hidden(layout, rng, batch.index) & there
        extra = batch.cond.parts[BESIDE] if layout.extra else batch.x[:, :0]
        x, cond = self.told(batch.x, there & ~hide, hide, extra)
        return replace(batch, x=x, cond=cond)

    def decode(self, x: Tensor) -> list[Any]:
        return list(self.physical(x))

    def valid(self, value: Any) -> bool:
        """Whether the value is an array of the space's shape with finite numbers."""
        return isinstance(value, np.ndarray) and value.shape == self.space.shape and bool(np.isfinite(value).all())

    def content(self, value: Any, name: str) -> bytes:
        """A table of CSV with its steps counted from 0, or as times from 1 January 2000."""
        grid = self.grid
        first = 0.0 if grid.counted else float(np.ceil(grid.places(np.array([946_684_800.0]))[0]))
        times = grid.times(first + np.arange(value.shape[1], dtype=np.float64))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["time", *self.columns])
        for moment, row in zip(times.tolist(), value.T, strict=True):
            cells = ["" if np.isnan(v) else np.format_float_positional(v, trim="-") for v in row]
            writer.writerow([written_time(moment, grid.counted), *cells])
        return text.getvalue().encode()
