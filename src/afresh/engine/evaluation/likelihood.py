"""The likelihood of held-out items: bits per dimension of fields, and bits per token of tokens that are not text."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from afresh.core import CondSpec, Evidence, Examples, ItemKind, Metric, Question, Score, ScoreWords, Space
from afresh.core.space import evenly_spaced
from afresh.engine.evaluation.estimate import mean, ratio
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of

SCORED = 64  # held-out images whose likelihood is computed; with a flow, each costs hundreds of evaluations


def scored_rows(heldout: Examples) -> Tensor:
    """The rows (n,) int64 of the held-out images whose likelihood is computed, evenly spread."""
    return evenly_spaced(len(heldout), SCORED)


def any_field(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for fields, else the reason why not."""
    return None if space.kind == "field" else f"measures fields of numbers, not {space.kind}"


def bits_per_dim(evidence: Evidence) -> list[Score]:
    """Bits per dimension of the held-out images of `Evidence.likelihood`, under their own conditions.

    The probability of a byte is the integral of a density over its bin, so this is an upper bound of the length of the
    best code for the bytes (Theis et al. 2016). Control: an independent Gaussian of every value, fitted to the training
    images.
    """
    study = study_of(evidence)
    likelihood = study.likelihood()
    if likelihood is None:
        raise Unmeasurable("the family has no likelihood of these values")
    nats, values = likelihood
    own = mean((nats / values / math.log(2)).double().numpy())
    kind = "an upper bound" if study.bound else "with one draw of dequantisation noise each"
    study.note(f"bits_per_dim: {len(nats)} held-out {study.things}, {kind}; uncompressed bytes take 8")
    control = _independent(study.train, study.heldout)
    return [own.score("bits_per_dim", "lower", None, control)]


def _independent(train: Examples, heldout: Examples) -> float:
    """Mean bits per dimension of the scored held-out examples under a Gaussian of each value, with noise of one bin.

    In units of bytes, a bin is 1 wide, uniform noise in it has the variance 1/12, and the mean of (x + noise - m)^2 is
    (x - m)^2 + 1/12.
    """
    x = train.x.double().flatten(1)
    m, variance = x.mean(0), x.var(0, correction=0) + 1 / 12
    square = (heldout.x[scored_rows(heldout)].double().flatten(1) - m).square() + 1 / 12
    nats: Tensor = 0.5 * (square / variance + variance.log() + math.log(2 * math.pi))
    return float(torch.mean(nats)) / math.log(2)


def tokens(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for tokens that are not text, else the reason why not."""
    if kind.medium == "text":
        return "measures tokens; for texts, bits_per_byte is comparable between tokenizers"
    return None if space.kind == "tokens" else f"measures tokens, not {space.kind}"


def bits_per_token(evidence: Evidence) -> list[Score]:
    """-log2 p(held-out split) divided by the number of its tokens. Control: the frequencies of tokens in the training
    split with add-one smoothing."""
    study = study_of(evidence)
    nats_and_tokens = study.likelihood()
    if nats_and_tokens is None:
        raise Unmeasurable("the family gives no likelihood of these tokens")
    nats, count = (t.double().numpy() / scale for t, scale in zip(nats_and_tokens, (math.log(2), 1), strict=True))
    own = ratio(nats, count)
    name = "bits_per_token/bound" if study.bound else "bits_per_token"
    return [own.score(name, "lower", None, unigrams(study) if len(study.space.vocab) == 1 else None)]


def unigrams(study: Study) -> float:
    """Bits per token of the held-out split under the smoothed token frequencies of the training split."""
    size = study.space.vocab[0]
    splits = (s.x if s.mask is None else s.x[s.mask] for s in (study.train, study.heldout))
    train, heldout = (torch.bincount(x.long().flatten(), minlength=size).double() for x in splits)
    bits = -torch.log2((train + 1) / (train.sum() + size))
    return float((heldout * bits).sum() / heldout.sum())


VALUE = ScoreWords("bits per value", "How well unseen items are predicted; bytes take 8.", Question.PREDICTS)
TOKEN = ScoreWords("bits per token", "How well the tokens of unseen items are predicted.", Question.PREDICTS)
BESIDE = {"bound": "an upper bound"}
METRICS = [
    Metric("bits_per_dim", any_field, bits_per_dim, words={"bits_per_dim": VALUE}),
    Metric("bits_per_token", tokens, bits_per_token, words={"bits_per_token": TOKEN}, beside=BESIDE),
]
