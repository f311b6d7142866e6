"""One model from its data to its score, in one file: the pieces of afresh without the product around them.

    python examples/whole.py --steps 600

`afresh train digits/` does the same with a plan for your machine and minutes, checkpoints, a report, and every kind of
data. Here are the nouns that it is built of, in the order in which one batch meets them:

- a `Space` says what an example is once it is encoded, and a `Part` what may be asked of it;
- a `Cond` holds what is asked of each of B samples, and a `Batch` holds examples with their conditions;
- a `Rng` gives the noise of an example, by its number: no generator has a state that would have to be saved;
- a `Family` brings the networks, the loss and the sampler, and knows no kind of data;
- an `Estimate` is a score with its interval.

docs/development/tour.md follows the same batch through the whole program.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from afresh.core import Batch, Cond, CondSpec, Family, Part, Space, registry
from afresh.core.rng import Rng
from afresh.engine.evaluation.distribution import kid
from afresh.engine.evaluation.estimate import Estimate, share
from afresh.engine.evaluation.memorisation import near_copies, nearest

HELD_OUT = 300  # digits that the model does not learn, to judge it by
BATCH, RATE, HALF_LIFE = 64, 2e-3, 3_000  # examples of a step; of AdamW; of the average of weights, in examples
UNASKED = 0.1  # share of labels that training leaves out, so that the model also learns digits of any class
GUIDANCE, EACH = 2.0, 20  # of sampling; samples of each class

Modules = dict[str, nn.Module]
Vectors = NDArray[np.float64]  # (N, D)


# --------------------------------------------------------------------------- 1. data


@dataclass(frozen=True)
class Digits:
    """Images x (N, 1, 8, 8) in [-1, 1] with their classes y (N,)."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    @property
    def vectors(self) -> Vectors:
        """The pixels, (N, 64)."""
        return self.x.flatten(1).double().numpy()


def read() -> tuple[Digits, Digits]:
    """The digits to learn from, and those to judge by."""
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1  # 0 to 16 becomes -1 to 1
    y = torch.tensor(data.target)
    order = torch.tensor(np.random.default_rng(0).permutation(len(x)))
    held, train = order[:HELD_OUT], order[HELD_OUT:]
    return Digits(x[train], y[train]), Digits(x[held], y[held])


# --------------------------------------------------------------------------- 2. the space and what may be asked


def space_of(train: Digits) -> Space:
    """A field of one channel on a grid of 8 x 8, with the standard deviation of its values."""
    return Space("field", tuple(train.x.shape[1:]), std=float(train.x.std()), axes=("height", "width"))


CONDS: CondSpec = {"label": Part("label", classes=tuple("0123456789"))}


def asked(labels: Tensor) -> Cond:
    """The condition of samples of the classes `labels` (B,)."""
    return Cond(len(labels), {"label": labels}, {"label": torch.ones(len(labels), dtype=torch.bool)})


# --------------------------------------------------------------------------- 3. the family


@dataclass(frozen=True)
class Model:
    """A family's networks in a space: all that training and sampling need."""

    family: Family
    space: Space
    config: object
    modules: Modules


def build(space: Space) -> Model:
    """A flow: a network that tells, for a mixture of data and noise, in which direction the data lies."""
    torch.manual_seed(0)  # the first weights are the only numbers that do not come from an Rng
    family = registry.family("flow")
    config = family.config(widths=(32, 64), emb=128)
    return Model(family, space, config, family.build(config, space, CONDS))


# --------------------------------------------------------------------------- 4. training


def batches(train: Digits, rng: Rng) -> Iterator[Batch]:
    """Batches without end, each epoch in an order of its own.

    `index` numbers the draws since the start of training. All noise of an example is a function of its number, so that
    an interrupted run that goes on draws what it would have drawn.
    """
    number, epoch = 0, 0
    while True:
        order = rng.bits(f"shuffle/{epoch}", torch.arange(len(train))).argsort()
        for rows in order.split(BATCH):
            index = torch.arange(number, number + len(rows))
            cond = asked(train.y[rows]).drop({"label": rng.uniform("unasked", index) >= UNASKED})
            yield Batch(train.x[rows], cond, index)
            number += len(rows)
        epoch += 1


