"""States given observations of them: draws of the posterior, checked against the observations and the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Cond, Edit, Observations, UserError
from afresh.core.plural import counted
from afresh.core.solver_progress import blocks, reporting
from afresh.core.verb import FileResult, Line, Table
from afresh.domains.field.assimilation_picture import drawn
from afresh.domains.field.calibration import coverage, ranks, spread_and_error
from afresh.domains.field.encoder import PAST, FieldEncoder
from afresh.domains.field.observations import Observed, read_observations, read_truth
from afresh.domains.field.range_seen import SeenRange, left_what_was_seen
from afresh.domains.field.rollout import beginning
from afresh.domains.field.scores import crps
from afresh.domains.field.written import states_file
from afresh.runs.run import Run

BATCH = 32  # members that are drawn at a time, whose derivatives are held
SOLVER = {"solver": "sde"}  # better calibrated than the ODE with a network's errors (docs/guides/fields.md)
FAR = 3.0  # deviations of chi-square from 1 that are remarked


@dataclass(frozen=True)
class Scores:
    """Of members against the truth, in deviations of each channel: the root mean square of the error of the mean, the
    continuous ranked probability score, the spread-skill ratio, and the shares of the truth's values that lie in the
    central intervals of 50 and 90%. One truth is one draw: all but the error vary much from truth to truth."""

    error: float
    crps: float
    spread_skill: float
    held50: float
    held90: float


@dataclass(frozen=True)
class Assimilation(FileResult):
    """Members of the posterior in physical units.

    members: (M, window, C, *space). truth: (window, C, *space), if it was given. chi_square: `Observed.chi_square`.
    """

    observed: Observed
    members: NDArray[np.float32]
    truth: NDArray[np.float64] | None

    @property
    def encoder(self) -> FieldEncoder:
        return self.observed.encoder

    @property
    def mean(self) -> NDArray[np.float64]:
        out: NDArray[np.float64] = self.members.mean(0, dtype=np.float64)
        return out

    @property
    def deviation(self) -> NDArray[np.float64]:
        """The standard deviation of the members."""
        out: NDArray[np.float64] = self.members.std(0, ddof=1, dtype=np.float64)
        return out

    @cached_property
    def chi_square(self) -> float:
        return self.observed.chi_square(self.members.reshape(len(self.members), *self.encoder.space.shape))

    @property
    def spread(self) -> float:
        """The root mean square of the deviation, in deviations of each channel."""
        return math.sqrt(np.square(self.deviation / self.encoder.along(self.encoder.std, self.channels)).mean())

    @property
    def channels(self) -> int:
        return len(self.encoder.channels)

    @property
    def numbers(self) -> dict[str, tuple[float, float]]:
        """The mean and the deviation over members of each number that is drawn with the states: its mean over the
        window and space."""
        drawn, names = self.members.mean((1, *range(3, self.members.ndim)), dtype=np.float64), self.encoder.inferred
        last = drawn[:, self.channels - len(names) :].T
        return {name: (float(v.mean()), float(v.std(ddof=1))) for name, v in zip(names, last, strict=True)}

    @cached_property
    def scores(self) -> Scores | None:
        if self.truth is None:
            return None
        scale = self.encoder.along(self.encoder.std, self.channels)
        ensemble, truth = (self.members / scale)[:, None], (self.truth / scale)[None]
        found = spread_and_error(ensemble, truth)
        places = ranks(ensemble, truth)
        held = [float(np.mean([e.value for e in coverage(places, share)])) for share in (0.5, 0.9)]
        ratio = math.sqrt(found.variance.mean() / found.error.mean()) if found.error.any() else math.nan
        error = math.sqrt(np.square(ensemble.mean(0) - truth).mean())
        return Scores(error, float(crps(ensemble, truth).mean()), ratio, *held)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What the residuals and the members themselves say against the posterior."""
        out, encoder = [], self.encoder
        far = (self.chi_square - 1) / math.sqrt(2 / self.observed.count)
        if far > FAR:
            out.append(
                "The members are further from the observations than the stated noise allows: the noise may be larger, "
                "the observations unlike what was learnt, or the solver too coarse (`iterations`, `steps=40`)."
            )
        if far < -FAR:
            out.append("The members are nearer to the observations than the stated noise, which may be too large.")
        fields = self.channels - len(self.encoder.inferred)
        seen = SeenRange(**{k: v[:fields] for k, v in vars(encoder.seen_range).items()})
        found = [left_what_was_seen(m[:, :fields], seen, channels=encoder.channels) for m in self.members]
        if reasons := [f.reason for f in found if f is not None]:
            out.append(f"{len(reasons):,} of {len(found):,} members are unlike the states of training: {reasons[0]}")
        return tuple(out)

    def values(self) -> dict[str, Any]:
        scores = {} if self.scores is None else {k: round(v, 6) for k, v in vars(self.scores).items()}
        return {
            "members": len(self.members),
            "observations": self.observed.count,
            "chi_square": round(self.chi_square, 6),
            "spread": round(self.spread, 6),
            "numbers": {k: {"mean": mean, "deviation": spread} for k, (mean, spread) in self.numbers.items()},
            "scores": scores,
        }

    def lines(self) -> list[Line]:
        expected = math.sqrt(2 / self.observed.count)
        out: list[Line] = [
            f"{counted(len(self.members), 'state')} given {self.observed.described}, in {self.seconds:.1f} s",
            f"reduced chi-square of the residuals {self.chi_square:.2f}; 1 ± {expected:.2f} if the noise is as stated",
            f"spread of the members {self.spread:.3f} deviations of the states",
            *(f"{name} {mean:.4g} ± {spread:.2g}" for name, (mean, spread) in self.numbers.items()),
        ]
        if (s := self.scores) is not None:
            rows = [
                ["error of the mean, in deviations of the states", f"{s.error:.3f}"],
                ["CRPS, in deviations of the states", f"{s.crps:.3f}"],
                ["spread-skill ratio", f"{s.spread_skill:.2f}"],
                ["values of the truth in 50% intervals", f"{s.held50:.0%}"],
                ["values of the truth in 90% intervals", f"{s.held90:.0%}"],
            ]
            out.append(Table(("against the truth", ""), rows, right=(1,)))
        return out

    @cached_property
    def written(self) -> dict[str, bytes]:
        """The members, their mean and deviation, and a picture."""
        encoder, observed = self.encoder, self.observed.values
        npz = {"states": self.members, "mean": self.mean, "deviation": self.deviation}
        npz["observations"] = observed.reshape(encoder.window, self.channels, *observed.shape[1:])
        arrays: dict[str, NDArray[Any]] = {"": self.members, "_mean": self.mean, "_deviation": self.deviation}
        times = encoder.step * np.arange(encoder.window)
        states = states_file("posterior", self.format, encoder, times, npz, arrays)
        return {**states, "posterior.png": drawn(self.observed, self.members, self.truth)}


