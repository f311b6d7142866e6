"""How much memory this process may use, so that what would need more is refused before it is read."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from sys import platform

ROOT = Path("/")
UNLIMITED = 1 << 60  # version 1 writes a limit that is not set as the largest multiple of a page
LIMITS = {  # files with a limit of a control group and with what it uses, of version 2 and of version 1
    "memory.max": "memory.current",
    "memory.high": "memory.current",
    "memory.limit_in_bytes": "memory.usage_in_bytes",
}
RESOURCES = {"Max address space": "VmSize", "Max data size": "VmData"}  # RLIMIT_AS and RLIMIT_DATA


def available_memory(root: Path = ROOT) -> float | None:
    """Bytes that this process can still take: the least that the machine, each control group of the process (version
    1 and 2, its own and those above it) and its resource limits leave. Cached files count as free, as in MemAvailable.

    Where the system reports only the memory that is installed, as macOS does, that. None if it reports nothing.
    """
    return min((free for _, free in memory_bounds(root)), default=None)


def total_memory(root: Path = ROOT) -> float | None:
    """Bytes that this process could take if nothing else ran: the least of the installed memory and those limits."""
    return min((total for total, _ in memory_bounds(root)), default=None)


def memory_bounds(root: Path = ROOT) -> Iterator[tuple[float, float]]:
    """The bytes that each bound on the memory of this process allows, and those that it leaves."""
    proc = root / "proc"
    if (info := read_sizes(proc / "meminfo")).keys() >= {"MemTotal", "MemAvailable"}:
        yield info["MemTotal"], info["MemAvailable"]
    else:
        with suppress(ValueError, OSError):
            installed = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
            yield installed, installed
    status = read_sizes(proc / "self/status")
    for line in read_lines(proc / "self/limits"):
        used = next((status.get(value, 0.0) for name, value in RESOURCES.items() if line.startswith(name)), None)
        soft = line.split()[-3:-2]
        if used is not None and soft and soft[0].isdigit():
            yield float(soft[0]), max(0.0, float(soft[0]) - used)
    for folder in control_groups("memory", root):
        stat = read_sizes(folder / "memory.stat")
        cached = sum(stat.get(f"total_{name}", stat.get(name, 0.0)) for name in ("active_file", "inactive_file"))
        for limit, usage in LIMITS.items():
            words = read_words(folder / limit)
            if words and words[0].isdigit() and (total := float(words[0])) < UNLIMITED:
                used = float((read_words(folder / usage) or ["0"])[0])
                yield total, min(total, max(0.0, total - max(0.0, used - cached)))


def control_groups(controller: str, root: Path = ROOT) -> list[Path]:
    """The folders of the control groups that limit this process, from the outermost to its own, in each hierarchy with
    the controller that is mounted: `memory` or `cpu` of version 1, and version 2."""
    paths: dict[str, PurePosixPath] = {}
    for line in read_lines(root / "proc/self/cgroup"):
        _, names, place = line.split(":", 2)
        if not names or controller in names.split(","):
            paths["cgroup" if names else "cgroup2"] = PurePosixPath(place)
    folders: list[Path] = []
    for line in read_lines(root / "proc/self/mountinfo"):
        mount, system = (part.split() for part in line.split(" - ", 1))
        if system[0] not in paths or (system[0] == "cgroup" and controller not in system[-1].split(",")):
            continue
        path, top = paths[system[0]], PurePosixPath(mount[3])
        # A container sees its own group at the place of the mount, and a name of it that only the host knows.
        inside = path.relative_to(top).parts if path.is_relative_to(top) and ".." not in path.parts else ()
        mounted = root / mount[4].lstrip("/")
        folders += [mounted.joinpath(*inside[:depth]) for depth in range(len(inside) + 1)]
    return folders


def process_memory() -> tuple[int, int] | None:
    """The bytes of main memory that this process has, and the most that it had since the last call; None where the
    system does not tell (it is not Linux)."""
    try:
        sizes = read_sizes(Path("/proc/self/status"))
        Path("/proc/self/clear_refs").write_text("5")
        return int(sizes["VmRSS"]), int(sizes["VmHWM"])
    except (OSError, KeyError):
        return None


def give_back() -> None:
    """Give freed memory back to the system. The C library of Linux keeps what threads have freed between blocks that
    are in use, so that a process that runs for days would look ever larger; elsewhere nothing is done."""
    if platform == "linux":
        with suppress(OSError, AttributeError):  # a C library without it
            ctypes.CDLL(None).malloc_trim(0)


def read_sizes(path: Path) -> dict[str, float]:
    """The numbers of a file of the kernel by name, those in kB as bytes."""
    lines = [line.replace(":", " ").split() for line in read_lines(path)]
    return {w[0]: float(w[1]) * (1024 if w[2:] == ["kB"] else 1) for w in lines if len(w) > 1 and w[1].isdigit()}


def read_words(path: Path) -> list[str]:
    """The words of a file of the kernel; none if there is no such file."""
    return " ".join(read_lines(path)).split()


def read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []
