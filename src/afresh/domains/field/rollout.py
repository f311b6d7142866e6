"""Futures of a state: what a run draws again and again, each time after what it drew before."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from afresh.core import Cond, UserError, events
from afresh.core.plural import counted
from afresh.core.verb import FileResult, Line, Remark, Table
from afresh.data.image.kind import png_bytes
from afresh.domains.field.encoder import PAST, FieldEncoder
from afresh.domains.field.pictures import ChannelRows, ColourScale, cell, over_time, sheet
from afresh.domains.field.range_seen import left_what_was_seen
from afresh.domains.field.reading.options import ReadingOptions
from afresh.domains.field.reading.read import read_fields
from afresh.domains.field.written import states_file
from afresh.engine.evaluation.estimate import held_between
from afresh.runs.about import read_report
from afresh.runs.run import Run

MOST_BYTES = 8 << 30  # of the states that a rollout holds
SHOWN, FRAMES = 4, 200  # members in an animation, and its frames at most
KEEP, SPREAD = "rollout_noise_kept", "rollout_spread"  # scores that hold what the report chose
MOST_ROWS, MOST_MEMBERS = 1 << 20, 4096  # that have noise of their own
KEPT = (1, 3, 10, 30)  # steps for which members may keep their noise, one of which the report chooses


@dataclass(frozen=True)
class Rollout(FileResult):
    """Futures of one state in physical units.

    states: (members, steps, C, *space), the state that was begun with left out. first: (C, *space). departure: why it
    ended before the steps that were asked for; empty if it did not.
    """

    encoder: FieldEncoder
    states: NDArray[np.float32]
    first: NDArray[np.float32]
    departure: str
    keep: int = 1

    @property
    def spread(self) -> NDArray[np.float64]:
        """The standard deviation of the members at each step, the mean over channels in units of their deviation; (0,)
        of one member."""
        if len(self.states) < 2:
            return np.zeros(0)
        std = self.states.std(0, ddof=1, dtype=np.float64)  # (steps, C, *space)
        by_channel = np.sqrt(np.square(std).mean(tuple(range(2, std.ndim))))
        out: NDArray[np.float64] = (by_channel / np.asarray(self.encoder.std)).mean(1)
        return out

    def values(self) -> dict[str, Any]:
        return {
            "keep": self.keep,
            "steps": self.states.shape[1],
            "members": self.states.shape[0],
            "step": self.encoder.step,
            "stopped": bool(self.departure),
            "departure": self.departure,
            "spread": [round(float(s), 6) for s in self.spread],
        }

    def lines(self) -> list[Line]:
        members, steps = self.states.shape[:2]
        out: list[Line] = [
            f"{counted(members, 'future')} of {counted(steps, 'state')}, {steps * self.encoder.step:g} in time, "
            f"in {self.seconds:.1f} s"
        ]
        if len(self.spread):
            chosen = sorted({0, steps // 4, steps // 2, steps - 1})
            rows = [[f"{k + 1:,}", f"{(k + 1) * self.encoder.step:g}", f"{self.spread[k]:.3f}"] for k in chosen]
            out.append(Table(("state", "time", "spread of the members, in deviations"), rows, right=(0, 1, 2)))
            out.append(
                f"of what comes, about {held_between(members, 1):.0%} lie between the least and the greatest of "
                f"{members} members, and {held_between(members, 0.9):.0%} between their quantiles 5% and 95%"
            )
        if self.departure:
            out.append(Remark(self.departure))
        return out

    @cached_property
    def written(self) -> dict[str, bytes]:
        """The states, an animation, a picture and the spectra."""
        times, arrays = self.encoder.step * np.arange(1, self.states.shape[1] + 1), {"": self.states}
        npz = {"states": self.states, "first": self.first}
        states = states_file("rollout", self.format, self.encoder, times, npz, arrays)
        pictures = {"rollout.gif": self.animation(), "rollout.png": self.plot()}
        step, *by_channel = self.curves.values()
        energy = dict(zip(self.encoder.channels, by_channel, strict=True))
        spectra = json.dumps({"wavenumbers": step, "energy": energy}, indent=1).encode()
        return {**states, **pictures, "spectra.json": spectra}

    @cached_property
    def scales(self) -> list[ColourScale]:
        """That of each channel, in the state that was begun with and in all that follow."""
        return [ColourScale.of(self.first[c], self.states[:, :, c]) for c in range(len(self.first))]

    def time(self, step: int) -> str:
        return f"time {(step + 1) * self.encoder.step:.4g}"

    def animation(self) -> bytes:
        """A GIF of the first members beside each other, and their mean, with the time of each state."""
        members, steps = self.states.shape[:2]
        shown, names = self.states[:SHOWN], [f"member {m}" for m in range(min(SHOWN, members))]
        frames = []
        for k in range(0, steps, max(1, -(-steps // FRAMES))):
            drawn = [*shown[:, k], self.states[:, k].mean(0)] if members > 1 else list(shown[:, k])
            blocks = [
                ChannelRows(
                    *(f"{title}, {self.time(k)}", scale, [[cell(state[c], scale) for state in drawn]]),
                    columns=[*names, "mean"],
                    curves=drawn[0].ndim == 2,
                )
                for c, (title, scale) in enumerate(zip(self.encoder.titles, self.scales, strict=True))
            ]
            frames.append(Image.fromarray(sheet(blocks)))
        buffer = io.BytesIO()
        frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=60, loop=0)
        return buffer.getvalue()

    def plot(self) -> bytes:
        """A PNG with a block for each channel: of fields over one axis, time downwards; otherwise states at even
        distances, a member in each row."""
        shown = self.states[:SHOWN]
        names, last = [f"member {m}" for m in range(len(shown))], shown.shape[1] - 1
        at = np.linspace(0, last, min(6, last + 1)).astype(int)
        blocks = []
        for c, (title, scale) in enumerate(zip(self.encoder.titles, self.scales, strict=True)):
            if shown.ndim == 4:
                title = f"{title}, from {self.time(0)} at the top to {(last + 1) * self.encoder.step:.4g}"
                blocks.append(ChannelRows(title, scale, [[over_time(member[:, c], scale) for member in shown]], names))
            else:
                rows = [[cell(member[k, c], scale) for k in at] for member in shown]
                blocks.append(ChannelRows(title, scale, rows, [self.time(k) for k in at], names))
        return png_bytes(sheet(blocks))

    @cached_property
    def curves(self) -> dict[str, list[float]]:
        """Energy by wavenumber (`step`) of each channel, averaged over members and the last half of the steps."""
        half = self.states[:, self.states.shape[1] // 2 :]
        return self.encoder.spectrum(np.moveaxis(half, 2, 0))


# --------------------------------------------------------------------------- rolling out


def futures(
    run: Run,
    encoder: FieldEncoder,
    begin: Cond,
    steps: int,
    seed: int,
    keep: int = 1,
    settings: Mapping[str, Any] | None = None,
    members: int = 1,
    first: int = 0,
) -> Iterator[Tensor]:
    """The next states (B * members, C, *space) in unit deviations, one step after the other, of `members` futures for
    each of the conditions of B rows, from member number `first` on; of pairs without time, the output.

    A member keeps its noise for `keep` steps. It is keyed by the step, the row and the member alone, so that a future
    is the same however many are drawn beside it. They end early where the next states are not finite. Raises UserError
    if the first ones are not.
    """
    chosen, cond, channels = run.settings(settings or {}), begin.repeat(members), encoder.space.shape[0]
    row, member = torch.arange(begin.size).repeat_interleave(members), first + torch.arange(members).repeat(begin.size)
    for k in range(steps):
        numbers = (k // keep * MOST_ROWS + row) * MOST_MEMBERS + member
        try:
            x = run.draw(run.modules, cond, seed, chosen, numbers)
        except UserError as error:
            if error.code == "not_finite" and k:
                return
            raise
        if PAST not in cond.parts:  # an output of an input, which nothing follows
            yield x
            return
        past = cond.parts[PAST][:, -channels:]
        x = encoder.bounded(x, past)
        yield x
        cond = replace(cond, parts={**cond.parts, PAST: torch.cat([cond.parts[PAST][:, channels:], x], 1)})


def field_encoder(run: Run) -> FieldEncoder:
    """Raises UserError for a run on other data."""
    if not isinstance(run.encoder, FieldEncoder) or PAST not in run.conds:
        raise UserError(
            f"{run.path} was not trained on states of a field that follow one another, and only those are rolled out. "
            "Train on such data (see the guide to fields), or compute some: `afresh demo`.",
            "not_fields",
        )
    return run.encoder


def roll_out_from(
    run: Run,
    start: str | Path | None,
    steps: int,
    members: int,
    at: int,
    trajectory: int,
    format: str,
    anyway: bool,
    seed: int,
    keep: int | None,
) -> Rollout:
    """Read a state, and roll it out. Raises UserError as `rollout` does."""
    encoder = field_encoder(run)
    kept, settings = chosen_noise(run)
    keep = keep or kept
    size = 4 * members * steps * int(np.prod(encoder.space.shape))
    if size > MOST_BYTES:
        raise UserError(
            f"{members:,} futures of {steps:,} states take {size / 1e9:.3g} GB, more than {MOST_BYTES / 1e9:.3g} GB. "
            "Ask for fewer members or steps.",
            "too_large",
        )
    begin, first = beginning(run, encoder, start, at, trajectory)
    began, done, departure = time.monotonic(), list[NDArray[np.float32]](), ""
    for k, x in enumerate(futures(run, encoder, begin, steps, seed, keep, settings, members), 1):
        states = encoder.physical(x)
        done.append(states)
        left = None if anyway else left_what_was_seen(states, encoder.seen_range, channels=encoder.channels)
        if left is not None:
            departure = (
                f"The rollout ended at state {k:,} of {steps:,}, since a member has left what was seen in training: "
                f"in member {left.state}, {left.reason} `anyway` goes on."
            )
            break
        if k % 10 == 0 or k == steps:
            events.advance(f"state {k:,} of {steps:,}", "rollout", k, steps, time.monotonic() - began)
    if len(done) < steps and not departure:
        departure = f"The rollout ended at state {len(done):,} of {steps:,}, since the next one is not finite."
    seconds = time.monotonic() - began
    states = np.stack(done, 1)
    return Rollout(encoder, states, first, departure, keep, seconds=seconds, format=format)


def chosen_noise(run: Run) -> tuple[int, dict[str, float]]:
    """For how many steps members keep their noise and the settings of sampling, by which, in the report of the run, the
    intervals of members held the truth as often as they say; as in training if the run was not measured."""
    found = {score["name"]: float(score["value"]) for score in read_report(run.path).scores}
    spread = {"spread": min(max(found[SPREAD], 0.0), 10.0)} if {SPREAD, KEEP} <= found.keys() else {}
    return max(1, int(found.get(KEEP, 1))), spread


def beginning(
    run: Run, encoder: FieldEncoder, start: str | Path | None, at: int, trajectory: int
) -> tuple[Cond, NDArray[np.float32]]:
    """The conditions of one sample that follows a state of a file, or one that was seen, and the state. Raises
    UserError for a file that does not fit the run."""
    history = encoder.history
    if start is None:
        cond = run.conditions.select(torch.tensor([min(at, run.conditions.size - 1)]))
        return cond, encoder.physical(cond.parts[PAST][:, -encoder.space.shape[0] :])[0]
    options = {k: v for k, v in encoder.options.items() if k in ReadingOptions.model_fields and k != "step"}
    fields = read_fields(Path(start), ReadingOptions(**options)).fields
    channels, grid = len(encoder.channels) - len(encoder.inferred), encoder.points
    if (fields.values.shape[2], *fields.space) != (channels, *grid):
        raise UserError(
            f"{start} has states of the shape {(fields.values.shape[2], *fields.space)}, and the run is of "
            f"{(channels, *grid)}."
        )
    if trajectory >= fields.trajectories or not history - 1 <= at < fields.steps:
        known = f"{counted(fields.trajectories, 'trajectory', 'trajectories')} of {counted(fields.steps, 'state')}"
        raise UserError(
            f"{start} has {known}, and the run is told {history}: `trajectory` is from 0 to {fields.trajectories - 1}, "
            f"and `at` from {history - 1} to {fields.steps - 1}. Given: {trajectory}, {at}."
        )
    states = np.asarray(fields.values[trajectory, at - history + 1 : at + 1], np.float32)
    inputs = {name: np.asarray(a[trajectory % len(a)], np.float32)[None] for name, a in fields.static.items()}
    numbers = {name: float(v[trajectory]) for name, v in fields.parameters.items()}
    return encoder.conditions(states, inputs, numbers), np.asarray(fields.values[trajectory, at : at + 1], np.float32)[
        0
    ]
