"""Proposals are ranked by the upper confidence bound of a process around the mean of the answers."""

from __future__ import annotations

import random

import numpy as np
import pytest

from afresh.core import ItemKind
from afresh.data.text.kind import TEXT
from afresh.domains.molecule.kind import MOLECULE
from afresh.engine.alignment.surrogate.likeness import LIKENESS
from afresh.engine.alignment.surrogate.screening import screening_of


@pytest.mark.parametrize("kind", [TEXT, MOLECULE], ids=["by distance", "by Tanimoto"])
def test_the_bound_is_that_of_the_standardised_answers(kind: ItemKind) -> None:
    """With answers y of mean 0 and deviation 1 and K = kernel + (ratio + 1e-6) I, the signal is y'K^-1 y / n, and the
    bound is mean + optimism sd in the scale of the answers."""
    if kind is MOLECULE:
        pytest.importorskip("rdkit", reason="rdkit is not installed: pip install 'afresh[chem]'")
    rng = random.Random(3)
    items = ["".join(rng.choice("CNO") for _ in range(rng.randint(3, 9))) for _ in range(90)]
    rewards = np.array([float(i.count("N")) / len(i) for i in items[:40]])
    screening = screening_of(kind)
    assert screening is not None
    screening.learn(items[:40], rewards.tolist(), 0)
    _, shape, ratio = screening.chosen
    known, rows = screening.descriptors.vectors(items[:40]), screening.descriptors.vectors(items[40:])
    likeness = LIKENESS[screening.descriptors.likeness](known)
    y = (rewards - rewards.mean()) / rewards.std()
    inverse = np.linalg.inv(likeness.kernel(known, known, shape) + (ratio + 1e-6) * np.eye(40))
    cross = likeness.kernel(rows, known, shape)
    left = likeness.diagonal(rows, shape) - np.einsum("mn,nk,mk->m", cross, inverse, cross)
    mean, deviation = cross @ inverse @ y, np.sqrt(y @ inverse @ y / 40 * np.maximum(left, 0))
    expected = rewards.mean() + rewards.std() * (mean + 0.3 * deviation)
    np.testing.assert_allclose(screening.bounds(items[40:], 0.3), expected, rtol=1e-6)


def test_nothing_is_preferred_where_all_answers_are_equal() -> None:
    screening = screening_of(TEXT)
    assert screening is not None
    screening.learn(["a", "bb", "abc"], [0.5] * 3, 0)
    assert screening.bounds(["a", "cab", "zzz"], 0.3).tolist() == [0.5] * 3
