"""The memory and the processors that a process may use, on trees of files as the kernel writes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from afresh.core.memory import available_memory, control_groups, total_memory
from afresh.verbs.doctor import available_processors

GB = 10**9
NONE = "9223372036854771712"  # what version 1 writes for a limit that is not set
V1 = "35 31 0:32 {top} /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory"
V2 = "35 31 0:32 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
CPU = "36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"


def tree(root: Path, groups: str, mounts: str) -> Path:
    """A folder with /proc of a machine of 64 GB, of which 40 GB are free, for a process in control groups."""
    write(root / "proc/meminfo", f"MemTotal: {64 * GB // 1024} kB\nMemAvailable: {40 * GB // 1024} kB\nHugePages: 0")
    write(root / "proc/self/cgroup", groups)
    write(root / "proc/self/mountinfo", f"31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n{mounts}".rstrip())
    return root


def write(path: Path, content: str | int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n" if content else "")


def limit(root: Path, group: str, limit: str | int, used: int = 0, cached: int = 0, file: str = "memory.max") -> None:
    """Files of a control group: what it may use, what it uses, and which part of that is cached files."""
    v1 = file.startswith("memory.limit")
    folder = root / "sys/fs/cgroup" / ("memory" if v1 else "") / group
    write(folder / file, limit)
    write(folder / ("memory.usage_in_bytes" if v1 else "memory.current"), used)
    own, total = (0, "total_") if v1 else (cached // 4, "")
    stat = f"anon 5\nactive_file {own}\ninactive_file 0\n{total}active_file {cached // 4}\n"
    write(folder / "memory.stat", f"{stat}{total}inactive_file {cached - cached // 4}")


def bounds(root: Path) -> tuple[float | None, float | None]:
    return available_memory(root), total_memory(root)


MACHINE = (40 * GB // 1024 * 1024, 64 * GB // 1024 * 1024)


def test_without_a_limit_the_memory_is_that_of_the_machine(tmp_path: Path) -> None:
    assert bounds(tree(tmp_path, "0::/", V2.format(top="/"))) == MACHINE
    limit(tmp_path, "", "max", GB)
    assert bounds(tmp_path) == MACHINE


def test_version_2_counts_the_limits_of_every_group_above(tmp_path: Path) -> None:
    path = "system.slice/slurmstepd.scope/job_7/step_0"
    tree(tmp_path, f"0::/{path}", V2.format(top="/"))
    limit(tmp_path, path, "max", GB)
    limit(tmp_path, path.rpartition("/")[0], 4 * GB, 1 * GB)
    assert bounds(tmp_path) == (3 * GB, 4 * GB)
    limit(tmp_path, path, 5 * GB, 3 * GB)
    assert bounds(tmp_path) == (2 * GB, 4 * GB)  # the least that is left, and the least that is allowed
    limit(tmp_path, "system.slice", 2 * GB, 3 * GB)
    assert bounds(tmp_path) == (0, 2 * GB)
    limit(tmp_path, "user.slice", 1 * GB)  # of others
    assert bounds(tmp_path) == (0, 2 * GB)


def test_what_is_throttled_is_not_free(tmp_path: Path) -> None:
    limit(tree(tmp_path, "0::/a", V2.format(top="/")), "a", 8 * GB, GB)
    limit(tmp_path, "a", 3 * GB, GB, file="memory.high")
    assert bounds(tmp_path) == (2 * GB, 3 * GB)


@pytest.mark.parametrize("file", ["memory.max", "memory.limit_in_bytes"])
def test_cached_files_are_free(tmp_path: Path, file: str) -> None:
    """A container whose files have been read uses all of its memory, and can have it back."""
    if file == "memory.max":
        tree(tmp_path, "0::/a", V2.format(top="/"))
    else:
        tree(tmp_path, "4:memory:/a", V1.format(top="/"))
    limit(tmp_path, "a", 4 * GB, 4 * GB, 3 * GB, file)
    assert bounds(tmp_path) == (3 * GB, 4 * GB)


def test_version_1_of_slurm(tmp_path: Path) -> None:
    tree(tmp_path, "9:cpu,cpuacct:/\n4:memory:/slurm/uid_1/job_7/step_0\n1:name=systemd:/", V1.format(top="/"))
    limit(tmp_path, "", NONE, 9 * GB, file="memory.limit_in_bytes")
    limit(tmp_path, "slurm/uid_1/job_7/step_0", NONE, GB, file="memory.limit_in_bytes")
    assert bounds(tmp_path) == MACHINE
    limit(tmp_path, "slurm/uid_1/job_7", 3 * GB, 2 * GB, file="memory.limit_in_bytes")
    assert bounds(tmp_path) == (1 * GB, 3 * GB)


@pytest.mark.parametrize("top", ["/docker/abc", "/", "/../.."])
def test_a_container_of_version_1_sees_its_own_group_at_the_top(tmp_path: Path, top: str) -> None:
    """The path of the group is the host's; with a mount of another root, no such folder exists."""
    tree(tmp_path, "4:memory:/docker/abc\n0::/docker/abc", V1.format(top=top))
    limit(tmp_path, "", 2 * GB, GB, file="memory.limit_in_bytes")
    assert bounds(tmp_path) == (GB, 2 * GB)


