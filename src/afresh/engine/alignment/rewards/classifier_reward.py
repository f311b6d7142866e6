"""Rewards that are models: a reward model in a folder, and a classifier's probability of a class.

`class:LABEL` uses a classifier of the labels of the run's data, and `class:LABEL@DATA` one of other labelled data.
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

from afresh.core import Item, ItemKind, UserError
from afresh.core.events import ignore, listening
from afresh.core.rng import Rng
from afresh.data.prepare import Prepared, prepare
from afresh.engine.alignment.rewards.image_features import framed
from afresh.engine.alignment.rewards.reward import Array, Reward
from afresh.engine.alignment.rewards.reward_model import ENCODER_FOLDER, load_reward_model
from afresh.engine.evaluation.encoders import downscaled
from afresh.engine.evaluation.image_sets import as_images, is_image_space
from afresh.engine.evaluation.label_classifier import train_label_classifier

CLASS_PREFIX = "class:"
CLASSIFIER_SEED = 3_000_017  # of classifiers of fields; differs from the seeds of classifiers that evaluate samples
BATCH_SIZE = 256  # fields that are classified together
MIN_ABOVE_CHANCE = 0.1  # share of the way from chance to 1 that the held-out accuracy of a reward must reach


def classifier_folder(*runs: str | Path | None) -> Path | None:
    """The folder for trained classifiers, in the first of these folders that is a run and writable; None without
    one."""
    paths = (Path(run) for run in runs if run is not None)
    return next((p / "judges" for p in paths if (p / "run.json").is_file() and os.access(p, os.W_OK)), None)


def known(
    prepared: Prepared, kind: ItemKind, note: Callable[[str], None], folder: Path | None = None
) -> Callable[[str], Reward | None]:
    """A function that resolves words which are not built-in rewards, as `Context.known`.

    Networks that classify labels are saved in `folder` under a name that depends on their training data. The function
    raises UserError for a reward model of another kind, a label that does not exist, and a classifier whose held-out
    accuracy is too low.
    """

    def find(word: str) -> Reward | None:
        if word.startswith(CLASS_PREFIX):
            label, _, path = word[len(CLASS_PREFIX) :].partition("@")
            data = prepared if not path else labelled(Path(path), kind, prepared)
            reward = of_class(label, data, kind, note, folder)
            # Fields that another encoder computes are not comparable, unless they are pixels.
            return replace(reward, on_field=None) if path and not data.encoder.space.pixels else reward
        if not (Path(word) / "model.json").is_file():
            return None
        reward = load_reward_model(Path(word))
        if reward.kind not in (None, kind):
            raise UserError(f"{word} is a reward model of {reward.kind.plural}, but this model makes {kind.plural}.")
        # A reward model with an encoder of its own takes that encoder's fields, which may differ from this run's.
        return replace(reward, on_field=None) if (Path(word) / ENCODER_FOLDER).exists() else reward

    return find


def labelled(path: Path, kind: ItemKind, own: Prepared) -> Prepared:
    """Other labelled data: class folders, or for texts also a table with a column named label."""
    if kind.medium != "text":
        return prepare(path, own.modality)
    return prepare(path, "text", {"folder_labels": True} if path.is_dir() else {"label_column": "label"})


@dataclass(frozen=True)
class Classifier:
    """`items`: items to probabilities (n, classes). `field`: the same of fields in [-1, 1], differentiable, or None."""

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
            f"{CLASS_PREFIX}{label} needs a class {label!r} and at least one other class in {data.path}. Its classes: "
            f"{', '.join(every[:20]) or 'none'}."
            + ("" if every else " Sort items into class folders, or add a column named label.")
        )
    name, classes = names[0], parts[names[0]].classes
    classifier = trainer_of(data, kind)(data, name, folder)
    heldout = [i for i in data.heldout_items if i.labels.get(name) in classes]
    truth = [classes.index(i.labels[name]) for i in heldout]
    accuracy = float((classifier.items([i.value for i in heldout]).argmax(1) == truth).mean()) if heldout else 0.0
    chance = max(map(truth.count, truth)) / len(truth) if truth else 0.0
    note(f"{CLASS_PREFIX}{label}: accuracy of its classifier on {len(heldout):,} held-out items: {accuracy:.0%}")
    if heldout and accuracy < chance + MIN_ABOVE_CHANCE * (1 - chance):
        raise UserError(
            f"The classifier of {label!r} has an accuracy of {accuracy:.0%} on held-out items of {data.path}, where "
            f"predicting always the most frequent class has {chance:.0%}. It cannot serve as a reward. Add training "
            "data."
        )
    column, field = classes.index(label), classifier.field
    return Reward(
        name=f"{CLASS_PREFIX}{label}",
        score=lambda values, requests: classifier.items(values)[:, column],
        kind=kind,
        on_field=None if field is None else lambda x: field(x)[:, column],
    )


def trainer_of(data: Prepared, kind: ItemKind) -> Callable[[Prepared, str, Path | None], Classifier]:
    """The function that trains a classifier of items. Raises UserError for a kind without fields and features."""
    if kind.medium == "text":
        return texts
    if is_image_space(data.encoder.space):
        return fields
    if kind.features is not None:
        return by_features
    raise UserError(f"{CLASS_PREFIX}LABEL needs fields or features to classify {kind.plural}, which have neither.")


def texts(data: Prepared, name: str, folder: Path | None = None) -> Classifier:
    """Logistic regression on words and pairs of words, weighted by tf-idf. It trains quickly and is not saved."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    return logistic(data, name, words.fit_transform, words.transform)


def fields(data: Prepared, name: str, folder: Path | None = None) -> Classifier:
    """The network that evaluation uses, trained with another seed on encoded items; waves as their spectra."""
    train, encoder = data.train, data.encoder
    x = as_images(train.x.float() * train.scale + train.shift)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    classes, rng = len(encoder.conds[name].classes), Rng(CLASSIFIER_SEED)
    classifier = train_label_classifier(name, x, train.cond, name, classes, rng, folder)

    def field(x: Tensor) -> Tensor:
        out: Tensor = classifier.net(downscaled(framed(as_images(x.float()), shape))).softmax(1)
        return out

    @torch.no_grad()
    def predicted(values: Sequence[Any]) -> Array:
        with listening(ignore):  # images of another size are resized
            encoded = encoder.encode([Item(v) for v in values])
        x = encoded.x.float() * encoded.scale + encoded.shift
        return np.asarray(torch.cat([field(part) for part in x.split(BATCH_SIZE)]).double().numpy())

    return Classifier(predicted, field)


def by_features(data: Prepared, name: str, folder: Path | None = None) -> Classifier:
    """Logistic regression on the features of the items' kind."""
    features = data.kind.features
    assert features is not None
    return logistic(data, name, features, features)


def logistic(
    data: Prepared, name: str, learn: Callable[[list[Any]], Any], features: Callable[[Sequence[Any]], Any]
) -> Classifier:
    """Logistic regression on features of items; `learn` gives those of the training items."""
    from sklearn.linear_model import LogisticRegression

    classes = data.encoder.conds[name].classes
    items = [i for i in data.train_items if name in i.labels]
    rows = learn([i.value for i in items])
    model = LogisticRegression(C=3.0, max_iter=400).fit(rows, [classes.index(i.labels[name]) for i in items])

    def predicted(values: Sequence[Any]) -> Array:
        out = np.zeros((len(values), len(classes)))
        out[:, model.classes_] = model.predict_proba(features(values))  # a class may have no training items
        return out

    return Classifier(predicted)
