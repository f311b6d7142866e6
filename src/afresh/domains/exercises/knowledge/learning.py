"""What practice teaches: knowledge tracing with learners who learn at different speeds, skills that wait for others,
and forgetting in time, fitted by gradients.

Each skill is known or not, guessed and slipped, as in Bayesian knowledge tracing (Corbett and Anderson 1995). Learners
have a speed (Yudelson, Koedinger and Gordon 2013), of which there are a few classes; a skill is learnt less while
others are not known (dynamic Bayesian networks of skills, Käser et al. 2017), which are found from the log; and what is
known is forgotten at a rate a day (Qiu et al. 2011). The filter holds skills to be independent of each other within a
class of speed, which makes an answer cost one step for any number of skills; it is differentiable, and its parameters
are those under which the answers of training are likeliest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from afresh.domains.exercises.knowledge.answers import Answers, Array, Predictor

SPEEDS = 3  # classes of learners
STEPS, BATCH, LR = 200, 128, 0.05
LONGEST = 200  # answers of a learner, the first, that are fitted to
NEED = 1e-3  # penalty on the sum of what skills need, a skill: most skills wait for few others
MOST_SKILLS = 300  # what skills need is a square table
AHEAD = 6  # answers after which what is known is compared


@dataclass(frozen=True)
class Padded:
    """Histories (N, T) with their ends filled. `items` and `skills` that training does not know have the last place."""

    items: Tensor
    skills: Tensor
    right: Tensor
    days: Tensor
    there: Tensor  # which answers there are


@dataclass(frozen=True)
class Belief:
    """What is held of N learners: `known` (N, SPEEDS, skills), the chance that each skill is known by a learner of each
    speed, and `speed` (N, SPEEDS), the chance of each speed."""

    known: Tensor
    speed: Tensor

    def mean(self) -> Tensor:
        """The chance that each skill is known, (N, skills)."""
        return (self.known * self.speed[..., None]).sum(1)


class Learning(nn.Module):
    """The parameters of `items` exercises and `skills` skills, each with one place more for those that training does
    not know. `place`: the skill of each exercise."""

    place: Tensor

    def __init__(self, place: Sequence[int], skills: int) -> None:
        super().__init__()
        self.register_buffer("place", torch.tensor([*place, skills]) % (skills + 1))
        self.guess = nn.Parameter(torch.full((len(place) + 1,), -1.4))  # logits, as are the next four
        self.slip = nn.Parameter(torch.full((len(place) + 1,), -1.8))
        self.prior = nn.Parameter(torch.full((skills + 1,), -1.5))
        self.rate = nn.Parameter(torch.full((skills + 1,), -1.5))
        self.speed = nn.Parameter(torch.linspace(-1, 1, SPEEDS))
        self.shares = nn.Parameter(torch.zeros(SPEEDS))
        self.forget = nn.Parameter(torch.full((skills + 1,), -3.5))  # softplus of it is a rate a day
        self.need = nn.Parameter(torch.full((skills + 1, skills + 1), -2.0))

    def needs(self) -> Tensor:
        """(skills, skills): practice of the first teaches exp(-need) of the whole while the second is not known."""
        return F.softplus(self.need) * (1 - torch.eye(len(self.need)))

    def begin(self, n: int) -> Belief:
        """Of learners who have not answered yet."""
        return Belief(self.prior.sigmoid().expand(n, SPEEDS, -1), self.shares.softmax(0).expand(n, -1))

    def wait(self, belief: Belief, days: Tensor) -> Belief:
        """After so many days (N,)."""
        stays = torch.exp(-F.softplus(self.forget) * days[:, None])
        return Belief(belief.known * stays[:, None], belief.speed)

    def teaches(self, belief: Belief) -> Tensor:
        """The chance that an answer to each skill teaches it to who does not know it, (N, SPEEDS, skills)."""
        ready = torch.exp(-(1 - belief.known) @ self.needs().T)
        return (self.rate + self.speed[:, None]).sigmoid() * ready

    def worth(self) -> Tensor:
        """By how much knowing a skill raises the chance of a right answer, over its exercises, (skills,). Skills
        without exercises are worth nothing."""
        each = 1 - self.slip.sigmoid() - self.guess.sigmoid()
        n = torch.zeros(len(self.rate)).index_add(0, self.place[:-1], torch.ones(len(each) - 1))
        return torch.zeros(len(self.rate)).index_add(0, self.place[:-1], each[:-1]) / n.clamp(min=1)

    def forward(self, a: Padded, belief: Belief | None = None) -> tuple[Tensor, Belief]:
        """The chance that each answer is right given those before it, (N, T), and the belief after the last ones."""
        belief = belief or self.begin(len(a.items))
        known, speed = belief.known, belief.speed
        right, wrong = 1 - self.slip[a.items].sigmoid(), self.guess[a.items].sigmoid()  # of who knows, of who does not
        stays = torch.exp(-F.softplus(self.forget) * a.days[..., None])  # (N, T, skills)
        needs = self.needs()[a.skills]
        rate = (self.rate[a.skills][..., None] + self.speed).sigmoid()  # (N, T, SPEEDS)
        out = []
        for t in range(a.items.shape[1]):
            here = a.there[:, t, None]
            known = known * stays[:, t, None]
            at = a.skills[:, t, None, None].expand(-1, SPEEDS, 1)
            k = known.gather(2, at)[..., 0]  # (N, SPEEDS)
            p, q = right[:, t, None], wrong[:, t, None]
            chance = k * p + (1 - k) * q
            out.append((speed * chance).sum(1))
            y = a.right[:, t, None]
            like = torch.where(y, chance, 1 - chance)
            weighed = speed * like
            speed = torch.where(here, weighed / weighed.sum(1, keepdim=True), speed)
            k_after = k * torch.where(y, p, 1 - p) / like
            known_now = known.scatter(2, at, k_after[..., None])
            ready = torch.exp(-((1 - known_now) * needs[:, t, None]).sum(2))
            k_after = k_after + (1 - k_after) * rate[:, t] * ready
            known = torch.where(here[..., None], known.scatter(2, at, k_after[..., None]), known)
        chances = torch.stack(out, 1) if out else torch.zeros(len(a.items), 0)
        return chances, Belief(known, speed)


def padded(learners: Sequence[Answers], net: Learning) -> Padded:
    """Answers of several learners under the places of a model."""
    n, t = len(learners), max(map(len, learners), default=0)
    items, skills = torch.full((n, t), -1), torch.full((n, t), -1)
    right, there = torch.zeros(n, t, dtype=torch.bool), torch.zeros(n, t, dtype=torch.bool)
    days = torch.zeros(n, t)
    for i, a in enumerate(learners):
        m = len(a)
        items[i, :m], skills[i, :m] = torch.from_numpy(a.items), torch.from_numpy(a.skills)
        right[i, :m], days[i, :m] = torch.from_numpy(a.right), torch.from_numpy(a.days).clamp(min=0)
        there[i, :m] = True
    return Padded(items % len(net.guess), skills % len(net.rate), right, days, there)


def fit(train: Sequence[Answers], place: Sequence[int], skills: int, seed: int = 0, steps: int = STEPS) -> Learning:
    """The model under which the answers are likeliest, by Adam on groups of learners. `place`: the skill of each
    exercise."""
    rng = np.random.default_rng(seed)
    net = Learning(place, skills)
    cut = [a.part(0, LONGEST) for a in train]
    optimiser = torch.optim.Adam(net.parameters(), lr=LR, betas=(0.9, 0.98))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LR * min(1.0, max(0.05, 1.5 * (1 - step / steps)))
        rows = padded([cut[i] for i in rng.integers(len(cut), size=min(BATCH, len(cut)))], net)
        chance = net(rows)[0].clamp(1e-6, 1 - 1e-6)
        loss = F.binary_cross_entropy(chance[rows.there], rows.right[rows.there].float())
        loss = loss + NEED * net.needs().sum() / len(net.rate)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.requires_grad_(False)


def predictor(net: Learning) -> Predictor:
    def predict(a: Answers) -> Array:
        found: Array = net(padded([a], net))[0][0].double().numpy()
        return found

    return predict


@torch.no_grad()
def gain(net: Learning, belief: Belief) -> Tensor:
    """What one answer to each skill is expected to add to the mean chance of a right answer, (N, skills)."""
    learnt = ((1 - belief.known) * net.teaches(belief) * belief.speed[..., None]).sum(1)
    return learnt * net.worth() / max(1, len(net.rate) - 1)


@torch.no_grad()
def ahead(net: Learning, belief: Belief, answers: int = AHEAD) -> Tensor:
    """The chance of a right answer over all skills that is expected after some answers; the first is to each
    skill, and the others are to what then teaches most at once, (N, skills)."""
    n, size = len(belief.known), len(net.rate)
    # Each first skill is a row of its own: (N * skills, SPEEDS, skills).
    known = belief.known.repeat_interleave(size, 0)
    speed = belief.speed.repeat_interleave(size, 0)
    pick = torch.arange(size).repeat(n)
    worth = net.worth()
    for step in range(answers):
        now = Belief(known, speed)
        learnt = (1 - known) * net.teaches(now)
        if step:
            pick = ((learnt * speed[..., None]).sum(1) * worth).argmax(1)
        known = known + learnt * F.one_hot(pick, size)[:, None]
    return (Belief(known, speed).mean() * worth).sum(1).reshape(n, size) / max(1, size - 1)
