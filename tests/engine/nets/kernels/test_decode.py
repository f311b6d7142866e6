"""The decoding engine against the network's full forward pass: every shape, ragged rows, rows that leave or restart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from afresh.core import Cond, Part
from afresh.core.rng import Rng
from afresh.engine.nets import decoding
from afresh.engine.nets.decoding import decode, engine_of
from afresh.engine.nets.kernels.decode import DecodedSequences, Kind, quantise
from afresh.engine.nets.transformer import Cache, Decoder, DecoderShape
from afresh.engine.sampling.guidance import classifier_free
from afresh.engine.sampling.next_token import predictor
from afresh.engine.sampling.tokens import Cut, Decoding, TokenSequence
from tests import needs
from tests.engine.sampling.generation import generate

pytestmark = needs.kernels

SHAPE = DecoderShape(vocab=37, width=64, layers=2, heads=4, kv_heads=2, mlp=96, context=48)
SHAPES = {
    "qwen3": SHAPE,
    "llama": replace(SHAPE, qk_norm=False, tied=True, rope_scaling=(8.0, 1.0, 4.0, 16)),
    "qwen2": replace(SHAPE, qk_norm=False, qkv_bias=True),
    "own head width": replace(SHAPE, head_dim=32, kv_heads=4),
    "learnt positions": replace(SHAPE, positions=49),
    "no multiple of a tile": replace(SHAPE, width=44, heads=2, kv_heads=1, mlp=50),
}
SPEC = {"label": Part("label", ("a", "b"))}


def made(shape: DecoderShape, spec: Any = None) -> Decoder:
    torch.manual_seed(0)
    net = Decoder(shape, spec or {}).eval().requires_grad_(False)
    for name, p in net.named_parameters():
        nn.init.normal_(p, mean=float("norm" in name), std=0.3 if "embedding" in name else 1.5 / p.shape[-1] ** 0.5)
    return net


def forward(net: Decoder, tokens: Tensor, c: Tensor | None = None) -> Tensor:
    """Log-probabilities of the next token at every place, (B, T, V)."""
    return net(tokens, c).log_softmax(-1)


@pytest.mark.parametrize("name", SHAPES)
def test_ragged_pieces_give_the_full_forward_pass(name: str) -> None:
    net = made(SHAPES[name])
    x = torch.randint(37, (3, 40))
    exact, state = forward(net, x), None
    fed = torch.zeros(3, dtype=torch.int64)
    for counts in ([5, 1, 17], [1, 1, 1], [3, 9, 1], [1, 1, 1], [7, 20, 2]):
        count = torch.tensor(counts)
        piece = torch.zeros(3, max(counts), dtype=torch.int64)
        for b, n in enumerate(counts):
            piece[b, :n] = x[b, fed[b] : fed[b] + n]
        logits, state = decode(net, piece, count, None, state, 48, "float32")
        fed += count
        assert isinstance(state, DecodedSequences)
        torch.testing.assert_close(logits.log_softmax(-1), exact[torch.arange(3), fed - 1], rtol=0, atol=2e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_many_rows_conditions_and_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afresh.engine.nets.kernels.decode.FEW", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        net = made(SHAPE, SPEC)
        x = torch.randint(37, (70, 9))
        c = net.condition(Cond(70, {"label": torch.arange(70) % 2}, {"label": torch.arange(70) % 3 > 0}))
        logits, state = decode(net, x[:, :8], None, c, None, 48, "float32")
        torch.testing.assert_close(logits.log_softmax(-1), forward(net, x, c)[:, 7], rtol=0, atol=2e-5)
        logits, state = decode(net, x[:, 8:], None, c, state, 48, "float32")
        torch.testing.assert_close(logits.log_softmax(-1), forward(net, x, c)[:, 8], rtol=0, atol=2e-5)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("engine", [True, False])
def test_rows_leave_and_start_again(engine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not engine:
        monkeypatch.setattr(decoding, "engine_of", lambda net, kind: None)
    net, x = made(SHAPE), torch.randint(37, (4, 20))
    _, state = decode(net, x[:, :6], None, None, None, 48, "float32")
    assert isinstance(state, DecodedSequences if engine else Cache)
    state = state.select(torch.tensor([1, 3]))
    state.restart(torch.tensor([0]))
    piece = torch.stack([x[1, :9], x[3, 6:15]])
    logits, _ = decode(net, piece, torch.tensor([9, 2]), None, state, 48, "float32")
    expected = torch.stack([forward(net, x[1:2])[0, 8], forward(net, x[3:])[0, 7]])
    torch.testing.assert_close(logits.log_softmax(-1), expected, rtol=0, atol=2e-5)


def greedy(net: Decoder, prompt: list[int], length: int, c: Tensor | None = None) -> list[int]:
    row = list(prompt)
    for _ in range(length):
        row.append(int(net(torch.tensor([row]), c)[0, -1].argmax()))
    return row[len(prompt) :]


def test_greedy_tokens_are_those_of_the_full_forward_pass() -> None:
    net = made(SHAPE)
    prompts = [[1, 2, 3], [5], [7] * 20, [30, 4]]
    rows = generate(
        predictor({"decoder": net}, 49), prompts, Cond(4), Rng(0), torch.arange(4), 25, 48, Cut(temperature=0)
    )
    assert rows == [greedy(net, p, 25) for p in prompts]


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_samples_do_not_depend_on_engine_or_batch(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    net = made(SHAPE, SPEC)
    cond = Cond(5, {"label": torch.tensor([0, 1, 0, 1, 1])}, {"label": torch.ones(5, dtype=torch.bool)})
    prompts = [[1], [5, 6, 7], [7] * 30, [3, 3], [2] * 11]
    predict = classifier_free(predictor({"decoder": net}, 49), scale)

    def drawn(rows: list[int]) -> list[list[int]]:
        index = torch.tensor(rows)
        return generate(predict, [prompts[i] for i in rows], cond.select(index), Rng(1), index, 40, 48, Cut(), end=0)

    together = drawn([0, 1, 2, 3, 4])
    assert [drawn([i])[0] for i in range(5)] == together
    monkeypatch.setattr(decoding, "engine_of", lambda net, kind: None)
    assert drawn([0, 1, 2, 3, 4]) == together


@pytest.mark.parametrize("batch", [1, 3, 6, 40])  # one row at a time, a few, and by tiles
def test_bfloat16_is_as_accurate_as_in_training(batch: int) -> None:
    net, x = made(SHAPE), torch.randint(37, (batch, 24))
    exact = made(SHAPE).double()
    exact.cos, exact.sin = exact.cos.double(), exact.sin.double()
    truth = forward(exact, x)[:, -1]
    with torch.autocast("cpu", torch.bfloat16):
        trainers = forward(net, x)[:, -1]
    state = None
    for piece in (x[:, :23], x[:, 23:]):
        logits, state = decode(net, piece, None, None, state, 48, "bfloat16")
    mine = (logits.log_softmax(-1) - truth).square().mean().sqrt()
    theirs = (trainers - truth).square().mean().sqrt()
    assert mine <= 1.2 * theirs and mine < 0.1


def test_int8_is_a_network_of_rounded_weights() -> None:
    """The result is that of the dequantised weights in bfloat16 arithmetic, up to the order of sums."""
    net, rounded = made(SHAPE), made(SHAPE)
    for name, p in rounded.named_parameters():
        if p.dim() == 2 and "embedding" not in name:
            q, factor = quantise(p)
            assert (q * factor[:, None] - p).abs().max() <= 0.51 * factor.max()
            p.copy_(q * factor[:, None])
    for batch in (1, 40):
        x = torch.randint(37, (batch, 12))
        logits, _ = decode(net, x, None, None, None, 48, "int8")
        assert (logits.log_softmax(-1) - forward(rounded, x)[:, -1]).abs().mean() < 0.03


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_row_is_the_same_alone_and_among_others(name: str, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, without matrix tiles (AMX), whose order of sums depends on the number of rows."""
    monkeypatch.setattr("afresh.engine.nets.kernels.decode.tiles", lambda: False)
    net, x = made(SHAPES[name]), torch.randint(37, (19, 5))
    together, _ = decode(net, x, None, None, None, 48, kind)
    for row in range(0, 19, 6):
        alone = None
        for at in range(5):
            logits, alone = decode(net, x[row : row + 1, at : at + 1], None, None, alone, 48, kind)
        assert torch.equal(logits[0], together[row])


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_unwritten_memory_is_never_used(kind: Kind) -> None:
    net, x = made(SHAPE), torch.randint(37, (2, 21))
    expected, _ = decode(net, x, None, None, None, 48, kind)
    engine = engine_of(net, kind)
    assert engine is not None
    state = engine.sequences(2, 48)
    state.k.fill_(torch.nan), state.v.fill_(torch.nan)
    logits, _ = decode(net, x, None, None, state, 48, kind)
    assert torch.equal(logits, expected)


