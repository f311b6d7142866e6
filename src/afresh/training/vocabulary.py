"""Weights for a vocabulary that has grown: rows of embeddings and heads for tokens that are new."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

ROWS = ("embedding.weight", "head.weight", "head.bias")  # ends of the names of tensors with a row for each token


def with_vocabulary(weights: Mapping[str, Tensor], size: int, first_rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Weights for len(first_rows) tokens in place of `size`: each row is the mean of these rows of before, or of all
    where there are none. Rows behind those of the vocabulary, as of a mask, stay behind."""
    if [list(b) for b in first_rows] == [[i] for i in range(size)]:
        return dict(weights)
    out = dict(weights)
    for name, weight in weights.items():
        if name.endswith(ROWS) and len(weight) >= size:
            mean = weight[:size].mean(0)
            rows = [weight[list(b)].mean(0) if b else mean for b in first_rows]
            out[name] = torch.cat([torch.stack(rows), weight[size:]])
    return out