def train_for(model: Model, train: Digits, steps: int, rng: Rng) -> Modules:
    """Train for `steps` steps; returns the average of the weights, which draws better samples than the last ones."""
    objective = model.family.objective(model.config, model.space)
    weights = [p for name in objective.players["model"] for p in model.modules[name].parameters()]
    optimizer = torch.optim.AdamW(weights, RATE, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2.5 * (1 - step / steps)))
    averaged = copy.deepcopy(model.modules)
    for step, batch in zip(range(steps), batches(train, rng), strict=False):
        total, count, _ = objective.loss(model.modules, batch, "model", step, rng, {})  # a sum and its weight
        optimizer.zero_grad()
        (total / count).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        average(averaged, model.modules, 0.5 ** (len(batch.x) / HALF_LIFE))
        if step % 100 == 0:
            print(f"step {step}: loss {float(total) / float(count):.3f}")
    return averaged


@torch.no_grad()
def average(averaged: Modules, modules: Modules, keep: float) -> None:
    """Move the averages towards the weights, by the share 1 - keep."""
    for name, module in modules.items():
        for mean, value in zip(averaged[name].parameters(), module.parameters(), strict=True):
            mean.lerp_(value, 1 - keep)


def loss_by_hand(model: Model, batch: Batch, rng: Rng) -> Tensor:
    """What the family's loss is, without the family: the squared error of the velocity x - e on the straight path
    (1 - t) e + t x (Lipman et al. 2023, eq. 23), with e ~ N(0, I) and t the logistic function of a normal number."""
    mean, std = (float(vars(model.config)[name]) for name in ("time_mean", "time_std"))
    t = torch.sigmoid(mean + std * rng.normal("flow/time", batch.index))
    noise = rng.normal("flow/noise", batch.index, model.space.shape)
    along = t.view(-1, 1, 1, 1)
    velocity = model.modules["velocity"]((1 - along) * noise + along * batch.x, t, batch.cond)
    error: Tensor = (velocity - (batch.x - noise)).square().flatten(1).mean(1)
    return error.sum()


# --------------------------------------------------------------------------- 5. sampling


def draw(model: Model, labels: Tensor, rng: Rng) -> Tensor:
    """Samples (n, 1, 8, 8) of the classes `labels`, from noise by the flow's equation.

    A sample depends on its number and on nothing else of its batch: drawn alone, it is the same.
    """
    settings = model.family.sampling.settings(guidance=GUIDANCE)
    index = torch.arange(len(labels))
    return model.family.sampling.sample(
        model.modules, model.config, model.space, asked(labels), rng, index, settings
    ).clamp(-1, 1)


# --------------------------------------------------------------------------- 6. measuring


@dataclass(frozen=True)
class Scores:
    """Of samples or of held-out digits. recognised: the share that a classifier takes for the class that was asked.
    kid: the kernel distance of the pixels to held-out digits. copies: the share nearer to a training digit than 99% of
    the held-out ones are."""

    recognised: Estimate
    kid: Estimate
    copies: Estimate


def measure(samples: Digits, train: Digits, held: Digits) -> Scores:
    """The scores of samples. No number stands alone: score held-out digits and noise in the same way."""
    classifier = LogisticRegression(C=0.1, max_iter=1000).fit(train.vectors, train.y.numpy())
    hits = int((classifier.predict(samples.vectors) == samples.y.numpy()).sum())
    near = near_copies(nearest(samples.vectors, train.vectors), nearest(held.vectors, train.vectors))
    return Scores(share(hits, len(samples)), kid(samples.vectors, held.vectors), near)


def noise_like(digits: Digits) -> Digits:
    """As many images of noise, of the same classes: what a model that has learnt nothing draws."""
    shape = tuple(digits.x.shape[1:])
    return Digits(Rng(3).normal("noise", torch.arange(len(digits)), shape).clamp(-1, 1), digits.y)


# --------------------------------------------------------------------------- all of it


def main(given: Sequence[str] | None = None) -> dict[str, Scores]:
    """Train, draw and measure; returns the scores of samples, of held-out digits and of noise."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=600, help="of training")
    steps = parser.parse_args(given).steps
    train, held = read()
    model = build(space_of(train))
    averaged = train_for(model, train, steps, Rng(0))
    labels = torch.arange(10).repeat_interleave(EACH)
    drawn = Digits(draw(Model(model.family, model.space, model.config, averaged), labels, Rng(1)), labels)
    scores = {
        "samples": measure(drawn, train, held),
        "held-out digits": measure(held, train, held),
        "noise": measure(noise_like(drawn), train, held),
    }
    for name, one in scores.items():
        parts = (f"{word} {value.value:.3f}" for word, value in vars(one).items())
        print(f"{name} (n {one.recognised.n}): {', '.join(parts)}")
    return scores


if __name__ == "__main__":
    main()
