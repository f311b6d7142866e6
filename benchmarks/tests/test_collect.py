"""All pairs are those that a comparison one by one finds; documents are the same each time."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from afresh.data.text.near_duplicates import jaccard
from afresh.data.text.shingles import shingles_of
from benchmarks.collect.collect import all_pairs
from benchmarks.collect.documents import Maker, page


def test_all_pairs() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(60)]
    texts = [" ".join(words[: int(n)]) for n in rng.integers(20, 60, 40)]
    sets = shingles_of(texts)
    each = {(i, j): s for i, j in combinations(range(40), 2) if (s := jaccard(sets[i], sets[j])) >= 0.8}
    assert all_pairs(sets) == pytest.approx(each)


@pytest.mark.skipif("AFRESH_DATA" not in os.environ, reason="AFRESH_DATA names a folder of data")
def test_documents_are_the_same_each_time() -> None:
    one, two = (list(Maker(Path(os.environ["AFRESH_DATA"])).documents(30)) for _ in range(2))
    assert one == two and len(set(one)) == 30
    assert "<article>" in page(one[0], 0)
