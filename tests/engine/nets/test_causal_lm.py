"""Models of transformers behind the interface of the own decoder give what transformers gives."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from afresh.engine.nets.causal_lm import CausalLM, with_infinities
from tests.runs.formats.causal_models import ARCHITECTURES, model_of

pytest.importorskip("transformers", minversion="5.24")
VOCAB = 40
KINDS = pytest.mark.parametrize("kind", ARCHITECTURES)


def logs(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1)


@KINDS
@torch.no_grad()
def test_log_probabilities_are_those_of_transformers(kind: str) -> None:
    model = model_of(kind, VOCAB)
    tokens = torch.randint(0, VOCAB, (3, 30), generator=torch.Generator().manual_seed(1))
    expected = logs(model(tokens).logits)
    net = CausalLM(deepcopy(model))
    torch.testing.assert_close(logs(net(tokens, None)), expected, atol=1e-4, rtol=0)
    assert float(expected.std()) > 0.02  # the weights matter


@KINDS
@torch.no_grad()
def test_rows_come_and_go(kind: str) -> None:
    """Rows of other lengths, one that joins, one that leaves and one that begins again have the log-probabilities of
    each row alone."""
    net = CausalLM(model_of(kind, VOCAB))
    draw = torch.Generator().manual_seed(2)
    rows = [torch.randint(0, VOCAB, (n,), generator=draw).tolist() for n in (5, 17, 11)]
    cache = net.new_cache(3, 64, torch.float32)

    def feed(new: list[list[int]]) -> None:
        longest = max(map(len, new))
        tokens = torch.tensor([[*n, *[0] * (longest - len(n))] for n in new])
        counts = torch.tensor(list(map(len, new)))
        h = net.hidden(tokens, None, cache, counts)
        found = logs(net.logits(h[torch.arange(len(new)), counts - 1]))
        for i, row in enumerate(rows):
            expected = logs(net(torch.tensor([row]), None)[0, -1])
            torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=0, msg=f"row {i} of {len(row)} tokens")

    feed(rows)
    for step in range(3):
        new = [[(7 * step + i) % VOCAB] for i in range(len(rows))]
        rows = [r + n for r, n in zip(rows, new, strict=True)]
        feed(new)
    cache = cache.select(torch.tensor([0, 2])).extend(1)  # the longest leaves, another joins
    joins = torch.randint(0, VOCAB, (20,), generator=draw).tolist()
    rows = [[*rows[0], 3], [*rows[2], 4], joins]
    feed([[3], [4], joins])
    cache.restart(torch.tensor([1]))
    rows = [[*rows[0], 5], rows[1][-6:], [*rows[2], 6]]
    feed([[5], rows[1], [6]])
    rows = [[*rows[0], 1, 2], [*rows[1], 1], [*rows[2], 9]]
    feed([[1, 2], [1], [9]])


def test_leave_to_run_code_is_not_taken_from_a_configuration() -> None:
    """LightGlue's believes it (CVE-2026-5241), also within that of another architecture."""
    saved = {"a": [{"trust_remote_code": True, "b": {"__float__": "Infinity"}}], "trust_remote_code": True}
    assert with_infinities(saved) == {"a": [{"b": float("inf")}]}
