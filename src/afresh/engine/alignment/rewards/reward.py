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
    """Raised by a reward that cannot score its items. `item` is the index of the item that caused it, if known.

    `again`: whether some of the items may be scored if they are asked for by themselves, because one of them ended a
    process; `values` are then those of the first items, as far as they are known.
    """

    def __init__(self, reason: str, item: int | None = None, again: bool = False, values: Sequence[float] = ()) -> None:
        super().__init__(reason)
        self.reason, self.item, self.again, self.values = reason, item, again, values


@dataclass(frozen=True)
class Scored:
    """What a reward returns that has no value for some of its items: n values, NaN there, and the reasons by index."""

    values: list[float]
    reasons: dict[int, str]


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
    """A reward with a name. `make` takes the text after the colon (None without a colon); `help` is one line.

    file: divides the text after the colon into the path of a file and the rest, if it names a file. endless: whether
    there are texts after the colon with which scoring takes for ever, such as regular expressions.
    """

    make: Callable[[str | None, Context], Reward]
    help: str
    gradient: bool = False  # whether it is differentiable, so that its gradient can guide sampling
    file: Callable[[str], tuple[str, str]] | None = None
    endless: bool = False


def whole_file(argument: str) -> tuple[str, str]:
    """The division of a text that is a path as a whole."""
    return argument, ""


def required(name: str, what: str, argument: str | None) -> str:
    """The text after the colon. Raises UserError if none exists."""
    if not argument:
        raise UserError(f"The reward {name} needs {what} after a colon: {name}:{what}, in quotes if it has spaces.")
    return argument


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
    values, reasons = attempted(reward, items, requests, first)
    for i, reason in sorted(reasons.items()):
        raise failure(reward, items, first, reason, i)
    return values


def failure(reward: Reward, items: Sequence[Any], first: int, reason: str, item: int | None) -> RewardError:
    which = f"items {first} to {first + len(items) - 1}"
    if item is not None:
        which = f"item {first + item}, {described(reward.kind, items[item])}"
    return RewardError(f"The reward {reward.name} failed for {which}: {reason}")


def attempted(
    reward: Reward, items: Sequence[Any], requests: Sequence[Request], first: int = 0
) -> tuple[Array, dict[int, str]]:
    """Numbers (n,) float64 of n items, NaN for those without a finite one, and the reasons by index.

    Raises RewardError, which numbers items from `first` on, if the reward fails as a whole.
    """
    n = len(items)
    if n == 0:
        return np.zeros(0), {}
    try:
        scored = reward.score(items, requests)
    except ScoringError as e:
        raise failure(reward, items, first, e.reason, e.item) from e
    except UserError:
        raise
    except Exception as e:  # a user's function may raise anything
        raise failure(reward, items, first, f"{type(e).__name__}: {e}", None) from e
    reasons: dict[int, str] = {}
    if isinstance(scored, Scored):
        reasons, scored = dict(scored.reasons), scored.values
    try:
        values = np.array(scored, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise failure(reward, items, first, f"it did not return a list of numbers ({e}).", None) from e
    if values.shape != (n,):
        given = f"numbers of shape {values.shape}" if values.ndim != 1 else f"{len(values)} numbers"
        raise failure(reward, items, first, f"it returned {given} for {n} items.", None)
    for i in map(int, np.flatnonzero(~np.isfinite(values))):
        reasons.setdefault(i, f"it returned {values[i]}, but a reward must be a finite number.")
    values[list(reasons)] = np.nan
    return values, reasons


@dataclass
class FailureTally:
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

    An item that the reward has no finite value for, because a program crashed, hung or printed something else, counts
    as the worst item it is scored with. `failed` is called with the item and the reason. Only when no item has a value,
    the reward fails.

    `note` is called once for each reward that was the same for all items of CONSTANT_BATCHES batches.
    """

    def __init__(
        self,
        reward: Reward,
        batch: int = BATCH_SIZE,
        note: Callable[[str], None] = lambda line: None,
        failed: Callable[[Any, str], None] = lambda item, reason: None,
    ) -> None:
        self.reward, self.batch, self.note, self.failed = reward, batch, note, failed
        self.parts = reward.parts or ((1.0, reward),)
        self.tallies = {reward.name: FailureTally(), **{part.name: FailureTally() for _, part in self.parts}}
        self.same: dict[
            str, tuple[float, int] | None
        ] = {}  # the only value so far and the batches with it; None: values differ
        self.items = self.failures = self.warned = 0

    def __call__(self, items: Sequence[Any], requests: Sequence[Request] | None = None) -> Array:
        """float64 (n,) for n items. Raises RewardError."""
        requests = [{}] * len(items) if requests is None else requests
        if len(requests) != len(items):
            raise ValueError(f"{len(items)} items and {len(requests)} requests")
        out = np.zeros(len(items))
        reasons: dict[int, tuple[Reward, str]] = {}
        for i in range(0, len(items), self.batch):
            rows = slice(i, i + self.batch)
            scored, failed = self.scored(items[rows], requests[rows], i)
            reasons |= {i + at: why for at, why in failed.items()}
            for name, values in scored.items():
                valid = values[np.isfinite(values)]
                self.tallies[name].add(valid)
                self.watch(name, valid)
                if name == self.reward.name:
                    out[rows] = values
        self.items += len(items)
        if not reasons:
            return out
        if len(reasons) == len(items):
            reward, reason = reasons[0]
            raise failure(reward, items, 0, reason, 0)
        out[list(reasons)] = np.nanmin(out)
        self.report(items, reasons, float(np.nanmin(out)))
        return out

    def scored(
        self, items: Sequence[Any], requests: Sequence[Request], first: int
    ) -> tuple[dict[str, Array], dict[int, tuple[Reward, str]]]:
        """Values (n,) of the reward and of each of its parts, by name, NaN where a part has none, and by the item's
        index the part that failed and why."""
        values: dict[str, Array] = {}
        failed: dict[int, tuple[Reward, str]] = {}
        for part in {part.name: part for _, part in self.parts}.values():
            values[part.name], reasons = attempted(part, items, requests, first)
            failed |= {i: (part, reason) for i, reason in reasons.items()}
        if self.reward.parts:
            values[self.reward.name] = sum((w * values[r.name] for w, r in self.parts), np.zeros(len(items)))
        return values, failed

    def report(self, items: Sequence[Any], reasons: Mapping[int, tuple[Reward, str]], worst: float) -> None:
        """Tell of items without a value, at first and whenever there are twice as many as when it was last told."""
        for i, (_, reason) in reasons.items():
            self.failed(items[i], reason)
        self.failures += len(reasons)
        if self.failures < 2 * self.warned:
            return
        self.warned = self.failures
        i, (part, reason) = next(iter(reasons.items()))
        events.warning(
            f"The reward {part.name} has no value for {self.failures:,} of {self.items:,} items so far, which count as "
            f"the worst item of their batch (now {worst:g}). For example {described(part.kind, items[i])}: {reason}",
            "reward_failures",
            count=self.failures,
            items=self.items,
        )

    def watch(self, name: str, values: Array) -> None:
        """Note if the reward has been constant so far."""
        if not len(values):
            return
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
