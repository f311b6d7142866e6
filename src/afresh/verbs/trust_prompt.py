"""Asks before a run that someone else made executes or reads what its run.json names.

Going on with a run needs that, and so does whatever reads data that is a query of a data base. No other task runs a
program that a run names, and data is otherwise used only if it has the hash of what the run has learnt.
"""

from __future__ import annotations

from pathlib import Path

from afresh.core import UserError, events
from afresh.engine.alignment.rewards.reward_paths import files_in, programs_in
from afresh.runs.data import query_of
from afresh.runs.run import Run
from afresh.runs.signature import made_here, outside, sign, trust_for_now


def named(run: Run) -> list[str]:
    """What going on with the run would execute, and what it would read outside its folder, one thing a line.

    Raises UserError if the words of a reward cannot be parsed.
    """
    record, align = run.record, run.record.align
    texts = [] if align is None else [t for t in (align.reward, align.heldout_reward) if t is not None]
    lines = [f"run the program: {word}" for text in texts for word in programs_in(text)]
    if lines and align is not None:
        lines.append(f"in the folder: {align.working_folder}")
    if (query := query_of(run)) is not None:
        lines.append(f"ask a data base: {query}")
    read = [("data", record.data.path), ("held-out data", record.data.validation)]
    read += [("votes", None if align is None else align.preferences)]
    read += [("a file of the reward", str(path)) for text in texts for path in files_in(text)]
    if record.base_model is not None and Path(record.base_model).is_absolute():
        read.append(("base model", record.base_model))
    return [*lines, *(f"read the {what}: {path}" for what, path in read if path is not None and outside(run, path))]


def check_trust(run: Run, trust: bool = False) -> None:
    """Let a run go on that this user made, that names nothing outside itself, or that is trusted, which is remembered.

    Raises UserError for any other run, listing what it would do.
    """
    if made_here(run) or not (lines := named(run)):
        return
    if not trust:
        raise UserError(
            f"{run.path} was not made here, or was changed since. It would do what its run.json says. If you want "
            "that, give `trust=True`:",
            "not_trusted",
            lines=lines,
            run=str(run.path),
            would=lines,
        )
    for line in lines:
        events.note(f"trusted: {line}", "trusted")
    try:
        sign(run)
    except UserError as e:
        trust_for_now(run)
        events.warning(f"{e} It will be asked for again.", e.code)
