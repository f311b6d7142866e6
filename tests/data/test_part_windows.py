"""Windows of a stream in parts: each once an epoch, the same ones whenever parts are made, those of a stream in memory
if there is one part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from afresh.core import Batch, Cond, Examples, Space
from afresh.core.rng import Rng
from afresh.data import permutation
from afresh.data.load import Loader

END, CONTEXT = 0, 8
STREAM = Space("tokens", (CONTEXT,), (100_000,), {"begin": 1, "end": END}, stream=True)


@dataclass
class Memory:
    """Parts that hold their numbers of tokens, each token another one; `asked`: how many were asked for."""

    lengths: Sequence[int]
    asked: int = 0
    waited: set[int] = field(default_factory=set)
    documents = 1
    ready = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def ask(self, count: int) -> None:
        self.asked = max(self.asked, count)

    def tokens(self, part: int) -> int:
        self.waited.add(part)
        return self.lengths[part]

    @property
    def total(self) -> int:
        return sum(self.lengths)

    def content(self, part: int) -> Tensor:
        return torch.arange(self.lengths[part]) + 2 + sum(self.lengths[:part])

    def read(self, part: Tensor, position: Tensor) -> Tensor:
        out = torch.full(position.shape, -1)  # outside of a part anything
        for row, (number, places) in enumerate(zip(part.tolist(), position, strict=True)):
            inside = (places >= 0) & (places < self.lengths[number])
            out[row, inside] = self.content(number)[places[inside]]
        return out


def examples(parts: Memory) -> Examples:
    x = parts.content(0).int()
    return Examples(x, Cond(1), bounds=torch.tensor([0, len(x)]), parts=parts)


def targets(batch: Batch) -> list[int]:
    x = batch.x[:, 1:]
    return (x if batch.mask is None else x[batch.mask]).tolist() if batch.mask is not None else x.flatten().tolist()


LENGTHS = [16, 24, 5, 8, 40, 0, 9, 33, 16, 7, 23, 64, 1]


def test_every_token_is_a_target_in_the_first_epoch_and_every_window_is_drawn_once_in_each() -> None:
    loader = Loader(examples(Memory(LENGTHS)), STREAM, Rng(3))
    count = sum(-(-n // CONTEXT) for n in LENGTHS)
    first = targets(loader.batch(0, count))
    assert set(first) == set(range(2, 2 + sum(LENGTHS)))
    assert loader.parts is not None and loader.parts.count == count
    # Later epochs shift the tiling; windows of different parts stay apart, and each part has as many as before.
    second = loader.batch(count, count)
    ends = torch.tensor(LENGTHS).cumsum(0)
    part = torch.searchsorted(ends, second.x[:, 1] - 2, right=True)
    assert torch.bincount(part, minlength=len(LENGTHS)).tolist() == [-(-n // CONTEXT) for n in LENGTHS]
    assert targets(second) != first


def test_a_window_begins_with_the_token_before_it_or_with_a_separator() -> None:
    batch = Loader(examples(Memory([24, 24])), STREAM, Rng(0)).batch(0, 6)
    before = {int(x[1]): int(x[0]) for x in batch.x}
    assert before == {2: END, 10: 9, 18: 17, 26: END, 34: 33, 42: 41}


@pytest.mark.parametrize("listed", [1 << 20, 0])
def test_batches_do_not_depend_on_how_draws_are_divided_nor_on_where_one_begins(
    listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(permutation, "LISTED", listed)
    whole = Loader(examples(Memory(LENGTHS)), STREAM, Rng(7)).batch(0, 120)
    one = Loader(examples(Memory(LENGTHS)), STREAM, Rng(7))
    divided = [one.batch(first, 4).x for first in range(0, 120, 4)]
    assert torch.equal(torch.cat(divided), whole.x)
    for first in (119, 57, 30, 1):
        assert torch.equal(Loader(examples(Memory(LENGTHS)), STREAM, Rng(7)).batch(first, 1).x[0], whole.x[first])


def test_one_part_is_drawn_as_a_stream_in_memory() -> None:
    parts = examples(Memory([203]))
    memory = replace(parts, parts=None)
    count = Loader(memory, STREAM, Rng(5)).count
    for first in (0, count - 3, count, 2 * count, 7 * count + 5):
        a, b = (Loader(e, STREAM, Rng(5)).batch(first, 9) for e in (parts, memory))
        assert torch.equal(a.x, b.x) and torch.equal(a.index, b.index)
        assert (a.mask is None) == (b.mask is None) and (a.mask is None or torch.equal(a.mask, b.mask))


def test_a_part_that_is_shorter_than_a_window_is_padded() -> None:
    batch = Loader(examples(Memory([3])), STREAM, Rng(5)).batch(0, 2)
    assert batch.x[0].tolist() == [END, 2, 3, 4, *[END] * 5]
    assert batch.mask is not None and batch.mask[0].tolist() == [True] * 3 + [False] * 5


def test_only_parts_that_are_needed_soon_are_asked_for() -> None:
    parts = Memory([80] * 200)
    loader = Loader(examples(parts), STREAM, Rng(0))
    loader.batch(0, 1)
    assert parts.asked == 3 and parts.waited == {0, 1}
    loader.batch(19, 1)  # the last window of the first two parts, of 10 windows each
    assert parts.asked == 4
    loader.batch(20, 1)
    assert parts.waited == {0, 1, 2, 3}
    loader.batch(200, 1)  # groups of 2, 2, 2, 3, 4, 6 and 9 parts
    assert max(parts.waited) == 27 and parts.asked < 32
