"""Models that were made to deserve a word of the verdict, for every kind of data: their samples, or what they foresee.

Each is judged as a run is: by all metrics, on as many samples as a measurement draws (`measured`).
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core import Cond, Drawn, Encoder, Examples, Item, Word, registry
from afresh.core.rng import Rng
from afresh.domains.code.metrics import completer_of
from afresh.domains.exercises.history import Answer, AnswerHistory
from afresh.domains.exercises.knowledge import pfa
from afresh.domains.exercises.knowledge.answers import as_answers, tables
from afresh.domains.exercises.metrics import shares
from afresh.domains.interactions.base_retention import retained
from afresh.domains.interactions.baselines import ease, popularity
from afresh.domains.interactions.catalogue import Catalogue
from afresh.domains.interactions.ranking import Items, Scorer
from afresh.domains.interactions.recommend import recommender_of
from afresh.domains.molecule.chem import canonical
from afresh.domains.molecule.recombine import offspring
from afresh.domains.molecule.writing import from_selfies, split_selfies, to_selfies
from afresh.domains.text.metrics import TextSets, joined, lzma_after
from afresh.engine.evaluation.study import Measurement, Study, measure
from afresh.engine.evaluation.time_budget import Effort
from afresh.engine.evaluation.verdict import KnownFacts, Verdict, verdict
from tests.domains.interactions.histories import Oracle
from tests.engine.evaluation.evidence import Evidence

T = TypeVar("T")
Texts = Sequence[str]
ENOUGH = 3_600.0  # seconds: metrics do what they do where the minutes of training are limited
EXCERPT = 400  # characters of a sample of a stream of texts


@dataclass(frozen=True)
class Splits:
    """Data of one kind. `unseen`: real items that are in neither split, as a perfect model would draw them."""

    encoder: Encoder
    train: Sequence[Item]
    heldout: Sequence[Item]
    unseen: Sequence[Item]


@dataclass(frozen=True)
class Model:
    """What a model draws, or foresees. `bits` of held-out bytes are those of lzma after the training text, times
    this; None for a family without a likelihood."""

    samples: Sequence[Any] = ()
    fields: Tensor | None = None
    bits: float | None = None
    each: Tensor | None = None
    scorer: Scorer | None = None


Deserved = Mapping[Word, Sequence[Model]]


def judged(
    splits: Splits, model: Model, n: int, folder: Path | None = None, seconds: float = ENOUGH
) -> tuple[Verdict, Measurement]:
    """The verdict on a model from n samples, by all metrics that the verdict needs."""
    evidence, effort = evidence_of(splits, model), Effort(seconds=seconds)
    metrics = [m for m in registry.metrics() if m.brief or m.judge or (m.name == "bits_per_byte" and model.bits)]
    measurement = measure(evidence, metrics, n, modality="", sampling={}, folder=folder, effort=effort)
    return verdict(measurement, KnownFacts(splits.encoder.kind.plural)), measurement


def evidence_of(splits: Splits, model: Model) -> Evidence:
    encoder = splits.encoder
    train, heldout = encoder.encode(splits.train), encoder.encode(splits.heldout)

    def draw(n: int) -> Drawn:
        if model.fields is not None:
            rows = torch.arange(n) % len(model.fields)
            return Drawn(model.fields[rows], [None] * n, draw_cond(train, n))
        values = [model.samples[i % len(model.samples)] for i in range(n)] if model.samples else []
        return Drawn(torch.zeros(n, 1, dtype=torch.int64), values, draw_cond(train, n))

    evidence = Evidence(
        encoder.space,
        encoder.conds,
        train,
        heldout,
        splits.train,
        splits.heldout,
        draw,
        accepts=encoder.valid,
        kind=encoder.kind,
        each=model.each,
        tools={recommender_of: None, retained: ([], []), completer_of: None},
    )
    if model.bits is not None:
        evidence = replace(evidence, nats=nats_of(evidence, model.bits))
    if model.scorer is not None:
        evidence = replace(evidence, tools={**evidence.tools, recommender_of: recommender(splits, model.scorer)})
    return evidence


def draw_cond(train: Examples, n: int) -> Cond:
    return train.cond.select(torch.arange(n) % len(train))


# --------------------------------------------------------------------------- texts and programs


def nats_of(evidence: Evidence, bits: float) -> tuple[Tensor, Tensor]:
    sets = TextSets(Study(evidence, 2))
    after = 8 * lzma_after(joined(sets.train), joined(sets.heldout)) * math.log(2)
    return torch.full((2,), bits * after / 2, dtype=torch.float64), torch.ones(2)


def chain(text: str, order: int, size: int, seed: int, joint: str = " ") -> str:
    """`size` characters of a Markov chain of words."""
    words = text.split(joint)
    after = defaultdict(list)
    for i in range(len(words) - order):
        after[tuple(words[i : i + order])].append(words[i + order])
    generator = random.Random(seed)
    out = list(generator.choice(list(after)))
    while sum(len(w) + len(joint) for w in out) < size:
        out.append(generator.choice(after.get(tuple(out[-order:]), words)))
    return joint.join(out)[:size]


def texts_of(items: Sequence[Item]) -> list[str]:
    return [t for i in items for t in i.targets() if t]


def excerpts(texts: Texts, n: int, seed: int, whole: bool = False) -> list[str]:
    """Pieces of texts, as samples are: from the beginning if there are as many texts; of fewer ones, such as programs,
    from behind two blank lines; of a single one from any line."""
    draw = random.Random(seed)
    if whole:
        return [draw.choice(texts) for _ in range(n)]
    mark = "\n" if len(texts) < 3 else "\n\n\n"
    out: list[str] = []
    while len(out) < n:
        text = draw.choices(texts, [len(t) for t in texts])[0]
        at = text.rfind(mark, 0, draw.randrange(max(1, len(text) - EXCERPT))) if len(texts) < n else -1
        begin = at + len(mark) if at >= 0 else 0
        out.append(text[begin : begin + EXCERPT])
    return out


def texts(splits: Splits, seed: int, n: int, whole: bool = False) -> Deserved:
    """Samples of texts or of programs. `whole`: a sample is a whole item, as an answer is."""
    train, unseen = texts_of(splits.train), texts_of(splits.unseen)
    draw = random.Random(seed)
    real, copies = excerpts(unseen, n, seed, whole), excerpts(train, n, seed, whole)
    letters = "".join(real)
    together = "\n".join(train)[:400_000]
    size = EXCERPT if not whole else round(np.mean([len(t) for t in real]))
    # Of repeated answers a piece is taken that is long enough to have three words.
    one = max(excerpts(unseen, 5, seed + 1, whole), key=len)
    phrase = " ".join(one.split()[:4]) + "\n"
    return {
        "good": [Model(real, bits=0.5)],
        "noise": [
            Model(["".join(draw.sample(t, len(t))) for t in real], bits=1.6),
            Model(["".join(draw.choices(letters, k=max(size, 20))) for _ in real], bits=2.5),
        ],
        "recognisable": [Model([chain(together, 1, size, seed * n + i) for i in range(n)], bits=1.1)],
        "memorised": [Model(copies, bits=1.3), Model([*real[: n // 2], *copies[n // 2 :]], bits=0.9)],
        "collapsed": [Model([(phrase * 99)[: max(size, 200)]] * n, bits=1.2), Model([one] * n, bits=0.8)],
    }


# --------------------------------------------------------------------------- fields


def blurred(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, 1)
    return x


def bent(x: Tensor, amount: float, seed: int) -> Tensor:
    """Images (N, C, H, W) distorted by smooth random shifts."""
    n, _, h, w = x.shape
    shift = Rng(seed).normal("bent", torch.arange(n), (2, 4, 4)) * amount
    shift = F.interpolate(shift, size=(h, w), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    grid = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 1, h, w], align_corners=False)
    return F.grid_sample(x, grid + shift, padding_mode="border", align_corners=False)


def fields(splits: Splits, seed: int, n: int) -> Deserved:
    """Images, and spectrograms of sounds, as fields (N, C, H, W)."""
    train, unseen = (as_field(splits.encoder.encode(items)) for items in (splits.train, splits.unseen))
    unseen = unseen[torch.arange(n) % len(unseen)]
    index = torch.arange(n)
    z = Rng(seed).normal("made", index, tuple(unseen.shape[1:]))
    copies = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[index % len(train)]]
    mixed = torch.where((index % 2 == 0)[:, None, None, None], unseen, z / 2)
    found: dict[Word, list[Tensor]] = {
        "good": [unseen],
        "noise": [z / 2, train.mean() + train.std() * z],
        "blurred": [blurred(unseen, 1), blurred(unseen, 3)],
        "recognisable": [mixed, unseen + train.std() * z / 2],
        "memorised": [copies, copies + 0.03 * z],
        "collapsed": [train[:1] + 0.05 * z, train[index % 3] + 0.05 * z],
    }
    return {word: [Model(fields=x.clamp(-1, 1)) for x in models] for word, models in found.items()}


def as_field(examples: Examples) -> Tensor:
    return examples.x.float() * examples.scale + examples.shift


# --------------------------------------------------------------------------- music


def music(splits: Splits, seed: int, n: int) -> Deserved:
    """Pieces of music as words of events."""
    train, unseen = ([str(i.value) for i in items] for items in (splits.train, splits.unseen))
    draw = random.Random(seed)
    real, copies = ([draw.choice(texts) for _ in range(n)] for texts in (unseen, train))
    words = [w for t in train for w in t.split()]
    salad = [" ".join(draw.sample(t.split(), len(t.split()))) for t in real]
    together = "\n".join(train[:400])
    return {
        "good": [Model(real)],
        "noise": [Model(salad), Model([" ".join(draw.choices(sorted(set(words)), k=120)) for _ in real])],
        "recognisable": [Model([chain(together, 2, 400, seed * n + i) for i in range(n)])],
        "memorised": [Model(copies), Model([*real[: n // 2], *copies[n // 2 :]])],
        "collapsed": [Model([real[0]] * n), Model([real[i % 2] for i in range(n)])],
    }


# --------------------------------------------------------------------------- molecules


def molecules(splits: Splits, seed: int, n: int) -> Deserved:
    """SMILES, valid or not."""
    train, unseen = ([str(i.value) for i in items] for items in (splits.train, splits.unseen))
    draw = random.Random(seed)
    real = [unseen[i % len(unseen)] for i in draw.sample(range(max(n, len(unseen))), n)]
    copies = [draw.choice(train) for _ in range(n)]
    shuffled = ["".join(draw.sample(t, len(t))) for t in real]
    parts = [p for s in train[:2000] for p in split_selfies(to_selfies(s))]
    independent = [from_selfies("".join(draw.choices(parts, k=draw.randrange(15, 45)))) or "C" for _ in range(n)]
    crossed = offspring([(draw.choice(train), draw.choice(train)) for _ in range(2 * n)], seed)[:n]
    crossed = offspring([(draw.choice(crossed), draw.choice(crossed)) for _ in range(2 * n)], seed + 1)[:n]
    broken = [s if i % 2 else s[1:] + "(" for i, s in enumerate(real)]
    nearly = [s if i % 12 else s[1:] + "(" for i, s in enumerate(real)]
    return {
        "good": [Model(real), Model(nearly)],
        "noise": [Model(shuffled), Model([canonical(s) or s for s in independent])],
        "recognisable": [Model(broken), Model(crossed)],
        "memorised": [
            Model(copies),
            Model([c if i % 4 else r for i, (c, r) in enumerate(zip(copies, real, strict=True))]),
        ],
        "collapsed": [Model(real[:1] * n), Model([real[i % 5] for i in range(n)])],
    }


# --------------------------------------------------------------------------- interactions


def recommender(splits: Splits, scorer: Scorer) -> Oracle:
    """A recommender whose probabilities are the softmax of the scores of a scorer."""
    ids = item_names(splits)

    def answer(histories: Sequence[Sequence[int]]) -> Tensor:
        return torch.from_numpy(scorer([np.array(h, np.int64) for h in histories])).double().softmax(-1)

    counts = np.bincount([ids.index(ids[0])], minlength=len(ids))
    return Oracle(Catalogue(tuple(ids), counts), answer)


def item_names(splits: Splits) -> list[str]:
    return sorted({n for i in splits.train for n in i.value.items})


def interactions(splits: Splits, seed: int) -> Deserved:
    """Scores of the next item. What copies its history, or the nearest one in training, has learnt that by heart."""
    number = {name: i for i, name in enumerate(item_names(splits))}
    train = [np.array([number[n] for n in i.value.items], np.int64) for i in splits.train]
    items = len(number)
    knows, popular = ease(train, items), popularity(train, items)
    rng = np.random.default_rng(seed)
    few = np.where(np.arange(items) < 12, 5.0 + rng.random(items), 0)

    def noisy(histories: Sequence[Items]) -> Any:
        s = knows(histories)
        return s + s.max(1, keepdims=True) * rng.random(s.shape) * (rng.random((len(s), 1)) < 0.6) * 4

    def random_scores(histories: Sequence[Items]) -> Any:
        return rng.random((len(histories), items))

    known = {tuple(t[:k].tolist()): int(t[k]) for t in train for k in range(1, len(t))}

    def by_heart(histories: Sequence[Items]) -> Any:
        s = rng.random((len(histories), items))
        for row, h in zip(s, histories, strict=True):
            if (after := known.get(tuple(h.tolist()))) is not None:
                row[after] = 9
        return s

    return {
        "good": [Model(scorer=knows)],
        "noise": [Model(scorer=random_scores)],
        "recognisable": [Model(scorer=noisy)],
        "memorised": [Model(scorer=by_heart)],
        "collapsed": [Model(scorer=popular), Model(scorer=lambda h: np.tile(few, (len(h), 1)))],
    }


# --------------------------------------------------------------------------- exercises


def answers(splits: Splits, seed: int) -> Deserved:
    """Chances of the answers of held-out learners."""
    names = tables([i.value for i in splits.train])
    train = [as_answers(i.value, *names) for i in splits.train]
    held = [as_answers(i.value, *names) for i in splits.heldout]
    right = np.concatenate([a.right[a.counted] for a in held])
    knows, only = pfa.fit(train, len(names[0]), len(names[1])), shares(train, len(names[0]))
    best, easy = (np.concatenate([p(a)[a.counted] for a in held]) for p in (knows, only))
    rng = np.random.default_rng(seed)
    base = float(np.mean([a.right.mean() for a in train]))

    def sure(p: Any, times: float, noise: float = 0.0) -> Any:
        logit = times * np.log(p / (1 - p)) + noise * rng.standard_normal(len(p))
        return 1 / (1 + np.exp(-logit))

    cases: dict[Word, list[Any]] = {
        "good": [best],
        "noise": [rng.uniform(0.2, 0.8, len(right)), sure(np.full(len(right), base), 1, 1.0)],
        "recognisable": [sure(easy, 0.7, 0.3)],
        "memorised": [sure(best, 5, 4.0)],
        "collapsed": [np.full(len(right), base), sure(np.full(len(right), base), 1, 0.01)],
    }
    return {
        word: [Model(each=torch.from_numpy(-np.log(np.where(right, p, 1 - p).clip(1e-6, 1)))) for p in models]
        for word, models in cases.items()
    }


def learners(n: int, count: int, seed: int, exercises: int = 30) -> list[Item]:
    """Histories of learners who differ, and get better, of exercises that differ."""
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(99).normal(0, 1, exercises)
    out = []
    for i in range(n):
        able, done, rows = rng.normal(0, 1), np.zeros(5), []
        for _ in range(count):
            e = int(rng.integers(exercises))
            right = rng.random() < 1 / (1 + math.exp(-(able + 0.15 * done[e % 5] - hard[e])))
            done[e % 5] += 1
            rows.append(Answer(f"e{e}", bool(right), f"s{e % 5}"))
        out.append(Item(AnswerHistory(tuple(rows), f"L{i}")))
    return out


MAKERS: Mapping[str, Callable[..., Deserved]] = {
    "text": texts,
    "code": texts,
    "conversations": lambda splits, seed, n: texts(splits, seed, n, True),
    "image": fields,
    "audio": fields,
    "music": music,
    "molecule": molecules,
    "interactions": lambda splits, seed, n: interactions(splits, seed),
    "exercises": lambda splits, seed, n: answers(splits, seed),
}
