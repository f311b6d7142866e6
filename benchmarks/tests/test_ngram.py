"""The n-gram model of bytes: probabilities that sum to 1, and Kneser-Ney smoothing by hand."""

from __future__ import annotations

import pytest

from benchmarks.text.ngram import train_ngram


@pytest.mark.parametrize("order", [1, 2, 4, 6, 7])
def test_ngram_probabilities_sum_to_one(order: int) -> None:
    model = train_ngram(b"the cat sat on the mat, the end. " * 3 + b"another line", order)
    for before in (b"", b"the c", b"\xff\xfe never seen", b"at, the"):
        p = [model.probabilities(bytes([i]), before)[0] for i in range(256)]
        assert sum(p) == pytest.approx(1, abs=1e-12) and min(p) > 0


def test_ngram_equals_kneser_ney_by_hand() -> None:
    # Bigrams of "\0abab" + "ac": \0a ab ba ab ba ac. Continuations: a after {\0, b} = 2, b after {a} = 1, c = 1.
    model = train_ngram(b"ababac", 2)
    unigram, bigram = model.orders

    def discounts(counts: list[int]) -> list[float]:
        n = [max(counts.count(i), 1) for i in (1, 2, 3, 4)]
        y = n[0] / (n[0] + 2 * n[1])
        raw = [1 - 2 * y * n[1] / n[0], 2 - 3 * y * n[2] / n[1], 3 - 4 * y * n[3] / n[2]]
        return [min(max(d, 0.05), m) for d, m in zip(raw, (0.95, 1.95, 2.95), strict=True)]

    d1 = discounts([2, 1, 1])
    b_alone = (1 - d1[0]) / 4 + (2 * d1[0] + d1[1]) / 4 / 256
    d2 = discounts([1, 2, 2, 1])  # \0a, ab, ba, ac
    b_after_a = (2 - d2[1]) / 3 + (d2[0] + d2[1]) / 3 * b_alone
    assert model.probabilities(b"b", b"a")[0] == pytest.approx(b_after_a, rel=1e-12)
    assert model.probabilities(b"b", b"x")[0] == pytest.approx(b_alone, rel=1e-12)
    assert len(unigram.grams) == 3 and len(bigram.grams) == 4
