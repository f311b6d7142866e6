"""Rewards that people bring: Python functions and shell programs, held to a time for each batch.

What really stops code that hangs, in C too, is the end of its process. So a function that is named (FILE.py:function)
runs in a process of its own, which loads it once, keeps what it has loaded from batch to batch, and is ended together
with all its children when it is late; a crash there ends no training. A function that is handed over in Python may hold
on to anything of this process and stays in it, under a timer's signal, which interrupts Python code and system calls,
but neither a loop in C nor, for signals go to the main thread alone, anything in another thread.
"""

from __future__ import annotations

import ast
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from afresh.alignment.rewards.call import Caller, Wrong, packed
from afresh.alignment.rewards.reward import Context, Failed, Request, Reward, Score
from afresh.core import ItemKind, UserError

CHILD = Path(__file__).with_name("call.py")
LOOK = 0.05  # seconds between looks at whether a process is still there
LOADING = 120.0  # seconds that a function may take to load, if it has no more for a batch
LEAST = 8  # items that are worth a process
ROOM = 1 << 16  # bytes of output beyond a line for each item
LINE = 64  # bytes
TAIL = 600  # characters of standard error that are shown


class Late(BaseException):
    """The time is over. No Exception: code that catches those is to be stopped too."""


class Babbling(Exception):
    """More output than numbers could be."""


# ------------------------------------------------------------------------------------------------ in this process


def limited(score: Score, seconds: float) -> Score:
    """The same under a timer in the main thread, as said above: raises Failed when it is late. Elsewhere no limit."""

    def run(items: Sequence[Any], requests: Sequence[Request]) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return score(items, requests)
        armed = True

        def ring(number: int, frame: Any) -> None:
            if armed:
                raise Late

        begun = time.monotonic()
        handler = signal.signal(signal.SIGALRM, ring)
        left, again = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again: should it be swallowed
        try:
            try:
                return score(items, requests)
            finally:
                armed = False
        except Late:
            raise Failed(f"it was not done within {seconds:g} s and was stopped.") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            if left:  # another's timer goes on
                signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - begun)), again)

    return run


def of_function(function: Callable[..., Any], name: str | None = None, seconds: float = 60.0) -> Reward:
    """The reward of a function that is at hand; what it may take is said at Caller."""
    caller = Caller(function)

    def score(items: Sequence[Any], requests: Sequence[Request]) -> list[float]:
        try:
            return caller(items, requests)
        except Wrong as e:
            raise Failed(*e.args) from e

    called: str = getattr(function, "__name__", str(function))
    return Reward(name or called, limited(score, seconds))


# ------------------------------------------------------------------------------------------------- other processes