def test_changed_weights_are_packed_again() -> None:
    net, x = made(SHAPE), torch.randint(37, (2, 5))
    kind: Kind = "float32"
    first = engine_of(net, kind)
    assert engine_of(net, kind) is first
    net.head.weight.mul_(2.0)  # type: ignore[union-attr]
    assert engine_of(net, kind) is not first
    logits, _ = decode(net, x, None, None, None, 48, kind)
    torch.testing.assert_close(logits.log_softmax(-1), forward(net, x)[:, -1], rtol=0, atol=2e-5)


@pytest.mark.parametrize("engine", [True, False])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_sequence_that_joins_later_is_that_of_one_drawn_alone(
    scale: float, engine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not engine:
        monkeypatch.setattr(decoding, "engine_of", lambda net, kind: None)
    net = made(SHAPE, SPEC)
    cond = Cond(5, {"label": torch.tensor([0, 1, 0, 1, 1])}, {"label": torch.ones(5, dtype=torch.bool)})
    prompts = [[1], [5, 6, 7], [7] * 30, [3, 3], [2] * 11]
    seeds, cuts = [1, 1, 8, 8, 9], [Cut(), Cut(0.5), Cut(top_p=0.8), Cut(0), Cut()]
    device = torch.device("cpu")

    def batch() -> Decoding:
        return Decoding(classifier_free(predictor({"decoder": net}, 49), scale), 48, device, end=0)

    def sequence(i: int) -> TokenSequence:
        return TokenSequence(list(prompts[i]), i, Rng(seeds[i]), 40, cuts[i])

    def alone(i: int) -> list[int]:
        shared, one = batch(), sequence(i)
        shared.join([one], cond.select(torch.tensor([i])))
        while shared.active:
            shared.step()
        return one.new

    shared, rows, gone = batch(), [sequence(i) for i in range(5)], sequence(0)
    shared.join([rows[0], gone, rows[1]], cond.select(torch.tensor([0, 0, 1])))
    for joining in ([2], [], [3, 4]):
        for _ in range(3):
            shared.step()
        if gone in shared.active:
            shared.leave([gone])
        if joining:
            shared.join([rows[i] for i in joining], cond.select(torch.tensor(joining)))
    while shared.active:
        shared.step()
    assert [s.new for s in rows] == [alone(i) for i in range(5)]


def test_a_known_beginning_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afresh.engine.sampling.prefix_cache.LEAST", 16)
    monkeypatch.setattr("afresh.engine.sampling.tokens.LEAST", 16)
    net = made(replace(SHAPE, separator=0), SPEC)
    predict, fed = predictor({"decoder": net}, 49), []
    labels = {"label": torch.tensor([0, 0, 1])}, {"label": torch.ones(3, dtype=torch.bool)}
    cond, shared = Cond(3, *labels), [0, *range(1, 21)]
    prompts = [[*shared, 30], [*shared, 31, 32], [*shared, 30]]

    def counting(x: Tensor, counts: Any, c: Cond, state: Any) -> tuple[Tensor, Any]:
        fed.append(x.numel() if counts is None else int(counts.sum()))
        return predict(x, counts, c, state)

    def drawn(together: bool) -> list[list[int]]:
        batch, rows = Decoding(counting, 48, torch.device("cpu")), []
        for i, prompt in enumerate(prompts):
            rows.append(TokenSequence(list(prompt), i, Rng(4), 8))
            batch = batch if together else Decoding(counting, 48, torch.device("cpu"))
            batch.join([rows[-1]], cond.select(torch.tensor([i])))
            while batch.active:
                batch.step()
        return [s.new for s in rows]

    apart = drawn(together=False)
    assert fed[::8] == [22, 23, 22]
    fed.clear()
    assert drawn(together=True) == apart
    assert fed[::8] == [22, 2, 22], "the second begins as the first, the third has another label"
    fed.clear()
    batch = Decoding(counting, 48, torch.device("cpu"))
    rows = [TokenSequence(list(prompts[0]), i, Rng(4), 8) for i in (0, 1)]
    batch.join(rows, cond.select(torch.tensor([0, 0])))
    while batch.active:
        batch.step()
    assert rows[0].new == apart[0] and fed[:2] == [22, 2], "the second joins when its prompt is known"
    alone, batch = TokenSequence(list(prompts[0]), 1, Rng(4), 8), Decoding(counting, 48, torch.device("cpu"))
    batch.join([alone], cond.select(torch.tensor([0])))
    while batch.active:
        batch.step()
    assert rows[1].new == alone.new


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_a_copied_beginning_gives_the_same_logits(kind: Kind) -> None:
    net, x = made(SHAPE), torch.randint(37, (1, 40))
    _, state = decode(net, x[:, :30], None, None, None, 48, kind)
    assert isinstance(state, DecodedSequences)
    state = state.extend(1)
    state.k[:, 1], state.v[:, 1] = torch.nan, torch.nan  # as memory may hold
    state.copy_prefix(1, 0, 21, 0)
    both, _ = decode(net, torch.cat([x[:, 30:40], x[:, 21:31]]), None, None, state, 48, kind)
    whole, _ = decode(net, x[:, :31], None, None, None, 48, kind)
    assert torch.equal(both[1], whole[0])
