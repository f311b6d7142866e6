"""Rewards of what a run draws: by name, as everywhere, or a function of Python, without training data unless needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

from afresh.alignment.rewards.build import build
from afresh.alignment.rewards.call import Caller, Wrong
from afresh.alignment.rewards.classifier_reward import judges_of, known
from afresh.alignment.rewards.reward import Context, Failed, Request, Reward
from afresh.core import ItemKind, UserError, events
from afresh.data.prepare import Prepared
from afresh.runs.data import run_data
from afresh.runs.run import Run

Wanted = str | Callable[..., Any]  # a reward's words, or a function of decoded items


class Later:
    """A run's data as `Prepared`, read when first looked at: few rewards do."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def prepared(self) -> Prepared:
        """Raises UserError where the data is gone or changed."""
        return run_data(self.run)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prepared, name)


class Items(Sequence[Any]):
    """The values of its training items, as late."""

    def __init__(self, data: Later) -> None:
        self.data = data

    @cached_property
    def values(self) -> list[Any]:
        return [i.value for i in self.data.prepared.train_items]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, at: Any) -> Any:
        return self.values[at]


def reward_of(run: Run, wanted: Wanted) -> Reward:
    """The reward that words or a function stand for. A function is given a list of items, or one item, and with a
    second parameter their requests, as one in FILE.py is. Raises UserError for words that cannot be read."""
    kind = run.encoder.kind
    if not isinstance(wanted, str):
        return of_function(wanted, kind)
    data = Later(run)
    judges = judges_of(run.record.base_model, run.path)
    found = known(cast("Prepared", data), kind, events.note, judges)
    return build(wanted, Context(kind, Items(data), known=found))


def of_function(function: Callable[..., Any], kind: ItemKind) -> Reward:
    """A function in this process, with no limit of time. Raises UserError for what cannot be called."""
    if not callable(function):
        raise UserError(f"A reward is words, as in 'length:min=50', or a function of items. Given: {function!r}.")
    caller = Caller(function)

    def score(items: Sequence[Any], requests: Sequence[Request]) -> list[float]:
        try:
            return caller(items, requests)
        except Wrong as e:
            raise Failed(*e.args) from e

    return Reward(getattr(function, "__name__", type(function).__name__), score, kind)
