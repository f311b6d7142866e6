"""Runs untrusted programs in a sandbox. If the machine cannot provide one, programs are not run.

The sandbox (child.py) consists of new namespaces for users, mounts, processes, network, IPC and host name; a
root of read-only system folders and one folder in memory; no privileges; a filter of system calls; and limits on time,
memory, processes, files and output. It uses the Linux kernel alone and needs neither root nor another program.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from afresh.core import UserError

CHILD = Path(__file__).with_name("child.py")
SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/sbin")
INTERVAL = 0.02  # seconds between checks of memory and processes
PATIENCE = 10.0  # seconds for the test program, which takes a tenth of one
GRACE = 3.0  # seconds after the limit at which a sandbox ends by itself, if nobody is there to end it
PAGE = os.sysconf("SC_PAGE_SIZE")

Status = Literal["ok", "error", "time", "memory", "processes", "output"]


@dataclass(frozen=True)
class SandboxLimits:
    """What one program may use: wall-clock seconds, memory of all its processes together, bytes of output."""

    seconds: float = 5.0
    memory_mb: int = 512
    processes: int = 16
    output: int = 1 << 16  # of standard output and error, each
    files_mb: int = 16  # of its folder, which is in memory


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    `status`: ok (exit code 0), error (another code, or a signal), or the limit that it exceeded. `left`: it ended while
    its child processes were still running; they are ended as well. The output is cut to its limit.
    """

    status: Status
    code: int | None  # None if it was ended by `signal` or stopped
    signal: int | None
    stdout: str
    stderr: str
    seconds: float
    left: bool = False


class Sandbox:
    """Runs Python programs, each in a sandbox of its own, with this Python and its standard library."""

    def __init__(self, limits: SandboxLimits | None = None) -> None:
        self.limits = limits or SandboxLimits()
        self.checked = False

    def check(self) -> None:
        """Raise UserError with the reason unless a test program has run correctly and was confined."""
        if self.checked:
            return
        if not sys.platform.startswith("linux"):
            raise UserError(unavailable(f"it needs Linux, and this is {sys.platform}"))
        patient = Sandbox(replace(self.limits, seconds=max(self.limits.seconds, PATIENCE)))  # on a busy machine
        probe = patient._run(PROBE)
        if probe.stdout != "held\n":
            raise UserError(unavailable(f"the test program ended with {probe.status}: {probe.stderr[-300:].strip()}"))
        self.checked = True

    def run(self, program: str) -> Outcome:
        """Run a program to its end or to a limit. Raises UserError if the machine cannot provide the sandbox."""
        self.check()
        return self._run(program)

    def _run(self, program: str) -> Outcome:
        start = time.monotonic()
        status_read, status_write = os.pipe()
        os.set_inheritable(status_write, True)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(CHILD), json.dumps(self.config), str(status_write)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            pass_fds=(status_write,),
            start_new_session=True,
        )
        os.close(status_write)
        with ProcessMonitor(process, status_read, self.limits, start) as monitor:
            limit = monitor.follow(program.encode("utf-8", "surrogatepass"))
            monitor.end()
            out, err = (monitor.read[s.fileno()].decode("utf-8", "replace") for s in monitor.streams)
            report = json.loads(monitor.read[status_read] or b"{}")
        if "error" in report:
            raise UserError(unavailable(report["error"]))
        code, number = report.get("code"), report.get("signal")
        status = limit or status_of(code, number, err)
        return Outcome(status, code, number, out, err, time.monotonic() - start, report.get("left", False))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration for sandbox_child.py."""
        own = [] if sys.base_prefix.startswith("/usr") else [sys.base_prefix]
        limits = self.limits
        return {
            "python": str(Path(sys.executable).resolve()),
            "visible": [p for p in (*SYSTEM, *own) if Path(p).exists()],
            "megabytes": limits.files_mb,
            "memory": limits.memory_mb << 20,
            "parent": os.getpid(),
            "cpu": int(limits.seconds) + 1,
            "alarm": limits.seconds + GRACE,
            "file": limits.files_mb << 20,
            "processes": limits.processes + 3,  # with those of the sandbox; `ProcessMonitor.over` applies `processes`
            "environment": {
                "PATH": "/usr/bin:/bin",
                "HOME": "/box",
                "TMPDIR": "/box",
                "LANG": "C.UTF-8",
                "PYTHONHASHSEED": "0",
                "PYTHONIOENCODING": "utf-8:backslashreplace",
                "OMP_NUM_THREADS": "1",
            },
        }


def status_of(code: int | None, number: int | None, err: str) -> Status:
    """The status of a program that was not stopped, from its exit code, signal and standard error."""
    if number == signal.SIGXCPU:
        return "time"
    # Python 3.13 prints the second message if no memory is left to print the error.
    last = err.rstrip().rpartition("\n")[2]
    if code == 1 and (last.startswith("MemoryError") or "\nobject type name: MemoryError\n" in err):
        return "memory"
    return "ok" if code == 0 else "error"


def unavailable(reason: str) -> str:
    """The message that the sandbox is not available, and what it needs."""
    return (
        f"Programs are not run, because the sandbox is not available: {reason}. It needs Linux 5.14 or newer in which "
        "an ordinary user may create namespaces (sysctl user.max_user_namespaces above 0, "
        "kernel.apparmor_restrict_unprivileged_userns=0 if it exists; in a container, a seccomp profile that "
        "allows unshare and mount)."
    )


PROBE = """
import os, socket
try:
    socket.socket()
