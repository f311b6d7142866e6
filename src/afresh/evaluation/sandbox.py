"""Programs that nobody has read, run where they can do no harm; where that cannot be had, they are not run.

What holds them (sandbox_child.py): namespaces of their own for users, mounts, processes, network, IPC and host name;
a root of read-only system folders and one folder in memory; no privileges; a filter of system calls; limits on time,
memory, processes, files and output. All of it is the Linux kernel's, needs no root and no other program.
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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from afresh.core import UserError

JAIL = Path(__file__).with_name("sandbox_child.py")
SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/sbin")
LOOK = 0.02  # seconds between looks at memory and processes
PAGE = os.sysconf("SC_PAGE_SIZE")

Status = Literal["ok", "error", "time", "memory", "processes", "output"]


@dataclass(frozen=True)
class Limits:
    """What one program may use: wall-clock seconds; memory of all its processes together; bytes of output."""

    seconds: float = 5.0
    memory_mb: int = 512
    processes: int = 16
    output: int = 1 << 16  # of standard output and error, each
    files_mb: int = 16  # of its folder, which lies in memory


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    `status`: ok (exit code 0), error (another code, or a signal), or the limit for which it was stopped. `left`: it
    ended while children of it still ran, which were ended too. What it printed is cut to the limit.
    """

    status: Status
    code: int | None  # None when it was ended by `signal` or stopped
    signal: int | None
    stdout: str
    stderr: str
    seconds: float
    left: bool = False


class Sandbox:
    """Runs Python programs, each in a prison of its own, with this Python and its standard library."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()

    @cached_property
    def ready(self) -> bool:
        """True once a program has been seen to run as it should and to be held. Raises UserError, saying why not."""
        if not sys.platform.startswith("linux"):
            raise UserError(refusal(f"it needs Linux, and this is {sys.platform}"))
        found = self._run(PROBE)
        if found.stdout != "held\n":
            raise UserError(refusal(f"a harmless program ended with {found.status}: {found.stderr[-300:].strip()}"))
        return True

    def run(self, program: str) -> Outcome:
        """Run a program to its end or to a limit. Raises UserError where the sandbox cannot be had."""
        assert self.ready
        return self._run(program)

    def _run(self, program: str) -> Outcome:
        begun = time.monotonic()
        told, tell = os.pipe()
        os.set_inheritable(tell, True)
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(JAIL), json.dumps(self.config), str(tell)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={},
            cwd="/",
            pass_fds=(tell,),
            start_new_session=True,
        )
        os.close(tell)
        with Watch(process, told, self.limits, begun) as watch:
            status = watch.follow(program.encode("utf-8", "surrogatepass"))
            watch.end()
            out, err = (watch.read[s.fileno()].decode("utf-8", "replace") for s in watch.streams)
            said = json.loads(watch.read[told] or b"{}")
        if "error" in said:
            raise UserError(refusal(said["error"]))
        code, number = said.get("code"), said.get("signal")
        how = status or named(code, number, err)
        return Outcome(how, code, number, out, err, time.monotonic() - begun, said.get("left", False))

    @cached_property
    def config(self) -> dict[str, Any]:
        """What sandbox_child.py is told."""
        own = [] if sys.base_prefix.startswith("/usr") else [sys.base_prefix]
        limits = self.limits
        return {
            "python": str(Path(sys.executable).resolve()),
            "visible": [p for p in (*SYSTEM, *own) if Path(p).exists()],
            "megabytes": limits.files_mb,
            "memory": limits.memory_mb << 20,
            "cpu": int(limits.seconds) + 1,
            "file": limits.files_mb << 20,
            "processes": limits.processes + 3,  # and those that hold them; who reaches `processes` is stopped
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


def named(code: int | None, number: int | None, err: str) -> Status:
    """Of a program that no one stopped."""
    if number == signal.SIGXCPU:
        return "time"
    # The second is what Python 3.13 says where no memory is left to print the error.
    said = err.rstrip().rpartition("\n")[2].startswith("MemoryError") or "\nobject type name: MemoryError\n" in err
    if code == 1 and said:
        return "memory"
    return "ok" if code == 0 else "error"


def refusal(why: str) -> str:
    return (
        f"Programs are not run, for there is no sandbox to run them in: {why}. It needs Linux 5.14 or newer in which "
        "an ordinary user may make namespaces (sysctl user.max_user_namespaces above 0, "
        "kernel.apparmor_restrict_unprivileged_userns=0 where there is one; in a container, a seccomp profile that "
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


class Watch:
    """What the host sees of one program: what it prints and uses."""

    def __init__(self, process: subprocess.Popen[bytes], told: int, limits: Limits, begun: float) -> None:
        assert process.stdin and process.stdout and process.stderr
        self.process, self.told, self.limits, self.begun = process, told, limits, begun
        self.streams = (process.stdout, process.stderr)
        self.stdin = process.stdin
        self.read: dict[int, bytearray] = {told: bytearray(), **{s.fileno(): bytearray() for s in self.streams}}
        self.open = set(self.read)

    def follow(self, program: bytes) -> Status | None:
        """Until the program ends (None) or reaches a limit."""
        write = self.stdin.fileno()
        os.set_blocking(write, False)
        with selectors.DefaultSelector() as ready:
            for fd in self.read:
                ready.register(fd, selectors.EVENT_READ)
            ready.register(write, selectors.EVENT_WRITE)
            looked, rest = 0.0, memoryview(program)
            while self.open:
                now = time.monotonic()
                if now - self.begun > self.limits.seconds:
                    return "time"
                if now - looked >= LOOK and (over := self.over()):
                    return over
                looked = now if now - looked >= LOOK else looked
                for key, _ in ready.select(LOOK):
                    if key.fd == write:
                        rest = self.feed(rest, lambda: ready.unregister(write))
                    elif (over := self.take(key.fd, lambda fd=key.fd: ready.unregister(fd))) is not None:  # type: ignore[misc]
                        return over
        return None

    def feed(self, rest: memoryview, done: Callable[[], object]) -> memoryview:
        """Hand over more of the program."""
        try:
            rest = rest[os.write(self.stdin.fileno(), rest) :] if len(rest) else rest
        except BrokenPipeError:
            rest = rest[len(rest) :]
        if not len(rest):
            done()
            self.stdin.close()
        return rest

    def take(self, fd: int, done: Callable[[], object]) -> Status | None:
        """Read what was printed, to the limit."""
        new = os.read(fd, 1 << 16)
        kept = self.read[fd]
        if not new:
            self.open.discard(fd)
            done()
        room = self.limits.output - len(kept)
        kept += new[:room]
        return "output" if len(new) > room else None

    def over(self) -> Status | None:
        """Whether all processes together use too much, as far as the kernel tells."""
        found = descendants(self.process.pid)[1:]  # without process 1, which waits
        if sum(map(resident, found)) > self.limits.memory_mb << 20:
            return "memory"
        return "processes" if len(found) >= self.limits.processes else None

    def end(self) -> None:
        """End all there is: with process 1 of a namespace the kernel ends every other in it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        while chunk := os.read(self.told, 1 << 16):  # ends when the last process that could write is gone
            self.read[self.told] += chunk

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()
        for stream in (*self.streams, self.stdin):
            stream.close()
        os.close(self.told)


def descendants(pid: int) -> list[int]:
    """Children, their children, and so on, nearest first."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        parent = waiting.pop(0)
        try:
            text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        except OSError:
            continue
        new = [int(c) for c in text.split()]
        found += new
        waiting += new
    return found


def resident(pid: int) -> int:
    """Bytes of memory in use by a process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0
