"""Worlds small enough to be exact: masked diffusion over all words of a few letters, and flows of one number on a grid.

Neither family offers `rollout` and `steps`. `unmasking` and `churning` give them here, made of the family's own network
and the product's own samplers, so that policy gradients can be held against exact answers on denoising steps too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import (
    AlignContext,
    AlignTarget,
    Batch,
    Cond,
    Family,
    Modules,
    Policy,
    Rollout,
    Space,
    State,
    Steps,
    Votes,
    registry,
)
from afresh.core.rng import Rng
from afresh.engine.families.masked import predictor
from afresh.engine.sampling.masked import Unmask, fill
from afresh.engine.sampling.ode import sde
from afresh.engine.sampling.tokens import Cut
from afresh.engine.training.config import TrainConfig
from afresh.engine.training.loop import Learner, take_step


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is steered towards what: a family's model, its reference, how it samples, and the reward."""

    family: Family
    config: Any
    space: Space
    settings: Any
    reference: Modules
    reward: Callable[[Tensor, Cond], Tensor]
    on_field: Callable[[Tensor], Tensor] | None = None
    votes: Votes | None = None

    def built(self) -> dict[str, Any]:
        """Fresh modules with the reference's weights."""
        made = self.family.build(self.config, self.space, {})
        for name, module in made.items():
            module.load_state_dict(self.reference[name].state_dict())
        return made

    def prepared(self, method: str, train: TrainConfig, **given: Any) -> tuple[Learner, Callable[[int, int], Batch]]:
        """The learner before its first step, and the batches that it learns from."""
        aligner = registry.aligner(method, self.family)
        config = aligner.config(**given)
        modules = {**(own := self.built()), **aligner.modules(config, own)}
        about = self.family, self.config, self.space, self.settings, self.on_field
        learner = Learner(
            modules, aligner.objective(config, AlignTarget(*about)), train, state=dict(aligner.first(config))
        )
        context = AlignContext(
            *about,
            modules=modules,
            reference=self.reference,
            rng=Rng(5),
            noise=Rng(0),
            requests=lambda first, n: Cond(n),
            state=lambda: learner.state,
            reward=self.reward,
            votes=self.votes,
        )
        return learner, aligner.batches(config, context)

    def steered(self, method: str, steps: int, batch: int, lr: float, **given: Any) -> tuple[dict[str, Any], State]:
        """The modules after some steps of the project's own loop, and the state."""
        learner, batches = self.prepared(method, plain(steps, batch, lr), **given)
        for step in range(steps):
            assert take_step(learner, batches(step * batch, batch), Rng(0)) is not None
            learner.step += 1
        return dict(learner.modules), learner.state


def plain(steps: int, batch: int, lr: float) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch=batch,
        micro_batch=batch,
        save_every=1,
        lr=lr,
        betas=(0.9, 0.95),
        cond_dropout=0.0,
        final_lr_ratio=0.01,
    )


def learn(family: Family, config: Any, space: Space, data: Batch, train: TrainConfig) -> dict[str, Any]:
    """A model of the rows of data, one batch a step of them in turn."""
    torch.manual_seed(3)
    modules = family.build(config, space, {})
    learner = Learner(modules, family.objective(config, space), train)
    for step in range(train.steps):
        rows = torch.arange(step * train.batch, (step + 1) * train.batch)
        batch = replace(data.select(rows % len(data.x)), index=rows)
        assert take_step(learner, batch, Rng(0)) is not None
        learner.step += 1
    return modules


def away(p: Tensor, q: Tensor) -> float:
    """Total variation of two vectors of probabilities."""
    return 0.5 * float((p - q).abs().sum())


def frontier(ref: Tensor, reward: Tensor, kl: float) -> float:
    """The highest mean reward of any distribution at most `kl` nats from `ref`, probabilities (G,): that of the
    tilted one, ref exp(s reward) / Z, at the s whose divergence is `kl`."""
    low, high = 0.0, 1e3
    for _ in range(80):
        s = (low + high) / 2
        p = tilted(ref, reward, 1 / s)
        low, high = (s, high) if divergence(p, ref) < kl else (low, s)
    return float((tilted(ref, reward, 1 / max(low, 1e-9)) * reward).sum())


