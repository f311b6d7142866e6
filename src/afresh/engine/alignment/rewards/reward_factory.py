"""Rewards of the samples of a run, from words or a Python function. Training data is only read if it is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, cast

from afresh.core import events
from afresh.data.prepare import Prepared
from afresh.engine.alignment.rewards.classifier_reward import classifier_folder, known
from afresh.engine.alignment.rewards.programs import of_function
from afresh.engine.alignment.rewards.reward import Context, Reward
from afresh.engine.alignment.rewards.reward_expression import build
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.runs.signature import base_model_here

Wanted = str | Callable[..., Any]  # a reward's words, or a function of decoded items


class LazyData:
    """A run's data as `Prepared`, read at the first access, because few rewards need it."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def prepared(self) -> Prepared:
        """Raises UserError if the data no longer exists or has changed."""
        return run_data(self.run)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.prepared, name)


class LazyItems(Sequence[Any]):
    """The values of a run's training items, read at the first access."""

    def __init__(self, data: LazyData) -> None:
        self.data = data

    @cached_property
    def values(self) -> list[Any]:
        return [i.value for i in self.data.prepared.train_items]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, at: Any) -> Any:
        return self.values[at]


def reward_of(run: Run, wanted: Wanted) -> Reward:
    """The reward that words or a function stand for.

    A function receives a list of items or one item, and with a second parameter also their requests, as `Caller`
    describes. Raises UserError for words that cannot be parsed.
    """
    kind = run.encoder.kind
    if not isinstance(wanted, str):
        return of_function(wanted, kind)
    data = LazyData(run)
    folder = classifier_folder(base_model_here(run), run.path)
    models = known(cast("Prepared", data), kind, events.note, folder)
    return build(wanted, Context(kind, LazyItems(data), known=models))
