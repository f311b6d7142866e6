"""The network of records: its probabilities, and the cosines by which tokens in order are told."""

from __future__ import annotations

import torch

from afresh.core import Cond, Slot
from afresh.engine.nets.record import RecordNet, cosines

SLOTS = (Slot(0, 3), Slot(3, 8, ordered=6), Slot(11, 1))


def net(width: int = 16) -> RecordNet:
    torch.manual_seed(0)
    found = RecordNet(SLOTS, 13, width, 2, 4, 16, {})
    with torch.no_grad():
        for p in found.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return found


def test_cosines_span_every_function_of_parts_and_are_orthogonal() -> None:
    table = cosines(7, 99).double()
    assert table.shape == (7, 7) and torch.linalg.matrix_rank(table) == 7
    gram = table.T @ table
    assert torch.allclose(gram, torch.diag(gram.diagonal()), atol=1e-5)


def test_a_position_has_its_own_tokens_alone() -> None:
    x = torch.tensor([[12, 0, 4, 11], [12, 2, 13, 13]])
    p = net()(x, None).softmax(-1)
    for i, slot in enumerate(SLOTS):
        inside = p[:, i, slot.first : slot.first + slot.count]
        assert torch.allclose(inside.sum(-1), torch.ones(2)) and bool((inside > 0).all())
    assert torch.allclose(p.sum(-1), torch.ones(2, 3))


def test_nats_are_those_of_the_logits() -> None:
    x = torch.tensor([[12, 13, 4, 13], [12, 13, 13, 13]])
    targets = torch.tensor([[1, -1, 11], [2, 9, 11]])
    found = net()(x, None, targets)
    logs = net()(x, None).log_softmax(-1)
    expected = [-(logs[0, 0, 1] + logs[0, 2, 11]), -(logs[1, 0, 2] + logs[1, 1, 9] + logs[1, 2, 11])]
    assert torch.allclose(found, torch.stack(expected), atol=1e-5)


def test_what_is_masked_has_no_say() -> None:
    x = torch.tensor([[12, 13, 4, 11], [12, 13, 4, 11]])
    logits = net()(x, None)
    assert torch.equal(logits[0], logits[1])
    other = net()(torch.tensor([[12, 13, 5, 11]]), None)
    assert not torch.allclose(logits[:1, 0], other[:, 0])
    assert net().condition(Cond(2)) is None


def test_dropout_of_nothing_changes_nothing_and_of_all_leaves_the_inputs() -> None:
    x, width = torch.tensor([[12, 13, 4, 11]]), 16
    plain, ones, zeros = net()(x, None), torch.ones(1, 3 * width), torch.zeros(1, 3 * width)
    assert torch.equal(net()(x, None, keep=[ones, ones]), plain)
    shallow = net()
    with torch.no_grad():
        for block in shallow.blocks:
            block.down.weight.zero_()
            block.down.bias.zero_()
    assert torch.equal(net()(x, None, keep=[zeros, zeros]), shallow(x, None))


def test_a_new_network_has_the_frequencies_of_training() -> None:
    slots = (Slot(0, 3, counts=(7, 1, 0)), Slot(3, 2))
    p = RecordNet(slots, 5, 16, 2, 4, 16, {})(torch.tensor([[5, 5, 5]]), None).softmax(-1)[0]
    assert torch.allclose(p[0, :3], torch.tensor([7.5, 1.5, 0.5]) / 9.5, atol=1e-6)
    assert torch.allclose(p[1, 3:], torch.tensor([0.5, 0.5]))