# --------------------------------------------------------------------------- drawing


def draw_posterior(
    run: Run,
    observations: Observations,
    begin: Cond,
    members: int,
    seed: int,
    settings: Mapping[str, Any] | None = None,
) -> Tensor:
    """Members (members, C, *space) of the posterior, in the units of the space, for the conditions of one row."""
    edit = run.family.edit
    assert edit is not None

    def sample(modules: Any, config: Any, space: Any, cond: Cond, rng: Any, index: Tensor, settings: Any) -> Tensor:
        return edit(modules, config, space, Edit(observations=observations), cond, rng, index, settings)

    chosen = run.settings({**SOLVER, **(settings or {})})
    out = []
    for numbers in blocks(torch.arange(members).split(BATCH), "assimilating"):
        with reporting("assimilating"):
            out.append(run.draw(run.modules, begin.repeat(len(numbers)), seed, chosen, numbers, sample))
    return torch.cat(out)


def assimilating_encoder(run: Run) -> FieldEncoder:
    """Raises UserError for a run that cannot take observations into account."""
    if not isinstance(run.encoder, FieldEncoder) or (reason := why_not(run)):
        raise UserError(
            f"{run.path}: {reason if isinstance(run.encoder, FieldEncoder) else 'it was not trained on fields'}. Train "
            "a flow on fields: `family=flow`, with `data.history=0` for states without the last one.",
            "not_assimilating",
        )
    return run.encoder


def why_not(run: Run) -> str | None:
    """Why a run takes no observations into account, or None."""
    if not run.family.observes:
        return f"the family {run.family.name} has no velocity that observations could change"
    return None if run.codec is None else "it draws codes, whose observations are not linear"


def assimilated(
    run: Run,
    observations: str | Path,
    noise: Sequence[float],
    truth: str | Path | None,
    members: int,
    iterations: int,
    start: str | Path | None,
    at: int,
    trajectory: int,
    format: str,
    settings: Mapping[str, Any] | None,
    seed: int,
) -> Assimilation:
    """Read observations, and draw the posterior. Raises UserError as `assimilate` does."""
    encoder = assimilating_encoder(run)
    observed = read_observations(Path(observations), encoder, noise)
    true = None if truth is None else read_truth(Path(truth), encoder)
    began = time.monotonic()
    begin = known_conditions(run, encoder, start, at, trajectory)
    x = draw_posterior(run, observed.task(iterations), begin, members, seed, settings)
    drawn_states = encoder.by_state(encoder.physical(x))
    seconds = time.monotonic() - began
    states_of_truth = None if true is None else encoder.by_state(true)
    return Assimilation(observed, drawn_states, states_of_truth, seconds=seconds, format=format)


def known_conditions(run: Run, encoder: FieldEncoder, start: str | Path | None, at: int, trajectory: int) -> Cond:
    """The conditions of one row: the states before, the inputs and the numbers of a file; without one they are left
    open. Raises UserError for a run that is told the states before, without a file."""
    if start is not None:
        return beginning(run, encoder, start, at, trajectory)[0]
    if PAST in run.conds:
        raise UserError(
            f"{run.path} is told the states before. Give a file with them: `start=FILE`, `at=K`, where state K is the "
            "last one before the observations. For states without the last one, train with `data.history=0`.",
            "no_state_before",
        )
    return Cond.unconditional(run.conds, 1)