except PermissionError:
    try:
        open("/usr/afresh", "w")
    except OSError:
        if os.listdir("/box") == ["main.py"] and os.getuid() != 0:
            print("held")
"""


class ProcessMonitor:
    """Follows one program from outside: reads its output and checks its limits."""

    def __init__(self, process: subprocess.Popen[bytes], status: int, limits: SandboxLimits, start: float) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.process, self.status, self.limits, self.start = process, status, limits, start
        self.streams = (process.stdout, process.stderr)
        self.stdin = process.stdin
        self.read: dict[int, bytearray] = {status: bytearray(), **{s.fileno(): bytearray() for s in self.streams}}
        self.open = set(self.read)

    def follow(self, program: bytes) -> Status | None:
        """Wait until the program ends (None) or reaches a limit (which)."""
        write = self.stdin.fileno()
        os.set_blocking(write, False)
        with selectors.DefaultSelector() as ready:
            for fd in self.read:
                ready.register(fd, selectors.EVENT_READ)
            ready.register(write, selectors.EVENT_WRITE)
            checked, rest = 0.0, memoryview(program)
            while self.open:
                now = time.monotonic()
                if now - self.start > self.limits.seconds:
                    return "time"
                if now - checked >= INTERVAL and (over := self.over()):
                    return over
                checked = now if now - checked >= INTERVAL else checked
                for key, _ in ready.select(INTERVAL):
                    if key.fd == write:
                        rest = self.feed(rest, lambda: ready.unregister(write))
                    elif (over := self.take(key.fd, lambda fd=key.fd: ready.unregister(fd))) is not None:  # type: ignore[misc]
                        return over
        return None

    def feed(self, rest: memoryview, done: Callable[[], object]) -> memoryview:
        """Write more of the program to its standard input; returns what is left."""
        try:
            rest = rest[os.write(self.stdin.fileno(), rest) :] if len(rest) else rest
        except BrokenPipeError:
            rest = rest[len(rest) :]
        if not len(rest):
            done()
            self.stdin.close()
        return rest

    def take(self, fd: int, done: Callable[[], object]) -> Status | None:
        """Read output up to the limit; returns the limit if it is exceeded."""
        new = os.read(fd, 1 << 16)
        buffer = self.read[fd]
        if not new:
            self.open.discard(fd)
            done()
        room = self.limits.output - len(buffer)
        buffer += new[:room]
        return "output" if len(new) > room else None

    def over(self) -> Status | None:
        """The limit that all processes together exceed according to the kernel; None if none."""
        running = descendants(self.process.pid)[1:]  # without process 1, which waits
        if sum(map(resident, running)) > self.limits.memory_mb << 20:
            return "memory"
        return "processes" if len(running) >= self.limits.processes else None

    def end(self) -> None:
        """End all processes: when process 1 of a namespace ends, the kernel ends all others in it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while chunk := os.read(self.status, 1 << 16):  # empty once the last process that could write has ended
            self.read[self.status] += chunk

    def __enter__(self) -> ProcessMonitor:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        for stream in (*self.streams, self.stdin):
            stream.close()
        os.close(self.status)


def descendants(pid: int) -> list[int]:
    """Ids of the child processes of all threads, their children, and so on, nearest first."""
    pids: list[int] = []
    waiting = [pid]
    while waiting:
        tasks = Path(f"/proc/{waiting.pop(0)}/task")
        with suppress(OSError):  # it has ended
            for task in tasks.iterdir():
                new = [int(c) for c in (task / "children").read_text().split()]
                pids += new
                waiting += new
    return pids


def resident(pid: int) -> int:
    """Resident memory of a process in bytes; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
