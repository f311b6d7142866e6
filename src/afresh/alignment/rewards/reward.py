"""Rewards, which give each decoded item one finite number, and how they are run and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import ItemKind, RewardError, UserError, events

Request = Mapping[str, Any]  # the conditions of an item that were given: prompt, label, caption, ...
Array = NDArray[np.float64]
Score = Callable[[Sequence[Any], Sequence[Request]], Any]  # n items and their n requests -> n numbers

BATCH_SIZE = 64  # items that are scored together
CONSTANT_BATCHES = 4  # batches in which all rewards are equal before a note reports it
MAX_COUNTED_VALUES = 1024  # distinct values that a Tally counts exactly


class ScoringError(Exception):
    """Raised by a reward that cannot score its items. `item` is the index of the item that caused it, if known."""

    def __init__(self, reason: str, item: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.item = reason, item


@dataclass(frozen=True)
class Reward:
    """A function of decoded items and their requests; the higher, the better.

    `on_field`, if not None, is the same as a differentiable function of fields x (B, C, H, W) in [-1, 1] (for sounds:
    in the space of the run's encoder) -> (B,). A weighted sum has `parts`. `close` ends the processes that the reward
    has started. `score` may be called from one thread only.
    """

    name: str
    score: Score
    kind: ItemKind | None = None  # None: items of any kind
    on_field: Callable[[Tensor], Tensor] | None = None
    parts: tuple[tuple[float, Reward], ...] = ()
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Context:
    """What rewards are built from: the kind of items, the training items (for `novel`), limits, and a function that
    resolves words which are not the names of built-in rewards (the folder of a reward model, a class)."""

    kind: ItemKind
    train: Sequence[Any] = ()
    seconds: float = 60.0  # limit for each batch of a function or program
    workers: int | None = None  # processes of a shell program; None: one for each core
    known: Callable[[str], Reward | None] = lambda word: None
    folder: Path | None = None  # in which functions and programs run; None: the current one


@dataclass(frozen=True)
class Builtin:
    """A reward with a name. `make` takes the text after the colon (None without a colon); `help` is one line."""

    make: Callable[[str | None, Context], Reward]
    help: str
    gradient: bool = False  # whether it is differentiable, so that its gradient can guide sampling


def options(name: str, argument: str | None, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """Options written as key=value,key=value, each parsed by its function in `known`, which may raise ValueError.

    Raises UserError for an unknown or repeated key and for a value that is not accepted.
    """
    given: dict[str, Any] = {}
    accepted = f"Accepted: {name}:{','.join(f'{k}=...' for k in known)}." if known else f"Write {name} alone."
    for part in [] if argument is None else argument.split(","):
        key, equals, value = part.partition("=")
        if key not in known or not equals or key in given:
            near = get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]}?" if near and near[0] != key else ""
            raise UserError(f"The reward {name} does not accept the option {part!r}.{hint} {accepted}")
        try:
            given[key] = known[key](value)
        except ValueError as e:
            raise UserError(f"The reward {name}: {key}={value} is not accepted ({e}). {accepted}") from None
    return given


# ------------------------------------------------------------------------------------------------------------- running


def described(kind: ItemKind | None, item: Any) -> str:
    """A short description of an item for messages."""
    return repr(item)[:80] if kind is None else kind.describe(item)


def checked(reward: Reward, items: Sequence[Any], requests: Sequence[Request], first: int = 0) -> Array:
    """One finite number for each of n items, float64 (n,). Raises RewardError, which numbers items from `first` on."""
    n = len(items)

    def error(reason: str, item: int | None) -> RewardError:
        which = f"items {first} to {first + n - 1}"
        if item is not None:
            which = f"item {first + item}, {described(reward.kind, items[item])}"
        return RewardError(f"The reward {reward.name} failed for {which}: {reason}")

    if n == 0:
        return np.zeros(0)
    try:
        scored = reward.score(items, requests)
    except ScoringError as e:
        raise error(e.reason, e.item) from e
    except UserError:
        raise
    except Exception as e:  # a user's function may raise anything
        raise error(f"{type(e).__name__}: {e}", None) from e
    try:
        values = np.asarray(scored, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise error(f"it did not return a list of numbers ({e}).", None) from e
    if values.shape != (n,):
        given = f"numbers of shape {values.shape}" if values.ndim != 1 else f"{len(values)} numbers"
        raise error(f"it returned {given} for {n} items.", None)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise error(f"it returned {values[wrong[0]]}, but a reward must be a finite number.", int(wrong[0]))
    return values


@dataclass
class Tally:
    """Running statistics of a reward: mean and sum of squares (Welford 1962), and how often each value occurs.

    The share of the mode is exact up to MAX_COUNTED_VALUES distinct values. With more, counts are those of Misra and
    Gries 1982 and may be too small by n / MAX_COUNTED_VALUES. All fields are JSON values, and
    Tally(**json.loads(json.dumps(vars(tally)))) continues the statistics.
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0  # the sum of squared distances from the mean
    counts: list[list[float]] = field(default_factory=list)  # [value, how often], at most MAX_COUNTED_VALUES

    def add(self, values: Array) -> None:
        """Add values (m,) to the statistics."""
        counts = {value: int(times) for value, times in self.counts}
        for v in map(float, values):
            self.n += 1
            step = v - self.mean
            self.mean += step / self.n
            self.squares += step * (v - self.mean)
            if v in counts or len(counts) < MAX_COUNTED_VALUES:
                counts[v] = counts.get(v, 0) + 1
            else:
                counts = {value: times - 1 for value, times in counts.items() if times > 1}
        self.counts = [[value, times] for value, times in counts.items()]

    def summary(self) -> dict[str, Any]:
        """{n, mean, deviation, mode, mode_share}. `deviation` is that of a sample, None below two values."""
        mode, times = max(self.counts, key=lambda c: c[1]) if self.counts else (None, 0)
        deviation = (self.squares / (self.n - 1)) ** 0.5 if self.n > 1 else None
        share = times / self.n if self.n else None
        return {"n": self.n, "mean": self.mean, "deviation": deviation, "mode": mode, "mode_share": share}


class Scorer:
    """Computes a reward in batches during a whole run, checks its values, and holds a Tally of it and of its parts.

    `note` is called once for each reward that was the same for all items of CONSTANT_BATCHES batches.
    """

    def __init__(
        self, reward: Reward, batch: int = BATCH_SIZE, note: Callable[[str], None] = lambda line: None
    ) -> None:
        self.reward, self.batch, self.note = reward, batch, note
        self.parts = reward.parts or ((1.0, reward),)
        self.tallies = {reward.name: Tally(), **{part.name: Tally() for _, part in self.parts}}
        self.same: dict[
            str, tuple[float, int] | None
        ] = {}  # the only value so far and the batches with it; None: values differ

    def __call__(self, items: Sequence[Any], requests: Sequence[Request] | None = None) -> Array:
        """float64 (n,) for n items. Raises RewardError."""
        requests = [{}] * len(items) if requests is None else requests
        if len(requests) != len(items):
            raise ValueError(f"{len(items)} items and {len(requests)} requests")
        out = np.zeros(len(items))
        for i in range(0, len(items), self.batch):
            rows = slice(i, i + self.batch)
            for name, values in self.scored(items[rows], requests[rows], i).items():
                self.tallies[name].add(values)
                self.watch(name, values)
                if name == self.reward.name:
                    out[rows] = values
        return out

    def scored(self, items: Sequence[Any], requests: Sequence[Request], first: int) -> dict[str, Array]:
        """Values (n,) of the reward and of each of its parts, by name."""
        values = {
            r.name: checked(r, items, requests, first) for r in {part.name: part for _, part in self.parts}.values()
        }
        if self.reward.parts:
            values[self.reward.name] = sum((w * values[r.name] for w, r in self.parts), np.zeros(len(items)))
        return values

    def watch(self, name: str, values: Array) -> None:
        """Note if the reward has been constant so far."""
        seen = self.same.get(name, (float(values[0]), 0))
        if seen is None or (values != seen[0]).any():
            self.same[name] = None
            return
        self.same[name] = (seen[0], seen[1] + 1)
        if seen[1] + 1 == CONSTANT_BATCHES and self.tallies[name].n > CONSTANT_BATCHES:
            self.note(f"The reward {name} has been {seen[0]:g} for all items so far, so nothing can be learnt from it.")


def scorer_of(reward: Reward) -> Callable[[Sequence[Any], Sequence[Request]], Array]:
    """A function of n items and their requests that returns checked values, float64 (n,)."""
    return Scorer(reward, note=events.note)
