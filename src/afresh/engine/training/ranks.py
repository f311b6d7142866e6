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
MEETING = timedelta(minutes=10)  # from when rank 0 has come until all others have, as for the machines of torchrun
NOT_MET = "ranks_not_met"  # the codes of errors: others did not come, or went away; ...
DIFFER = "ranks_differ"  # they have something else; ...
TOO_MANY = "too_many_processes"  # they are more than a batch has examples
SHARED = (NOT_MET, DIFFER, TOO_MANY)  # every process meets them, and one has to tell
BUCKET = 1 << 23  # numbers that are summed at once: 32 MB of float32

parent = os.getppid()  # when this module was imported


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
    return launched_world() > 1


def launched_world() -> int:
    """The number of processes that were started together with this one, whether they have met or not."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


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
    """Meet the other processes, until this one ends. Raises UserError, which names those that do not come."""
    if not launched() or started():
        return
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(own_gpu(gpus))
    number, count = int(os.environ["RANK"]), launched_world()
    try:
        # The store of torchrun still holds the addresses of processes that ended before a restart.
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        store = distributed.PrefixStore(f"afresh/{attempt}", agent_store() or own_store(number))
        wait_for_all(store, number, count)
        distributed.init_process_group(backend_for(gpus), timeout=TIMEOUT, store=store, rank=number, world_size=count)
    except (KeyError, RuntimeError, ValueError) as e:
        advice = "Is the address of the first host right, and its port open to the others?"
        if "EADDRINUSE" in str(e):
            advice = "Another program uses that port: choose another one (MASTER_PORT), the same for all processes."
        raise UserError(
            f"The {count} processes of this training did not meet at {meeting_place()}: "
            f"{str(e).splitlines()[0].rstrip('.')}. {advice}",
            NOT_MET,
        ) from e
    atexit.register(leave)


def meeting_place() -> str:
    return f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"


def wait_for_all(store: distributed.Store, number: int, count: int) -> None:
    """Say that this process has come; in rank 0, wait for the others. Raises UserError, which names those that do not
    come."""
    store.set(f"come/{number}", "")
    end = time.monotonic() + MEETING.total_seconds()
    while number == 0 and (missing := [n for n in range(count) if not store.check([f"come/{n}"])]):
        if time.monotonic() > end:
            names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
            raise UserError(
                f"{len(missing)} of the {count} processes of this training did not come to {meeting_place()} within "
                f"{MEETING.total_seconds() / 60:.3g} minutes: {names}. Nothing was trained. Were they started on every "
                "machine, with the same number of processes, and does that address reach this machine from there?",
                NOT_MET,
            )
        time.sleep(0.1)


@contextmanager
def losses_named() -> Iterator[None]:
    """Raises UserError if an exchange in the block fails, because another process went away or does not answer."""
    try:
        yield
    except RuntimeError as e:
        if not started() or not (isinstance(e, distributed.DistError) or "gloo" in str(e)):
            raise
        what = "The connection to another process was lost: it has ended, or its machine was lost."
        if "timed out" in str(e).lower():
            minutes = TIMEOUT.total_seconds() / 60
            what = f"Another process did not answer for {minutes:.3g} minutes: it hangs, or the network does."
        raise UserError(
            f"{what} What was saved last is kept. Resume the run; torchrun does so by itself where it may restart "
            "processes (max-restarts).",
            NOT_MET,
        ) from e


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


def orphaned() -> bool:
    """Whether torchrun is gone, which started this process: nothing would start it again, or end it. A machine of a Ray
    cluster that is lost is not a reason to end the training of the others."""
    return started() and "TORCHELASTIC_RUN_ID" in os.environ and os.getppid() != parent


def agent_store() -> distributed.TCPStore | None:
    """Names and values that torchrun keeps when it starts processes again; None if something else started them."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return distributed.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def own_store(number: int) -> distributed.TCPStore:
    """Names and values that rank 0 keeps, where it is not torchrun that started the processes. Raises RuntimeError if
    the port is in use, or rank 0 does not come."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return distributed.TCPStore(address, port, None, number == 0, TIMEOUT, wait_for_workers=False)


# --------------------------------------------------------------------------- what each takes


def part_of(batch: Batch) -> Batch:
    """The part of a batch that this process takes (`ends`). Raises UserError if a process would have none."""
    if world() == 1:
        return batch
    check_batch(len(batch.x), world())
    return batch.select(rows(len(batch.x), batch.x.device))


def check_batch(examples: int, processes: int) -> None:
    """Raises UserError unless each of so many processes has an example of a batch."""
    if examples < processes:
        raise UserError(
            f"A batch has {counted(examples, 'example')}, and {processes} processes train: each needs one at least. "
            "Use fewer processes, or a larger batch (`train.batch`).",
            TOO_MANY,
        )


def rows(count: int, device: torch.device | None = None) -> Tensor:
    """The rows of so many that this process takes, on the device."""
    return torch.arange(*ends(count, world())[rank() : rank() + 2], device=device)


def ends(count: int, parts: int) -> list[int]:
    """Where each of so many parts of `count` rows begins, and where the last ends. Two parts are the micro-batches of a
    single process: the first has the odd row."""
    return [-(-count * i // parts) for i in range(parts + 1)]


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
