"""How like the training data samples are: a second measure of every run that is steered, which is not learnt from.

It is cheap, and independent of the reward: samples that earn more by being unlike everything in the data show. That a
reward asks for what is rare in the data lowers it too, so that it is shown and ends nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afresh.core import Codec
from afresh.core.item_kind import Array
from afresh.data.prepare import Prepared
from afresh.evaluation.image_sets import as_images, is_image_space

MOST = 1024  # training items that samples are compared with, evenly taken


class DataSimilarity:
    """By the measure of the items' kind, or else 1 minus the root mean square difference to the nearest training item:
    of the fields that items are encoded to (waves as their spectra), 1 being the lowest against the highest value, or
    of the features of their kind."""

    def __init__(self, prepared: Prepared, codec: Codec | None) -> None:
        self.prepared, self.codec = prepared, codec

    def __call__(self, values: Sequence[Any], x: Tensor) -> dict[str, float]:
        """{data_similarity, data_similarity_error} of decoded samples, which are x (B, ...) in the family's space;
        empty if nothing is known that items can be compared by."""
        kind = self.prepared.kind
        fields = x if self.codec is None else self.codec.decode(x)
        if kind.similarity is not None:
            found = self.own(values)
        elif fields.is_floating_point():
            found = near(self.rows_of(fields.float().clamp(-1, 1)), self.fields)
        elif kind.features is not None:
            found = near(torch.from_numpy(kind.features(values)), self.features)
        else:
            return {}
        error = float(found.std(ddof=1) / math.sqrt(len(found)))
        return {"data_similarity": float(found.mean()), "data_similarity_error": error}

    @cached_property
    def values(self) -> list[Any]:
        """Training items that samples are compared with."""
        items = self.prepared.train_items
        return [items[row].value for row in evenly(len(items))]

    @cached_property
    def own(self) -> Callable[[Sequence[Any]], Array]:
        similarity = self.prepared.kind.similarity
        assert similarity is not None
        return similarity(self.values)

    @cached_property
    def features(self) -> Tensor:
        """(N, D) of training items."""
        features = self.prepared.kind.features
        assert features is not None
        return torch.from_numpy(features(self.values))

    @cached_property
    def fields(self) -> Tensor:
        """Training items (N, D) as their fields are compared."""
        train = self.prepared.train
        rows = torch.tensor(evenly(len(train.x)))
        return self.rows_of(train.x[rows].float() * train.scale + train.shift)

    def rows_of(self, x: Tensor) -> Tensor:
        """Fields (B, ...) in [-1, 1] as rows (B, D) of about [0, 1]."""
        x = as_images(x) if is_image_space(self.prepared.encoder.space) else x
        return (x.flatten(1) + 1) / 2


def near(rows: Tensor, train: Tensor) -> Array:
    """1 minus the root mean square difference of each row (B, D) to the nearest of `train` (N, D), (B,) float64."""
    return 1 - torch.cdist(rows, train).min(1).values.double().numpy() / math.sqrt(train.shape[1])


def evenly(count: int) -> list[int]:
    """At most MOST numbers below `count`, evenly spaced."""
    return [int(i) for i in np.linspace(0, count - 1, min(MOST, count))]
