"""Batches that are prepared while a GPU computes the step before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

import torch
from torch import Tensor

from afresh.core import Batch

Batches = Callable[[int, int], Batch]  # (first draw, number of draws) -> batch


def prefetched(batches: Batches, device: str) -> Batches:
    """`batches` on a CUDA device; for other devices, `batches` as they are.

    The next batch is prepared in a thread, in page-locked memory, from which it is copied without stalling the device.
    `batches` must depend on its arguments alone; it is never called twice at once.
    """
    if torch.device(device).type != "cuda":
        return batches
    # A thread begins on the first GPU, where page-locking would take memory that another process trains in.
    index = torch.device(device).index
    own = torch.cuda.current_device() if index is None else index
    ahead = Ahead(lambda first, size: batches(first, size).map(Tensor.pin_memory), lambda: torch.cuda.set_device(own))
    return lambda first, size: ahead(first, size).to(device, non_blocking=True)


class Ahead:
    """Makes the batch after the one that is asked for in a thread, which first calls `begin`. Errors in a batch are
    raised when it is asked for."""

    def __init__(self, batches: Batches, begin: Callable[[], None] | None = None) -> None:
        self.batches = batches
        self.thread = ThreadPoolExecutor(1, "batches", begin)
        self.next: tuple[tuple[int, int], Future[Batch]] | None = None

    def __call__(self, first: int, size: int) -> Batch:
        ready = self.next[1] if self.next is not None and self.next[0] == (first, size) else self.start(first, size)
        self.next = (first + size, size), self.start(first + size, size)
        return ready.result()

    def start(self, first: int, size: int) -> Future[Batch]:
        return self.thread.submit(copy_context().run, self.batches, first, size)
