"""Rewards that are models: a reward model in a folder, and a classifier's probability of a class.

`class:LABEL` asks a classifier of the labels of the run's data, and `class:LABEL@DATA` one of other labelled data.
Texts are classified by tf-idf of words and pairs of words with logistic regression; items that are encoded to fields,
such as images and sounds, by the network of evaluation/label_classifier.py; other items by logistic regression on the
features of their kind. Each is trained on the training split when the reward is first used, and its accuracy on the
held-out split is reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afresh.alignment.rewards.image_features import framed
from afresh.alignment.rewards.reward import Array, Reward
from afresh.alignment.rewards.reward_model import ENCODER, load_reward_model
from afresh.core import Item, ItemKind, UserError
from afresh.core.events import ignore, listening
from afresh.core.rng import Rng
from afresh.data.prepare import Prepared, prepare
from afresh.data.text.kind import TEXT
from afresh.evaluation.encoders import downscaled
from afresh.evaluation.image_sets import as_images, is_image_space
from afresh.evaluation.label_classifier import train_label_classifier

MARK = "class:"
SEED = 3_000_017  # of the classifiers of fields: not that of any judge
AT_ONCE = 256  # fields that are judged side by side
WORST = 0.1  # how far above chance a classifier has to be on held-out items to be a reward at all


def judges_of(*runs: str | Path | None) -> Path | None:
    """Where classifiers are kept: in the first of these folders that is a run and may be written to."""
    paths = (Path(run) for run in runs if run is not None)
    return next((p / "judges" for p in paths if (p / "run.json").is_file() and os.access(p, os.W_OK)), None)


def known(
    prepared: Prepared, kind: ItemKind, note: Callable[[str], None], folder: Path | None = None
) -> Callable[[str], Reward | None]:
    """What `afresh.alignment.rewards.build.build` asks about words that it does not know; networks that judge classes
    are kept in `folder`, by what they were trained on. Raises UserError for a model of another kind, a label that is
    not there, and a classifier that has learnt nothing."""

    def find(word: str) -> Reward | None:
        if word.startswith(MARK):
            label, _, path = word[len(MARK) :].partition("@")
            data = prepared if not path else labelled(Path(path), kind, prepared)
            found = of_class(label, data, kind, note, folder)
            # Fields of other data mean something else, unless they are pixels.
            return replace(found, on_field=None) if path and not data.encoder.space.pixels else found
        if not (Path(word) / "model.json").is_file():
            return None
        found = load_reward_model(Path(word))
        if found.kind not in (None, kind):
            raise UserError(f"{word} is a reward model of {found.kind.plural}, and this model makes {kind.plural}.")
        # One with an encoder of its own takes fields of that, which need not be this run's.
        return replace(found, on_field=None) if (Path(word) / ENCODER).exists() else found

    return find


def labelled(path: Path, kind: ItemKind, own: Prepared) -> Prepared:
    """Other data with labels: class folders, or of texts a table with a column named label."""
    if kind is not TEXT:
        return prepare(path, own.modality)
    return prepare(path, "text", {"folder_labels": True} if path.is_dir() else {"label_column": "label"})


@dataclass(frozen=True)
class Judge:
    """Items to probabilities (n, classes); and the same of a field in [-1, 1], differentiable, where that exists."""

    items: Callable[[Sequence[Any]], Array]
    field: Callable[[Tensor], Tensor] | None = None


def of_class(
    label: str, data: Prepared, kind: ItemKind, note: Callable[[str], None], folder: Path | None = None
) -> Reward:
    """The probability of a class. Raises UserError as `known` does."""
    parts = {k: p for k, p in data.encoder.conds.items() if p.kind == "label"}
    names = [k for k, p in parts.items() if label in p.classes]
    if not names or len(parts[names[0]].classes) < 2:
        every = [c for p in parts.values() for c in p.classes]
        raise UserError(
            f"There is no class {label!r} beside others in {data.path}. Classes: {', '.join(every[:20]) or 'none'}."
            + ("" if every else " Class folders or a column named label make some.")
        )
    name, classes = names[0], parts[names[0]].classes
    judge = judge_of(data, kind)(data, name, folder)
    held = [i for i in data.heldout_items if i.labels.get(name) in classes]
    truth = [classes.index(i.labels[name]) for i in held]
    right = float((judge.items([i.value for i in held]).argmax(1) == truth).mean()) if held else 0.0
    common = max(map(truth.count, truth)) / len(truth) if truth else 0.0
    note(f"{MARK}{label}: its classifier is right on {right:.0%} of {len(held):,} held-out items")
    if held and right < common + WORST * (1 - common):
        raise UserError(
            f"The classifier of {label!r} is right on {right:.0%} of held-out items of {data.path}, and always saying "
            f"the commonest class would be on {common:.0%}: it has learnt nothing to steer by. More data helps."
        )
    column, field = classes.index(label), judge.field
    return Reward(
        name=f"{MARK}{label}",
        score=lambda values, requests: judge.items(values)[:, column],
        kind=kind,
        on_field=None if field is None else lambda x: field(x)[:, column],
    )


def judge_of(data: Prepared, kind: ItemKind) -> Callable[[Prepared, str, Path | None], Judge]:
    """How a classifier of items is trained. Raises UserError if nothing is known that tells such items apart."""
    if kind is TEXT:
        return texts
    if is_image_space(data.encoder.space):
        return fields
    if kind.features is not None:
        return by_features
    raise UserError(f"{MARK}LABEL needs fields or features to tell {kind.plural} apart, and they have neither.")


def texts(data: Prepared, name: str, folder: Path | None = None) -> Judge:
    """Words and pairs of words, weighed by tf-idf, and logistic regression; made in a moment, and not kept."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    classes = data.encoder.conds[name].classes
    items = [i for i in data.train_items if name in i.labels]
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    seen = words.fit_transform([i.value for i in items])
    model = LogisticRegression(C=3.0, max_iter=400).fit(seen, [classes.index(i.labels[name]) for i in items])

    def judged(values: Sequence[Any]) -> Array:
        out = np.zeros((len(values), len(classes)))
        out[:, model.classes_] = model.predict_proba(words.transform(values))  # a class may be held out altogether
        return out

    return Judge(judged)


def fields(data: Prepared, name: str, folder: Path | None = None) -> Judge:
    """The network that classifies labels in measurements, trained with another seed, on the fields that items are
    encoded to; waves as their spectra."""
    train, encoder = data.train, data.encoder
    x = as_images(train.x.float() * train.scale + train.shift)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    judge = train_label_classifier(name, x, train.cond, name, len(encoder.conds[name].classes), Rng(SEED), folder)

    def field(x: Tensor) -> Tensor:
        out: Tensor = judge.net(downscaled(framed(as_images(x.float()), shape))).softmax(1)
        return out

    @torch.no_grad()
    def judged(values: Sequence[Any]) -> Array:
        with listening(ignore):  # images of another size are resized
            made = encoder.encode([Item(v) for v in values])
        x = made.x.float() * made.scale + made.shift
        return np.asarray(torch.cat([field(part) for part in x.split(AT_ONCE)]).double().numpy())

    return Judge(judged, field)


def by_features(data: Prepared, name: str, folder: Path | None = None) -> Judge:
    """Logistic regression on the features of the items' kind."""
    from sklearn.linear_model import LogisticRegression

    features, classes = data.kind.features, data.encoder.conds[name].classes
    assert features is not None
    items = [i for i in data.train_items if name in i.labels]
    rows = features([i.value for i in items])
    model = LogisticRegression(C=3.0, max_iter=400).fit(rows, [classes.index(i.labels[name]) for i in items])

    def judged(values: Sequence[Any]) -> Array:
        out = np.zeros((len(values), len(classes)))
        out[:, model.classes_] = model.predict_proba(features(values))
        return out

    return Judge(judged)
