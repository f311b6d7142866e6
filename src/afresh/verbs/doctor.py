"""The verb `doctor`: examine this machine and report the consequences for training."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path

import torch

from afresh.core.memory import ROOT, available_memory, control_groups, read_words
from afresh.data.preferences import in_force, preferences, unknown_variables, variable
from afresh.engine.nets.kernels.build import library, tiles
from afresh.engine.training.budget import Machine, measure_machine
from afresh.engine.training.compiling import compile_fault

GB = 1e9
LITTLE_DISK, LITTLE_MEMORY = 2 * GB, 2 * GB
BYTES_PER_PARAMETER = 20  # float32 weight, gradient, two moments and an average


@dataclass(frozen=True)
class Finding:
    """A property of the machine, its consequence for training, and whether it is `fine` or needs attention."""

    name: str
    value: str
    follows: str
    fine: bool = True


def examine_machine(folder: Path, device: str | None = None) -> tuple[Machine, list[Finding]]:
    """Measure the machine briefly. `folder`: where runs would be written. Raises UserError for an unknown device."""
    machine = measure_machine(device)
    if machine.device == "cpu":
        follows = "torch has no usable GPU: models are chosen small enough for a CPU"
    else:
        follows = f"training uses the GPU; {torch.accelerator.device_count() or 1} found"
    # Environment variables that are taken for settings and are none.
    known = "known: " + ", ".join(variable(s.name) for s in in_force())
    return machine, [
        python_finding(),
        Finding("torch", machine.torch, "used for all training"),
        Finding("device", f"{machine.device}: {machine.name}", follows),
        threads_finding(machine.threads, available_processors()),
        products_finding(machine),
        compiler_finding(machine),
        kernels_finding(),
        memory_finding(available_memory()),
        disk_finding(folder),
        *[Finding("variable", name, f"has no effect on afresh; {known}", False) for name in unknown_variables()],
    ]


def python_finding() -> Finding:
    value = f"{platform.python_version()} in {sys.prefix}"
    oldest, newest = supported_python()
    accepted = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]} are supported"
    return Finding("python", value, accepted, oldest <= sys.version_info[:2] <= newest)


def supported_python() -> tuple[tuple[int, int], tuple[int, int]]:
    """The oldest and the newest version of Python that this package says it needs (pyproject.toml)."""
    needed = metadata("afresh")["Requires-Python"]
    oldest, newest = re.search(r">=3\.(\d+)", needed), re.search(r"<3\.(\d+)", needed)
    assert oldest is not None and newest is not None, needed
    return (3, int(oldest[1])), (3, int(newest[1]) - 1)


def threads_finding(threads: int, processors: float) -> Finding:
    """`processors`: the number that this process may use, which can be a fraction in a container."""
    value = f"{threads} of {processors:g} processors"
    if threads > processors + 0.5:
        more = "more threads than processors make training slower: set the preference threads"
        return Finding("threads", f"{threads} on {processors:g} processors", more, False)
    if threads < int(processors):
        why = "as is preferred" if preferences().threads else "the default of torch, or OMP_NUM_THREADS"
        return Finding("threads", value, f"some processors remain idle ({why})", threads * 2 >= processors)
    return Finding("threads", value, "all are used")


TIMED = "unless its budget is in minutes: then real steps are timed"


def products_finding(machine: Machine) -> Finding:
    """The speed of matrix products in two precisions, and the precision of training for a number of steps."""
    value = f"{machine.float32:,.0f} GFLOP/s in float32, {machine.bfloat16:,.0f} in bfloat16"
    ratio = machine.bfloat16 / machine.float32
    if machine.precision == "bfloat16":
        return Finding("products", value, f"bfloat16 is {ratio:.1f} times as fast: training uses it, {TIMED}")
    return Finding("products", value, f"bfloat16 is only {ratio:.2g} times as fast: training uses float32, {TIMED}")


def compiler_finding(machine: Machine) -> Finding:
    """Whether torch.compile works, which is tried on a small function."""
    if not machine.compiler:
        follows = "torch.compile is not used; longer runs would be faster with g++"
        return Finding("compiler", "none (g++)", follows, False)
    if (fault := compile_fault(machine.device)) is not None:
        return Finding("compiler", "does not work", f"torch.compile is not used: {fault}", False)
    return Finding("compiler", "works", "torch.compile is tried if the budget is long enough for it to pay off")


def kernels_finding() -> Finding:
    """The fused kernels of decoders, which are compiled on first use."""
    if library() is None:
        why = "they need g++" if preferences().kernels else "the preference kernels is off"
        return Finding("kernels", "none", f"decoders train at about half the speed: {why}", False)
    value = "with the processor's matrix tiles (AMX)" if tiles() else "without matrix tiles"
    return Finding("kernels", value, "decoders use them on this processor")


def memory_finding(free: float | None) -> Finding:
    if free is None:
        return Finding("memory", "not known", "this system does not report the free memory")
    most = free / 2 / BYTES_PER_PARAMETER  # the other half is for data and activations
    follows = f"room to train up to about {most / 1e6:,.0f}M parameters on the processor"
    return Finding("memory", f"at most {free / GB:,.1f} GB free", follows, free >= LITTLE_MEMORY)


def disk_finding(folder: Path) -> Finding:
    """Free space and permissions in the folder where runs would be written."""
    existing = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if not os.access(existing, os.W_OK):
        return Finding("disk", f"{existing} is not writable", "choose another folder", False)
    follows = "room for checkpoints" if free >= LITTLE_DISK else "little room: a run stops when the disk is full"
    return Finding("disk", f"{free / GB:,.1f} GB free at {existing}", follows, free >= LITTLE_DISK)


def available_processors(root: Path = ROOT) -> float:
    """The number of processors that this process may use: its affinity, or the least quota of its control groups."""
    try:
        count = float(len(os.sched_getaffinity(0)))
    except AttributeError:  # not on macOS
        count = float(os.cpu_count() or 1)
    for folder in control_groups("cpu", root):
        version_1 = read_words(folder / "cpu.cfs_quota_us") + read_words(folder / "cpu.cfs_period_us")
        quota = read_words(folder / "cpu.max") or version_1
        if len(quota) == 2 and quota[0].isdigit():
            count = min(count, int(quota[0]) / int(quota[1]))
    return count
