"""The rules that items are cleaned by, in their order. Each has a name and can be switched on and off."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from afresh.core import UserError
from afresh.core.library_words import in_plain_words
from afresh.services.collect.record import Record

# The values that rules take, as pydantic checks them.
Share = Annotated[float, Ge(0), Le(1)]
Count = Annotated[int, Ge(0)]
Amount = Annotated[float, Ge(0)]
# Names that commas separate on the command line.
Names = Annotated[
    list[str], BeforeValidator(lambda v: [n for n in map(str.strip, v.split(",")) if n] if isinstance(v, str) else v)
]
Decibels = Annotated[float, Ge(-200), Le(0)]


# Files in this folder, which declare rules. What changes a text comes before what judges it.
RULES = "basic encoding boilerplate secrets personal words language code quality repetition pictures sounds"

# A record that is kept, as it is or changed or with more scores; or the reason why it is left out.
Verdict = Record | str
Mask = Callable[[Record], Record]
Judge = TypeVar("Judge", bound=Callable[..., Record | str])


@dataclass(frozen=True)
class Rule:
    """What judges one record by itself.

    name: as `words_few`. about: a sentence, with the source of its numbers. kinds: of the records that it judges.
    judge: a function of the record, and of the value if the rule takes one. default: whether it is on unless it is
    switched off. value: what it judges by unless another value is given. accepts: the type of the value, which pydantic
    checks and which is written as JSON; None if the rule takes no value. needs: modules of the extra
    `collect`, with spaces between.
    concealing: of a rule that finds what is private, what masks it in a record by the value, or None if the value only
    counts it. A record that comes back with another text counts as changed.
    """

    name: str
    about: str
    kinds: tuple[str, ...]
    judge: Callable[..., Verdict]
    default: bool = True
    value: Any = None
    accepts: Any = None
    needs: str = ""
    concealing: Callable[[Any], Mask | None] | None = None

    def with_value(self, value: Any) -> Callable[[Record], Verdict]:
        """The judgement by this value."""
        if self.accepts is None:
            return self.judge
        return partial(self.judge, value=tuple(value) if isinstance(value, list) else value)

    def read(self, given: str | None) -> Any:
        """The value as it was given in words, or the rule's own. Raises UserError if it is not accepted."""
        if given is None:
            if self.accepts is not None and self.value is None:
                raise UserError(f"The rule {self.name} needs a value: {self.name}=VALUE. {self.about}", "rule_value")
            return self.value
        if self.accepts is None:
            raise UserError(
                f"The rule {self.name} takes no value. Given: {given!r}. Give its name alone.", "rule_value"
            )
        try:
            return TypeAdapter(self.accepts).validate_python(given)
        except ValidationError as error:
            why = "; ".join(in_plain_words(e["msg"]) for e in error.errors())
            own = f" Its own value is {shown(self.value)}." if self.value is not None else ""
            raise UserError(f"The rule {self.name} does not take {given!r}: {why}.{own}", "rule_value") from None


declared: dict[str, list[Rule]] = defaultdict(list)  # by the module, in their order


def rule(kinds: tuple[str, ...], *, on: bool = True, **fields: Any) -> Callable[[Judge], Judge]:
    """Declare a rule by its function, whose name it has, with further fields of `Rule`. The docstring is the sentence
    about it, in which names in braces are constants of the module."""

    def declare(judge: Judge) -> Judge:
        name, about = judge.__name__, " ".join((judge.__doc__ or "").format_map(judge.__globals__).split())
        declared[judge.__module__].append(Rule(name, about, kinds, judge, on, **fields))
        return judge

    return declare


def shown(value: Any) -> str:
    """A value as it is given on the command line; empty for none, and for a list of words, which is long."""
    if value is None or "\n" in str(value):
        return ""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@cache
def rules() -> tuple[Rule, ...]:
    """All rules in the order in which they are applied."""
    modules = [import_module(f"afresh.services.collect.rules.{name}").__name__ for name in RULES.split()]
    return tuple(rule for module in modules for rule in declared[module])


def chosen(on: Sequence[str] = (), off: Sequence[str] = (), before: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The rules that are applied, by name, each with its value (None if it takes none).

    on: names, as "stop_words" or with a value as "stop_words=3". before: the rules of a data set that exists, of which
    `on` and `off` change some; None for the rules that are on by default. Raises UserError, listing all, for a name
    that no rule has, for a value that the rule does not accept, and if a package that a rule needs is missing.
    """
    known = {rule.name: rule for rule in rules()}
    given: dict[str, str | None] = {}
    for text in on:
        name, equals, value = text.partition("=")
        given[name] = value if equals else None
    for name in (*given, *off):
        if name not in known:
            raise UserError(f"No rule {name!r}. The rules are: {', '.join(known)}.", "unknown_rule")
        if name in given and name in off:
            raise UserError(f"The rule {name} is switched on and off. Do one of both.", "rule_value")
    values = {n: r.value for n, r in known.items() if r.default} if before is None else dict(before)
    values = {name: value for name, value in values.items() if name in known and name not in off}
    for name, needs in [(n, needs) for n in (*values, *given) for needs in known[n].needs.split()]:
        if find_spec(needs) is None:
            raise UserError(
                f"The rule {name} needs the package {needs}: pip install 'afresh[collect]'. Or switch it off.",
                "missing_package",
            )
    values |= {name: known[name].read(text) for name, text in given.items()}
    return {name: values[name] for name in known if name in values}
