"""Simulated learners whose knowledge is known: skills with prerequisites, guessing, slipping, learning, forgetting.

Each skill is known or not (Corbett and Anderson 1995); practice teaches it, hardly so while a prerequisite is missing;
time between answers makes it forgotten at a rate of its own; learners learn slowly, normally or fast. The posterior of
all this after any history is computed exactly (`Filter`), which gives the true model's predictions: nothing that only
sees the answers can do better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.int64]

SKILLS, EACH = 8, 6  # skills, and exercises of each
SPEEDS = (0.08, 0.2, 0.45)  # chance to learn a skill by one exercise, of slow, normal and fast learners
BLOCKED = 0.1  # times that chance while a prerequisite is missing
START, DAY = 1_700_000_000.0, 86_400.0
SESSION = 10  # answers on one day
# Which skills come before each: two chains that meet.
BEFORE = ((), (0,), (1,), (), (3,), (1, 4), (5,), (2, 5))


@dataclass(frozen=True)
class World:
    """The truth of one course: rates of guessing and slipping for each exercise, of forgetting for each skill."""

    guess: Array  # (items,)
    slip: Array  # (items,)
    forget: Array  # (skills,) a day
    prior: Array  # (skills,) chance that a skill is known at first
    before: tuple[tuple[int, ...], ...] = BEFORE
    skill: Index = field(default_factory=lambda: np.repeat(np.arange(SKILLS), EACH))  # (items,)

    @staticmethod
    def make(seed: int) -> World:
        rng = np.random.default_rng((seed, 0))
        n = SKILLS * EACH
        prior = np.where([not b for b in BEFORE], 0.25, 0.05)
        return World(rng.uniform(0.05, 0.3, n), rng.uniform(0.03, 0.2, n), rng.uniform(0.01, 0.06, SKILLS), prior)

    @property
    def items(self) -> int:
        return len(self.guess)

    def correct(self, known: NDArray[np.bool_]) -> Array:
        """The chance of a right answer to each exercise, (N, items), for learners who know `known` (N, skills)."""
        return np.where(known[:, self.skill], 1 - self.slip, self.guess)

    def level(self, known: NDArray[np.bool_]) -> Array:
        """The true level of knowledge, (N,): the chance of a right answer, over all exercises."""
        return self.correct(known).mean(1)


@dataclass
class Learners:
    """N learners: what they know, and how fast they learn. Random numbers are their own, whatever they are asked."""

    world: World
    known: NDArray[np.bool_]  # (N, skills)
    speed: Index  # (N,)
    seed: int
    step: int = 0
    time: float = START

    @staticmethod
    def begin(world: World, n: int, seed: int) -> Learners:
        rng = np.random.default_rng((seed, 1))
        known = rng.random((n, SKILLS)) < world.prior
        for k, first in enumerate(world.before):
            for b in first:
                known[:, k] &= known[:, b]
        return Learners(world, known, rng.integers(len(SPEEDS), size=n), seed)

    def wait(self, seconds: Array) -> None:
        """Time passes, (N,) s; skills are forgotten."""
        rng = np.random.default_rng((self.seed, 2, self.step))
        stays = np.exp(-self.world.forget[None] * seconds[:, None] / DAY)
        self.known &= rng.random(self.known.shape) < stays

    def answer(self, items: Index) -> NDArray[np.bool_]:
        """Everybody answers one exercise, (N,), and may learn by it. Returns whether each answer is right."""
        world, rows = self.world, np.arange(len(items))
        rng = np.random.default_rng((self.seed, 3, self.step))
        right: NDArray[np.bool_] = rng.random(len(items)) < world.correct(self.known)[rows, items]
        skill = world.skill[items]
        ready = np.array([[self.known[i, list(world.before[k])].all()] for i, k in enumerate(skill)])[:, 0]
        chance = np.array(SPEEDS)[self.speed] * np.where(ready, 1.0, BLOCKED)
        self.known[rows, skill] |= rng.random(len(items)) < chance
        self.step += 1
        return right


def gaps(n: int, count: int, seed: int) -> Array:
    """Seconds before each answer, (n, count): sessions of SESSION answers within minutes, one to four days apart."""
    rng = np.random.default_rng((seed, 4))
    within = np.exp(rng.normal(np.log(45), 0.6, (n, count)))
    apart = rng.uniform(0.8, 4, (n, count)) * DAY
    first = np.arange(count) % SESSION == 0
    out = np.where(first[None], apart, within)
    out[:, 0] = 0
    return out


@dataclass(frozen=True)
class Log:
    """Answers of n learners: exercises, outcomes and times, (n, T) each."""

    items: Index
    right: NDArray[np.bool_]
    times: Array
    chance: Array  # (n, T) the chance of a right answer of one who saw what they know
    gaps: Array
    known: NDArray[np.bool_]  # (n, skills) after the last answer


def simulate(world: World, n: int, count: int, seed: int) -> Log:
    """Learners who follow a course in its order, but repeat, go back and jump ahead, as people do: half of the answers
    are to exercises of the current skill, which changes every eight answers or so; the others to any."""
    rng = np.random.default_rng((seed, 5))
    learners = Learners.begin(world, n, seed)
    between = gaps(n, count, seed)
    current = rng.integers(0, 3, n)
    items, right, chance = np.zeros((n, count), np.int64), np.zeros((n, count), np.bool_), np.zeros((n, count))
    for t in range(count):
        learners.wait(between[:, t])
        current = np.minimum(current + (rng.random(n) < 1 / 8), SKILLS - 1)
        skill = np.where(rng.random(n) < 0.5, current, rng.integers(SKILLS, size=n))
        items[:, t] = skill * EACH + rng.integers(EACH, size=n)
        chance[:, t] = world.correct(learners.known)[np.arange(n), items[:, t]]
        right[:, t] = learners.answer(items[:, t])
    return Log(items, right, START + between.cumsum(1), chance, between, learners.known)


class Filter:
    """The exact posterior over what N learners know and how fast they learn: (N, speeds, 2 ** skills)."""

    def __init__(self, world: World, n: int) -> None:
        self.world = world
        known = np.array(np.unravel_index(np.arange(2**SKILLS), (2,) * SKILLS)).T.astype(bool)  # (2^S, S)
        self.states = known
        independent = np.where(known, world.prior, 1 - world.prior).prod(1)
        prior = np.zeros(len(known))
        for state, p in zip(known, independent, strict=True):  # as in Learners.begin
            s = state.copy()
            for k, first in enumerate(world.before):
                for b in first:
                    s[k] &= s[b]
            prior[np.ravel_multi_index(tuple(s.astype(int)), (2,) * SKILLS)] += p
        self.p = np.broadcast_to(prior / len(SPEEDS), (n, len(SPEEDS), len(prior))).copy()
        self.ready = np.array([known[:, list(b)].all(1) if b else np.ones(len(known), bool) for b in world.before])

    def wait(self, seconds: Array) -> None:
        n = len(self.p)
        shape = (n, len(SPEEDS), *(2,) * SKILLS)
        p = self.p.reshape(shape)
        for k in range(SKILLS):
            stays = np.exp(-self.world.forget[k] * seconds / DAY).reshape(n, *(1,) * SKILLS)
            p = np.moveaxis(p, 2 + k, -1)
            lost = p[..., 1] * (1 - stays)
            p = np.stack([p[..., 0] + lost, p[..., 1] - lost], -1)
            p = np.moveaxis(p, -1, 2 + k)
        self.p = p.reshape(n, len(SPEEDS), -1)

    def correct(self, items: Index) -> Array:
        """The chance of a right answer to one exercise each, (N,)."""
        known = self.p.sum(1) @ self.states.astype(float)  # (N, S)
        m = known[np.arange(len(items)), self.world.skill[items]]
        return m * (1 - self.world.slip[items]) + (1 - m) * self.world.guess[items]

    def known(self) -> Array:
        """The chance that each skill is known, (N, S)."""
        return self.p.sum(1) @ self.states.astype(float)

    def see(self, items: Index, right: NDArray[np.bool_]) -> None:
        """The outcomes of one exercise each, and what it may have taught."""
        skill = self.world.skill[items]
        has = self.states[:, skill].T  # (N, 2^S)
        one = np.where(has, 1 - self.world.slip[items][:, None], self.world.guess[items][:, None])
        self.p *= np.where(right[:, None], one, 1 - one)[:, None]
        self.p /= self.p.sum((1, 2), keepdims=True)
        self.teach(skill)

    def teach(self, skill: Index) -> None:
        chance = np.array(SPEEDS).reshape(1, -1, 1) * np.where(self.ready[skill], 1.0, BLOCKED)[:, None]
        moved = self.p * chance * ~self.states[:, skill].T[:, None]
        self.p -= moved
        for k in range(SKILLS):
            rows, without = skill == k, np.flatnonzero(~self.states[:, k])
            with_it = without | (1 << (SKILLS - 1 - k))
            part = self.p[rows]
            part[..., with_it] += moved[rows][..., without]
            self.p[rows] = part


def true_chances(world: World, log: Log) -> Array:
    """The true model's chance of each outcome from the answers before it, (n, T)."""
    out: Array = np.zeros((len(log.items), log.items.shape[1]))
    exact = Filter(world, len(out))
    for t in range(out.shape[1]):
        exact.wait(log.gaps[:, t])
        out[:, t] = exact.correct(log.items[:, t])
        exact.see(log.items[:, t], log.right[:, t])
    return out


def csv_of(log: Log, names: Sequence[str] = ()) -> str:
    """The log as the CSV that a program would write."""
    lines = ["learner,exercise,skill,correct,time"]
    for i, (items, right, times) in enumerate(zip(log.items, log.right, log.times, strict=True)):
        who = names[i] if names else f"L{i:05d}"
        for j, r, t in zip(items.tolist(), right.tolist(), times.tolist(), strict=True):
            lines.append(f"{who},s{j // EACH}-{j % EACH},s{j // EACH},{int(r)},{t:.0f}")
    return "\n".join([*lines, ""])
