"""How much memory is free, so that what would need more is refused before it is read."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from sys import platform

CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> float | None:
    """Free bytes, or what the limit of a container leaves if that is less; None if the system does not report them."""
    return least_memory(meminfo(), read_words(CGROUP / "memory.max"), read_words(CGROUP / "memory.current"))


def process_memory() -> tuple[int, int] | None:
    """The bytes of main memory that this process has, and the most that it had since the last call; None where the
    system does not tell (it is not Linux)."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        now, most = (int(lines[name].split()[0]) << 10 for name in ("VmRSS", "VmHWM"))
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, KeyError, ValueError):
        return None
    return now, most


def give_back() -> None:
    """Give freed memory back to the system. The C library of Linux keeps what threads have freed between blocks that
    are in use, so that a process that runs for days would look ever larger; elsewhere nothing is done."""
    if platform == "linux":
        with suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)


def least_memory(info: Mapping[str, float], limit: list[str], used: list[str]) -> float | None:
    found = [info["MemAvailable"]] if "MemAvailable" in info else []
    if limit and limit[0].isdigit() and used:
        found.append(max(0.0, float(limit[0]) - float(used[0])))
    return min(found, default=None)


def meminfo() -> dict[str, float]:
    """The entries of /proc/meminfo in bytes; empty if there is no such file."""
    try:
        lines = Path("/proc/meminfo").read_text().split("\n")
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {k: float(v.split()[0]) * 1024 for k, v in pairs}


def read_words(path: Path) -> list[str]:
    """The words of a file of the kernel; none if there is no such file."""
    try:
        return path.read_text().split()
    except OSError:
        return []
