"""A vocabulary that grows keeps the rows of the tokens that it had."""

from __future__ import annotations

import torch

from afresh.engine.training.weights import with_vocabulary


def test_rows_are_kept_moved_and_made_of_others() -> None:
    weights = {
        "net.embedding.weight": torch.arange(8.0).view(4, 2),  # three tokens and a mask
        "net.head.weight": torch.arange(6.0).view(3, 2),
        "net.qkv.weight": torch.ones(3, 3),
    }
    made = with_vocabulary(weights, 3, [[0], [1], [0, 1], [], [2]])
    assert made["net.embedding.weight"].tolist() == [[0, 1], [2, 3], [1, 2], [2, 3], [4, 5], [6, 7]]
    assert made["net.head.weight"].tolist() == [[0, 1], [2, 3], [1, 2], [2, 3], [4, 5]]
    assert made["net.qkv.weight"] is weights["net.qkv.weight"]


def test_a_vocabulary_that_is_the_same_changes_nothing() -> None:
    weights = {"embedding.weight": torch.ones(2, 2)}
    assert with_vocabulary(weights, 2, [[0], [1]])["embedding.weight"] is weights["embedding.weight"]