def tilted(ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    """ref exp(reward / beta) / Z."""
    return (ref.clamp_min(1e-300).log() + reward / beta).softmax(0)


def divergence(p: Tensor, ref: Tensor) -> float:
    """KL(p || ref) of probabilities, nats."""
    return float((p * (p.clamp_min(1e-300).log() - ref.clamp_min(1e-300).log())).sum())


def slope(of: Tensor, params: Sequence[Tensor]) -> Tensor:
    """The gradient, all parameters in one vector."""
    found = torch.autograd.grad(of, list(params), allow_unused=True)
    return torch.cat([torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(found, params, strict=True)])


# --------------------------------------------------------------------------- masked diffusion over words


@dataclass(frozen=True)
class Words:
    """All N words of T letters, and all S words of which any places are hidden.

    A set of places is a number whose bit i is place i; `state` (N, 2^T) is the row in `windows` of a word of which that
    set is shown.
    """

    letters: int
    places: int
    x: Tensor  # (N, T)
    windows: Tensor  # (S, T + 1), led by `begin`
    state: Tensor  # (N, 2^T)

    @staticmethod
    def make(letters: int, places: int) -> Words:
        """The ids: letters, then `begin`, then the mask."""
        x = torch.tensor(list(itertools.product(range(letters), repeat=places)))
        hidden = torch.tensor(list(itertools.product(range(letters + 1), repeat=places)))
        windows = torch.cat([torch.full((len(hidden), 1), letters), hidden + (hidden == letters)], 1)
        sets = torch.arange(2**places)[:, None] >> torch.arange(places) & 1  # (2^T, T)
        partly = torch.where(sets[None] == 1, x[:, None], letters)  # (N, 2^T, T)
        number = (partly * (letters + 1) ** torch.arange(places - 1, -1, -1)).sum(2)
        return Words(letters, places, x, windows, number)

    @property
    def space(self) -> Space:
        return Space("tokens", (self.places,), vocab=(self.letters + 1,), special={"begin": self.letters})

    def table(self, modules: Modules) -> Tensor:
        """log p of every letter at every place of every window, (S, T, letters), float64, with gradient."""
        logits, _ = predictor(modules)(self.windows, None, Cond(len(self.windows)), None)
        return logits[:, :, : self.letters].double().log_softmax(2)

    def shown(self, steps: int) -> Tensor:
        """All equally likely ways to show T places in `steps` turns: what is shown when place i is drawn, (O, T)."""
        out = set()
        for order in itertools.permutations(range(self.places)):
            before = [0] * self.places
            for turn in range(steps):
                a, b = (k * self.places // steps for k in (turn, turn + 1))
                for i in order[a:b]:
                    before[i] = sum(1 << j for j in order[:a])
            out.add(tuple(before))
        return torch.tensor(sorted(out))

    def given(self, table: Tensor) -> Tensor:
        """log p(letter of the word at place i | what a set shows of it), (N, 2^T, T)."""
        letter = self.x[:, None, :, None].expand(-1, 2**self.places, -1, 1)
        return table[self.state].gather(3, letter)[..., 0]

    def paths(self, table: Tensor, shown: Tensor) -> Tensor:
        """Log-probabilities of the steps of every word in every order, (N, O, T)."""
        return self.given(table)[:, shown, torch.arange(self.places)]

    def marginal(self, table: Tensor, shown: Tensor) -> Tensor:
        """The probability of every word, (N,)."""
        return self.paths(table, shown).sum(2).exp().mean(1)

    def worth(self, table: Tensor, ref: Tensor, shown: Tensor, reward: Tensor, beta: float) -> Tensor:
        """E[r] - beta KL, the divergence that of the paths: the orders are drawn alike."""
        logs = self.paths(table, shown).sum(2)
        return (logs.exp() * (reward[:, None] - beta * (logs - self.paths(ref, shown).sum(2)))).sum(0).mean()

    def best(self, ref: Tensor, reward: Tensor, beta: float) -> tuple[Tensor, float]:
        """The table that is worth most where one place is shown at a time, and its worth.

        The policy chooses letters and not the order, so this does not tilt the marginal unless all orders agree:
        a window is worth the mean over its hidden places of beta log sum_v ref(v) exp(worth with v there / beta).
        """
        hidden = self.windows[:, 1:] > self.letters
        radix = (self.letters + 1) ** torch.arange(self.places - 1, -1, -1)
        worth, out = torch.zeros(len(self.windows), dtype=torch.float64), ref.clone()
        worth[self.state[:, -1]] = reward
        for n in range(1, self.places + 1):
            for s in (hidden.sum(1) == n).nonzero()[:, 0].tolist():
                at = hidden[s].nonzero()[:, 0]
                after = s + (torch.arange(self.letters) - self.letters)[None] * radix[at][:, None]
                logs = ref[s, at] + worth[after] / beta  # (n, letters)
                out[s, at] = logs.log_softmax(1)
                worth[s] = beta * logs.logsumexp(1).mean()
        return out, float(worth[-1])


def unmasking(words: Words, turns: int) -> Policy:
    """Masked diffusion as a policy: a place that is shown is a step. A batch's rows are the window (T + 1), then what
    was shown when each place was drawn (T)."""
    last = words.places

    def rollout(m: Modules, c: Any, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: Any) -> Rollout:
        seen: list[tuple[Tensor, Tensor]] = []
        plain = predictor(m)

        def watched(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
            logits, state = plain(x, t, cond, state)
            seen.append((x.clone(), logits[:, :, : words.letters].log_softmax(2)))
            return logits, state

        mask = words.letters + 1
        x = torch.full((len(index), last + 1), mask)
        x[:, 0] = words.letters
        how = Unmask(mask, Cut(), turns, banned=[words.letters])
        with torch.no_grad():
            x = fill(watched, x, torch.ones(len(index), last, dtype=torch.bool), cond, rng, index, how, "rollout")
        before = torch.zeros(len(index), last, dtype=torch.int64)
        logp = torch.zeros(len(index), last)
        for window, logs in seen:  # the last turn at which a place was hidden is the one that drew it
            hidden = window[:, 1:] == mask
            before = torch.where(hidden, ((~hidden) << torch.arange(last)).sum(1, keepdim=True), before)
            logp = torch.where(hidden, logs.gather(2, x[:, 1:, None])[:, :, 0], logp)
        every = torch.ones_like(before, dtype=torch.bool)
        return Rollout(x[:, 1:], Batch(torch.cat([x, before], 1), cond, index, every), logp)

    def steps(m: Modules, c: Any, space: Space, batch: Batch) -> Steps:
        x, before = batch.x[:, : last + 1], batch.x[:, last + 1 :]
        shown = before[:, :, None] >> torch.arange(last) & 1  # (B, step, place)
        rows = torch.where(shown == 1, x[:, None, 1:], words.letters + 1)
        rows = torch.cat([x[:, None, :1].expand(-1, last, 1), rows], 2).flatten(0, 1)
        logits, _ = predictor(m)(rows, None, Cond(len(rows)), None)
        logs = logits[:, :, : words.letters].log_softmax(2).view(len(x), last, last, -1)
        logs = logs.diagonal(dim1=1, dim2=2).transpose(1, 2)  # (B, T, letters): place i at its own step
        logp = logs.gather(2, x[:, 1:, None])[:, :, 0]
        assert batch.mask is not None
        return Steps(logp, batch.mask, -(logs.exp() * logs).sum(2).detach(), logs.detach())

    return Policy(("denoiser",), rollout=rollout, steps=steps)


# --------------------------------------------------------------------------- flows of one number


def churning(ts: Tensor) -> Policy:
    """A flow as a policy: a step is Gaussian, of afresh.engine.sampling.ode.sde between two of the times `ts`. A
    batch's rows are the numbers at all times, (B, K + 1)."""

    def rollout(m: Modules, c: Any, space: Space, cond: Cond, rng: Rng, index: Tensor, settings: Any) -> Rollout:
        states = [rng.normal("rollout/start", index, space.shape)]
        logp = []
        with torch.no_grad():
            for k in range(len(ts) - 1):
                z = rng.normal(f"rollout/{k}", index, space.shape)
                states.append(moved(m, states[-1], ts[k : k + 2], z))
                logp.append(
                    -0.5 * z.square().flatten(1).sum(1) - math.log(size(ts[k : k + 2]) * math.sqrt(2 * math.pi))
                )
        rows = torch.stack([s.flatten() for s in states], 1)
        every = torch.ones(len(index), len(logp), dtype=torch.bool)
        return Rollout(states[-1], Batch(rows, cond, index, every), torch.stack(logp, 1))

    def steps(m: Modules, c: Any, space: Space, batch: Batch) -> Steps:
        assert batch.mask is not None
        logp = []
        for k in range(len(ts) - 1):
            mean = moved(m, batch.x[:, k].view(-1, *space.shape), ts[k : k + 2]).flatten()
            s = size(ts[k : k + 2])
            logp.append(-0.5 * ((batch.x[:, k + 1] - mean) / s).square() - math.log(s * math.sqrt(2 * math.pi)))
        out = torch.stack(logp, 1)
        return Steps(out, batch.mask, torch.zeros_like(out), batch.x[:, :-1, None])

    return Policy(("velocity",), rollout=rollout, steps=steps)


def moved(modules: Modules, x: Tensor, ab: Tensor, z: Tensor | None = None) -> Tensor:
    """Where one step of the sampler, from ab[0] to ab[1], goes with the noise z; without, its mean."""
    velocity = modules["velocity"]
    noise = torch.zeros_like(x) if z is None else z
    return sde(lambda x, t, c, s: (velocity(x, t, c), s), x, Cond(len(x)), ab, noise=lambda i, shape: noise)


def size(ab: Tensor) -> float:
    """The standard deviation of the step's noise: where it moves 0 without velocity and with noise of 1."""
    one = torch.ones(1, 1, dtype=torch.float64)
    still = sde(lambda x, t, c, s: (torch.zeros_like(x), s), 0 * one, Cond(1), ab, noise=lambda i, shape: one)
    return float(still)


@dataclass(frozen=True)
class Line:
    """G even points of the line, for densities as probabilities (G,) of points; and a sampler's times."""

    x: Tensor  # (G,) float64
    ts: Tensor  # (K + 1,) float64

    @staticmethod
    def make(ts: Tensor, reach: float, points: int) -> Line:
        return Line(torch.linspace(-reach, reach, points, dtype=torch.float64), ts)

    def normal(self, mean: Tensor, std: float) -> Tensor:
        """Of each mean (M,), probabilities (M, G) that sum to 1 where the points reach."""
        h = float(self.x[1] - self.x[0])
        return (-0.5 * ((self.x - mean[:, None]) / std).square()).exp() * (h / (std * math.sqrt(2 * math.pi)))

    def start(self) -> Tensor:
        return self.normal(torch.zeros(1, dtype=torch.float64), 1.0)[0]

    def means(self, modules: Modules) -> Tensor:
        """Where each step goes from each point, (K, G) float64, with gradient."""
        x = self.x.float().view(-1, 1, 1)
        return torch.stack([moved(modules, x, ab).flatten().double() for ab in self.ts.unfold(0, 2, 1)])

    def sizes(self) -> list[float]:
        return [size(ab) for ab in self.ts.unfold(0, 2, 1)]

    def told(self, means: Tensor, ref: Tensor) -> tuple[Tensor, Tensor]:
        """The probabilities of the points at the last time, (G,), and the divergence of the paths."""
        p, kl = self.start(), torch.zeros((), dtype=torch.float64)
        for mean, other, s in zip(means, ref, self.sizes(), strict=True):
            kl = kl + (p * (mean - other).square()).sum() / (2 * s**2)
            p = p @ self.normal(mean, s)
        return p, kl

    def worth(self, means: Tensor, ref: Tensor, reward: Tensor, beta: float) -> Tensor:
        """E[r] - beta KL of the paths."""
        p, kl = self.told(means, ref)
        return (p * reward).sum() - beta * kl

    def optimum(self, ref: Tensor, reward: Tensor, beta: float) -> tuple[Tensor, float]:
        """Of all samplers with the same start: the probabilities at the last time, and the worth."""
        worth, kernels = reward, []
        for mean, s in reversed(list(zip(ref, self.sizes(), strict=True))):
            logs = self.normal(mean, s).clamp_min(1e-300).log() + worth / beta
            kernels.append(logs.softmax(1))
            worth = beta * logs.logsumexp(1)
        p = self.start()
        for kernel in reversed(kernels):
            p = p @ kernel
        return p, float((self.start() * worth).sum())

    def best(self, ref: Tensor, reward: Tensor, beta: float) -> Tensor:
        """Of Gaussian steps of the same sizes, the means (K, G) that are worth most: points of the line."""
        worth, out = reward, []
        for mean, s in reversed(list(zip(ref, self.sizes(), strict=True))):
            value = self.normal(self.x, s) @ worth - beta * (self.x - mean[:, None]).square() / (2 * s**2)
            best = value.max(1)
            out.append(self.x[best.indices])
            worth = best.values
        return torch.stack(out[::-1])
