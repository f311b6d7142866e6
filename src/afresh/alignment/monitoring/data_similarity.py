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
from afresh.evaluation.image_sets import as_images

MOST = 1024  # training items that samples are compared with, evenly taken


class DataSimilarity:
    """Of texts the cosine of the counts of three characters with those of the training texts together (Damashek 1995).
    Of pictures, and sounds as the fields that they are encoded to (waves as their spectra), 1 minus the root mean
    square difference to the nearest training item, 1 being the lowest against the highest value."""

    def __init__(self, prepared: Prepared, codec: Codec | None) -> None:
        self.prepared, self.codec = prepared, codec

    def __call__(self, values: Sequence[Any], x: Tensor) -> dict[str, float]:
        """{data_similarity, data_similarity_error} of decoded samples, which are x (B, ...) in the family's space;
        empty if samples are neither texts nor fields."""
        if self.prepared.kind.similarity is not None:
            found = self.own(values)
        else:
            made = x if self.codec is None else self.codec.decode(x)
            if not made.is_floating_point():
                return {}
            near = torch.cdist(as_images(made.float().clamp(-1, 1)).flatten(1), self.fields).min(1).values
            found = 1 - near.double().numpy() / (2 * math.sqrt(self.fields.shape[1]))
        error = float(found.std(ddof=1) / math.sqrt(len(found)))
        return {"data_similarity": float(found.mean()), "data_similarity_error": error}

    @cached_property
    def own(self) -> Callable[[Sequence[Any]], Array]:
        """The similarity that the kind of the items brings."""
        similarity, items = self.prepared.kind.similarity, self.prepared.train_items
        assert similarity is not None
        return similarity([items[row].value for row in evenly(len(items))])

    @cached_property
    def fields(self) -> Tensor:
        """Training items (N, D) as they are compared."""
        train = self.prepared.train
        rows = torch.tensor(evenly(len(train.x)))
        return as_images(train.x[rows].float() * train.scale + train.shift).flatten(1)


def evenly(count: int) -> list[int]:
    """At most MOST numbers below `count`, evenly spaced."""
    return [int(i) for i in np.linspace(0, count - 1, min(MOST, count))]
