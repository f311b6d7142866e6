"""Branches of a beginning: their logits are those of the whole sequence."""

from __future__ import annotations

import pytest
import torch

from afresh.nets.branches import begin, branch_logits
from afresh.nets.transformer import Decoder, DecoderShape


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_the_logits_are_those_of_each_sequence_alone(kv_heads: int) -> None:
    torch.manual_seed(0)
    net = Decoder(DecoderShape(vocab=20, width=16, layers=2, heads=2, kv_heads=kv_heads, mlp=32, context=24), {})
    for p in net.parameters():
        if not bool(p.any()):
            torch.nn.init.normal_(p, std=0.3)
    x, counts = torch.randint(20, (3, 9)), torch.tensor([9, 0, 4])
    branches = torch.randint(20, (3, 5, 4))
    found = branch_logits(net, begin(net, x, counts, None), branches, None)
    for b in range(3):
        for m in range(5):
            whole = torch.cat([x[b, : counts[b]], branches[b, m]])[None]
            torch.testing.assert_close(found[b, m], net(whole, None)[0, -1], rtol=1e-4, atol=1e-4)
    alone = branch_logits(net, begin(net, x[:, :0], counts * 0, None), branches, None)
    torch.testing.assert_close(alone[1], found[1], rtol=1e-4, atol=1e-4)
