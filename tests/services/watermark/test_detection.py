"""The test of a watermark: its p-values, what it counts and what it refuses."""

from __future__ import annotations

from itertools import product
from math import comb

import pytest
import torch

from afresh.core import UserError
from afresh.services.watermark.detection import ones, set_bits, watermark_test
from afresh.services.watermark.watermark import VARIANTS, Watermark, in_variants, token_bits

KEY = b"sixteen bytes ok"


def random_text(seed: int, length: int = 60, vocab: int = 50) -> list[int]:
    return torch.randint(vocab, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def test_ones_are_counted_over_the_first_token_after_each_context() -> None:
    watermark = Watermark(KEY, context=1, layers=3)
    counts, n = ones([5, 6, 5, 7, 6, 5], watermark)  # the pairs 5 6, 6 5, 7 6 alone: 5 and 6 occur again
    assert n == 3
    contexts = watermark.context_keys(torch.tensor([[5], [6], [7]]))
    for variant in (0, VARIANTS - 1):
        bits = token_bits(in_variants(contexts, torch.tensor(variant)), torch.tensor([6, 5, 6])).tolist()
        assert int(counts[variant]) == sum((b & 7).bit_count() for b in bits)


def test_a_text_that_is_repeated_gives_no_more_evidence() -> None:
    watermark = Watermark(KEY, context=3)
    text = random_text(1)
    once, twice = watermark_test(text, watermark), watermark_test([*text, *text, *text], watermark)
    assert twice.n == once.n + 3  # those at the seam
    counts = ones([*text, *text[:3]], watermark)
    again = ones([*text, *text, *text], watermark)
    assert torch.equal(counts[0], again[0]) and counts[1] == again[1]


def test_the_p_value_is_the_tail_of_the_binomial_for_the_best_variant() -> None:
    watermark = Watermark(KEY, context=1, layers=4)
    text = random_text(2, length=9)
    counts, n = ones(text, watermark)
    trials, most = 4 * n, int(counts.max())
    tail = sum(comb(trials, k) for k in range(most, trials + 1)) / 2**trials
    assert watermark_test(text, watermark).p_value == pytest.approx(1 - (1 - tail) ** VARIANTS, rel=1e-9)


def test_p_values_are_true_where_there_is_no_mark() -> None:
    """Texts of a small language, each with a key: never more often small than they say, and hardly less often."""
    n = 4_000
    p = torch.tensor(
        [watermark_test(random_text(i, 40, 6), Watermark(i.to_bytes(16, "big"), 2)).p_value for i in range(n)]
    )
    for level in (0.5, 0.1, 0.01):
        share, error = float((p <= level).double().mean()), 4 * (level * (1 - level) / n) ** 0.5
        assert 0.7 * level - error < share < level + error


def test_tiny_p_values_are_not_rounded_to_zero() -> None:
    """A text of which each token has only ones in one variant, found by search."""
    watermark = Watermark(KEY, context=1, layers=8)
    text, variant = [0], torch.tensor(5)
    while len(text) < 40:
        contexts = watermark.context_keys(torch.tensor([text[-1:]]))
        bits = token_bits(in_variants(contexts, variant), torch.arange(5_000)) & 255
        text.append(next(t for t in (bits == 255).nonzero()[:, 0].tolist() if t not in text))
    evidence = watermark_test(text, watermark)
    assert evidence.n == 39
    assert evidence.p_value == pytest.approx(VARIANTS * 0.5 ** (39 * 8), rel=1e-9)


@pytest.mark.parametrize("length", [0, 1, 4])
def test_a_text_without_a_whole_context_and_a_token_gives_none(length: int) -> None:
    assert watermark_test(random_text(3, length), Watermark(KEY, context=4)) == (1.0, 0)


def test_bits_are_counted() -> None:
    numbers = [0, 1, 2**32 - 1, 0x12345678, *(sum(1 << b for b in c) for c in product((0, 7, 31), repeat=1))]
    assert set_bits(torch.tensor(numbers)).tolist() == [x.bit_count() for x in numbers]


def test_values_out_of_range_are_refused() -> None:
    with pytest.raises(UserError, match=r"16 to 64 bytes\. Given: 5\. Make one with secrets"):
        Watermark(b"short")
    with pytest.raises(UserError, match=r"`context` of a watermark is 1 to 16\. Given: 0"):
        Watermark(KEY, context=0)
    with pytest.raises(UserError, match=r"`layers` of a watermark is 1 to 32\. Given: 33"):
        Watermark(KEY, layers=33)


def test_a_key_is_not_shown() -> None:
    assert "sixteen" not in repr(Watermark(KEY))
