"""Bits per token of held-out items, for tokens that are not text."""

from __future__ import annotations

import math

import torch

from afresh.core import CondSpec, Evidence, ItemKind, Metric, Question, Score, ScoreWords, Space
from afresh.engine.evaluation.estimate import ratio
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of


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


WORDS = ScoreWords("bits per token", "How well the tokens of unseen items are predicted.", Question.PREDICTS)
BESIDE = {"bound": "an upper bound"}
METRICS = [Metric("bits_per_token", tokens, bits_per_token, words={"bits_per_token": WORDS}, beside=BESIDE)]
