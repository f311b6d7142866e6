"""Fields in files of arrays: each state that follows others is an item, and the states before it are its condition."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from afresh.core import Corpus, Item, Part, Sniff, UserError
from afresh.core.memory import available_memory
from afresh.core.solver_progress import blocks
from afresh.data.conditions import fit_conditions
from afresh.data.encoder_file import load_encoder
from afresh.data.files import DataFile, FileError, describes_data
from afresh.domains.field.encoder import MOST_WINDOW, PAST, FieldEncoder
from afresh.domains.field.fields import Fields, read_states, split_by_time, whole
from afresh.domains.field.kind import FIELD
from afresh.domains.field.range_seen import moments_of, seen_range
from afresh.domains.field.reading.contents import Contents, Variable
from afresh.domains.field.reading.files import OPEN, field_files, open_contents
from afresh.domains.field.reading.names import TIME, axis_of
from afresh.domains.field.reading.options import ReadingOptions
from afresh.domains.field.reading.read import read_fields
from afresh.domains.field.reading.roles import divide
from afresh.domains.field.state_file import StoredStates, in_memory_bytes, read_value, stored_states
from afresh.engine.nets.persistence import energy_bounds, estimate

SCIENTIFIC = frozenset(OPEN) - {".npy", ".npz"}  # formats that hold nothing else that this package learns


def recognise(path: Path) -> Sniff:
    """How certain it is that a path holds fields, and why.

    NumPy's files may hold images as well: they are fields if something in them says so, which is coordinates, a pair of
    operator learning, numbers that no image has, or more axes than images have.
    """
    files, others = field_files(path)
    count = len(files) + sum(not describes_data(r.source) and "not a file of arrays" in r.reason for r in others)
    if not files:
        return Sniff(0.0, f"none of its files is one of arrays ({', '.join(OPEN)})")
    share = len(files) / count
    names = f"{len(files):,} of {count:,} files are arrays"
    first = files[0]
    if all((".zarr" if file.path.is_dir() else file.suffix) in SCIENTIFIC for file in files):
        return Sniff(0.95 * share, names)
    try:
        reason = _seen(first)
    except (FileError, UserError) as error:  # reading reports what is wrong
        return Sniff(0.3 * share, f"{names}; {first.name}: {error}")
    return Sniff(
        (0.95 if reason else 0.3) * share, f"{names}; {first.name}: {reason or 'nothing says what its axes are'}"
    )


def _seen(file: DataFile) -> str:
    """What says that the arrays of a file are fields; empty if nothing does. Raises FileError and UserError."""
    contents = open_contents(file)
    parts = divide(file.name, contents, ReadingOptions())
    if parts.pair:
        return parts.reason
    if found := [name for name, variable in parts.coordinates.items() if _rises(variable)]:
        return f"coordinates {', '.join(found)}"
    return next((reason for name in parts.fields if (reason := _unlike_images(name, contents))), "")


def _unlike_images(name: str, contents: Contents) -> str:
    variable = contents.variables[name]
    dtype, axes = variable.source.dtype, len(variable.shape)
    if dtype.kind == "c" or (dtype.kind == "f" and axes >= 3 and _outside(name, contents)):
        return f"{name} {variable.shape} holds numbers that no image has"
    return f"{name} {variable.shape} has {axes} axes" if axes > 4 or axis_of(name) == TIME else ""


def _rises(variable: Variable) -> bool:
    """Whether numbers rise or fall throughout, as coordinates do and labels named y do not."""
    steps = np.diff(variable.read())
    return bool((steps > 0).all() or (steps < 0).all())


def _outside(name: str, contents: Contents) -> bool:
    """Whether numbers from the middle of an array are neither from 0 to 1 nor whole ones from 0 to 255, as those of
    images are."""
    variable = contents.variables[name]
    block = variable.read(tuple(slice(n // 2, n // 2 + 16) for n in variable.shape))
    block = block[np.isfinite(block)]
    if not block.size or (block.min() >= 0 and block.max() <= 1):
        return False
    return not (block.min() >= 0 and block.max() <= 255 and (block == np.round(block)).all())


HELD = 0.1  # share of the states of a single trajectory that are held out
SMALL = 1e-12
PAIRS = 4096  # of states by which it is estimated what persists
BLOCK = 1 << 22  # bytes of their values that are held at a time
Bounds = tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]  # nets.persistence.energy_bounds


class FieldOptions(ReadingOptions):
    """How fields are read, and what a model is told."""

    history: int = Field(1, ge=0, le=64, description="states before that a model is told; 0 for pairs without time")
    window: int = Field(
        1,
        ge=1,
        le=MOST_WINDOW,
        description="states of an item, which are drawn together; with several, a model is told none before",
    )
    noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="deviation of noise on the states before in training, in deviations of each channel: long rollouts "
        "stay stable, and steps are less exact",
    )
    infer: tuple[str, ...] = Field(
        (),
        description="numbers of each trajectory that are drawn together with the states instead of being told, as "
        "channels that are constant in space",
    )
    stream: bool | None = Field(
        None,
        description="whether states are learnt from the disk instead of from memory; None: if they need more memory "
        "than is free",
    )
    units: tuple[str, ...] | None = Field(None, description="a unit for each channel; None: those of the files")
    space: tuple[str, ...] | None = Field(None, description="a name for each axis of space; None: those of the files")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.window > 1 and "history" in self.model_fields_set and self.history:
            raise ValueError(
                f"window={self.window} learns several states at once, and history={self.history} one that follows "
                "others: leave one of them out"
            )
        return self

    @property
    def reading(self) -> ReadingOptions:
        return ReadingOptions(**self.model_dump(include=set(ReadingOptions.model_fields)))


class FieldModality:
    """.npy, .npz, .mat, HDF5, NetCDF and Zarr, alone or in a folder with one file for each trajectory."""

    name = "field"
    kind = FIELD
    options = FieldOptions

    sniff = staticmethod(recognise)

    def read(self, path: Path, options: FieldOptions) -> Corpus:
        """An Item for each state that has enough states before it, or for each pair of an input and an output. Raises
        UserError if there is none, or for data for which something must be set."""
        reading = read_fields(path, options.reading)
        fields = reading.fields
        history = options.history if fields.steps > 1 and options.window == 1 else 0
        if fields.steps < options.window:
            raise UserError(
                f"{path} has trajectories of {fields.steps} states, and windows of {options.window} are to be learnt. "
                "Set `data.window` lower."
            )
        if fields.steps <= history:
            raise UserError(
                f"{path} has trajectories of {fields.steps} states, and a model that is told {history} before it needs "
                f"at least {history + 1}. Set `data.history` lower."
            )
        if unknown := [name for name in options.infer if name not in fields.parameters]:
            raise UserError(
                f"{path} has no number {', '.join(unknown)} of each trajectory. Those that it has, and that can be "
                f"drawn with the states (`data.infer`): {', '.join(fields.parameters) or 'none'}."
            )
        if options.infer and history:
            raise UserError(
                "Numbers that are drawn with the states (`data.infer`) are not told beside the state before. Set "
                "`data.history=0`, or learn several states at once: `data.window=4`."
            )
        settled = {
            "channels": fields.channels,
            "units": options.units or fields.units,
            "space": options.space or fields.axes,
            "spacing": fields.spacing,
            "step": fields.step,
            "periodic": tuple("yes" if p else "no" for p in fields.periodic),
            "history": history,
        }
        stream = options.stream
        if stream is None:
            free = available_memory()
            stream = free is not None and in_memory_bytes(fields, history, options.window, options.infer) > free
        settled["stream"] = stream
        stored = stored_states(path, fields, options.reading, options.window, options.infer) if stream else None
        return Corpus(
            list(items_of(fields, history, options.window, options.infer, stored)),
            list(reading.refused),
            list(reading.decisions),
            settled=settled,
        )

    def fit(self, items: Sequence[Item], options: FieldOptions) -> FieldEncoder:
        """Fit means and deviations to the training states. Raises UserError if there are none."""
        if not items:
            raise UserError("No state to train on: the training split is empty.")
        shape = read_value(items[0].value).shape
        channels, points = shape[0] // options.window, shape[1:]
        moments = moments_of(states_of(items, channels))
        mean, std = moments.mean, np.maximum(moments.std, SMALL)
        conds, notes = fit_conditions(items)
        static: dict[str, tuple[float, float]] = {}
        bounds: Bounds = ((), ())
        for name, first in items[0].images.items():
            if name == PAST:
                part, bounds = persisting_part(items, mean, std, options.periodic or ())
                conds[PAST] = part
                notes.append(f"a state differs from the one before by {part.std:.2g} of the deviation of the states")
                continue
            every = moments_of(i.images[name] for i in items)
            static[name] = (float(every.mean[0]), float(max(every.std[0], SMALL)))
            conds[name] = Part("aligned", shape=first.shape)
        chosen = options.model_dump(mode="json", exclude_none=True, exclude={"stream"})  # other data is read anyhow
        known, rank, fields = chosen.get, len(points), channels - len(options.infer)
        return FieldEncoder(
            channels=(*(known("channels") or [f"channel {i}" for i in range(fields)]), *options.infer),
            units=(*(known("units") or [""] * fields), *[""] * len(options.infer)),
            axes=tuple(known("space") or "xyz"[:rank]),
            points=points,
            spacing=tuple(known("spacing") or [1.0] * rank),
            step=known("step") or 1.0,
            periodic=tuple(answer == "yes" for answer in known("periodic") or ["no"] * rank),
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
            history=options.history if PAST in conds else 0,
            window=options.window,
            static=static,
            seen={k: tuple(v.tolist()) for k, v in asdict(seen_range(moments)).items()},
            most=bounds[0],
            gain=bounds[1],
            conds=conds,
            options=chosen,
            notes=tuple(notes),
        )

    def load(self, folder: Path) -> FieldEncoder:
        return load_encoder(folder, FieldEncoder, "fields")


MODALITY = FieldModality()


def items_of(
    fields: Fields, history: int, window: int = 1, infer: Sequence[str] = (), stored: StoredStates | None = None
) -> Iterator[Item]:
    """The states of all trajectories that have `history` states before them, or the windows of as many states, with
    the numbers `infer` of their trajectory as channels; without their values if the states are stored. Trajectories
    stay on one side of the split; of a single one, the end is held out."""
    single = fields.trajectories < 2 <= fields.steps
    learnt, held = split_by_time(fields, HELD) if single else (whole(fields, range(fields.trajectories)), [])
    for span in (*learnt, *held):
        number, states = span.trajectory, read_states(fields, span, infer) if stored is None else None
        where = fields.sources[number] if fields.sources else f"trajectory {number}"
        inputs = {
            name if name != PAST else f"{name}_input": np.asarray(each[number % len(each)], np.float32)[None]
            for name, each in fields.static.items()
        }
        numbers = {name: float(values[number]) for name, values in fields.parameters.items() if name not in infer}
        for i in range(history, span.length - window + 1):
            value: Any
            past: Any
            if stored is not None:
                value, past = stored.windows(number, span.first + i), stored.past(number, span.first + i, history)
            else:
                assert states is not None
                value, past = (s.reshape(-1, *fields.space) for s in (states[i : i + window], states[i - history : i]))
            yield Item(
                value,
                f"{where}, state {span.first + i}",
                numbers=numbers,
                split=("validation" if span in held else "train") if single else None,
                images={PAST: past, **inputs} if history else inputs,
                group=where,
            )


def states_of(items: Sequence[Item], channels: int) -> Iterator[NDArray[Any]]:
    """The states (channels, *space) of items, with one item in memory at a time."""
    for item in blocks(items, "statistics of the states"):
        value = read_value(item.value)
        yield from value.reshape(-1, channels, *value.shape[1:])


def persisting_part(
    items: Sequence[Item], mean: NDArray[np.float64], std: NDArray[np.float64], periodic: Sequence[str]
) -> tuple[Part, Bounds]:
    """The condition of the states before: by how much, in deviations of each channel, states differ from the last one,
    and on a ring what persists of each mode, from at most `PAIRS` states; and of a ring the bounds of their energy."""
    chosen, shape = items[:: -(-len(items) // PAIRS)], read_value(items[0].images[PAST]).shape
    at_once = max(1, BLOCK // (8 * math.prod(shape)))
    unit, middle = (v.reshape(-1, *[1] * (len(shape) - 1)) for v in (std, mean))

    def pairs() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for start in range(0, len(chosen), at_once):
            part = chosen[start : start + at_once]
            before = np.stack([(read_value(i.images[PAST])[-len(mean) :] - middle) / unit for i in part])
            after = np.stack([(read_value(i.value) - middle) / unit for i in part])
            yield torch.from_numpy(before), torch.from_numpy(after)

    squares = [(after - before).square().flatten(1).mean(1) for before, after in pairs()]
    scale = max(math.sqrt(float(torch.cat(squares).mean())), SMALL)
    ring = bool(periodic) and all(answer == "yes" for answer in periodic)
    modes = estimate(shape[1:], pairs()) if ring else ()
    bounds: Bounds = energy_bounds(shape[1:], pairs()) if ring else ((), ())
    return Part("aligned", shape=shape, persists=True, std=scale, spectrum=modes), bounds