def start(command: Sequence[str], errors: int | None) -> subprocess.Popen[bytes]:
    """A process that leads a group of its own, so that its children can be ended with it."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, start_new_session=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            with suppress(OSError):
                stream.close()
    process.wait()


def end_all(processes: list[subprocess.Popen[bytes]]) -> None:
    while processes:
        end(processes.pop())


def exchange(
    process: subprocess.Popen[bytes], data: bytes, seconds: float, room: int, line: bool
) -> tuple[bytearray, bytearray]:
    """Hand over data, take (output, errors): up to the first line's end, or else till the process ends; then its input
    is closed behind the data. Raises TimeoutError after so many seconds, Babbling after `room` bytes of output; both
    carry the errors."""
    assert process.stdin and process.stdout
    deadline, rest = time.monotonic() + seconds, memoryview(data)
    stdin = process.stdin
    output, errors = bytearray(), bytearray()
    with selectors.DefaultSelector() as ready:
        os.set_blocking(stdin.fileno(), False)
        ready.register(stdin, selectors.EVENT_WRITE)
        for stream in filter(None, (process.stdout, process.stderr)):
            ready.register(stream, selectors.EVENT_READ)
        while True:
            gone = process.poll() is not None
            events = ready.select(0 if gone else LOOK)
            for key, _ in events:
                if key.fileobj is stdin:
                    try:
                        rest = rest[os.write(key.fd, rest) :] if len(rest) else rest
                    except BrokenPipeError:  # it has read as much as it wants
                        rest = rest[len(rest) :]
                    if not len(rest):
                        ready.unregister(stdin)
                        if not line:
                            with suppress(BrokenPipeError):
                                stdin.close()
                elif not (new := os.read(key.fd, 1 << 16)):
                    ready.unregister(key.fileobj)
                elif key.fileobj is process.stdout:
                    output += new
                else:
                    errors = (errors + new)[-4 * TAIL :]
            if len(output) > room:
                raise Babbling(errors)
            reading = any(key.fileobj is not stdin for key, _ in events)
            if (line and output.endswith(b"\n")) or (gone and not reading):
                return output, errors
            if time.monotonic() > deadline:
                raise TimeoutError(errors)


def ending(process: subprocess.Popen[bytes]) -> str:
    code = process.returncode
    return f"was ended by the signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def python_function(name: str, source: str, function: str, context: Context, hint: str = "") -> Reward:
    """FILE.py:function or module:function in a process of its own. Raises UserError where it cannot be loaded."""
    file = str(Path(source).expanduser()) if source.endswith(".py") else None
    if file and not Path(file).is_file():
        raise UserError(f"The reward {name}: there is no file {file}. Check its path, from the folder {Path.cwd()}.")
    kept = Kept(context.seconds, {"path": sys.path, "file": file, "module": source, "function": function})
    weakref.finalize(kept, end_all, kept.processes)
    try:
        kept.begin()
    except Failed as e:
        raise UserError(
            f"The reward {name} cannot be loaded: {e.reason.rstrip('.')}.{hint}{functions_of(file)} A function is "
            "named FILE.py:function, or module:function where the module is installed or its folder is in PYTHONPATH."
        ) from None

    def score(items: Sequence[Any], requests: Sequence[Request]) -> list[float]:
        message = {"items": [packed(item, context.kind) for item in items], "requests": [dict(r) for r in requests]}
        return list(kept.ask(message, len(items))["values"])

    return Reward(name, score, context.kind, close=kept.close)


def functions_of(file: str | None) -> str:
    """The functions of a file that can be read, in a sentence; nothing where there is none."""
    try:
        body = [] if file is None else ast.parse(Path(file).read_bytes()).body
    except (OSError, SyntaxError, ValueError):  # what is wrong with it was said
        return ""
    names = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    return f" Functions in {file}: {', '.join(names[:20])}." if names else ""


class Kept:
    """The process of a function: started when it is needed, and again after it had to be ended."""

    def __init__(self, seconds: float, first: dict[str, Any]) -> None:
        self.seconds, self.loading = seconds, max(seconds, LOADING)
        self.first = {**first, "seconds": seconds, "loading": self.loading}
        self.processes: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        """Have the function loaded. Raises Failed."""
        if not self.processes:
            self.processes.append(start([sys.executable, "-P", str(CHILD)], None))
            try:
                self.send(self.first, 0, self.loading)
            except Failed:
                self.close()
                raise

    def ask(self, message: dict[str, Any], n: int) -> dict[str, Any]:
        """The answer to a message about n items. Raises Failed."""
        self.begin()
        return self.send(message, n, self.seconds)

    def send(self, message: dict[str, Any], n: int, seconds: float) -> dict[str, Any]:
        process = self.processes[0]
        try:
            output, _ = exchange(process, json.dumps(message).encode() + b"\n", seconds, ROOM + LINE * n, True)
        except TimeoutError:
            self.close()
            raise Failed(f"it was not done within {seconds:g} s and was stopped.") from None
        except BaseException:  # of which the answer would be taken for that to the next message
            self.close()
            raise
        if not output.endswith(b"\n"):
            self.close()
            raise Failed(f"its process {ending(process)}.")
        answer: dict[str, Any] = json.loads(output)
        if "error" in answer:
            raise Failed(answer["error"], answer["item"])
        return answer

    def close(self) -> None:
        end_all(self.processes)


# -------------------------------------------------------------------------------------------------- shell programs


def shell_program(name: str, command: Sequence[str], context: Context) -> Reward:
    """A program and its arguments, started anew for each batch, without a shell (!sh -c '...' has one).

    It reads a line for each item: {"text": TEXT, "request": {...}}, or of an item that is no text {"file": a PNG, a
    WAV, ..., "request": {...}}, and prints a line for each, a number. A batch is shared out among `workers` processes,
    LEAST items or more each, so that every item has to be scored by itself. Raises UserError where there is no such
    program.
    """
    if not command:
        raise UserError("The reward ! needs a program behind it, as in '!./score.sh'.")
    if shutil.which(command[0]) is None:
        mode = " It is not executable: chmod +x it." if Path(command[0]).is_file() else ""
        raise UserError(
            f"The reward {name}: there is no program {command[0]} to run.{mode} Give its path, as in !./prog."
        )
    workers = context.workers or os.cpu_count() or 1

    def score(items: Sequence[Any], requests: Sequence[Request]) -> list[float]:
        share = max(LEAST, -(-len(items) // workers))
        starts = range(0, len(items), share)
        running: list[subprocess.Popen[bytes]] = []
        with (
            tempfile.TemporaryDirectory(prefix="afresh-reward-") as folder,
            ThreadPoolExecutor(len(starts) or 1) as pool,
        ):
            pairs = enumerate(zip(items, requests, strict=True))
            lines = [told(item, context.kind, request, folder, i) for i, (item, request) in pairs]
            try:
                found = [pool.submit(once, command, lines[i : i + share], i, context.seconds, running) for i in starts]
                return [v for part in found for v in part.result()]
            except BaseException:
                for process in running:  # their threads then come to an end
                    if process.poll() is None:
                        with suppress(ProcessLookupError, PermissionError):
                            os.killpg(process.pid, signal.SIGKILL)
                raise

    return Reward(name, score, context.kind)


def told(item: Any, kind: ItemKind, request: Request, folder: str, number: int) -> bytes:
    """What a program is told of an item."""
    content = kind.encode(item)
    if kind.inline:
        about = {"text": content.decode("utf-8", "surrogatepass")}
    else:
        about = {"file": f"{folder}/{number}{kind.suffix}"}
        Path(about["file"]).write_bytes(content)
    return json.dumps({**about, "request": dict(request)}).encode() + b"\n"


def complaint(errors: bytearray) -> str:
    said = errors.decode("utf-8", "replace").strip()[-TAIL:]
    return f" On standard error: {said}" if said else " It wrote nothing to standard error."


def once(
    command: Sequence[str], lines: list[bytes], first: int, seconds: float, running: list[subprocess.Popen[bytes]]
) -> list[float]:
    """The numbers that one process prints for these lines, the items from `first` on. Raises Failed."""
    n = len(lines)
    try:
        process = start(command, subprocess.PIPE)
    except OSError as e:
        raise Failed(f"the program cannot be started ({e}). A script needs a first line such as #!/bin/sh.") from None
    running.append(process)
    try:
        output, errors = exchange(process, b"".join(lines), seconds, ROOM + LINE * n, False)
    except TimeoutError as e:
        raise Failed(f"the program was not done within {seconds:g} s, and was stopped.{complaint(e.args[0])}") from None
    except Babbling as e:
        raise Failed(f"the program printed far more than {n} numbers.{complaint(e.args[0])}") from None
    finally:
        end(process)
    printed = output.decode("utf-8", "replace").splitlines()
    why = complaint(errors)
    if process.returncode != 0:
        at = first + len(printed) if len(printed) < n else None
        raise Failed(f"the program {ending(process)} after {len(printed)} of {n} lines.{why}", at)
    if len(printed) != n:
        raise Failed(f"the program printed {len(printed)} lines for {n} items; a line for each is needed.{why}")
    values = []
    for i, text in enumerate(printed):
        try:
            values.append(float(text))
        except ValueError:
            raise Failed(f"the program printed {text[:80]!r}, which is no number.{why}", first + i) from None
    return values
