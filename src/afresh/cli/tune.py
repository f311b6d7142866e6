"""`afresh tune`: a model that exists goes on to learn from your data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.cli.train import HAND, finish

ADAPTER, BUDGET = "Adapter", "Budget (one of them; 3 passes over the data if none is given)"


def tune(
    base: Annotated[
        str, typer.Argument(help="A run, a folder or hub name of weights, a .gguf, a PEFT folder.", metavar="BASE")
    ],
    path: Annotated[Path, typer.Argument(help="Your data: a file or a folder.", metavar="PATH")],
    lora: Annotated[
        bool, typer.Option("--lora/--full", help="Learn a small adapter, or everything.", rich_help_panel=ADAPTER)
    ] = True,
    rank: Annotated[int | None, typer.Option(help="Of the adapter; 16 if not given.", rich_help_panel=ADAPTER)] = None,
    alpha: Annotated[
        float | None, typer.Option(help="Weight of the adapter; twice its rank if not given.", rich_help_panel=ADAPTER)
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="Layers to adapt, by name or pattern; all hidden ones if not given.", rich_help_panel=ADAPTER
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time to train.", rich_help_panel=BUDGET)] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to train.", rich_help_panel=BUDGET)] = None,
    lr: Annotated[float | None, typer.Option(help="The highest learning rate.", rich_help_panel=HAND)] = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; runs/NAME-tuned if not given.")] = None,
    modality: Annotated[str | None, typer.Option(help="What the data is, if it is not clear.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Held-out data of your own.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a run that is in --out.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=HAND)] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="How data is read.", metavar="KEY=VALUE", rich_help_panel=HAND)
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="train.batch=4.", metavar="KEY=VALUE", rich_help_panel=HAND)
    ] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure at the end.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Tune a model on your own data: a run of yours, public weights, or an adapter on one of them.

    Texts are gone on from; of instructions (prompt and completion; instruction, input and output; messages) the
    answers are learnt. A small adapter (LoRA) learns, or with --full everything. The result is a run like any other,
    to sample, measure and export; an adapter is also kept by itself in it, in PEFT's format. Ctrl-C saves; afresh
    train --resume RUN goes on.
    """
    from afresh.core import UserError
    from afresh.core.options import pairs
    from afresh.tasks.tune import TuneSpec, adapter, of_tuning, start

    extra = {"--rank": rank, "--alpha": alpha, "--target": target or None}
    if not lora and any(v is not None for v in extra.values()):
        raise UserError(f"{', '.join(k for k, v in extra.items() if v is not None)} is of an adapter: not with --full.")
    spec = TuneSpec(
        base=base,
        path=path,
        lora=adapter(rank, alpha, target or ()) if lora else None,
        minutes=minutes,
        steps=steps,
        lr=lr,
        seed=seed,
        out=out,
        modality=modality,
        validation=validation,
        force=force,
        device=device,
        data=pairs(data or [], "--data"),
        set_train=of_tuning(pairs(setting or [], "--set")),
    )
    finish(start(spec), measure, as_json)
