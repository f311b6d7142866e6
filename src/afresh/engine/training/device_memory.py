"""What a step that exceeds the memory of its device raises, and how its memory is freed before it is repeated.

A GPU has a memory of its own that cannot be swapped out, so that one example too many ends a step. On a processor the
system ends the whole process instead, as a rule before anything is raised.
"""

from __future__ import annotations

import gc

import torch

DOES_NOT_FIT = "out_of_memory"  # the code of an error

# What libraries say that do not raise torch.OutOfMemoryError: Apple's GPU, cuBLAS and the allocator of a processor.
MESSAGES = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator")


def is_bounded(device: str) -> bool:
    """Whether the device has a memory of its own, which a large step exceeds."""
    return torch.device(device).type != "cpu"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was no memory left for a tensor."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(m in str(error) for m in MESSAGES)


def free_unused(device: str) -> None:
    """Give what is allocated on the device but not in use back to it, so that pieces join and other processes find it.

    Call it outside of the `except` block: the traceback of an error holds the tensors of the step that failed.
    """
    gc.collect()
    if is_bounded(device) and torch.accelerator.is_available():
        torch.accelerator.empty_cache()
