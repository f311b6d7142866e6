"""Processes that train one run together, called ranks, as torchrun starts them: rank r of N takes the r-th part of each
batch, and what they compute is summed.

A batch and the noise of its examples depend on their numbers alone (data/load.py, core/rng.py), so a rank computes what
a single process would compute in one of N micro-batches. Two ranks give the bits of one process with two micro-batches,
since a sum of two numbers does not depend on their order; more ranks add in the order of the backend.

Rank 0 leads: it alone reads and decides what could differ between processes (the plan, the clock, evaluations by
samples) and writes to the run's folder. Without other processes every function here does nothing.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from statistics import median
from typing import Any

import torch
from torch import Tensor, distributed

from afresh.core import Batch, UserError
from afresh.core.plural import counted

TIMEOUT = timedelta(minutes=30)  # of any exchange: rank 0 may draw and judge samples while the others wait
NOT_MET = "ranks_not_met"  # the code of an error
BUCKET = 1 << 23  # numbers that are summed at once: 32 MB of float32


def world() -> int:
    """The number of processes that train together."""
    return distributed.get_world_size() if started() else 1


def rank() -> int:
    """The number of this process among them."""
    return distributed.get_rank() if started() else 0


def leads() -> bool:
    """Whether this process writes and decides."""
    return rank() == 0


def started() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def launched() -> bool:
    """Whether torchrun, or what sets the same variables, started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def local_world() -> int:
    """The number of processes of this training on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def threads_each(processes: int) -> int:
    """The threads of each of so many processes on this machine."""
    return max(1, cores() // processes)


def join() -> None:
    """Meet the other processes, until this one ends. Raises UserError if they do not come."""
    if not launched() or started():
        return
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(own_gpu(gpus))
    try:
        backend = backend_for(gpus)
        store = agent_store()
        if store is None:
            distributed.init_process_group(backend, timeout=TIMEOUT)
        else:  # it still holds the addresses of processes that ended before a restart
            own = distributed.PrefixStore(f"afresh/{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
            number, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            distributed.init_process_group(backend, timeout=TIMEOUT, store=own, rank=number, world_size=count)
    except (RuntimeError, ValueError) as e:
        where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
        raise UserError(
            f"The {os.environ['WORLD_SIZE']} processes of this training did not meet at {where}: "
            f"{str(e).splitlines()[0]}. Is the address of the first host right, and its port open to the others?",
            NOT_MET,
        ) from e
    atexit.register(leave)


def own_gpu(gpus: int) -> int:
    """The number of the GPU of this process, among so many of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) % gpus


def backend_for(gpus: int) -> str:
    """How processes exchange: decisions in main memory, and gradients where they are. NCCL refuses processes that share
    a GPU, as more of them do than the machine has; gloo exchanges for these through main memory."""
    return "cpu:gloo" if not gpus else "cpu:gloo,cuda:nccl" if local_world() <= gpus else "cpu:gloo,cuda:gloo"


def own_device(device: str) -> str:
    """The device of this process for a run on `device`: of several that train on CUDA together, each has its own."""
    if world() == 1 or torch.device(device).type != "cuda":
        return device
    return f"cuda:{own_gpu(torch.cuda.device_count())}"


def leave() -> None:
    """Part from the other processes."""
    if started():
        distributed.destroy_process_group()


def restarted() -> bool:
    """Whether torchrun started this process again, after one of the processes died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def agent_store() -> distributed.TCPStore | None:
    """Names and values that torchrun keeps when it starts processes again; None if something else started them."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


# --------------------------------------------------------------------------- what each takes


def part_of(batch: Batch) -> Batch:
    """The part of a batch that this process takes: rows r B / N to (r + 1) B / N. Raises UserError if a process would
    have none."""
    if world() == 1:
        return batch
    if len(batch.x) < world():
        raise UserError(
            f"A batch has {counted(len(batch.x), 'example')}, and {world()} processes train: each needs one at least. "
            "Use fewer processes, or a larger batch (`train.batch`).",
            "too_many_processes",
        )
    return batch.select(rows(len(batch.x), batch.x.device))


