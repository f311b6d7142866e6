"""Truncation against its definition, drawing against frequencies, generation against a language with known
probabilities."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from afresh.core import Cond, Predict
from afresh.core.rng import Rng
from afresh.engine.sampling import tokens
from afresh.engine.sampling.tokens import Cut, Decoding, Penalties, TokenSequence, draw, narrow, next_uniforms
from tests.engine.sampling.fed import model
from tests.engine.sampling.generation import generate

# --------------------------------------------------------------------------- narrow


def by_definition(logits: list[float], cut: Cut) -> list[float]:
    """Temperature, top-k, top-p and min-p of one row in plain Python; ties at a threshold are treated alike."""
    top = max(logits)
    if cut.temperature == 0:
        first = logits.index(top)
        return [float(i == first) for i in range(len(logits))]
    weights = [float(torch.tensor((v - top) / cut.temperature, dtype=torch.float64).exp()) for v in logits]
    p = [w / sum(weights) for w in weights]
    keep = set(range(len(p)))
    if cut.top_k:
        least = sorted(p, reverse=True)[min(cut.top_k, len(p)) - 1]
        keep = {i for i in keep if p[i] >= least}
    if cut.top_p < 1:
        mass = sum(p[i] for i in keep)
        total, least = 0.0, 0.0
        for value in sorted((p[i] / mass for i in keep), reverse=True):
            if total < cut.top_p:
                least = value
            total += value
        keep = {i for i in keep if p[i] / mass >= least - 1e-15}
    if cut.min_p:
        keep = {i for i in keep if p[i] >= cut.min_p * max(p)}
    mass = sum(p[i] for i in keep)
    return [p[i] / mass if i in keep else 0.0 for i in range(len(p))]


LEVELS = st.sampled_from([-3.0, -1.0, 0.0, 0.5, 2.0])  # few levels: ties are the rule
CUTS = st.builds(
    Cut,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_k=st.integers(0, 9),
    top_p=st.sampled_from([0.05, 0.3, 0.62, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.07, 0.4, 1.0]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(LEVELS, min_size=6, max_size=6), min_size=1, max_size=4), CUTS)
def test_truncation_follows_its_definition(rows: list[list[float]], cut: Cut) -> None:
    found = narrow(torch.tensor(rows), cut)
    expected = torch.tensor([by_definition(r, cut) for r in rows], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


def test_without_truncation_probabilities_are_the_softmax() -> None:
    logits = torch.tensor([[0.3, -2.0, 1.0]])
    torch.testing.assert_close(narrow(logits, Cut()), logits.double().softmax(-1))


def test_ties_at_a_threshold_are_treated_alike() -> None:
    """Otherwise the result would depend on the order of the vocabulary."""
    logits = torch.tensor([[1.0, 0.0, 0.0, -5.0]])
    assert (narrow(logits, Cut(top_k=2)) > 0).tolist() == [[True, True, True, False]]
    assert (narrow(logits, Cut(top_p=0.6)) > 0).tolist() == [[True, True, True, False]]
    assert (narrow(torch.zeros(1, 4), Cut(min_p=1.0)) > 0).all()


def test_greedy_takes_the_likeliest() -> None:
    assert narrow(torch.tensor([[0.0, 3.0, 1.0], [5.0, 3.0, 1.0]]), Cut(temperature=0)).argmax(1).tolist() == [1, 0]


def test_a_forbidden_token_stays_forbidden() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0]])
    for cut in (Cut(), Cut(temperature=5), Cut(top_k=3), Cut(top_p=0.99), Cut(min_p=0.01)):
        assert float(narrow(logits, cut)[0, 1]) == 0


# --------------------------------------------------------------------------- draw


def test_draw_has_the_frequencies_of_the_distribution() -> None:
    p = torch.tensor([0.5, 0.0, 0.2, 0.25, 0.05, 0.0], dtype=torch.float64)
    n = 20_000
    found = draw(p.expand(n, -1), Rng(5).uniform("test", torch.arange(n)))
    count = torch.bincount(found, minlength=6)
    assert count[1] == 0 and count[5] == 0
    possible = p > 0
    assert chisquare(count[possible].numpy(), (p[possible] * n).numpy()).pvalue > 1e-3


def test_draw_at_the_ends() -> None:
    """u = 0 gives the first possible token; the largest u never gives an impossible one, even if the sum is below 1."""
    p = torch.tensor([[0.0, 0.3, 0.7, 0.0]], dtype=torch.float64)
    largest = torch.tensor([1 - 2**-24], dtype=torch.float32)
    assert draw(p, torch.zeros(1)).item() == 1
    assert draw(p, largest).item() == 2
    assert draw(p * 0.999, largest).item() == 2
    assert draw(p.float(), largest).item() == 2


# --------------------------------------------------------------------------- generate

V, CONTEXT = 5, 8
P = torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.0], [0.7, 0.1, 0.1, 0.1, 0.0], [0.25, 0.25, 0.25, 0.25, 0.0],
                  [0.0, 0.5, 0.0, 0.5, 0.0], [0.2, 0.2, 0.2, 0.2, 0.2]])  # fmt: skip


def chain(log: list[int] | None = None) -> Predict:
    """A Markov chain that records how many tokens of the window it was fed."""

    def logits(window: list[int]) -> Tensor:
        assert 1 <= len(window) <= CONTEXT, "more was fed than the context holds"
        if log is not None:
            log.append(len(window))
        return P[window[-1]].log()

    return model(logits)


def sum_of(window: list[int]) -> Tensor:
    """Logits that depend on every token of the window and on its position, as those of a real model do."""
    assert len(window) <= CONTEXT
    key = sum(token * (2 * place + 1) for place, token in enumerate(window, 1))
    return torch.sin(key * torch.arange(1.0, V + 1) * 0.7) * 3


summing = model(sum_of)


def run(predict: Predict, prompts: list[list[int]], index: list[int], length: int = 6, **kw: Any) -> list[list[int]]:
    cut, context = kw.pop("cut", Cut()), kw.pop("context", CONTEXT)
    rows = torch.tensor(index)
    return generate(predict, prompts, Cond(len(prompts)), Rng(3), rows, length, context, cut, **kw)


def test_frequencies_of_what_follows_each_token() -> None:
    rows = run(chain(), [[4]] * 3000, list(range(3000)), length=4)
    pairs = torch.zeros(V, V)
    for row in rows:
        for a, b in zip([4, *row], row, strict=False):
            pairs[a, b] += 1
    for a in range(V):
        possible = P[a] > 0
        assert pairs[a, ~possible].sum() == 0
        if pairs[a].sum() > 100 and possible.sum() > 1:
            expected = P[a, possible] / P[a, possible].sum() * pairs[a].sum()
            assert chisquare(pairs[a, possible].numpy(), expected.numpy(), sum_check=False).pvalue > 1e-3


def test_greedy_is_the_likeliest_path() -> None:
    assert run(chain(), [[0]], [0], length=3, cut=Cut(temperature=0)) == [[3, 1, 0]]


def test_the_number_of_tokens_is_exact() -> None:
    for length in (1, 2, 30):
        assert [len(r) for r in run(chain(), [[0], [1, 2, 3]], [0, 1], length=length)] == [length, length]


LENGTHS = st.lists(st.integers(1, 3 * CONTEXT), min_size=2, max_size=5)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 2 * CONTEXT), st.sampled_from([None, 2]))
def test_ragged_prompts_in_one_batch_equal_each_alone(lengths: list[int], length: int, end: int | None) -> None:
    """Also for prompts longer than the context: the context of a row never depends on the others."""
    prompts = [[(7 * i + j * j) % V for j in range(n)] for i, n in enumerate(lengths)]
    together = run(summing, prompts, list(range(len(prompts))), length, end=end)
    alone = [run(summing, [p], [i], length, end=end)[0] for i, p in enumerate(prompts)]
    assert together == alone


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 3 * CONTEXT), st.sampled_from([None, 2]), st.integers(2, 9))
def test_tokens_that_are_read_together_are_those_read_one_by_one(
    lengths: list[int], length: int, end: int | None, most: int
) -> None:
    """As on a GPU, which every reading stalls; across windows and behind the end of a text."""
    prompts = [[(7 * i + j * j) % V for j in range(n)] for i, n in enumerate(lengths)]
    one_by_one = run(summing, prompts, list(range(len(prompts))), length, end=end)
    with patch.object(tokens, "read_together", lambda device: most):
        assert run(summing, prompts, list(range(len(prompts))), length, end=end) == one_by_one


def test_what_follows_the_end_is_dropped() -> None:
    free = run(summing, [[1], [2, 0]], [0, 1], 20)
    ended = run(summing, [[1], [2, 0]], [0, 1], 20, end=2)
    for a, b in zip(free, ended, strict=True):
        assert b == (a[: a.index(2)] if 2 in a else a)
    assert any(len(b) < len(a) for a, b in zip(free, ended, strict=True))


def test_an_end_in_the_prompt_does_not_end() -> None:
    assert len(run(chain(), [[2, 2, 2]], [0], 5, banned=[2], end=2)[0]) == 5


def test_banned_tokens_are_never_drawn() -> None:
    rows = run(chain(), [[4]] * 200, list(range(200)), length=10, banned=[1, 3])
    assert {t for r in rows for t in r} <= {0, 2, 4}


@pytest.mark.parametrize("prompt", [1, CONTEXT - 1, CONTEXT, CONTEXT + 1, 3 * CONTEXT])
def test_a_full_context_restarts_on_at_least_its_half(prompt: int) -> None:
    """Every token after a long text still has half to all of the context, and never more (asserted in chain)."""
    log: list[int] = []
    row = run(chain(log), [[0] * prompt], [0], 5 * CONTEXT)[0]
    assert len(row) == 5 * CONTEXT
    assert all(fed >= CONTEXT // 2 for fed in log[CONTEXT // 2 :])
    assert max(log) == CONTEXT


def test_the_smallest_context() -> None:
    predict = model(lambda window: P[window[-1]].log())
    assert len(run(predict, [[0]], [0], 10, context=1)[0]) == 10


def test_finished_rows_leave_the_batch() -> None:
    """The batch shrinks, and nothing else changes."""
    sizes: list[int] = []

    def counted(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        sizes.append(len(x))
        return summing(x, t, cond, state)

    prompts = [[1], [2, 0], [3, 3, 3], [0, 1]]
    rows = run(counted, prompts, [0, 1, 2, 3], 20, end=2)
    drawn = sorted((len(r) + (len(r) < 20) for r in rows), reverse=True)  # the end is drawn as well
    assert sizes == [sum(d > step for d in drawn) for step in range(max(drawn))]


# --------------------------------------------------------------------------- sequences side by side


def test_penalties_by_their_definition() -> None:
    logits = torch.zeros(6)
    changed = Penalties(0.5, 0.25, ((1, 3.0), (4, -100.0))).applied(logits, [2, 2, 5])
    assert changed.tolist() == [0.0, 3.0, -1.25, 0.0, -100.0, -0.75] and not logits.any()


def test_a_sequence_with_an_error_does_not_harm_those_beside_it() -> None:
    class Dead:
        """A constraint that no token can meet."""

        def allowed(self) -> Tensor:
            return torch.zeros(V, dtype=torch.bool)

        def finished(self) -> bool:
            return False

        def closing(self, most: int) -> None:
            return None

    def drawn(*sequences: TokenSequence) -> list[TokenSequence]:
        decoding = Decoding(chain(), CONTEXT, torch.device("cpu"), end=2)
        decoding.join(sequences, Cond(len(sequences)))
        while decoding.active:
            decoding.step()
        return list(sequences)

    bad, good = drawn(
        TokenSequence([4], 0, Rng(3), 6, constraint=Dead()),  # type: ignore[arg-type]
        TokenSequence([0], 1, Rng(3), 6),
    )
    assert bad.error is not None and "cannot write" in str(bad.error) and bad.new == []
    assert good.new == drawn(TokenSequence([0], 1, Rng(3), 6))[0].new != []


def test_a_watch_receives_the_likeliest_tokens() -> None:
    seen: list[tuple[float, Any]] = []

    def watch(index: int, token: int, logprob: float, top: Any) -> bool:
        seen.append((logprob, top))
        return False

    decoding = Decoding(chain(), CONTEXT, torch.device("cpu"))
    decoding.join([TokenSequence([0], 0, Rng(0), 1, Cut(0), watch=watch, top=3)], Cond(1))
    decoding.step()
    ((logprob, top),) = seen
    values, tokens = P[0].log().topk(3)
    assert top[0][0] == int(tokens[0]) and logprob == top[0][1]
    assert [v for _, v in top] == pytest.approx(values.tolist(), abs=1e-5)


def test_the_numbers_of_a_block_are_those_of_each_position() -> None:
    """Of sequences of several lengths and seeds, whatever is drawn beside them, and as far ahead as is read."""
    several = [
        TokenSequence([1] * n, i, Rng(seed), 200) for i, (n, seed) in enumerate([(1, 7), (40, 7), (1, 7), (1, 8)])
    ]
    for new in (0, 1, 39, 40, 4, 99):
        for ahead in (0, 3):
            for s in several:
                s.tokens = [1] * (s.prompt + new)
            places = [s.prompt + new + ahead for s in several]
            for s, place, number in zip(several, places, next_uniforms(several, ahead), strict=True):
                assert number == float(s.rng.uniform(f"token/{place}", torch.tensor([s.index])))
