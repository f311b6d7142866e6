"""`afresh align`: a model is steered by a reward, or by what people preferred."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from afresh.faces.cli import options as o
from afresh.faces.cli.show import quoted
from afresh.faces.cli.train import finish

WANTED = "What is wanted (one of them)"
ASKED = "What is asked of the model while it learns"


def align(
    run: Annotated[Path, o.run_argument("A run, which stays as it is.")],
    method: Annotated[
        str | None, o.option("grpo, rloo, ppo, reinforce, dpo, ipo, kto, ...; the one that suits the model by default.")
    ] = None,
    reward: Annotated[
        str | None,
        o.option(
            "A name (length:min=60, contains:dog, brightness), FILE.py:function, '!program', or a sum of them.", WANTED
        ),
    ] = None,
    preferences: Annotated[Path | None, o.option("A file of votes, as afresh compare writes them.", WANTED)] = None,
    heldout_reward: Annotated[
        str | None,
        o.option(
            "A second reward, not learnt from: training ends once it falls, and the best weights are used.", WANTED
        ),
    ] = None,
    prompt: Annotated[list[str] | None, o.option("A text to continue; may be repeated.", ASKED)] = None,
    prompts: Annotated[Path | None, o.option("A file of prompts, one per line.", ASKED)] = None,
    prompt_tokens: Annotated[int, o.option("Take prompts of this many tokens from the training texts.", ASKED)] = 0,
    length: Annotated[int | None, o.option("New tokens of a text; 64 by default.", ASKED)] = None,
    distance: Annotated[
        float | None,
        o.option(
            "How far samples may go from the base: in nats for texts (4 by default), otherwise in variances of "
            "the data (0.2 by default with draft). Methods that do not control it stop there.",
            WANTED,
        ),
    ] = None,
    calls: Annotated[
        int | None,
        o.option("Search for items of high reward instead, asking it about at most so many different ones.", WANTED),
    ] = None,
    known: Annotated[
        Path | None,
        o.option(
            "With --calls: a run that searched by the same reward, whose answers are not asked for again.", WANTED
        ),
    ] = None,
    lora: o.Lora = False,
    rank: o.Rank = None,
    minutes: o.Minutes = None,
    steps: o.Steps = None,
    seed: o.Seed = 0,
    out: Annotated[Path | None, o.option("Folder of the run; RUN-aligned by default.")] = None,
    force: o.Force = False,
    device: o.Device = None,
    processes: o.Processes = 1,
    on: o.On = None,
    reward_seconds: Annotated[float, o.option("Seconds that a reward may take for a batch.", o.BY_HAND)] = 60,
    anyway: Annotated[bool, o.option("Use votes that are no better than guessing.", o.BY_HAND, "--anyway")] = False,
    setting: o.AlignSettings = None,
    log: o.Log = None,
    measure: o.MeasureAtEnd = True,
    verbose: o.Verbose = False,
    as_json: o.ResultAsJson = False,
) -> None:
    """Align a model with a reward or with preferences, and hold it near to what it was.

    The reward is raised until samples are as far from those of the base model as --distance allows, for 200 steps if no
    budget is given. The result is a run like any other, to sample and measure; its report shows the reward against the
    divergence and any alarms. Ctrl-C saves; afresh train --resume RUN continues.
    """
    from afresh.core import UserError
    from afresh.core.options import pairs
    from afresh.engine.training.loop import Interrupted
    from afresh.engine.training.options import split_by_part
    from afresh.verbs.align import AlignSpec, start
    from afresh.verbs.train import adapter

    if rank is not None and not lora:
        raise UserError("--rank is of an adapter: give --lora with it.")
    parts = split_by_part(pairs(setting or [], "--set"), ("align", "train", "sample"))
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
        calls=calls,
        known=known,
        distance=distance,
        seed=seed,
        out=out,
        force=force,
        device=device,
        processes=processes,
        on=on,
        reward_seconds=reward_seconds,
        anyway=anyway,
        set_align=parts["align"],
        set_train=parts["train"],
        clock=o.clock(measure),
    )
    place = out or run.parent / f"{run.resolve().name}-aligned"
    try:
        job = start(spec)
    except Interrupted as e:
        raise Interrupted(f"Interrupted: {e}; go on with: afresh train --resume {quoted(place)}") from None
    except KeyboardInterrupt:
        raise Interrupted(
            f"Stopped while preparing, before there was a run to keep; {run} is as it was. Run the same command again."
        ) from None
    finish(job, measure, as_json, log)


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
