"""Branches of a beginning: their logits are those of the whole sequence."""

from __future__ import annotations

import pytest
import torch

from afresh.engine.nets.batched_continuations import Twigs, begin, branch_logits, go_on
from afresh.engine.nets.transformer import Decoder, DecoderShape


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


def test_twigs_do_not_see_one_another_and_a_beginning_goes_on() -> None:
    torch.manual_seed(0)
    net = Decoder(DecoderShape(vocab=20, width=16, layers=2, heads=2, kv_heads=1, mlp=32, context=24), {})
    for p in net.parameters():
        if not bool(p.any()):
            torch.nn.init.normal_(p, std=0.3)
    x, counts, more = torch.randint(20, (2, 7)), torch.tensor([7, 3]), torch.randint(20, (2, 2))
    stem, twigs = torch.randint(20, (2, 3, 2)), torch.randint(20, (4, 2))
    branches = torch.cat([stem, twigs.flatten().expand(2, 3, -1)], 2)
    start = begin(net, x, counts, None)
    assert start is not None
    found = branch_logits(net, go_on(net, start, more, None), branches, None, Twigs(2, 2))
    assert found.shape == (2, 3, 4, 20)
    for b in range(2):
        for m in range(3):
            for t in range(4):
                whole = torch.cat([x[b, : counts[b]], more[b], stem[b, m], twigs[t]])[None]
                torch.testing.assert_close(found[b, m, t], net(whole, None)[0, -1], rtol=1e-4, atol=1e-4)
