"""Commands that train, read as their options say and without asking whether their paths exist on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.faces.cli import full_command
from afresh.faces.cli.paths import run_here

TRAINING = ("train", "tune", "distill", "align")
PARTS = re.compile(r"[\s=:+*,!]+")  # between the parts of a value: reward.py:score, captions=names.csv


def values_of(words: Sequence[str]) -> dict[str, Any]:
    """The values of the options of a command that trains. Raises UserError for another command, and a usage error for
    options that the command does not have."""
    if not words:
        raise UserError("Say what to launch: afresh launch ENGINE -- train PATH --minutes 60 --out RUN", "no_command")
    if words[0] not in TRAINING:
        raise UserError(
            f"{words[0]!r} is not a verb that trains. Launch one of: {', '.join(TRAINING)}. Other verbs, as sample and "
            "measure, need one machine: run them there.",
            "not_training",
        )
    verb, *rest = words
    command = full_command(verb)
    for parameter in command.params:
        parameter.callback = None  # which would look for the paths on this machine
    return dict(command.make_context(f"afresh {verb}", rest).params)


def paths_of(values: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files and folders that a command reads: values that are paths, and texts that name what exists here. A run
    that is given by its name is its folder."""
    found: dict[Path, None] = {}
    for name, value in values.items():
        if name == "out":
            continue
        for item in value if isinstance(value, list | tuple) else (value,):
            if isinstance(item, Path):
                found[item if item.exists() else run_here(item) or item] = None
            elif isinstance(item, str):
                found |= dict.fromkeys(named_in(item))
    return tuple(found)


def named_in(text: str) -> Iterator[Path]:
    """The paths that a text names: those that are written as such, files and folders that exist, and runs."""
    for part in dict.fromkeys((text, *PARTS.split(text))):
        path = Path(part)
        if part.startswith(("/", "./", "../")) or (("/" in part or "." in part) and path.exists()):
            yield path
        elif part and (run := run_here(path)) is not None:
            yield run