def rows(count: int, device: torch.device | None = None) -> Tensor:
    """The rows of so many that this process takes, on the device."""
    first, end = (count * r // world() for r in (rank(), rank() + 1))
    return torch.arange(first, end, device=device)


def mine(number: int) -> bool:
    """Whether this process does the piece of work with this number, where pieces are dealt out in turn."""
    return number % world() == rank()


# --------------------------------------------------------------------------- what they exchange


def add_up(tensors: Sequence[Tensor], weight: float | Tensor) -> float | Tensor:
    """Replace every tensor by its sum over all processes, and return the sum of the weights. Tensors of one type travel
    together."""
    if world() == 1:
        return weight
    total_weight = torch.as_tensor(weight, dtype=None if isinstance(weight, Tensor) else torch.float64).detach().clone()
    groups: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for t in (*tensors, total_weight):
        groups.setdefault((t.dtype, t.device), []).append(t)
    for group in groups.values():
        for bucket in buckets(group):
            flat = torch.cat([t.detach().reshape(-1) for t in bucket])
            with timed_exchange(flat.device):
                distributed.all_reduce(flat)
            for t, total in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                t.detach().copy_(total.view(t.shape))
    return total_weight if isinstance(weight, Tensor) else float(total_weight)


@dataclass
class Exchanged:
    """The seconds that sums over processes have taken in this one, of which most may be waiting for the others."""

    seconds: float = 0.0


exchanged = Exchanged()


@contextmanager
def timed_exchange(device: torch.device) -> Iterator[None]:
    """Add the duration of the block to `exchanged`. An accelerator first ends what it computes, for which the program
    would wait at the end of the step anyway."""
    settle(device)
    begun = time.perf_counter()
    yield
    settle(device)
    exchanged.seconds += time.perf_counter() - begun


def settle(device: torch.device) -> None:
    """Wait until an accelerator has done what it was asked."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def seconds_of_sum(numbers: int, repeats: int, device: torch.device) -> float:
    """The median duration of a sum of so many float32 over all processes, in the process that took longest."""
    tensor, times = torch.zeros(numbers, device=device), list[float]()
    for _ in range(repeats + max(1, repeats // 10)):
        before = exchanged.seconds
        with timed_exchange(device):
            distributed.all_reduce(tensor)
        times.append(exchanged.seconds - before)
    return max(numbers_of_all(median(times[-repeats:])))


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in their order, in groups of about BUCKET numbers."""
    group: list[Tensor] = []
    for t in tensors:
        if group and sum(g.numel() for g in group) + t.numel() > BUCKET:
            yield group
            group = []
        group.append(t)
    yield group


def anywhere(flag: bool) -> bool:
    """Whether the flag is set in any process."""
    if world() == 1:
        return flag
    seen = torch.tensor([float(flag)])
    distributed.all_reduce(seen, op=distributed.ReduceOp.MAX)
    return bool(seen)


def from_leader(value: Any) -> Any:
    """What rank 0 gives, in every process: anything that JSON holds."""
    if world() == 1:
        return value
    told = json.dumps(value).encode() if leads() else b""
    size = torch.tensor([len(told)])
    distributed.broadcast(size, 0)
    content = (
        torch.frombuffer(bytearray(told), dtype=torch.uint8) if leads() else torch.empty(int(size), dtype=torch.uint8)
    )
    distributed.broadcast(content, 0)
    return json.loads(content.numpy().tobytes())


def from_all(value: Any) -> list[Any]:
    """What each process gives, in the order of their ranks: anything that JSON holds."""
    if world() == 1:
        return [value]
    told = json.dumps(value).encode()
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(world())]
    distributed.all_gather(sizes, torch.tensor([len(told)]))
    most = max(int(s) for s in sizes)
    parts = [torch.zeros(most, dtype=torch.uint8) for _ in range(world())]
    distributed.all_gather(parts, torch.frombuffer(bytearray(told.ljust(most)), dtype=torch.uint8))
    return [json.loads(p.numpy().tobytes()[: int(s)]) for p, s in zip(parts, sizes, strict=True)]


def numbers_of_all(number: float) -> list[float]:
    """A number of each process, in the order of their ranks."""
    if world() == 1:
        return [number]
    numbers = torch.zeros(world(), dtype=torch.float64)
    numbers[rank()] = number
    distributed.all_reduce(numbers)
    return numbers.tolist()


def wait() -> None:
    """Wait until every process has come here."""
    if world() > 1:
        distributed.barrier()
