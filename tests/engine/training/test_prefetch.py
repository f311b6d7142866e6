"""Batches made ahead are those that would have been made in their turn."""

from __future__ import annotations

import threading

import pytest
import torch

from afresh.core import Batch
from afresh.engine.training.prefetch import Ahead, prefetched
from tests.engine.training.toys import batches, config


def test_they_are_the_same_in_any_order() -> None:
    plain = batches(config())
    ahead = Ahead(plain)
    for first, size in ((0, 4), (4, 4), (8, 4), (4, 4), (0, 2), (2, 2), (40, 3)):  # a roll-back, another size
        found, wanted = ahead(first, size), plain(first, size)
        assert torch.equal(found.x, wanted.x) and torch.equal(found.index, wanted.index)


def test_the_next_one_is_made_in_another_thread() -> None:
    made: list[tuple[int, str]] = []
    plain = batches(config())

    def noted(first: int, size: int) -> Batch:
        made.append((first, threading.current_thread().name))
        return plain(first, size)

    ahead = Ahead(noted)
    ahead(0, 4)
    ahead(4, 4)
    assert [first for first, _ in made[:2]] == [0, 4] and threading.current_thread().name not in {n for _, n in made}


def test_an_error_is_raised_for_the_batch_that_has_it() -> None:
    plain = batches(config())

    def damaged(first: int, size: int) -> Batch:
        if first == 4:
            raise ValueError("an image is damaged")
        return plain(first, size)

    ahead = Ahead(damaged)
    ahead(0, 4)
    with pytest.raises(ValueError, match="an image is damaged"):
        ahead(4, 4)


def test_a_cpu_needs_none() -> None:
    plain = batches(config())
    assert prefetched(plain, "cpu") is plain


def test_the_thread_uses_the_gpu_of_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread begins on the first one."""
    chosen: list[tuple[int, str]] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda n: chosen.append((n, threading.current_thread().name[:7])))
    monkeypatch.setattr(torch.Tensor, "pin_memory", torch.Tensor.clone)
    monkeypatch.setattr(Batch, "to", lambda batch, device, non_blocking: (batch, device, non_blocking))
    plain = batches(config())
    for device, wanted in (("cuda:1", 1), ("cuda", 3)):
        batch, moved_to, goes_on = prefetched(plain, device)(0, 4)  # type: ignore[misc]
        assert torch.equal(batch.x, plain(0, 4).x) and (moved_to, goes_on) == (device, True)
        assert chosen.pop() == (wanted, "batches") and not chosen
