"""A brief measurement of the machine on which training runs."""

from __future__ import annotations

import gc
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from afresh.core import UserError
from afresh.core.device import tensor_cores
from afresh.core.memory import total_memory
from afresh.data.preferences import preferences
from afresh.engine.training import ranks

# A GPU has a memory of its own that cannot be swapped out, so that one example too many ends a step. On a processor the
# system ends the whole process instead, as a rule before anything is raised.
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


@dataclass(frozen=True)
class Machine:
    """The machine on which training runs. `float32` and `bfloat16`: GFLOP/s of products of square matrices, in one of
    the `processes` that train together, of `threads` each. `memory`: bytes of the device that a process has; 0 if that
    is not known."""

    device: str
    name: str
    threads: int
    float32: float
    bfloat16: float
    compiler: bool
    torch: str
    python: str
    processes: int = 1
    memory: int = 0

    @property
    def precision(self) -> str:
        """bfloat16 if its matrix products are more than 1.5 times as fast, else float32."""
        return "bfloat16" if self.bfloat16 > 1.5 * self.float32 else "float32"

    def record(self) -> dict[str, object]:
        """The fields for run.json."""
        return {**asdict(self), "precision": self.precision}


def synchronise(device: str) -> None:
    """Wait until the device has finished its work."""
    if (place := torch.device(device)).type != "cpu":
        torch.accelerator.synchronize(place)


def seconds_of(work: Callable[[], object], device: str, least: float = 0.15) -> float:
    """Shortest time in seconds of one call, after one call to warm up, over at least `least` seconds.

    The shortest and not the median, because other work on the machine can only lengthen a call.
    """
    work()
    synchronise(device)
    times: list[float] = []
    while sum(times) < least or len(times) < 3:
        start = time.perf_counter()
        work()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return min(times)


def processor() -> str:
    """The name of the processor, if the system reports it."""
    try:
        with Path("/proc/cpuinfo").open() as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory_each(device: str, processes: int) -> int:
    """The bytes of a GPU's memory, or the share of main memory of each of so many processes; 0 if it is not known."""
    if device.startswith("cuda"):
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(total_memory() or 0) // processes


def devices() -> list[str]:
    """The devices that torch can use on this machine, the fastest first: CUDA, Apple's GPU, CPU."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, usable in available.items() if usable]


def check_device(device: str) -> None:
    """Raises UserError, listing the available devices, if `device` is not available."""
    known = devices()
    try:
        if device.split(":")[0] in known and torch.empty(1, device=device).numel() == 1:
            return
    except (RuntimeError, AssertionError) as e:  # such as an index that is too large
        raise UserError(f"The device {device!r} is not available: {str(e).splitlines()[0]}") from e
    raise UserError(f"The device {device!r} is not available in this installation. Available: {', '.join(known)}.")


def is_available(device: str) -> bool:
    """Whether torch can use the device, with its index, on this machine."""
    try:
        check_device(device)
    except UserError:
        return False
    return True


@cache
def product_rate(device: str, threads: int, dtype: torch.dtype) -> float:
    """GFLOP/s of a product of two square matrices. Measured once for each number of threads, so that every run of a
    process chooses the same precision."""
    # The rows of the matrices that are multiplied. A GPU multiplies those of 1024 in less time than it takes to ask it
    # to, in whatever precision; of 4096 a product takes a fifth of a millisecond or more.
    side = 1024 if torch.device(device).type == "cpu" else 4096
    a = torch.ones(side, side, device=device, dtype=dtype)
    with tensor_cores(device), torch_threads(threads):
        return round(2 * side**3 / seconds_of(lambda: a @ a, device) / 1e9, 1)


def measure_machine(device: str | None = None, processes: int = 1) -> Machine:
    """Choose the device, which the user's preferences decide if `device` is not given, and otherwise speed; measure its
    matrix products in two precisions. Each of several `processes` has its share of the cores. Raises UserError if the
    device is not available."""
    device = device or preferences().device or devices()[0]
    check_device(device)
    threads = torch.get_num_threads() if processes == 1 else ranks.threads_each(processes)
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else processor()
    return Machine(
        device=device,
        name=name,
        threads=threads,
        float32=product_rate(device, threads, torch.float32),
        bfloat16=product_rate(device, threads, torch.bfloat16),
        processes=processes,
        memory=memory_each(device, processes),
        compiler=shutil.which(os.environ.get("CXX", "g++")) is not None or device.startswith("cuda"),
        torch=torch.__version__,
        python=platform.python_version(),
    )


def use_preferred_threads() -> None:
    """Let PyTorch use as many threads as the user prefers. Raises UserError if the preferences are not valid."""
    if (threads := preferences().threads) is not None:
        torch.set_num_threads(threads)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let PyTorch use `count` threads within the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
