"""Processes that run at once: forks of one that has imported what the commands of afresh need, and computed nothing.

A Python that imports torch takes seconds before its first line. `Warm.start` stands in for `subprocess.Popen` where a
test needs a process to kill, to interrupt, or to outlive another, and not the start of Python itself.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "afresh.api",
    "afresh.domains.audio.modality",
    "afresh.domains.image.modality",
    "afresh.domains.text.modality",
    "afresh.engine.families.flow",
    "afresh.engine.families.transformer",
    "afresh.engine.families.vae",
    "afresh.faces.http.app",
    "afresh.verbs.report",
    "afresh.verbs.training_job",
    "PIL.Image",
    "soundfile",
    "torch._dynamo",
)


class Process:
    """A running fork, used as subprocess.Popen is."""

    def __init__(self, pid: int, ended: int, streams: Sequence[IO[Any] | None]) -> None:
        self.pid, self.ended, self.returncode = pid, ended, None
        self.stdin, self.stdout, self.stderr = streams

    returncode: int | None

    def wait(self, timeout: float = 120) -> int:
        until = time.monotonic() + timeout
        while self.poll() is None:
            assert time.monotonic() < until, "the process goes on"
            time.sleep(0.005)
        assert self.returncode is not None
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, minus the signal that ended it; None while it runs."""
        if self.returncode is None:
            try:
                self.returncode = int(os.read(self.ended, 16))
            except BlockingIOError:
                return None
            os.close(self.ended)
        return self.returncode

    def communicate(self, timeout: float = 120) -> tuple[str, str]:
        """What is left of its standard output and standard error; then it has ended."""
        with ThreadPoolExecutor(2) as pool:
            out, err = pool.map(lambda stream: stream.read() if stream else "", (self.stdout, self.stderr))
        self.wait(timeout)
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *error: Any) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()
        self.wait()


class Warm:
    """The process that is forked, which is started when it is first needed. It ends with this one."""

    @cached_property
    def socket(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null, handle = subprocess.DEVNULL, theirs.fileno()
        command = [sys.executable, "-m", "tests.warm", str(handle)]
        subprocess.Popen(command, cwd=ROOT, pass_fds=[handle], stdin=null, stdout=null, start_new_session=True)
        theirs.close()
        return ours

    def start(
        self,
        *words: object,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        keep: Sequence[int] = (),
    ) -> Process:
        """A fork that does what `python WORDS` would: `-m MODULE ...` or `-c CODE ...`. Streams are PIPE, DEVNULL or
        files, which are read and written as text; one that is not given is this process's own. It leads a session of
        its own, and holds the files `keep` open."""
        handles, ours, streams = [], [], list[IO[Any] | None]()
        for number, stream in enumerate((stdin, stdout, stderr)):
            mode = "w" if number == 0 else "r"
            streams.append(None)
            if stream == subprocess.PIPE:
                read, write = os.pipe()
                theirs, mine = (read, write) if number == 0 else (write, read)
                streams[-1] = os.fdopen(mine, mode)
                ours.append(theirs)
            elif stream == subprocess.DEVNULL:
                theirs = os.open(os.devnull, os.O_RDWR)
                ours.append(theirs)
            else:
                theirs = number if stream is None else stream if isinstance(stream, int) else stream.fileno()
            handles.append(theirs)
        ended, write = os.pipe()
        os.set_blocking(ended, False)
        ours.append(write)
        order = {"words": [str(w) for w in words], "env": dict(os.environ), "cwd": str(Path.cwd())}
        socket.send_fds(self.socket, [json.dumps(order).encode()], [*handles, write, *keep])
        for handle in ours:
            os.close(handle)
        return Process(int(self.socket.recv(32)), ended, streams)


def obey(order: dict[str, Any], handles: Sequence[int]) -> None:
    """Become the process that was ordered."""
    os.setsid()
    for number, handle in enumerate(handles[:3]):
        os.dup2(handle, number)
        os.close(handle)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdin, sys.stdout = os.fdopen(0, closefd=False), os.fdopen(1, "w", closefd=False)  # as Python opens them
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    kind, name, *rest = order["words"]
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    else:
        exec(compile(name, "<string>", "exec"), {"__name__": "__main__"})


def main(connection: socket.socket) -> None:
    """Fork for each order, and tell of each fork when it has ended."""
    told: dict[int, int] = {}  # where the exit code of each process is written
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    while True:
        ready, _, _ = select.select([connection, woken], [], [])
        if woken in ready:
            woken.recv(1 << 12)
            for pid in list(told):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    os.write(told[pid], str(os.waitstatus_to_exitcode(status)).encode())
                    os.close(told.pop(pid))
        if connection not in ready:
            continue
        content, handles, _, _ = socket.recv_fds(connection, 1 << 20, 32)
        if not content:
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for mine in (connection, woken, wake):
                mine.close()
            for handle in (*told.values(), handles[3]):
                os.close(handle)
            return obey(json.loads(content), handles)
        told[pid] = handles[3]
        for handle in (*handles[:3], *handles[4:]):
            os.close(handle)
        connection.send(str(pid).encode())


if __name__ == "__main__":
    for module in IMPORTED:
        importlib.import_module(module)
    main(socket.socket(fileno=int(sys.argv[1])))
