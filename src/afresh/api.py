"""What `import afresh` offers: train, resume, open, examine. Each verb of the command line as a function."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.look import Look, look
from afresh.run import Run, Samples
from afresh.settings import by_part
from afresh.train import Choices, Job, again, learn, start
from afresh.tune import Wishes, adapter, of_tuning
from afresh.tune import start as start_tuning

__all__ = ["Look", "Run", "Samples", "UserError", "examine", "open", "resume", "train", "tune"]


def train(
    path: str | Path,
    *,
    modality: str | None = None,
    family: str | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    tokens: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    validation: str | Path | None = None,
    force: bool = False,
    device: str | None = None,
    data: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Run:
    """Train a generative model on the file or folder `path`; 5 minutes when no budget is given.

    `data` are options of the modality ({"size": 32}), `settings` those of training and of the family
    ({"train.lr": 0.001, "family.width": 256}). The plan and the progress go to standard error unless `quiet`.

    Raises UserError for bad usage or input, Diverged when training cannot go on, Interrupted after Ctrl-C (saved).
    """
    set_family, set_train = by_part(settings or {})
    choices = Choices(
        modality=modality,
        family=family,
        minutes=minutes,
        steps=steps,
        tokens=tokens,
        seed=seed,
        out=None if out is None else Path(out),
        validation=None if validation is None else Path(validation),
        force=force,
        device=device,
        data=data or {},
        set_family=set_family,
        set_train=set_train,
    )
    return _learnt(start(Path(path), choices, _nothing if quiet else _say), quiet)


def tune(
    base: str | Path,
    path: str | Path,
    *,
    lora: bool = True,
    rank: int | None = None,
    alpha: float | None = None,
    targets: Sequence[str] = (),
    minutes: float | None = None,
    steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    modality: str | None = None,
    validation: str | Path | None = None,
    force: bool = False,
    device: str | None = None,
    data: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Run:
    """Tune a run or public weights on the file or folder `path`: an adapter of `rank` (16 when not given; `alpha`:
    twice the rank), or everything without `lora`; a few passes over the data when no budget is given.

    Raises like `train`, and for a base that is none.
    """
    set_train = of_tuning(settings or {})
    if not lora and (rank is not None or alpha is not None or targets):
        raise UserError("rank, alpha or targets is of an adapter: not with lora=False.")
    wishes = Wishes(
        lora=adapter(rank, alpha, targets) if lora else None,
        minutes=minutes,
        steps=steps,
        lr=lr,
        seed=seed,
        out=None if out is None else Path(out),
        modality=modality,
        validation=None if validation is None else Path(validation),
        force=force,
        device=device,
        data=data or {},
        set_train=set_train,
    )
    return _learnt(start_tuning(str(base), Path(path), wishes, _nothing if quiet else _say), quiet)


def resume(path: str | Path, *, quiet: bool = False) -> Run:
    """Go on with a run to the end of its plan. Raises like `train`, and when its data is gone or changed."""
    return _learnt(again(Path(path)), quiet)


def open(path: str | Path) -> Run:
    """A run that exists. Raises UserError when the folder is not one."""
    return Run.open(path)


def examine(
    path: str | Path,
    *,
    modality: str | None = None,
    data: Mapping[str, Any] | None = None,
    validation: str | Path | None = None,
) -> Look:
    """What would be learnt from `path`, before anything is spent. Raises UserError for what cannot be used."""
    return look(Path(path), modality, data, None if validation is None else Path(validation))


def _learnt(job: Job, quiet: bool) -> Run:
    learn(job, "quiet" if quiet else "auto")
    return job.run


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _nothing(text: str) -> None:
    """Quiet."""
