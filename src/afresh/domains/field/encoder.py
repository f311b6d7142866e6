"""States of a field in units of their deviation and back, with what is told of each as conditions."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from afresh.core import Abilities, Batch, Cond, CondSpec, Examples, Item, Space, Stored, UserError
from afresh.core.rng import Rng
from afresh.core.space import evenly_spaced
from afresh.data import rows
from afresh.data.conditions import encode_conditions
from afresh.data.encoder_file import FileEncoder, with_tuples
from afresh.domains.field.kind import FIELD
from afresh.domains.field.pictures import ColourScale, Pixels, cell
from afresh.domains.field.range_seen import CUT, FACTOR, SeenRange
from afresh.domains.field.spectra import energy_spectrum
from afresh.engine.nets.persistence import bounded

PAST = "past"  # the condition that holds the states before
MOST_WINDOW = 256
Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class FieldEncoder(FileEncoder):
    """Arrays (C, *space) to fields of about unit deviation in each channel, and back. An item that is a window of
    several states has the channels of each after one another. `static`: (mean, deviation) of each input.

    `Item.images` holds the states before, as the array `PAST` (history C, *space) with the last state at its end, and
    each input that does not change, (1, *space).
    """

    format: Literal["afresh.field"] = "afresh.field"
    version: Literal[1] = 1
    channels: tuple[str, ...]
    units: tuple[str, ...]
    axes: tuple[str, ...]
    points: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...]
    spacing: tuple[Number, ...]
    step: Number
    periodic: tuple[bool, ...]
    mean: tuple[Number, ...]
    std: tuple[Positive, ...]
    history: Annotated[int, Field(ge=0, le=64)]  # states before; 0 for pairs without time
    window: Annotated[int, Field(ge=1, le=MOST_WINDOW)] = 1  # states of an item
    static: dict[str, tuple[Number, Positive]]
    seen: dict[str, tuple[Number, ...]]  # the fields of range_seen.SeenRange, of the training states
    # On a ring, the greatest energy in training of each channel and shell, and the greatest gain of a step.
    most: tuple[tuple[Number, ...], ...] = ()
    gain: tuple[Positive, ...] = ()
    conds: CondSpec
    options: dict[str, Any]
    notes: tuple[str, ...] = ()
    kind = FIELD
    suffix = ".npz"

    @property
    def abilities(self) -> Abilities:
        return Abilities(family="ensemble", pictures=self.pictures)

    @property
    def seen_range(self) -> SeenRange:
        return SeenRange(**{name: np.asarray(values, np.float64) for name, values in self.seen.items()})

    @property
    def titles(self) -> list[str]:
        """The name of each channel with its unit."""
        return [f"{name} ({unit})" if unit else name for name, unit in zip(self.channels, self.units, strict=True)]

    @property
    def inferred(self) -> Sequence[str]:
        """The last channels, which are numbers of a trajectory."""
        return tuple(self.options.get("infer", ()))

    @property
    def space(self) -> Space:
        channels, local = self.window * len(self.channels), self.history > 0
        return Space("field", (channels, *self.points), axes=self.axes, periodic=self.periodic, local=local)

    @property
    def settled(self) -> Mapping[str, Any]:
        """How other data is read in the same way."""
        return with_tuples(self.options)

    def unit(self, states: NDArray[Any]) -> Tensor:
        """States (..., C, *space), or several after one another along C, in units of each channel's deviation."""
        channels = states.shape[-1 - len(self.points)]
        mean, std = (self.along(v, channels) for v in (self.mean, self.std))
        return torch.from_numpy(np.asarray((np.asarray(states, np.float64) - mean) / std, np.float32))

    def along(self, values: Sequence[float], channels: int) -> NDArray[np.float64]:
        """A number of each channel, repeated for several states, to compute with (channels, *space)."""
        repeated = np.tile(np.asarray(values, np.float64), channels // len(values))
        return repeated.reshape(-1, *[1] * len(self.points))

    def physical(self, x: Tensor) -> NDArray[np.float32]:
        """Fields (..., C, *space) in the units of the data."""
        values = x.detach().cpu().double().numpy()
        mean, std = (self.along(v, self.space.shape[0]) for v in (self.mean, self.std))
        return np.asarray(values * std + mean, np.float32)

    def bounded(self, x: Tensor, before: Tensor) -> Tensor:
        """States (B, *space.shape) that follow those before in a rollout, of which small errors do not add up without
        end: on a ring, none has more energy at a wavenumber than states of training, none gains more in a step, and
        values are cut at CUT times their range. A state with far more energy than these after one step stays as it
        is."""
        seen = self.seen_range
        if not self.most:
            return x
        middle, half = (seen.high + seen.low) / 2, (seen.high - seen.low) / 2
        ends = (self.unit(self.along(v.tolist(), len(v))) for v in (middle - CUT * half, middle + CUT * half))
        kept = bounded(x, before, self.most, self.gain, self.points).clamp(*ends)
        most = torch.from_numpy(FACTOR**2 * seen.most_energy / np.square(self.std)).float()
        near = (x.square().flatten(2).mean(2) <= most).all(1)
        return torch.where(near.view(-1, *[1] * (x.dim() - 1)), kept, x)

    def encode(self, items: Sequence[Item]) -> Examples:
        """x (N, *space.shape), float32; of states in a file, x is a sample. Raises UserError for a state of another
        shape or a missing input."""
        noisy = self.history > 0 and self.options.get("noise", 0.0) > 0
        vary = self.vary if noisy else None
        if any(isinstance(item.value, Stored) for item in items):
            stored = rows.ItemRows(items, self.encode, self.sample(items))
            x, cond = stored.read(stored.sample)
            size = 4 * len(items) * math.prod(self.space.shape)
            return Examples(x, cond, bytes=size, vary=vary, rows=stored)
        cond = encode_conditions(items, self.conds, None)
        parts, present = dict(cond.parts), dict(cond.present)
        for name, part in self.conds.items():
            if part.kind == "aligned":
                parts[name] = torch.stack([self.aligned(item, name) for item in items])
                present[name] = torch.ones(len(items), dtype=torch.bool)
        states = [self.unit(self.checked(item)) for item in items]
        x = torch.stack(states) if states else torch.zeros(0, *self.space.shape)
        cond = replace(cond, parts=parts, present=present)
        return Examples(x, cond, bytes=x.numel() * 4, vary=vary)

    def sample(self, items: Sequence[Item]) -> Tensor:
        """The numbers of items that are held in memory of those in a file, at even distances: whole trajectories where
        states follow one another."""
        aligned = sum(math.prod(part.shape) for part in self.conds.values() if part.kind == "aligned")
        most = max(1, rows.SAMPLE // (4 * (math.prod(self.space.shape) + aligned)))
        if not self.history:
            return evenly_spaced(len(items), most)
        lengths = [len(list(same)) for _, same in groupby(items, lambda item: item.group)]
        ends = list(accumulate(lengths))
        chosen = evenly_spaced(len(ends), max(1, most // max(lengths))).tolist()
        numbers = [n for c in chosen for n in range(ends[c] - lengths[c], ends[c])]
        return torch.tensor(numbers[:most])

    def vary(self, batch: Batch, rng: Rng) -> Batch:
        """The batch with noise on the states before, keyed by the number of each draw (Sanchez-Gonzalez et al. 2020,
        section 4.2): a model then learns to return from states that are a little wrong, as its own are."""
        past = batch.cond.parts[PAST]
        noise = rng.normal("field/noise", batch.index, tuple(past.shape[1:])).to(past.device)
        parts = {**batch.cond.parts, PAST: past + float(self.options["noise"]) * noise}
        return replace(batch, cond=replace(batch.cond, parts=parts))

    def checked(self, item: Item) -> NDArray[Any]:
        if item.value.shape != self.space.shape:
            raise UserError(f"{item.source} is a state of shape {item.value.shape}, not {self.space.shape}.")
        return np.asarray(item.value)

    def aligned(self, item: Item, name: str) -> Tensor:
        """The value of an aligned part: the states before, or an input."""
        if name not in item.images:
            raise UserError(f"{item.source} has no {name}, which this model is told.")
        value, shape = np.asarray(item.images[name]), self.conds[name].shape
        if value.shape != shape:
            raise UserError(f"{item.source}: {name} has the shape {value.shape}, not {shape}.")
        if name == PAST:
            return self.unit(value)
        mean, std = self.static[name]
        return torch.from_numpy(np.asarray((value - mean) / std, np.float32))

    def conditions(self, states: NDArray[Any], inputs: Mapping[str, Any], numbers: Mapping[str, float]) -> Cond:
        """The conditions of one sample that follows states (history, C, *space)."""
        images = {PAST: np.concatenate(list(states)), **inputs} if self.history else dict(inputs)
        state = np.zeros(self.space.shape, np.float32)
        return self.encode([Item(state, "the state to begin with", images=images, numbers=numbers)]).cond

    def decode(self, x: Tensor) -> list[Any]:
        return list(self.physical(x))

    def valid(self, value: Any) -> bool:
        """Whether the value is an array of the space's shape with finite numbers."""
        return isinstance(value, np.ndarray) and value.shape == self.space.shape and bool(np.isfinite(value).all())

    def content(self, value: Any, name: str) -> bytes:
        """The .npz of a trajectory of one state or of a window: an array (window, *space) of each channel, the times
        from 0 on and the places of the points."""
        buffer = io.BytesIO()
        channels: dict[str, Any] = dict(zip(self.channels, self.by_state(value).swapaxes(0, 1), strict=True))
        np.savez(buffer, **channels, **self.places, time=self.step * np.arange(self.window))
        return buffer.getvalue()

    def pictures(self, value: Any) -> tuple[list[tuple[str, Pixels]], dict[str, list[float]]]:
        """A picture of each channel on a scale of its own, the states of a window beside each other, and the spectrum
        of the last state."""
        states, out = self.by_state(value), list[tuple[str, Pixels]]()
        for title, channel in zip(self.titles, states.swapaxes(0, 1), strict=True):
            scale = ColourScale.of(channel)
            shown = np.concatenate([cell(state, scale) for state in channel], 1)
            out.append((f"{title}: {channel.min():.3g} to {channel.max():.3g}", shown))
        return out, self.spectrum(states[-1])

    def spectrum(self, states: NDArray[Any]) -> dict[str, list[float]]:
        """Energy of each channel by wavenumber (`step`), of states (C, ..., *space), whose other axes are averaged."""
        found = energy_spectrum(states, self.periodic, self.spacing)
        energy = found.energy.reshape(len(self.channels), -1, found.energy.shape[-1]).mean(1)
        return {"step": found.wavenumbers.tolist(), **dict(zip(self.channels, energy.tolist(), strict=True))}

    def by_state(self, items: NDArray[Any]) -> NDArray[Any]:
        """Items (..., window C, *space) as states (..., window, C, *space)."""
        before = items.shape[: items.ndim - 1 - len(self.points)]
        return items.reshape(*before, self.window, len(self.channels), *self.points)

    @property
    def places(self) -> dict[str, Any]:
        """Those of the points along each axis, by its name."""
        along = zip(self.axes, self.spacing, self.points, strict=True)
        return {axis: spacing * np.arange(n) for axis, spacing, n in along}
