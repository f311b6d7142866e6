"""Batches are a pure function of (seed, draw); every example, token and target is met as often as promised."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from afresh.core import Batch, Cond, Examples, Space
from afresh.core.rng import Rng
from afresh.data.load import Loader, draw_conditions, runs_of, sweep, window_starts, windows_in

FIELD = Space("field", (2,))
END, BEGIN = 98, 99
CONTEXT = 6
STREAM = Space("tokens", (CONTEXT,), (100,), {"begin": BEGIN, "end": END}, stream=True)
RASTER = Space("tokens", (3,), (100,), {"begin": BEGIN})


def numbered(n: int) -> Examples:
    """Example i is (i, i), with its number as a condition."""
    x = torch.arange(n, dtype=torch.float32)[:, None].expand(n, 2).contiguous()
    return Examples(x, Cond(n, {"n": torch.arange(n)}, {"n": torch.ones(n, dtype=torch.bool)}))


def stream(lengths: list[int], labels: list[int] | None = None) -> Examples:
    """Documents of these lengths; every token is its own place in the stream, so that windows can be checked."""
    bounds = torch.tensor([0, *lengths]).cumsum(0)
    labels = labels or [0] * len(lengths)
    cond = Cond(len(lengths), {"label": torch.tensor(labels)}, {"label": torch.ones(len(lengths), dtype=torch.bool)})
    return Examples(torch.arange(int(bounds[-1]), dtype=torch.int32) + 1000, cond, bounds=bounds)


def equal(a: Batch, b: Batch) -> bool:
    masks = [torch.ones_like(v.x[:, 1:], dtype=torch.bool) if v.mask is None else v.mask for v in (a, b)]
    conds = all(torch.equal(a.cond.parts[k], b.cond.parts[k]) for k in a.cond.parts)
    return torch.equal(a.x, b.x) and torch.equal(a.index, b.index) and torch.equal(*masks) and conds


@pytest.mark.parametrize("n", [1, 7, 64])
def test_every_epoch_is_a_permutation_of_its_own(n: int) -> None:
    loader = Loader(numbered(n), FIELD, Rng(3))
    orders = [loader.batch(epoch * n, n).x[:, 0].tolist() for epoch in range(6)]
    assert all(sorted(o) == list(range(n)) for o in orders)
    if n > 7:
        assert len({tuple(o) for o in orders}) == 6
        assert Loader(numbered(n), FIELD, Rng(4)).batch(0, n).x[:, 0].tolist() != orders[0]


def test_orders_are_uniform() -> None:
    """All 24 orders of four examples, about equally often over 2,400 epochs (chi-squared, 23 degrees: 99.9% < 50)."""
    loader = Loader(numbered(4), FIELD, Rng(0))
    counts = Counter(tuple(loader.batch(4 * e, 4).x[:, 0].tolist()) for e in range(2400))
    assert len(counts) == 24 and sum((c - 100) ** 2 / 100 for c in counts.values()) < 50


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 30), first=st.integers(0, 200), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=6))
def test_batches_do_not_depend_on_their_division_or_on_earlier_batches(n: int, first: int, sizes: list[int]) -> None:
    loader = Loader(numbered(n), FIELD, Rng(7))
    whole = loader.batch(first, sum(sizes))
    loader.batch(5000, 3)  # leaves the cached epoch elsewhere
    at, parts = first, []
    for size in sizes:
        parts.append(loader.batch(at, size))
        at += size
    assert torch.equal(torch.cat([p.x for p in parts]), whole.x)
    assert torch.equal(torch.cat([p.cond.parts["n"] for p in parts]), whole.cond.parts["n"])
    assert torch.equal(whole.index, torch.arange(first, at))
    assert torch.equal(whole.x[:, 0], whole.cond.parts["n"].float())  # each with its own condition
    assert torch.equal(Loader(numbered(n), FIELD, Rng(7)).batch(first, sum(sizes)).x, whole.x)


def test_batches_of_a_stream_do_not_depend_on_their_division() -> None:
    examples = stream([13, 2, 9, 30, 1, 1, 17], [0, 0, 1, 1, 0, 2, 2])
    loader = Loader(examples, STREAM, Rng(7))
    for first in (0, 5, 3 * loader.count - 4):
        whole = loader.batch(first, 12)
        for k in range(12):
            assert equal(whole.select(torch.tensor([k])), Loader(examples, STREAM, Rng(7)).batch(first + k, 1))


def test_bytes_are_scaled_and_shifted() -> None:
    x = torch.tensor([[0, 255], [128, 51]], dtype=torch.uint8)
    batch = Loader(Examples(x, Cond(2), scale=2 / 255, shift=-1.0), FIELD, Rng(0)).batch(0, 2)
    expected = torch.tensor([[-1.0, 1.0], [256 / 255 - 1, -0.6]])
    torch.testing.assert_close(batch.x.sort(0).values, expected.sort(0).values)


def test_tokens_of_a_fixed_length_are_preceded_by_begin() -> None:
    x = torch.arange(12, dtype=torch.int16).view(4, 3)
    batch = Loader(Examples(x, Cond(4)), RASTER, Rng(0)).batch(0, 4)
    assert batch.x.dtype == torch.int64 and bool((batch.x[:, 0] == BEGIN).all()) and batch.mask is None
    assert sorted(batch.x[:, 1:].tolist()) == x.tolist()


def counted(batch: Batch) -> Tensor:
    """The targets that count, flattened."""
    targets = batch.x[:, 1:]
    return targets.flatten() if batch.mask is None else targets[batch.mask]


LENGTHS = [
    ([24], [0]),  # whole windows
    ([20], [0]),  # a last window that overlaps
    ([4], [0]),  # shorter than a window
    ([5, 8, 3, 40, 2, 2, 7], [0, 0, 1, 1, 0, 2, 2]),
]


@pytest.mark.parametrize("lengths,labels", LENGTHS)
def test_the_first_epoch_contains_every_token(lengths: list[int], labels: list[int]) -> None:
    """Once, except those that the last window of a run, moved back to be whole, shares with the one before it."""
    examples = stream(lengths, labels)
    loader = Loader(examples, STREAM, Rng(1))
    seen = Counter(counted(loader.batch(0, loader.count)).tolist())
    expected: Counter[int] = Counter()
    for start, end, _ in runs_of(examples).tolist():
        tokens = range(1000 + start, 1000 + end)
        expected.update(tokens)
        rest = len(tokens) % CONTEXT
        if rest and len(tokens) > CONTEXT:
            expected.update(list(tokens)[-CONTEXT:-rest])
    assert seen == expected


@pytest.mark.parametrize("epoch", [0, 1, 2, 9])
def test_windows_stay_in_their_run_and_do_not_mix_conditions(epoch: int) -> None:
    examples = stream([5, 8, 3, 40, 2, 2, 7], [0, 0, 1, 1, 0, 2, 2])
    loader = Loader(examples, STREAM, Rng(1))
    batch = loader.batch(epoch * loader.count, loader.count)
    runs = runs_of(examples)
    assert runs.tolist() == [[0, 13, 0], [13, 56, 2], [56, 58, 4], [58, 67, 5]]
    label_of = torch.tensor([0, 0, 1, 1, 0, 2, 2]).repeat_interleave(torch.tensor([5, 8, 3, 40, 2, 2, 7]))
    for row in range(loader.count):
        one = batch.select(torch.tensor([row]))
        place = counted(one) - 1000
        assert len(place) and torch.equal(place, torch.arange(int(place[0]), int(place[-1]) + 1))
        assert bool((label_of[place] == one.cond.parts["label"]).all())
        run = next(r for r in runs.tolist() if r[0] <= int(place[0]) < r[1])
        assert int(place[-1]) < run[1]
        at_head = int(place[0]) == run[0]
        assert int(one.x[0, 0]) == (END if at_head else 1000 + int(place[0]) - 1)  # context: the token before


def test_later_epochs_have_other_windows_but_as_many() -> None:
    examples = stream([400])
    runs, rng = runs_of(examples), Rng(2)
    starts = [window_starts(runs, CONTEXT, epoch, rng) for epoch in range(20)]
    assert all(len(s) == int(windows_in(runs, CONTEXT).sum()) for s in starts)
    assert starts[0].tolist() == [min(CONTEXT * k, 400 - CONTEXT) for k in range(67)]
    assert {int(s[30]) % CONTEXT for s in starts} == set(range(CONTEXT))  # every cut occurs
    for s in starts:
        assert int(s.min()) >= 0 and int(s.max()) <= 400 - CONTEXT and bool((s.diff() >= 0).all())


def test_short_documents_are_masked_and_padded_with_end() -> None:
    batch = Loader(stream([4]), STREAM, Rng(0)).batch(0, 1)
    assert batch.x.tolist() == [[END, 1000, 1001, 1002, 1003, END, END]]
    assert batch.mask is not None and batch.mask.tolist() == [[True] * 4 + [False] * 2]
    assert Loader(stream([CONTEXT]), STREAM, Rng(0)).batch(0, 1).mask is None


@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.tuples(st.integers(1, 25), st.integers(0, 2)), min_size=1, max_size=8),
    size=st.integers(1, 9),
)
def test_a_sweep_contains_every_target_once_in_order(documents: list[tuple[int, int]], size: int) -> None:
    examples = stream([n for n, _ in documents], [c for _, c in documents])
    found = torch.cat([counted(b) for b in sweep(examples, STREAM, size)])
    assert torch.equal(found, examples.x.long())
    labels = torch.cat([b.cond.parts["label"] for b in sweep(examples, STREAM, size)])
    per_run = windows_in(runs_of(examples), CONTEXT)
    assert torch.equal(labels, examples.cond.parts["label"][runs_of(examples)[:, 2]].repeat_interleave(per_run))


@pytest.mark.parametrize("size", [1, 4, 11, 50])
@pytest.mark.parametrize("limit", [None, 1, 6, 1000])
def test_a_sweep_of_examples_contains_each_once_up_to_the_limit(size: int, limit: int | None) -> None:
    found = torch.cat([b.x[:, 0] for b in sweep(numbered(11), FIELD, size, limit)])
    assert found.tolist() == list(range(min(11, limit or 11)))


def test_drawn_conditions_are_rows_of_the_split_about_equally_often() -> None:
    cond = numbered(5).cond
    drawn = draw_conditions(cond, 5000, Rng(0)).parts["n"]
    counts = torch.bincount(drawn, minlength=5)
    assert len(counts) == 5 and float(((counts - 1000.0) ** 2 / 1000).sum()) < 18.5  # chi-squared, 4 degrees, 99.9%
    assert torch.equal(draw_conditions(cond, 50, Rng(0)).parts["n"], drawn[:50])
