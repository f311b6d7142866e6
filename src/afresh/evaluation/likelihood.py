"""What a model says of held-out pictures: bits a value, beside an independent Gaussian of every pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from afresh.core import CondSpec, Evidence, Examples, ItemKind, Metric, Score, Space
from afresh.evaluation.estimate import mean
from afresh.evaluation.study import Unmeasurable, study_of

LIKELY = 64  # held-out pictures that are counted: of a flow each costs hundreds of evaluations


def counted(heldout: Examples) -> Tensor:
    """The rows of the held-out pictures that a likelihood is taken of, spread over all, (n,) int64."""
    return torch.linspace(0, len(heldout) - 1, min(LIKELY, len(heldout))).long()


def byte_field(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for fields; else why not."""
    return None if space.kind == "field" else f"measures fields of numbers, not {space.kind}"


def bits_per_dim(evidence: Evidence) -> list[Score]:
    """Bits a value of the held-out pictures that Evidence.likelihood counted, under their own conditions.

    A byte is given by a density over its bin, so that this is at least what the best code for the bytes would take
    (Theis et al. 2016). control: an independent Gaussian of every value, fitted to the training pictures.
    """
    study = study_of(evidence)
    found = study.likelihood()
    if found is None:
        raise Unmeasurable("the family gives no likelihood of these values")
    nats, values = found
    own = mean((nats / values / math.log(2)).double().numpy())
    about = "at least the bits of the model, by a bound" if study.bound else "of one noisy byte bin each"
    study.note(f"bits_per_dim: {len(nats)} held-out {study.things}, {about}; 8 is what bytes take by themselves")
    control = _independent(study.train, study.heldout)
    return [own.score("bits_per_dim", "lower", None, control)]


def _independent(train: Examples, heldout: Examples) -> float:
    """Mean bits a value of the counted held-out examples under a Gaussian of each value, with noise of one bin.

    In units of bytes: a bin is 1 wide, uniform noise in it has the variance 1/12, and the mean of (x + noise - m)^2 is
    (x - m)^2 + 1/12.
    """
    x = train.x.double().flatten(1)
    m, variance = x.mean(0), x.var(0, correction=0) + 1 / 12
    square = (heldout.x[counted(heldout)].double().flatten(1) - m).square() + 1 / 12
    nats: Tensor = 0.5 * (square / variance + variance.log() + math.log(2 * math.pi))
    return float(torch.mean(nats)) / math.log(2)


METRICS = [Metric("bits_per_dim", byte_field, bits_per_dim)]
