"""Tournament sampling by enumeration: of all bits, and of all candidates."""

from __future__ import annotations

from itertools import product
from unittest.mock import patch

import pytest
import torch
from torch import Tensor

from afresh.services.watermark import watermark as module
from afresh.services.watermark.watermark import FLOOR, in_variants, marked_rows, token_bits, tournament
from tests import needs

P = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
LAYERS = 2


def test_the_mean_over_all_bits_is_the_distribution_itself() -> None:
    every = torch.tensor(list(product(range(2**LAYERS), repeat=P.shape[1])))
    marked = tournament(P.expand(len(every), -1), every, LAYERS)
    torch.testing.assert_close(marked.mean(0, keepdim=True), P, rtol=0, atol=1e-15)
    assert not torch.allclose(marked, P)


def winner(candidates: list[int], bits: list[int], layer: int = 0) -> dict[int, float]:
    """The probabilities of the winners of a tournament, where the first round has the bits of layer 0."""
    rounds = {(): 1.0} if len(candidates) > 1 else {tuple(candidates): 1.0}
    if len(candidates) == 1:
        return {candidates[0]: 1.0}
    for a, b in zip(candidates[::2], candidates[1::2], strict=True):
        wins = {a: 0.5, b: 0.5} if a != b else {a: 1.0}
        if (bits[a] ^ bits[b]) >> layer & 1:
            wins = {max(a, b, key=lambda token: bits[token] >> layer & 1): 1.0}
        rounds = {(*before, w): q * p for before, q in rounds.items() for w, p in wins.items()}
    out: dict[int, float] = {}
    for left, q in rounds.items():
        for token, p in winner(list(left), bits, layer + 1).items():
            out[token] = out.get(token, 0.0) + q * p
    return out


@pytest.mark.parametrize("bits", [[0b01, 0b10, 0b11], [0b00, 0b01, 0b01], [0b10, 0b10, 0b01], [0, 0, 0]])
def test_the_closed_form_is_a_tournament_of_candidates(bits: list[int]) -> None:
    """Four candidates, two rounds: all 81 draws."""
    expected = torch.zeros(1, 3, dtype=torch.float64)
    for candidates in product(range(3), repeat=2**LAYERS):
        chance = float(P[0, list(candidates)].prod())
        for token, p in winner(list(candidates), bits).items():
            expected[0, token] += chance * p
    torch.testing.assert_close(tournament(P, torch.tensor([bits]), LAYERS), expected)


def test_bits_of_tokens_are_fair_and_independent_of_each_other() -> None:
    n = 40_000
    keys = torch.arange(n)
    bits = token_bits(in_variants(keys, torch.tensor(3)), torch.tensor(7))
    each = torch.stack([bits >> layer & 1 for layer in range(32)]).double() - 0.5
    other = token_bits(in_variants(keys, torch.tensor(4)), torch.tensor(7))
    again = torch.stack([other >> layer & 1 for layer in range(32)])
    bound = 5 * 0.5 / n**0.5
    assert each.mean(1).abs().max() < bound
    moments = each @ each.T / n - torch.eye(32) / 4
    assert moments.abs().max() < bound / 2
    assert (each @ (again.double() - 0.5).T / n).abs().max() < bound / 2


def marked(p: Tensor, rows: list[int]) -> Tensor:
    return marked_rows(p.clone(), torch.tensor(rows), torch.arange(len(rows)) * 2**40 - 2**44, 20)


def test_unlikely_tokens_and_other_rows_keep_their_probabilities() -> None:
    torch.manual_seed(0)
    p = (3 * torch.randn(6, 300, dtype=torch.float64)).softmax(-1)
    out = marked(p, [1, 4])
    assert torch.equal(out[[0, 2, 3, 5]], p[[0, 2, 3, 5]])
    changed, small = out[[1, 4]], p[[1, 4]] < FLOOR
    assert small.any() and torch.equal(changed[small], p[[1, 4]][small])
    assert (changed[~small] != p[[1, 4]][~small]).all()
    torch.testing.assert_close(out.sum(-1), torch.ones(6, dtype=torch.float64))


def test_the_mean_over_contexts_is_the_distribution_also_where_some_tokens_take_no_part() -> None:
    n = 40_000
    p = torch.tensor([[0.6, 0.3, 0.0995, FLOOR / 2, 0.0005 - FLOOR / 2]], dtype=torch.float64).expand(n, -1)
    out = marked(p, list(range(n)))
    error = 5 * out.std(0) / n**0.5 + 1e-15
    assert ((out.mean(0) - p[0]).abs() < error).all() and error[0] < 0.02


@needs.kernels
@pytest.mark.parametrize("vocab", [1, 33, 95, 2_048])
def test_the_kernel_gives_what_pytorch_does(vocab: int) -> None:
    torch.manual_seed(1)
    p = (3 * torch.randn(40, vocab, dtype=torch.float64)).softmax(-1)
    rows = [row for row in range(40) if row % 3]
    with patch.object(module, "library", lambda: None):
        expected = marked(p, rows)
    torch.testing.assert_close(marked(p, rows), expected, rtol=1e-11, atol=1e-15)


def test_a_row_in_which_no_token_is_likely_is_left_as_it_is() -> None:
    p = torch.full((1, 4_096), 1 / 4_096, dtype=torch.float64)
    assert torch.equal(marked(p, [0]), p)
    with patch.object(module, "library", lambda: None):
        assert torch.equal(marked(p, [0]), p)
