"""Commands that belong together: `afresh NAME VERB`, each verb a function as those of other commands are; and what
commands of earlier versions are called now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# What is typed in place of a command of earlier versions. A verb of such a name has no command of its own.
RENAMED = {
    "forget": "rm --data DATASET --person NAME",
    "label": "show RUN --format label",
    "make-data": "demo DATA",
    "runs": "show",
}


@dataclass(frozen=True)
class Group:
    """A command of several verbs. `help` says what they are for."""

    name: str
    help: str
    verbs: tuple[Callable[..., Any], ...]

    @property
    def functions(self) -> dict[str, Callable[..., Any]]:
        """The functions by what is typed after `afresh`."""
        return {f"{self.name} {verb_name(verb)}": verb for verb in self.verbs}


def verb_name(verb: Callable[..., Any]) -> str:
    return verb.__name__.strip("_").replace("_", "-")
