"""Commands that belong together: `afresh NAME VERB`, each verb a function as those of other commands are; and what
commands of earlier versions are called now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# What is typed in place of a command of earlier versions. A verb of such a name has no command of its own.
RENAMED = {
    "catalogue forget": "catalogue orders --forget PERSON",
    "catalogue grant": "catalogue orders --grant LISTING --to PERSON",
    "catalogue init": "catalogue add FILE --licence LICENCE --set name=NAME",
    "catalogue list": "catalogue publish --dry-run",
    "catalogue payments": "catalogue orders FILE",
    "catalogue price": "catalogue add LISTING --price PRICE",
    "catalogue remove": "catalogue publish --remove LISTING --reason WHY",
    "forget": "rm --data DATASET --person NAME",
    "label": "show RUN --format label",
    "make-data": "demo DATA",
    "pack": "export RUN --to bundle",
    "runs": "show",
}


@dataclass(frozen=True)
class Group:
    """A command of several verbs. `help` says what they are for."""

    name: str
    help: str
    verbs: tuple[Callable[..., Any], ...]


def verb_name(verb: Callable[..., Any]) -> str:
    return verb.__name__.strip("_").replace("_", "-")