@pytest.mark.parametrize("group", ["/", "/../../other", "/docker/abc"])
def test_a_container_of_version_2_sees_its_own_group_at_the_top(tmp_path: Path, group: str) -> None:
    tree(tmp_path, f"0::{group}", V2.format(top="/docker/abc" if "docker" in group else "/"))
    limit(tmp_path, "", 2 * GB, GB)
    assert bounds(tmp_path) == (GB, 2 * GB)


def test_both_versions_side_by_side(tmp_path: Path) -> None:
    """The memory belongs to version 1, and the folder of version 2 has no files on it."""
    unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    tree(tmp_path, "4:memory:/jobs/7\n0::/init.scope", f"{V1.format(top='/')}\n{CPU}\n{unified}")
    write(tmp_path / "sys/fs/cgroup/unified/init.scope/cgroup.procs", 1)
    limit(tmp_path, "jobs", 6 * GB, 2 * GB, file="memory.limit_in_bytes")
    assert bounds(tmp_path) == (4 * GB, 6 * GB)
    assert [f.relative_to(tmp_path).as_posix() for f in control_groups("memory", tmp_path)] == [
        *(f"sys/fs/cgroup/memory{place}" for place in ("", "/jobs", "/jobs/7")),
        *(f"sys/fs/cgroup/unified{place}" for place in ("", "/init.scope")),
    ]


@pytest.mark.parametrize(("name", "used"), [("Max address space", "VmSize"), ("Max data size", "VmData")])
def test_limits_of_the_process(tmp_path: Path, name: str, used: str) -> None:
    tree(tmp_path, "", "")
    write(tmp_path / "proc/self/status", f"Name:\tVmSize: 3\nVmSize:\t{1 << 20} kB\nVmData:\t{1 << 20} kB\n")
    head = "Limit                     Soft Limit           Hard Limit           Units     \n"
    write(tmp_path / "proc/self/limits", f"{head}{name:<26}unlimited            unlimited            bytes     ")
    assert bounds(tmp_path) == MACHINE
    write(tmp_path / "proc/self/limits", f"{head}{name:<26}{3 << 30:<21}unlimited            bytes     ")
    assert bounds(tmp_path) == (2 << 30, 3 << 30)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process are read from /proc")
def test_a_limit_of_this_process_is_seen() -> None:
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
        "from afresh.core.memory import available_memory, total_memory; print(available_memory(), total_memory())"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    free, total = map(float, shown)
    assert 0 < free < 1 << 30 and total == min(1 << 30, total_memory() or 0)


def test_without_proc_the_memory_is_what_is_installed(tmp_path: Path) -> None:
    """On macOS; data that is larger than that cannot be held in memory."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert bounds(tmp_path) == (installed, installed)


def test_processors_of_a_container(tmp_path: Path) -> None:
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert available_processors(tmp_path) == every
    tree(tmp_path, "0::/a/b", V2.format(top="/"))
    write(tmp_path / "sys/fs/cgroup/a/cpu.max", "50000 100000")
    write(tmp_path / "sys/fs/cgroup/a/b/cpu.max", "max 100000")
    assert available_processors(tmp_path) == 0.5
    tree(tmp_path, "2:cpu,cpuacct:/jobs/7", CPU)
    folder = tmp_path / "sys/fs/cgroup/cpu,cpuacct/jobs"
    write(folder / "cpu.cfs_quota_us", -1)
    write(folder / "cpu.cfs_period_us", 100_000)
    assert available_processors(tmp_path) == every
    write(folder / "cpu.cfs_quota_us", 25_000)
    assert available_processors(tmp_path) == 0.25
