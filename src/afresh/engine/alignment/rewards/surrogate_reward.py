"""A reward that is a model of measured values: surrogate:FILE[:COLUMN[:OPTION,...]].

FILE is a table as for `afresh propose`, and COLUMN its column of numbers, which may be left out if there is only one.
The reward is the value that is expected, less one standard deviation: without that, training finds the items of which
the model is wrong. Items that are empty or not valid have less than any measured one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afresh.core import UserError, events
from afresh.data.measurements import columns_of_numbers, read_observed
from afresh.data.refusals import refusal_lines
from afresh.engine.alignment.rewards.reward import Array, Builtin, Context, Request, Reward, options
from afresh.engine.alignment.surrogate.acquisition import Goal
from afresh.engine.alignment.surrogate.model import fit_surrogate

NAME = "surrogate"
CAUTION = 1.0  # standard deviations that are taken off


def split_file(argument: str) -> tuple[str, str]:
    """The longest beginning of FILE:REST that is a file or folder, and the rest with its colon."""
    end = len(argument)
    while end > 0:
        if Path(argument[:end]).exists():
            return argument[:end], argument[end:]
        end = argument.rfind(":", 0, end)
    return argument, ""


def surrogate(argument: str | None, context: Context) -> Reward:
    """The reward of a table. Raises UserError if its column cannot be learnt."""
    if not argument:
        raise UserError(f"The reward {NAME} needs a table after a colon: {NAME}:FILE.csv:COLUMN.")
    file, rest = split_file(argument)
    column, _, words = rest.removeprefix(":").partition(":")
    given = options(NAME, words or None, {"goal": goal_of, "caution": float})
    goal, caution = given.get("goal", Goal()), given.get("caution", CAUTION)
    if not column:
        found = columns_of_numbers(Path(file))
        if len(found) != 1:
            raise UserError(
                f"{file} has {len(found)} columns of numbers ({', '.join(found[:20]) or 'none'}). Name one: "
                f"{NAME}:{file}:COLUMN."
            )
        column = found[0]
    table = read_observed([Path(file)], context.kind, column)
    for line in refusal_lines(table.refused):
        events.warning(f"not used: {line}")
    rows = table.measured
    model = fit_surrogate(context.kind, [r.item for r in rows], [r.value for r in rows if r.value is not None])
    worth = goal.worth(model.values)
    lowest = float(worth.min() - 2 * worth.std())
    events.note(
        f"{NAME}: {column}, {goal}, less {caution:g} standard deviations of what is expected, by {model.quality}"
    )
    if not model.quality.useful:
        events.warning(f"{NAME}: {column} was predicted no better than by its mean: little can be learnt from it")

    def score(items: Sequence[Any], requests: Sequence[Request]) -> Array:
        out = np.full(len(items), lowest)
        usable = [i for i, item in enumerate(items) if context.kind.size(item)]
        if usable:
            predicted = model.predict(model.describe([items[i] for i in usable]))
            out[usable] = goal.worth(predicted.mean) - caution * predicted.sd
        return out

    return Reward(NAME, score, context.kind)


def goal_of(text: str) -> Goal:
    """maximise, minimise, or a target. Raises ValueError for anything else."""
    if text in ("maximise", "minimise"):
        return Goal(text == "maximise")
    try:
        return Goal(target=float(text))
    except ValueError:
        raise ValueError("maximise, minimise, or the number to come near to") from None


REWARDS = {
    "": {
        NAME: Builtin(
            surrogate,
            "what a table of measured values lets expect: surrogate:FILE.csv:COLUMN[:goal=minimise]",
            file=split_file,
        )
    }
}
