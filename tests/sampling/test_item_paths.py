"""Probabilities of items that are several codes, against all paths computed one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from afresh.core import Cond, Space
from afresh.families.transformer import FAMILY, TransformerConfig
from afresh.sampling.item_paths import item_log_probs, paths_of

VALUES, EACH, ITEMS = 5, 3, 40
Chosen = NDArray[np.bool_]
END = VALUES * EACH
SPACE = Space("tokens", (24,), (END + 1,), {"end": END}, stream=True, catalogue=True, codes=EACH)


def tokens_of_items() -> np.ndarray:
    every = np.stack(np.unravel_index(np.arange(VALUES**EACH), (VALUES,) * EACH), 1)
    codes = every[np.random.default_rng(0).permutation(len(every))[:ITEMS]]
    return np.asarray(codes + np.arange(EACH) * VALUES, np.int64)


@pytest.fixture(scope="module")
def modules() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    config = TransformerConfig(width=32, layers=2, heads=2, kv_heads=2, tied=True)
    made = FAMILY.build(config, SPACE, {})
    for p in made["decoder"].parameters():
        p.data += 0.3 * torch.randn_like(p)  # far from uniform
    return dict(made)


EVERY = np.ones(ITEMS, dtype=bool)


def log_probs(modules: dict[str, torch.nn.Module], rows: list[list[int]], width: int, chosen: Chosen = EVERY) -> Tensor:
    tokens = tokens_of_items()
    assert FAMILY.branch is not None
    branch = FAMILY.branch(modules, SPACE)
    paths = paths_of(tokens, VALUES, chosen)
    return item_log_probs(branch, paths, torch.device("cpu"), END, 24, rows, Cond(len(rows)), width)


def one_by_one(modules: dict[str, torch.nn.Module], row: list[int]) -> Tensor:
    """log p of each item: at each place, among the codes with which some item goes on."""
    tokens = tokens_of_items()
    out = torch.zeros(ITEMS)
    for i, item in enumerate(tokens):
        for n in range(EACH):
            x = torch.tensor([[END, *row, *item[:n]]])
            with torch.no_grad():
                logits = modules["decoder"](x, None)[0, -1]
            same = tokens[(tokens[:, :n] == item[:n]).all(1)]
            out[i] += logits[item[n]] - logits[np.unique(same[:, n])].logsumexp(0)
    return out


ROWS = [[], tokens_of_items()[[3, 8]].ravel().tolist(), tokens_of_items()[[1]].ravel().tolist()]


def test_probabilities_are_products_of_codes_and_sum_to_one(modules: dict[str, torch.nn.Module]) -> None:
    found = log_probs(modules, ROWS, 1000)
    assert torch.allclose(found.exp().sum(1), torch.ones(3), atol=1e-5)
    for row, logs in zip(ROWS, found, strict=True):
        assert torch.allclose(logs, one_by_one(modules, row), atol=1e-4)


def test_a_wide_beam_is_exact_and_a_narrow_one_still_a_distribution(modules: dict[str, torch.nn.Module]) -> None:
    exact, wide, narrow = (log_probs(modules, ROWS, w) for w in (1000, 40, 2))
    assert torch.allclose(exact, wide, atol=1e-5)
    assert torch.allclose(narrow.exp().sum(1), torch.ones(3), atol=1e-5) and not torch.allclose(exact, narrow)
    assert torch.equal(exact.argmax(1), narrow.argmax(1))


def test_long_histories_keep_their_last_items(modules: dict[str, torch.nn.Module]) -> None:
    items = tokens_of_items()
    long, last = items[list(range(12))].ravel().tolist(), items[list(range(5, 12))].ravel().tolist()
    assert torch.equal(log_probs(modules, [long], 1000), log_probs(modules, [last], 1000))


def test_items_that_could_not_be_chosen_are_as_likely_as_those_beside_them(modules: dict[str, torch.nn.Module]) -> None:
    """Each code of which nothing was learnt takes the mean of the others of its node, whatever the network says."""
    tokens, chosen = tokens_of_items(), EVERY.copy()
    chosen[:10] = False
    before, found = log_probs(modules, ROWS, 1000), log_probs(modules, ROWS, 1000, chosen)
    assert torch.allclose(found.exp().sum(1), torch.ones(3), atol=1e-5)
    alike = [np.flatnonzero((tokens[:, :2] == t[:2]).all(1)) for t in tokens]
    new, group = next((i, g) for i, g in enumerate(alike) if i < 10 and chosen[g].any())
    old = group[chosen[group]]
    p = found[:, group].exp()
    assert torch.allclose(found[:, new].exp(), p[:, np.isin(group, old)].mean(1), rtol=1e-4)
    others = found[:, old] - before[:, old]
    assert torch.allclose(others, others[:, :1].expand_as(others), atol=1e-4)
