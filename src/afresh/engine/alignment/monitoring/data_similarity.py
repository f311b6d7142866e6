"""The similarity of samples to the training data, a second measure of every alignment run that is not optimised.

It is cheap and independent of the reward, and falls if samples gain reward by being unlike all data. As it also falls
if a reward favours what is rare in the data, it is reported but never ends a run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from afresh.core import Codec
from afresh.core.item_kind import Array
from afresh.core.space import evenly_spaced
from afresh.data.prepare import Prepared
from afresh.engine.evaluation.image_sets import as_images, is_image_space

MAX_ITEMS = 1024  # training items that samples are compared with


class DataSimilarity:
    """The similarity of samples to training items.

    It is the measure of the kind of items, if it has one. Otherwise it is 1 minus the root mean square difference to
    the nearest training item: of the fields that items are encoded to (waves as their spectra), where the difference
    of the lowest and the highest value is 1, or of the features of their kind.
    """

    def __init__(self, prepared: Prepared, codec: Codec | None) -> None:
        self.prepared, self.codec = prepared, codec

    def __call__(self, values: Sequence[Any], x: Tensor) -> dict[str, float]:
        """{data_similarity, data_similarity_error} of decoded samples, which are x (B, ...) in the family's space;
        empty if the items have no measure, fields or features to compare."""
        kind = self.prepared.kind
        fields = x if self.codec is None else self.codec.decode(x)
        if kind.similarity is not None:
            similarity = self.measure(values)
        elif fields.is_floating_point():
            similarity = nearest(self.rows_of(fields.float().clamp(-1, 1)), self.fields)
        elif kind.features is not None:
            similarity = nearest(torch.from_numpy(kind.features(values)), self.features)
        else:
            return {}
        error = float(similarity.std(ddof=1) / math.sqrt(len(similarity)))
        return {"data_similarity": float(similarity.mean()), "data_similarity_error": error}

    @cached_property
    def values(self) -> list[Any]:
        """Training items that samples are compared with."""
        items = self.prepared.train_items
        return [items[row].value for row in evenly_spaced(len(items), MAX_ITEMS).tolist()]

    @cached_property
    def measure(self) -> Callable[[Sequence[Any]], Array]:
        """The similarity that the kind of items defines."""
        similarity = self.prepared.kind.similarity
        assert similarity is not None
        return similarity(self.values)

    @cached_property
    def features(self) -> Tensor:
        """The features (N, D) of training items."""
        features = self.prepared.kind.features
        assert features is not None
        return torch.from_numpy(features(self.values))

    @cached_property
    def fields(self) -> Tensor:
        """The fields of training items as rows (N, D)."""
        train = self.prepared.train
        rows = evenly_spaced(len(train.x), MAX_ITEMS)
        return self.rows_of(train.x[rows].float() * train.scale + train.shift)

    def rows_of(self, x: Tensor) -> Tensor:
        """Fields (B, ...) in [-1, 1] as rows (B, D) in about [0, 1]."""
        x = as_images(x) if is_image_space(self.prepared.encoder.space) else x
        return (x.flatten(1) + 1) / 2


def nearest(rows: Tensor, train: Tensor) -> Array:
    """1 minus the root mean square difference of each row (B, D) to the nearest of `train` (N, D); float64 (B,)."""
    return 1 - torch.cdist(rows, train).min(1).values.double().numpy() / math.sqrt(train.shape[1])
