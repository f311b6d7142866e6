"""The table of neighbours is the one that its definition gives, and is read back as it was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import sparse

from afresh.core import UserError
from afresh.domains.interactions.item_table import load_table, strongest
from afresh.domains.interactions.neighbours import BACKWARD, EXPONENT, FADE, POWER, SHRINK, fit_neighbours, following

HISTORIES = [np.array(h) for h in ([0, 1, 2], [1, 0], [3, 1, 1])]


def by_hand(size: int) -> np.ndarray:
    """The weights of all pairs, from the definition."""
    forward, counts = np.zeros((size, size)), np.zeros(size)
    for history in HISTORIES:
        for i, a in enumerate(history):
            counts[a] += 1
            for d, b in enumerate(history[i + 1 :], 1):
                forward[a, b] += d**-POWER
    scale = (counts + SHRINK) ** -EXPONENT
    return (forward + BACKWARD * forward.T) * scale[:, None] * scale[None]


def test_weights_are_those_of_the_definition() -> None:
    found = fit_neighbours(HISTORIES, 5)
    dense = torch.zeros(5, 5).scatter_add_(1, found.index.long(), found.weight)
    assert np.allclose(dense.numpy(), by_hand(5), atol=1e-6)
    assert bool((found.weight[:, :-1] >= found.weight[:, 1:]).all())


def test_the_last_items_count_most_and_an_unknown_history_gives_nothing() -> None:
    found = following(fit_neighbours(HISTORIES, 5), [[3, 0], [], [4]]).toarray()
    weights = by_hand(5)
    wanted = weights[0] + FADE * weights[3]
    assert np.allclose(found[0], wanted, atol=1e-6)
    assert np.abs(found[1:]).sum() == 0


def test_it_survives_saving_and_a_damaged_file_is_refused(tmp_path: Path) -> None:
    made = fit_neighbours(HISTORIES, 5)
    file = tmp_path / "neighbours.safetensors"
    made.save(file)
    found = load_table(file, 5)
    assert torch.equal(found.index, made.index) and torch.equal(found.weight, made.weight)
    with pytest.raises(UserError, match="damaged"):
        load_table(file, 6)
    save_file({"index": made.index + 5, "weight": made.weight}, file)
    with pytest.raises(UserError, match="not in the catalogue"):
        load_table(file, 5)


def test_a_table_grows_by_what_is_new() -> None:
    before, added = fit_neighbours(HISTORIES, 5), [np.array([4, 5])]
    grown = fit_neighbours(added, 6, before)
    dense = torch.zeros(6, 6).scatter_add_(1, grown.index.long(), grown.weight)
    new = torch.zeros(6, 6)
    alone = fit_neighbours(added, 6)
    new.scatter_add_(1, alone.index.long(), alone.weight)
    assert np.allclose((dense - new)[:5, :5].numpy(), by_hand(5), atol=1e-6) and float(dense[4, 5]) > 0


def test_the_strongest_weights_of_a_row_are_kept_whatever_their_sign() -> None:
    dense = np.array([[0.0, -3.0, 1.0, 2.0], [0.5, 0.0, 0.5, 0.1], [0, 0, 0, 0], [1, 2, 3, 4]], dtype=np.float32)
    for matrix in (dense, sparse.csr_matrix(dense)):
        found = strongest(matrix, 2)
        assert found.index[[0, 1, 3]].tolist() == [[1, 3], [0, 2], [3, 2]]
        assert found.weight.tolist() == [[-3.0, 2.0], [0.5, 0.5], [0.0, 0.0], [4.0, 3.0]]
        assert found.scores([[0, 1]]).toarray().tolist() == [[0.5, -3.0, 0.5, 2.0]]
