"""Rewards of what a run draws: by name, as everywhere, or a function of Python, without training data unless needed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import torch

from afresh.alignment.rewards.call import Caller, Wrong
from afresh.alignment.rewards.reward import Array, Context, Failed, Request, Reward, Scorer, build
from afresh.core import UserError
from afresh.core.kinds import Kind
from afresh.core.kinds import kind_of as kind_of_item

if TYPE_CHECKING:
    from afresh.data.prepare import Prepared
    from afresh.runs.run import Run

Wanted = str | Callable[..., Any]  # a reward's words, or a function of decoded items


class Later:
    """A run's data as `Prepared`, read when first looked at: few rewards do."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def prepared(self) -> Prepared:
        """Raises UserError where the data is gone or changed."""
        from afresh.tasks.measure import prepared_again

        return prepared_again(self.run)

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


def kind_of(run: Run) -> Kind:
    """What the run draws."""
    space = run.encoder.space
    if space.timed:
        return "sound"
    blank = torch.zeros(1, *space.shape, dtype=torch.int64 if space.kind == "tokens" else torch.float32)
    return kind_of_item(run.encoder.decode(blank)[0])


def reward_of(run: Run, wanted: Wanted) -> Reward:
    """The reward that words or a function stand for. A function is given a list of items, or one item, and with a
    second parameter their requests, as one in FILE.py is. Raises UserError for words that cannot be read."""
    kind = kind_of(run)
    if not isinstance(wanted, str):
        return of_function(wanted, kind)
    from afresh.alignment.rewards.classifier_reward import judges_of, known

    data = Later(run)
    judges = judges_of(run.record.parent, run.path)
    found = known(cast("Prepared", data), kind, lambda text: warnings.warn(text, stacklevel=2), judges)
    return build(wanted, Context(kind, Items(data), known=found))


def of_function(function: Callable[..., Any], kind: Kind) -> Reward:
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


def scorer_of(reward: Reward) -> Callable[[Sequence[Any], Sequence[Request]], Array]:
    """Checked numbers (n,) float64 of n items and their requests; what is odd is warned of."""
    return Scorer(reward, note=lambda text: warnings.warn(text, stacklevel=2))
