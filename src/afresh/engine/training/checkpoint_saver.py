"""Saving beside training: a step waits while its state is copied, and a thread writes the copy.

The copy needs as much main memory as the checkpoint has bytes, and the largest of its files, the optimiser's, as much
again while it is written. Where that is not free, the step writes its state itself. One checkpoint is written at a
time: a save waits for the one before.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path
from threading import Thread
from types import TracebackType

import torch
from torch import Tensor

from afresh.core import events
from afresh.core.memory import available_memory
from afresh.engine.training import checkpoint
from afresh.engine.training.checkpoint import Checkpoint


class CheckpointSaver:
    """Writes checkpoints to the folder `root`, and calls `saved` with each that is complete.

    What fails is raised by the next call of any method, and at the end of the block.
    """

    def __init__(self, root: Path, saved: Callable[[Path], None] = lambda folder: None) -> None:
        self.root, self.saved = root, saved
        self.thread: Thread | None = None
        self.error: BaseException | None = None

    def save(self, now: Checkpoint, rotating: bool = True) -> None:
        """Copy a checkpoint and begin to write it. Raises what the save before met."""
        self.wait()
        free = available_memory()
        if free is not None and free < 2 * checkpoint.bytes_of(now):
            self.saved(checkpoint.save(self.root, now, rotating))
            return
        tensors = {group: {name: host_copy(t) for name, t in own.items()} for group, own in now.tensors.items()}
        if any(t.is_cuda for own in now.tensors.values() for t in own.values()):
            torch.cuda.synchronize()
        held = Checkpoint(now.step, tensors, now.scalars)
        context = copy_context()  # with the listener for warnings

        def write() -> None:
            try:
                context.run(lambda: self.saved(checkpoint.save(self.root, held, rotating)))
            except BaseException as error:
                self.error = error

        # No daemon: at the end of the program, the interpreter waits for it.
        self.thread = Thread(target=write, name=f"checkpoint {now.step}")
        self.thread.start()

    def check(self) -> None:
        """Raise what a save met that has ended."""
        if self.thread is not None and not self.thread.is_alive():
            self.wait()

    def wait(self) -> None:
        """Wait until everything is written. Raises what the save met."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        error, self.error = self.error, None
        if error is not None:
            raise error

    def __enter__(self) -> CheckpointSaver:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.wait()
        except Exception as own:
            if error is None:
                raise
            events.warning(str(own))  # what ended the training comes first


def host_copy(t: Tensor) -> Tensor:
    """A copy in main memory; of a GPU's tensor, one that is there after the next synchronisation."""
    t = t.detach()
    return torch.empty_like(t, device="cpu", pin_memory=t.is_cuda).copy_(t, non_blocking=True)
