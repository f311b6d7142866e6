"""What `import afresh` offers: train, resume, open, examine. Each verb of the command line as a function."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.core.options import by_part
from afresh.runs.run import Run, Samples
from afresh.sampling.request import Request
from afresh.tasks.distill import Lesson
from afresh.tasks.distill import start as start_distilling
from afresh.tasks.edit import Change, Editor
from afresh.tasks.inspect_data import Look, look
from afresh.tasks.interpolate import Blender
from afresh.tasks.train import Choices, Job, again, learn, start
from afresh.tasks.tune import Wishes, adapter, of_tuning
from afresh.tasks.tune import start as start_tuning

__all__ = [
    "Look",
    "Run",
    "Samples",
    "UserError",
    "blend",
    "distill",
    "edit",
    "examine",
    "open",
    "resume",
    "train",
    "tune",
]


def train(
    path: str | Path,
    *,
    modality: str | None = None,
    family: str | None = None,
    codec: str | Path | None = None,
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
    """Train a generative model on the file or folder `path`; 5 minutes when no budget is given. `codec` is a finished
    run of the family autoencoder, whose latents or codes are learnt.

    `data` are options of the modality ({"size": 32}), `settings` those of training and of the family
    ({"train.lr": 0.001, "family.width": 256}). The plan and the progress go to standard error unless `quiet`.

    Raises UserError for bad usage or input, Diverged when training cannot go on, Interrupted after Ctrl-C (saved).
    """
    set_family, set_train = by_part(settings or {})
    choices = Choices(
        modality=modality,
        family=family,
        codec=None if codec is None else Path(codec),
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


def distill(
    run: Run | str | Path,
    *,
    guidance: float | None = None,
    finest: int = 4,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Run:
    """Make a student of a flow that draws in 1, 2, ... `finest` steps; `guidance` is the teacher's, learnt for good.

    Raises UserError for a run that is no flow, and as `train`.
    """
    lesson = Lesson(guidance, finest, minutes, steps, seed, None if out is None else Path(out), force)
    path = run.path if isinstance(run, Run) else Path(run)
    return _learnt(start_distilling(path, lesson, _nothing if quiet else _say), quiet)


def edit(
    run: Run,
    pictures: Sequence[Any],
    *,
    each: int = 1,
    label: str | Mapping[str, str] | None = None,
    number: Mapping[str, float] | None = None,
    caption: str | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    **change: Any,
) -> Samples:
    """`each` edits of every picture or sound, a file, an array (H, W, C) of uint8 or a Sound: strength, mask, hole,
    upscale, palette, edges, style, function, weight (afresh.tasks.edit.Change). Raises UserError for what cannot be
    done."""
    known = {f.name for f in fields(Change)}
    if wrong := sorted(set(change) - known):
        raise UserError(f"There is no edit {', '.join(wrong)}. Known: {', '.join(sorted(known))}.")
    editor = Editor(run, Request(label=label, number=number, caption=caption), settings or {}, seed)
    return editor.edit(pictures, Change(**change), each)


def blend(
    run: Run,
    first: Any,
    second: Any,
    n: int = 9,
    *,
    label: str | Mapping[str, str] | None = None,
    to_label: str | Mapping[str, str] | None = None,
    caption: str | None = None,
    to_caption: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Samples:
    """n pictures on the way from one to another through the model's latents. Raises UserError for a family that has
    none."""
    begin, end = Request(label=label, caption=caption), Request(label=to_label or label, caption=to_caption or caption)
    return Blender(run, settings).between(first, second, n, begin, end)


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
