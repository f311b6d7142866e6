"""`afresh align`: a model is steered by a reward, or by what people preferred."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.cli.train import HAND, finish

ADAPTER = "What learns"
BUDGET = "Budget (one of them; 200 steps if none is given)"
WANTED = "What is wanted (one of them)"
ASKED = "What is asked of the model while it learns"


def align(
    run: Annotated[Path, typer.Argument(help="A run, which stays as it is.", metavar="RUN")],
    method: Annotated[
        str | None,
        typer.Option(help="grpo, rloo, ppo, reinforce, dpo, ipo, kto, ...; the first that fits if not given."),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="A name (length:min=60, contains:dog, brightness), FILE.py:function, '!program', or a sum of them.",
            rich_help_panel=WANTED,
        ),
    ] = None,
    preferences: Annotated[
        Path | None, typer.Option(help="Votes, as afresh compare keeps them.", rich_help_panel=WANTED)
    ] = None,
    heldout_reward: Annotated[
        str | None,
        typer.Option(
            help="A second reward, not learnt from: once it falls training ends, and the best is used.",
            rich_help_panel=WANTED,
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="A text to go on from; may be repeated.", rich_help_panel=ASKED)
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file of prompts, one a line.", rich_help_panel=ASKED)] = None,
    prompt_tokens: Annotated[
        int, typer.Option(help="Take prompts of so many tokens from the training texts.", rich_help_panel=ASKED)
    ] = 0,
    length: Annotated[
        int | None, typer.Option(help="New tokens of a text; 64 if not given.", rich_help_panel=ASKED)
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora/--full", help="Learn a small adapter, or everything.", rich_help_panel=ADAPTER)
    ] = False,
    rank: Annotated[int | None, typer.Option(help="Of the adapter; 16 if not given.", rich_help_panel=ADAPTER)] = None,
    minutes: Annotated[float | None, typer.Option(help="Time to learn.", rich_help_panel=BUDGET)] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to learn.", rich_help_panel=BUDGET)] = None,
    seed: Annotated[int, typer.Option(help="Of all random numbers.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; RUN-aligned if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a run that is in --out.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=HAND)] = None,
    reward_seconds: Annotated[
        float, typer.Option(help="Seconds that a reward may take for a batch.", rich_help_panel=HAND)
    ] = 60,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="align.beta=0.05, train.lr=0.0001, sample.steps=10.",
            metavar="KEY=VALUE",
            rich_help_panel=HAND,
        ),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure at the end.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")] = False,
) -> None:
    """Steer a model by a reward or by preferences, and keep it near to what it was.

    What is maximised is the reward minus beta times the divergence from the model as it was, in nats. The result is a
    run like any other, to sample and measure; its report shows the reward against the divergence and what went wrong,
    if anything did. Ctrl-C saves; afresh train --resume RUN goes on.
    """
    from afresh.core import UserError
    from afresh.core.options import pairs
    from afresh.tasks.align import AlignSpec, start
    from afresh.tasks.tune import adapter
    from afresh.training.options import parted

    if rank is not None and not lora:
        raise UserError("--rank is of an adapter: give --lora with it.")
    parts = parted(pairs(setting or [], "--set"), ("align", "train", "sample"))
    settings = {**parts["sample"], **({} if length is None else {"length": length})}
    spec = AlignSpec(
        run=run,
        method=method,
        reward=reward,
        heldout_reward=heldout_reward,
        preferences=preferences,
        prompts=(*(prompt or ()), *lines(prompts)),
        prompt_tokens=prompt_tokens,
        settings=settings,
        lora=adapter(rank, None, ()) if lora else None,
        minutes=minutes,
        steps=steps,
        seed=seed,
        out=out,
        force=force,
        device=device,
        reward_seconds=reward_seconds,
        set_align=parts["align"],
        set_train=parts["train"],
    )
    finish(start(spec), measure, as_json)


def lines(path: Path | None) -> list[str]:
    """The lines of a file that are not empty. Raises UserError where it cannot be read, or has none."""
    from afresh.core import UserError

    if path is None:
        return []
    try:
        found = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"Cannot read the prompts in {path}: {e}. Give a text file with one prompt a line.") from e
    if not found:
        raise UserError(f"{path} has no prompt: give one a line.")
    return found
