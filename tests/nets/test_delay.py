"""The delay pattern: a shift that loses nothing, and a network that sees earlier steps alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from afresh.core import Cond, Part
from afresh.nets.decoding import decode
from afresh.nets.delay import Delayed, delayed, step_predictor, steps_of, undelayed
from afresh.nets.transformer import Decoder, DecoderShape

PLACES, LEVELS, CODES = 4, 3, 5
SHAPE = DecoderShape(CODES + 1, 16, 2, 2, 1, 32, steps_of(PLACES, LEVELS), positions=steps_of(PLACES, LEVELS) + 1)


def made(spec: dict[str, Part] | None = None) -> Delayed:
    """Weights with no zero left, so that every part has a say."""
    torch.manual_seed(0)
    net = Delayed(SHAPE, spec or {}, LEVELS, CODES)
    for p in net.parameters():
        if not p.any():
            nn.init.normal_(p, std=0.4)
    return net.eval().requires_grad_(False)


def tokens(n: int = 2) -> Tensor:
    return torch.randint(0, CODES, (n, PLACES * LEVELS), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("levels", range(1, 6))
@pytest.mark.parametrize("places", [1, 2, 7])
def test_the_shift_loses_nothing(places: int, levels: int) -> None:
    codes = 1 + torch.arange(3 * places * levels).view(3, places, levels)
    steps = delayed(codes, 0)
    assert steps.shape == (3, steps_of(places, levels), levels)
    assert torch.equal(undelayed(steps), codes)
    assert torch.equal(steps.flatten(1).sort(1).values[:, -places * levels :], codes.flatten(1))  # each just once
    assert int((steps == 0).sum()) == 3 * levels * (levels - 1)  # a triangle at each end, and no other hole


def test_level_k_of_a_place_stands_k_steps_on() -> None:
    """The example of the paper's figure 1: rows are levels, columns steps."""
    codes = torch.tensor([[[11, 12, 13], [21, 22, 23]]])
    assert delayed(codes, 0)[0].T.tolist() == [[11, 21, 0, 0], [0, 12, 22, 0], [0, 0, 13, 23]]


def test_what_a_step_is_predicted_from_is_the_step_before() -> None:
    net, x = made(), tokens()
    before = net.before(x)
    assert torch.equal(before[:, 1:], delayed(net.by_place(x), CODES)[:, :-1])
    assert bool((before[:, 0] == CODES).all())


def test_a_code_sees_all_earlier_steps_and_no_other() -> None:
    """Of every pair of codes: changing one changes what is said of the other, or not, as their steps say."""
    net, x = made(), tokens(1)

    def said(x: Tensor) -> Tensor:
        return undelayed(net(net.before(x), None))[0].flatten(0, 1)  # (P K, V)

    plain = said(x)
    for i in range(PLACES * LEVELS):
        other = x.clone()
        other[0, i] = (other[0, i] + 1) % CODES
        moved = (said(other) - plain).abs().amax(1) > 1e-6
        step = i // LEVELS + i % LEVELS
        expected = [j // LEVELS + j % LEVELS > step for j in range(PLACES * LEVELS)]
        assert moved.tolist() == expected


def test_each_level_has_a_table_and_a_head_of_its_own() -> None:
    net, x = made(), tokens(1)
    steps = delayed(net.by_place(x), CODES)
    base, added = net.entered(steps, None)
    tables = net.embedding.weight.view(LEVELS, CODES + 1, -1)
    expected = torch.stack([tables[k][steps[..., k]] for k in range(LEVELS)]).sum(0)
    torch.testing.assert_close(net.embedding(base) + added, expected)
    h = net.hidden(base, added)
    assert net.head is not None
    heads = net.head.weight.view(LEVELS, CODES + 1, -1)
    logits = torch.einsum("bsw,kvw->bskv", h, heads)
    torch.testing.assert_close(net(steps, None), logits, rtol=1e-4, atol=1e-5)


def test_embeddings_are_together_as_large_as_one() -> None:
    shape = DecoderShape(400, 64, 1, 2, 2, 64, 8)
    torch.manual_seed(0)
    one, several = Decoder(shape, {}), Delayed(shape, {}, 4, 399)
    steps = torch.randint(0, 399, (4, 8, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        base, added = several.entered(steps, None)
        together, alone = (several.embedding(base) + added).std(), one.embedding.weight.std()
    assert float(together) == pytest.approx(float(alone), rel=0.05)


@pytest.mark.parametrize("kernels", [True, False], ids=["engine", "eager"])
def test_step_by_step_through_a_cache_is_the_whole_at_once(kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels:
        monkeypatch.setattr("afresh.nets.decoding.engine_of", lambda net, kind: None)
    spec = {"label": Part("label", classes=("a", "b"))}
    net, x = made(spec), tokens(3)
    cond = Cond(3, {"label": torch.tensor([0, 1, 1])}, {"label": torch.tensor([True, True, False])})
    whole = net(net.before(x), net.condition(cond))
    predict, state = step_predictor(net, steps_of(PLACES, LEVELS)), None
    for s, step in enumerate(net.before(x).unbind(1)):
        logits, state = predict(step, None, cond, state)
        torch.testing.assert_close(logits, whole[:, s], rtol=1e-4, atol=1e-4)


def test_nats_are_those_of_each_level() -> None:
    net, x = made(), tokens(3)
    targets = delayed(net.by_place(x), -1)
    logs = net(net.before(x), None).log_softmax(-1)
    expected = -logs.gather(-1, targets.clamp_min(0)[..., None])[..., 0].where(targets >= 0, 0).sum((1, 2))
    torch.testing.assert_close(net(net.before(x), None, targets), expected, rtol=1e-4, atol=1e-4)


def test_decode_is_told_a_vector_for_each_row() -> None:
    """A cache that is fed one step knows nothing of levels: it is given one token and what is added to it."""
    net, x = made(), tokens(2)
    base, added = net.entered(net.before(x)[:, :1], None)
    logits, _ = decode(net, base, None, added[:, 0], None, 8, "float32")
    assert logits.shape == (2, LEVELS * (CODES + 1))
