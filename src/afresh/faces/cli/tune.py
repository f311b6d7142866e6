"""`afresh tune`: a model that exists goes on to learn from your data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.train import finish


def tune(
    base: o.Base,
    path: o.DataPath,
    lora: o.Lora = True,
    rank: o.Rank = None,
    alpha: Annotated[float | None, o.option("Weight of the adapter; twice its rank by default.", o.ADAPTER)] = None,
    target: Annotated[
        list[str] | None, o.option("Layers to adapt, by name or pattern; all hidden ones by default.", o.ADAPTER)
    ] = None,
    adapter: Annotated[
        str | None,
        o.option(
            "The person whose data it is: the adapter is kept in the folder of the base, as BASE:NAME.",
            o.ADAPTER,
            metavar="NAME",
        ),
    ] = None,
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Refuse a base whose licence does not allow commerce.")
    ] = False,
    minutes: o.Minutes = None,
    steps: o.Steps = None,
    lr: Annotated[float | None, o.option("The highest learning rate.", o.BY_HAND)] = None,
    seed: o.Seed = 0,
    out: Annotated[Path | None, o.option("Folder of the run; runs/BASE-tuned by default.")] = None,
    modality: o.Modality = None,
    validation: o.Validation = None,
    force: o.Force = False,
    device: o.Device = None,
    processes: o.Processes = 1,
    on: o.On = None,
    data: o.DataOptions = None,
    setting: o.TrainSettings = None,
    log: o.Log = None,
    measure: o.MeasureAtEnd = True,
    verbose: o.Verbose = False,
    as_json: o.ResultAsJson = False,
) -> None:
    """Tune a model on your own data: a run of yours, public weights, or an adapter on one of them.

    Texts are learnt to be continued; of instructions (question and answer; prompt and completion; messages)
    the answers are learnt. A small adapter (LoRA) learns, or everything with --full. Without a budget the data is
    passed three times. The result is a run like any other, to sample, measure and export; an adapter is also stored by
    itself, in PEFT's format. With --adapter NAME it is the adapter of one person: small, apart, and deleted with proof
    (afresh rm BASE:NAME). Ctrl-C saves; afresh train --resume RUN continues.
    """
    from afresh.core import UserError
    from afresh.core.options import pairs
    from afresh.verbs.train import TrainSpec, settings_of_tuning, start
    from afresh.verbs.train import adapter as lora_of

    extra = {"--adapter": adapter, "--rank": rank, "--alpha": alpha, "--target": target or None}
    if not lora and any(v is not None for v in extra.values()):
        raise UserError(f"{', '.join(k for k, v in extra.items() if v is not None)} is of an adapter: not with --full.")
    set_family, set_train = settings_of_tuning(pairs(setting or [], "--set"), lr)
    spec = TrainSpec(
        path=path,
        base=base,
        tuning=True,
        lora=lora_of(rank, alpha, target or ()) if lora else None,
        adapter=adapter,
        commercial=commercial,
        minutes=minutes,
        steps=steps,
        seed=seed,
        out=out,
        modality=modality,
        validation=validation,
        force=force,
        device=device,
        processes=processes,
        on=on,
        data=pairs(data or [], "--data"),
        set_family=set_family,
        set_train=set_train,
        clock=o.clock(measure),
    )
    finish(start(spec), measure, as_json, log)
