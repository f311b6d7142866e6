"""Which tokens of a text are marked, and that a text does not depend on what is drawn beside it."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from afresh.core import Cond
from afresh.core.rng import Rng
from afresh.engine.sampling import tokens
from afresh.engine.sampling.tokens import Cut, Decoding, TokenSequence, draw_plain
from afresh.services.watermark import marked_text as module
from afresh.services.watermark import watermark as keyed
from afresh.services.watermark.detection import watermark_test
from afresh.services.watermark.marked_text import MarkedText, contexts_to_mark
from afresh.services.watermark.watermark import VARIANTS, Watermark, variant_of
from tests.engine.sampling.fed import model

V, END = 12, 0
MARK = Watermark(b"a key of some bytes", context=2)
OTHER = Watermark(b"a key of others, too", context=3, layers=5)


def by_the_last_two(window: list[int]) -> Tensor:
    key = window[-1] * 5 + (window[-2] if len(window) > 1 else 0)
    logits = 1.5 * torch.sin((key + 1) * torch.arange(1.0, V + 1) * 0.7)
    logits[END] = -1.0
    return logits


def sequence(index: int, watermark: Watermark | None, length: int = 40, cut: Cut = Cut()) -> TokenSequence:
    return marked_sequence([END, 1 + index % 3], index, Rng(5), length, watermark, cut)


def marked_sequence(
    prompt: list[int], index: int, rng: Rng, length: int, watermark: Watermark | None, cut: Cut = Cut()
) -> TokenSequence:
    marked = None
    if watermark is not None:
        marked = MarkedText.of(watermark, [prompt], length, rng, torch.tensor([index]))[0]
    return TokenSequence(prompt, index, rng, length, cut, marked=marked)


def decoded(sequences: list[TokenSequence], end: int | None = None) -> list[list[int]]:
    decoding = Decoding(model(by_the_last_two), 64, torch.device("cpu"), end)
    decoding.join(sequences, Cond(len(sequences)))
    decoding.run()
    return [s.new for s in sequences]


def test_a_text_is_the_same_alone_and_beside_others_of_other_keys() -> None:
    marks = [MARK, None, OTHER, MARK, None, OTHER]
    together = decoded([sequence(i, m) for i, m in enumerate(marks)], end=END)
    assert together == [decoded([sequence(i, m)], end=END)[0] for i, m in enumerate(marks)]
    plain = decoded([sequence(i, None) for i in range(len(marks))], end=END)
    for m, with_marks, without in zip(marks, together, plain, strict=True):
        assert (with_marks == without) == (m is None)


def test_the_short_way_draws_the_same_tokens() -> None:
    """`draw_plain`, also where texts end at different steps."""
    expected = decoded([sequence(i, MARK) for i in range(9)], end=END)
    each = [sequence(i, MARK) for i in range(9)]
    decoding = Decoding(model(by_the_last_two), 64, torch.device("cpu"), END)
    assert not draw_plain(decoding, each, Cond(9), Rng(5), torch.arange(9))
    assert [s.new for s in each] == expected
    assert len({len(row) for row in expected}) > 1


def test_what_a_full_window_leaves_is_drawn_on() -> None:
    """The contexts that were marked before are known."""

    def both(context: int) -> list[list[int]]:
        each = [sequence(i, MARK) for i in range(4)]
        decoding = Decoding(model(lambda window: by_the_last_two(window[-1:])), context, torch.device("cpu"))
        left = draw_plain(decoding, each, Cond(4), Rng(5), torch.arange(4))
        assert bool(left) == (context < 42)
        decoding.join(left, Cond(len(left)))
        decoding.run()
        return [s.new for s in each]

    assert both(10) == both(100)


def test_tokens_are_read_one_by_one_where_they_are_marked() -> None:
    expected = decoded([sequence(i, MARK) for i in range(3)])
    with patch.object(tokens, "read_together", lambda device: 8):
        assert decoded([sequence(i, MARK) for i in range(3)]) == expected


def test_the_likeliest_tokens_are_not_marked() -> None:
    greedy: dict[str, Any] = {"cut": Cut(temperature=0.0)}
    assert decoded([sequence(1, MARK, **greedy)]) == decoded([sequence(1, None, **greedy)])


def test_nothing_is_marked_before_a_context_has_been_drawn() -> None:
    size = MARK.context
    pairs = [(decoded([sequence(i, MARK)])[0], decoded([sequence(i, None)])[0]) for i in range(60)]
    assert all(a[:size] == b[:size] for a, b in pairs)
    assert any(a[size] != b[size] for a, b in pairs)


def test_a_context_is_marked_once() -> None:
    drawn = [7, 8, 9, 1, 2, 7, 8, 1, 2, 1]
    contexts = torch.tensor(drawn).unfold(0, 2, 1)[1:]  # from 8 9 on
    # 8 9 is of the prompt and 9 1 half of it; 7 8 was followed by 9 in the prompt; 1 2 occurs again
    expected = [False, False, True, True, False, True, False, True]
    for compiled in (module.library, lambda: None):
        with patch.object(module, "library", compiled):
            text = MarkedText.of(MARK, [[7, 8, 9]], 7, Rng(0), torch.tensor([0]))[0]
            assert [len(contexts_to_mark(c[None].contiguous(), [text])[0]) == 1 for c in contexts] == expected


def test_texts_are_the_same_without_the_kernels() -> None:
    """Also of long texts of few tokens, whose contexts collide in a table."""
    expected = decoded([sequence(i, MARK, 200) for i in range(5)])
    with patch.object(module, "library", lambda: None), patch.object(keyed, "library", lambda: None):
        assert decoded([sequence(i, MARK, 200) for i in range(5)]) == expected


def test_the_frequencies_of_single_texts_are_those_of_the_model() -> None:
    """Over 4,000 keys, of the tokens that are marked first: a mean of the error in units of its deviation."""
    n, size = 4_000, MARK.context
    each = [marked_sequence([END, 1], i, Rng(9), size + 1, Watermark(i.to_bytes(16, "big"), size)) for i in range(n)]
    counts, expected = torch.zeros(V), torch.zeros(V)
    for row in decoded(each):
        p = by_the_last_two(row[size - 2 : size]).softmax(-1)
        expected, counts[row[size]] = expected + p, counts[row[size]] + 1
    likely = expected > 20
    assert float(((counts - expected).square() / expected)[likely].sum()) < 3 * int(likely.sum())


def test_variants_are_those_of_seed_and_number() -> None:
    found = variant_of(Rng(1), torch.arange(5_000))
    assert found.min() == 0 and found.max() == VARIANTS - 1
    assert torch.bincount(found).min() > 0.4 * 5_000 / VARIANTS
    assert int(variant_of(Rng(1), torch.tensor([17]))) == int(found[17])
    assert MarkedText.of(MARK, [[]], 9, Rng(1), torch.tensor([17]))[0].variant == int(found[17])


def test_marked_texts_are_found_and_only_with_their_key() -> None:
    rows = decoded([sequence(i, MARK, 300) for i in range(8)])
    assert all(watermark_test(row, MARK).p_value < 1e-4 for row in rows)
    wrong = Watermark(b"a key of other bytes", context=2)
    assert sum(watermark_test(row, wrong).p_value < 0.01 for row in rows) <= 1
