"""The rules that items are cleaned by, in their order. Each has a name and can be switched on and off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from afresh.collect.record import Record
from afresh.core import UserError

RULES = ("basic",)  # files in this folder, each with RULES

# A record that is kept, as it is or changed or with more scores; or the reason why it is left out.
Verdict = Record | str


@dataclass(frozen=True)
class Rule:
    """What judges one record by itself.

    name: as `words_few`. about: a sentence, with the source of its numbers. kinds: of the records that it judges.
    default: whether it is on unless it is switched off. A record that comes back with another text counts as changed.
    """

    name: str
    about: str
    kinds: tuple[str, ...]
    judge: Callable[[Record], Verdict]
    default: bool = True


def rules() -> list[Rule]:
    """All rules in the order in which they are applied."""
    return [rule for name in RULES for rule in import_module(f"afresh.collect.rules.{name}").RULES]


def chosen(on: Sequence[str] = (), off: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of the rules that are applied. Raises UserError, listing all, for a name that no rule has."""
    known = {rule.name: rule for rule in rules()}
    for name in (*on, *off):
        if name not in known:
            raise UserError(f"There is no rule {name!r}. The rules are: {', '.join(known)}.", "unknown_rule")
    return tuple(n for n, rule in known.items() if n not in off and (rule.default or n in on))
