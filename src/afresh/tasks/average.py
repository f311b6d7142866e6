"""The verb `average`: how long the average is that sampling uses, chosen after training.

RUN/averages holds snapshots of two power-function averages (training/posthoc.py), RUN/averaged.safetensors the
weights that were made of them, and RUN/averaged.json how. Without the last two a run samples as it was trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from afresh.core import UserError
from afresh.runs.run import Run
from afresh.tasks.train import Job, again, evaluate, finish
from afresh.training import posthoc
from afresh.training.checkpoint import write_json
from afresh.training.loop import Learner, under
from afresh.training.weights import AVERAGED, SNAPSHOTS, no_average, read_kept, write_kept

AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class Tried:
    """A length that was considered: None is the average of training itself. `error`: see posthoc.reconstruct."""

    length: float | None
    error: float
    loss: float | None  # of the held-out split, where it was computed


@dataclass(frozen=True)
class Chosen:
    """What sampling uses from now on, at the step that it is of."""

    length: float | None
    step: int
    snapshots: int
    tried: tuple[Tried, ...]


def steps_of(run: Run) -> list[int]:
    """The steps of the snapshots, in order. Raises UserError when there are none."""
    found = sorted(int(f.stem) for f in (run.path / SNAPSHOTS).glob("*.safetensors"))
    if not found:
        raise UserError(
            f"{run.path} has kept no snapshots of its averages, so their length cannot be chosen any more. Train with "
            "them: --set train.posthoc=8."
        )
    return found


def wanted_length(text: str) -> float | None:
    """A length in words: a number, or None for `auto`. Raises UserError for anything else."""
    if text == AUTO:
        return None
    try:
        length = float(text)
        posthoc.exponent(length)
    except ValueError:
        raise UserError(f"--length takes auto, none or a number such as 0.1. Given: {text!r}.") from None
    return length


def combine(run: Run, steps: list[int], length: float) -> tuple[dict[str, Tensor], float]:
    """{module.name: tensor} of the average of `length`, made of the snapshots, and its error.

    Sums are taken in float64: the factors may be large and of both signs.
    """
    snapshots = [(s, n) for s in steps for n in posthoc.LENGTHS]
    factors, error = posthoc.reconstruct(snapshots, steps[-1], length)
    of = dict(zip(snapshots, factors.tolist(), strict=True))
    total: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    for step in steps:
        found = read_kept(run.path / SNAPSHOTS, f"{step:06d}")
        assert found is not None
        for n in posthoc.LENGTHS:
            for k, v in (last := under(found, f"{n:g}")).items():
                part = of[step, n] * v.double()
                total[k] = total[k] + part if k in total else part
    return {k: total[k].to(v.dtype) if v.is_floating_point() else v for k, v in last.items()}, error


def average(path: Path, length: str, say: Callable[[str], None]) -> Chosen:
    """Make sampling use the average of `length`, of the one of a few with the lowest held-out loss (`auto`), or of the
    weights as trained (`none`).

    Raises UserError for a length that the snapshots cannot give, and for `auto` where the family has no held-out
    loss or the data is gone.
    """
    run = Run.open(path)
    if length == NONE:
        no_average(run.path)
        refit(run, None)
        return Chosen(None, 0, 0, ())
    wanted, steps = wanted_length(length), steps_of(run)
    choice = by_loss(run, steps, say) if wanted is None else by_length(run, steps, wanted)
    if choice.length is None:
        no_average(run.path)
        tensors = None
    else:
        tensors, _ = combine(run, steps, choice.length)
        write_json(run.path / f"{AVERAGED}.json", asdict(choice))
        write_kept(run.path, AVERAGED, tensors)
    refit(run, tensors)
    return choice


def by_length(run: Run, steps: list[int], wanted: float) -> Chosen:
    """The length asked for. Raises UserError when these snapshots cannot give it, naming what they can."""
    snapshots = [(s, n) for s in steps for n in posthoc.LENGTHS]
    _, error = posthoc.reconstruct(snapshots, steps[-1], wanted)
    if error > posthoc.MOST_ERROR:
        found = posthoc.reach(snapshots, steps[-1])
        can = "no length at all" if found is None else f"lengths from {found[0]:g} to {found[1]:g}"
        raise UserError(
            f"An average of length {wanted:g} cannot be made of {len(steps)} snapshots: its weighting would be "
            f"{error:.0%} off, at most {posthoc.MOST_ERROR:.0%} is accepted. They give {can}; more snapshots give "
            "more: --set train.posthoc=16 in a new run."
        )
    return Chosen(wanted, steps[-1], len(steps), (Tried(wanted, error, None),))


def by_loss(run: Run, steps: list[int], say: Callable[[str], None]) -> Chosen:
    """The best of posthoc.TRIED and of the average of training, by the objective on held-out examples with fixed
    noise. Raises UserError for a family without such a loss."""
    if run.family.likelihood is None:
        raise UserError(
            f"{run.record.family} has no held-out loss by which to choose a length. Give one: --length 0.1, and "
            "compare with: afresh measure RUN."
        )
    job = again(run.path)
    learner = run.learner()
    tried = [Tried(None, 0.0, loss_of(learner, run, job))]
    for length in posthoc.TRIED:
        tensors, error = combine(run, steps, length)
        if error <= posthoc.MOST_ERROR:
            learner.averages = learner.on_device(tensors)
            tried.append(Tried(length, error, loss_of(learner, run, job)))
            say(f"length {length:g}: held-out loss {tried[-1].loss:.5f} (as trained {tried[0].loss:.5f})")
    best = min(tried, key=lambda t: math.inf if t.loss is None else t.loss)
    return Chosen(best.length, steps[-1], len(steps), tuple(tried))


def loss_of(learner: Learner, run: Run, job: Job) -> float:
    return evaluate(learner, run, job)["heldout_loss"]


@torch.no_grad()
def refit(run: Run, tensors: dict[str, Tensor] | None) -> None:
    """Fit again what the family fits to trained networks, now that those of sampling are others."""
    if run.family.finish is None:
        return
    learner = run.learner()
    if tensors is not None:
        learner.averages = learner.on_device(tensors)
    finish(learner, again(run.path))
