"""Rewards: one finite number for each decoded item. What they are, and how they are run and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import ItemKind, RewardError, UserError, events

Request = Mapping[str, Any]  # what was asked of an item: prompt, label, caption, ..., as far as given
Array = NDArray[np.float64]
Score = Callable[[Sequence[Any], Sequence[Request]], Any]  # n items and their n requests -> n numbers

BATCH, CONSTANT_BATCHES = 64, 4  # items scored together; batches of one same number before a note says so
VALUES = 1024  # distinct values that a tally counts one by one


class Failed(Exception):
    """What a reward raises to say why it has no numbers, and by which of the items it was given (None: not known)."""

    def __init__(self, reason: str, item: int | None = None) -> None:
        super().__init__(reason)
        self.reason, self.item = reason, item


@dataclass(frozen=True)
class Reward:
    """A function of decoded items and their requests; the higher, the better.

    `on_field` is the same function of a field x (B, C, H, W) in [-1, 1] (of sounds: in the space of the run's encoder)
    -> (B,), differentiable, where there is one.
    A weighted sum has `parts`. `close` ends what the reward keeps running. `score` may be called from one thread only.
    """

    name: str
    score: Score
    kind: ItemKind | None = None  # None: any
    on_field: Callable[[Tensor], Tensor] | None = None
    parts: tuple[tuple[float, Reward], ...] = ()
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Context:
    """What rewards may be made from: the kind of items, those of training (`novel`), limits, and rewards by a word that
    is known elsewhere (a folder with a reward model, a class)."""

    kind: ItemKind
    train: Sequence[Any] = ()
    seconds: float = 60.0  # for a batch of a function or program
    workers: int | None = None  # processes of a shell program; None: as many as there are cores
    known: Callable[[str], Reward | None] = lambda word: None


@dataclass(frozen=True)
class Builtin:
    """A reward with a name: how it is made of what stands after the colon (None without one), and a line of help."""

    make: Callable[[str | None, Context], Reward]
    help: str
    gradient: bool = False  # whether it is differentiable, so that its gradient can guide sampling


def options(name: str, argument: str | None, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """key=value,key=value read by the functions `known`, which raise ValueError. Raises UserError."""
    found: dict[str, Any] = {}
    accepted = f"Accepted: {name}:{','.join(f'{k}=...' for k in known)}." if known else f"Write {name} alone."
    for part in [] if argument is None else argument.split(","):
        key, equals, value = part.partition("=")
        if key not in known or not equals or key in found:
            near = get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]}?" if near and near[0] != key else ""
            raise UserError(f"The reward {name} has no option {part!r} here.{hint} {accepted}")
        try:
            found[key] = known[key](value)
        except ValueError as e:
            raise UserError(f"The reward {name}: {key}={value} is not accepted ({e}). {accepted}") from None
    return found


# ------------------------------------------------------------------------------------------------------------- running


def described(kind: ItemKind | None, item: Any) -> str:
    """An item in a few words."""
    return repr(item)[:80] if kind is None else kind.describe(item)


def checked(reward: Reward, items: Sequence[Any], requests: Sequence[Request], first: int = 0) -> Array:
    """One finite number for each of n items, float64 (n,); `first` is the number of the first. Raises RewardError."""
    n = len(items)

    def error(reason: str, item: int | None) -> RewardError:
        which = f"items {first} to {first + n - 1}"
        if item is not None:
            which = f"item {first + item}, {described(reward.kind, items[item])}"
        return RewardError(f"The reward {reward.name} failed for {which}: {reason}")

    if n == 0:
        return np.zeros(0)
    try:
        found = reward.score(items, requests)
    except Failed as e:
        raise error(e.reason, e.item) from e
    except UserError:
        raise
    except Exception as e:  # whatever a user's function raises
        raise error(f"{type(e).__name__}: {e}", None) from e
    try:
        values = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise error(f"it gave what is no list of numbers ({e}).", None) from e
    if values.shape != (n,):
        given = f"numbers of shape {values.shape}" if values.ndim != 1 else f"{len(values)} numbers"
        raise error(f"it gave {given}, and there are {n} items.", None)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise error(f"it gave {values[wrong[0]]}, and a reward has to be a finite number.", int(wrong[0]))
    return values


@dataclass
class Tally:
    """A reward's statistics over a run, one pass: Welford 1962's mean and squares, and how often a value occurs.

    The share of the mode is exact up to VALUES distinct values. Beyond, counts are those of Misra and Gries 1982 and
    may be too small by n / VALUES. All fields are JSON: Tally(**json.loads(json.dumps(vars(t)))) goes on from there.
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0  # the sum of squared distances from the mean
    counts: list[list[float]] = field(default_factory=list)  # [value, how often], at most VALUES

    def add(self, values: Array) -> None:
        """Take in numbers (m,)."""
        counts = {value: int(times) for value, times in self.counts}
        for v in map(float, values):
            self.n += 1
            step = v - self.mean
            self.mean += step / self.n
            self.squares += step * (v - self.mean)
            if v in counts or len(counts) < VALUES:
                counts[v] = counts.get(v, 0) + 1
            else:
                counts = {value: times - 1 for value, times in counts.items() if times > 1}
        self.counts = [[value, times] for value, times in counts.items()]

    def summary(self) -> dict[str, Any]:
        """{n, mean, deviation (of a sample; None below two), mode, mode_share}."""
        mode, times = max(self.counts, key=lambda c: c[1]) if self.counts else (None, 0)
        deviation = (self.squares / (self.n - 1)) ** 0.5 if self.n > 1 else None
        share = times / self.n if self.n else None
        return {"n": self.n, "mean": self.mean, "deviation": deviation, "mode": mode, "mode_share": share}


class Scorer:
    """Runs a reward in batches over a whole run: checks it, keeps a tally of it and of its parts, notes what is odd.

    A note, told once for each reward: it gave one and the same number for every item of CONSTANT_BATCHES batches.
    """

    def __init__(self, reward: Reward, batch: int = BATCH, note: Callable[[str], None] = lambda line: None) -> None:
        self.reward, self.batch, self.note = reward, batch, note
        self.parts = reward.parts or ((1.0, reward),)
        self.tallies = {reward.name: Tally(), **{part.name: Tally() for _, part in self.parts}}
        self.same: dict[str, tuple[float, int] | None] = {}  # the number so far and its batches; None: there are two

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
        """The numbers of each part, by name, and of the whole."""
        found = {
            r.name: checked(r, items, requests, first) for r in {part.name: part for _, part in self.parts}.values()
        }
        if self.reward.parts:
            found[self.reward.name] = sum((w * found[r.name] for w, r in self.parts), np.zeros(len(items)))
        return found

    def watch(self, name: str, values: Array) -> None:
        seen = self.same.get(name, (float(values[0]), 0))
        if seen is None or (values != seen[0]).any():
            self.same[name] = None
            return
        self.same[name] = (seen[0], seen[1] + 1)
        if seen[1] + 1 == CONSTANT_BATCHES and self.tallies[name].n > CONSTANT_BATCHES:
            self.note(f"The reward {name} was always {seen[0]:g} so far: nothing can be learnt from it.")


def scorer_of(reward: Reward) -> Callable[[Sequence[Any], Sequence[Request]], Array]:
    """Checked numbers (n,) float64 of n items and their requests; what is odd becomes a note."""
    return Scorer(reward, note=events.note)
