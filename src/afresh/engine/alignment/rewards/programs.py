"""Rewards that users supply: Python functions and shell programs, with a time limit for each batch.

Only ending the process reliably stops code that hangs, in particular C code. Therefore a function that is named
(FILE.py:function) runs in a process of its own. The process loads the function once, serves all batches, and is ended
together with all its children when a batch exceeds the limit; a crash of it does not end training. A function object
may refer to anything in this process and therefore runs here, under a timer signal. The signal interrupts Python code
and system calls, but not a loop in C and, since signals are delivered to the main thread only, nothing in other
threads.

An item that makes a function or program crash, hang, or return something else than a number costs the other items
nothing: values that are known stay, and the rest are asked for again without it.
"""

from __future__ import annotations

import ast
import json
import math
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

from afresh.core import ItemKind, UserError
from afresh.engine.alignment.rewards.callable_reward import CallError, RewardCaller, packed
from afresh.engine.alignment.rewards.reward import Context, Request, Reward, Score, Scored, ScoringError

CALL_PROGRAM, SUPERVISOR = (Path(__file__).with_name(name) for name in ("callable_reward.py", "supervise.py"))
POLL_SECONDS = 0.05  # between checks whether a process has ended
LOADING_SECONDS = 120.0  # limit for loading a function, unless the limit for a batch is higher
MIN_ITEMS = 8  # items for which a further process is started
LINE_BYTES, ANSWER_BYTES, SPARE_BYTES = 64, 4096, 1 << 16  # accepted of a program, a function, and beyond items
FIRST_PATIENCE, PATIENCE = 3, 16  # items in a row that fail alone, before and after the first value, until all fail
MAX_ERROR_CHARACTERS = 600  # of standard error that a message shows


class TimeOver(BaseException):
    """Raised when the time limit is exceeded. Not an Exception, so that code which catches those is stopped as well."""


class TooMuchOutput(Exception):
    """A program printed more than the numbers of its items can need."""


# ------------------------------------------------------------------------------------------------ in this process


def limited(score: Score, seconds: float) -> Score:
    """The function with a time limit, which only applies in the main thread (see above): raises ScoringError."""

    def run(items: Sequence[Any], requests: Sequence[Request]) -> Any:
        if threading.current_thread() is not threading.main_thread():
            return score(items, requests)
        armed = True

        def on_alarm(number: int, frame: Any) -> None:
            if armed:
                raise TimeOver

        started = time.monotonic()
        handler = signal.signal(signal.SIGALRM, on_alarm)
        # The timer repeats each second, in case the code suppresses the exception.
        left, interval = signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
        try:
            try:
                return score(items, requests)
            finally:
                armed = False
        except TimeOver:
            raise ScoringError(f"it did not finish within {seconds:g} s and was stopped.") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)
            if left:  # restart the timer that was set before
                signal.setitimer(signal.ITIMER_REAL, max(1e-3, left - (time.monotonic() - started)), interval)

    return run


def of_function(function: Callable[..., Any], kind: ItemKind | None = None, seconds: float | None = None) -> Reward:
    """The reward of a function that runs in this process. `Caller` describes the parameters that it may have.

    kind: of the items, None for any. seconds: time limit of a call, None for no limit. Raises UserError if `function`
    is not callable.
    """
    if not callable(function):
        raise UserError(f"A reward is a string such as 'length:min=50' or a function of items. Given: {function!r}.")
    caller = RewardCaller(function)

    def score(items: Sequence[Any], requests: Sequence[Request]) -> Scored:
        try:
            return Scored(*caller(items, requests))
        except CallError as e:
            raise ScoringError(*e.args) from e

    name = getattr(function, "__name__", type(function).__name__)
    return Reward(name, score if seconds is None else limited(score, seconds), kind)


# ------------------------------------------------------------------------------------------------- other processes


class Isolation:
    """Asks for the values of many items at once, and finds those at fault when that fails."""

    def __init__(self) -> None:
        self.proved = False  # whether any item has ever had a value

    def __call__(self, ask: Callable[[int, int], Scored], n: int) -> Scored:
        """The values of n items, of which ask(start, stop) gives those of a part.

        After a part has failed with an error that says `again`, its known values are kept and the next item is asked
        for alone, as are all that follow if no value was known. Raises the first error if too many items in a row fail
        alone, and every error that does not say so, unless it is about an item alone.
        """
        out = Scored([math.nan] * n, {})
        first: ScoringError | None = None
        start = in_row = 0
        suspect = alone = False
        while start < n:
            stop = start + 1 if suspect or alone else n
            try:
                found = ask(start, stop)
            except ScoringError as e:
                if first is None and not e.again:
                    raise
                first = first or e
                if suspect or alone:
                    out.reasons[start] = e.reason
                    start, suspect, in_row = stop, False, in_row + 1
                    if in_row >= (PATIENCE if self.proved else FIRST_PATIENCE):
                        raise first from e
                    continue
                known = list(e.values)[: stop - start - 1]
                out.values[start : start + len(known)] = known
                start, suspect, alone = start + len(known), True, not known
            else:
                out.values[start:stop] = found.values
                out.reasons.update({start + i: reason for i, reason in found.reasons.items()})
                self.proved |= len(found.reasons) < len(found.values)
                start, suspect, in_row = stop, False, 0
        return out


class Process(subprocess.Popen[bytes]):
    """A process in a new process group, so that its children can be ended with it. It also ends when this process does,
    in whatever way (supervise.py): then the other end of the pipe `alive` is closed."""

    def __init__(self, command: Sequence[str], errors: int | None, folder: Path | None) -> None:
        """Raises OSError if the command cannot be started."""
        pipe = subprocess.PIPE
        held, alive = os.pipe()
        self.alive = os.fdopen(alive, "wb")
        problem, told = os.pipe()
        try:
            words = [sys.executable, "-I", "-S", str(SUPERVISOR), str(held), str(told), *command]
            super().__init__(
                words, stdin=pipe, stdout=pipe, stderr=errors, cwd=folder, start_new_session=True, pass_fds=(held, told)
            )
        except BaseException:
            self.alive.close()
            os.close(problem)
            raise
        finally:
            os.close(held)
            os.close(told)
        with os.fdopen(problem, "rb") as stream:  # ends when the command has started
            number = stream.read()
        if number:
            end(self)
            raise OSError(int(number), os.strerror(int(number)), command[0])


def end(process: Process) -> None:
    """End a process and its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for stream in (process.alive, process.stdin, process.stdout, process.stderr):
        if stream:
            with suppress(OSError):
                stream.close()
    process.wait()


def end_all(processes: list[Process]) -> None:
    while processes:
        end(processes.pop())


def exchange(process: Process, data: bytes, seconds: float, room: int, line: bool, output: bytearray) -> bytearray:
    """Write data to a process, add its standard output to `output`, and return its standard error.

    With `line`, reads up to the end of the first line; otherwise closes the standard input of the process after the
    data and reads until the process ends. Raises TimeoutError after `seconds`, and TooMuchOutput after `room` bytes of
    output; both have standard error as their argument.
    """
    assert process.stdin and process.stdout
    deadline, rest = time.monotonic() + seconds, memoryview(data)
    stdin = process.stdin
    errors = bytearray()
    with selectors.DefaultSelector() as ready:
        os.set_blocking(stdin.fileno(), False)
        ready.register(stdin, selectors.EVENT_WRITE)
        for stream in filter(None, (process.stdout, process.stderr)):
            ready.register(stream, selectors.EVENT_READ)
        while True:
            ended = process.poll() is not None
            events = ready.select(0 if ended else POLL_SECONDS)
            for key, _ in events:
                if key.fileobj is stdin:
                    try:
                        rest = rest[os.write(key.fd, rest) :] if len(rest) else rest
                    except BrokenPipeError:  # the process reads no further
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
                    errors = (errors + new)[-4 * MAX_ERROR_CHARACTERS :]
            if len(output) > room:
                raise TooMuchOutput(errors)
            reading = any(key.fileobj is not stdin for key, _ in events)
            if (line and output.endswith(b"\n")) or (ended and not reading):
                return errors
            if time.monotonic() > deadline:
                raise TimeoutError(errors)


def ending(process: Process) -> str:
    """How a process ended, as the end of a sentence."""
    code = process.returncode
    return f"was ended by the signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def python_function(name: str, source: str, function: str, context: Context, hint: str = "") -> Reward:
    """The reward FILE.py:function or module:function, run in a process of its own.

    Raises UserError if the function cannot be loaded.
    """
    file = str(Path(source).expanduser()) if source.endswith(".py") else None
    if file and not Path(file).is_file():
        raise UserError(f"The reward {name}: there is no file {file}. Check the path relative to {Path.cwd()}.")
    code = {"path": sys.path, "file": file, "module": source, "function": function}
    process = FunctionProcess(context.seconds, code, context.folder)
    weakref.finalize(process, end_all, process.processes)
    try:
        process.begin()
    except ScoringError as e:
        raise UserError(
            f"The reward {name} cannot be loaded: {e.reason.rstrip('.')}.{hint}{functions_of(file)} Name a function as "
            "FILE.py:function, or as module:function if the module is installed or its folder is in PYTHONPATH."
        ) from None

    isolation = Isolation()

    def score(items: Sequence[Any], requests: Sequence[Request]) -> Scored:
        sent = [packed(item, context.kind) for item in items]

        def ask(start: int, stop: int) -> Scored:
            message = {"items": sent[start:stop], "requests": [dict(r) for r in requests[start:stop]]}
            answer = process.ask(message, stop - start)
            return Scored(answer["values"], {int(i): reason for i, reason in answer["reasons"].items()})

        return isolation(ask, len(items))

    return Reward(name, score, context.kind, close=process.close)


def functions_of(file: str | None) -> str:
    """A sentence that lists the functions of a file; empty if it has none or cannot be parsed."""
    try:
        body = [] if file is None else ast.parse(Path(file).read_bytes()).body
    except (OSError, SyntaxError, ValueError):  # the message about loading the file names the error
        return ""
    names = [node.name for node in body if isinstance(node, ast.FunctionDef)]
    return f" Functions in {file}: {', '.join(names[:20])}." if names else ""


class FunctionProcess:
    """The process of a function. It is started when it is needed, and restarted after it had to be ended."""

    def __init__(self, seconds: float, first: dict[str, Any], folder: Path | None = None) -> None:
        self.folder, self.seconds, self.loading = folder, seconds, max(seconds, LOADING_SECONDS)
        self.first = {**first, "seconds": seconds, "loading": self.loading}
        self.processes: list[Process] = []

    def begin(self) -> None:
        """Start the process and load the function, unless it is running. Raises ScoringError."""
        if not self.processes:
            self.processes.append(Process([sys.executable, "-P", str(CALL_PROGRAM)], None, self.folder))
            try:
                self.send(self.first, 0, self.loading)
            except ScoringError:
                self.close()
                raise

    def ask(self, message: dict[str, Any], n: int) -> dict[str, Any]:
        """The answer to a message about n items. Raises ScoringError."""
        self.begin()
        return self.send(message, n, self.seconds)

    def send(self, message: dict[str, Any], n: int, seconds: float) -> dict[str, Any]:
        process, output = self.processes[0], bytearray()
        try:
            exchange(
                process, json.dumps(message).encode() + b"\n", seconds, SPARE_BYTES + ANSWER_BYTES * n, True, output
            )
        except TimeoutError:
            self.close()
            raise ScoringError(f"it did not finish within {seconds:g} s and was stopped.", again=True) from None
        except BaseException:  # else its late answer would be read as that to the next message
            self.close()
            raise
        if not output.endswith(b"\n"):
            self.close()
            raise ScoringError(f"its process {ending(process)}.", again=True)
        answer: dict[str, Any] = json.loads(output)
        if "error" in answer:
            raise ScoringError(answer["error"], answer["item"], again=answer["item"] is None)
        return answer

    def close(self) -> None:
        end_all(self.processes)


# -------------------------------------------------------------------------------------------------- shell programs


def shell_program(name: str, command: Sequence[str], context: Context) -> Reward:
    """The reward of a program with arguments, which is started for each batch, without a shell (use !sh -c '...').

    The program reads one JSON line for each item, {"text": TEXT, "request": {...}}, or {"file": PATH, "request":
    {...}} with a PNG, WAV, ... file if the item is not a text, and prints a line with one number for each. A batch is
    divided among up to `workers` processes with at least MIN_ITEMS items each, so every item must be scored
    independently of the others. Raises UserError if the program does not exist.
    """
    if not command:
        raise UserError("The reward ! needs a program after it, as in '!./score.sh'.")
    own = (context.folder or Path.cwd()) / command[0]
    if shutil.which(own if os.sep in command[0] else command[0]) is None:
        mode = " It is not executable: chmod +x it." if own.is_file() else ""
        raise UserError(
            f"The reward {name}: there is no program {command[0]} to run.{mode} Give its path, as in !./program."
        )
    workers = context.workers or os.cpu_count() or 1
    isolation = Isolation()

    def score(items: Sequence[Any], requests: Sequence[Request]) -> Scored:
        share = max(MIN_ITEMS, -(-len(items) // workers))
        starts = range(0, len(items), share)
        running: list[Process] = []
        with (
            tempfile.TemporaryDirectory(prefix="afresh-reward-") as folder,
            ThreadPoolExecutor(len(starts) or 1) as pool,
        ):
            pairs = enumerate(zip(items, requests, strict=True))
            lines = [line_of(item, context.kind, request, folder, i) for i, (item, request) in pairs]
            try:
                parts = [pool.submit(one_share, i, lines[i : i + share], running) for i in starts]
                found = [part.result() for part in parts]
            except BaseException:
                for process in running:  # this also ends the threads that wait for them
                    if process.poll() is None:
                        with suppress(ProcessLookupError, PermissionError):
                            os.killpg(process.pid, signal.SIGKILL)
                raise
        values = [v for part in found for v in part.values]
        return Scored(
            values, {i + at: why for i, part in zip(starts, found, strict=True) for at, why in part.reasons.items()}
        )

    def one_share(first: int, lines: list[bytes], running: list[Process]) -> Scored:
        def ask(start: int, stop: int) -> Scored:
            return run_program(command, lines[start:stop], first + start, context, running)

        return isolation(ask, len(lines))

    return Reward(name, score, context.kind)


def line_of(item: Any, kind: ItemKind, request: Request, folder: str, number: int) -> bytes:
    """The JSON line about an item that a program reads. Items that are not text are written to a file in `folder`."""
    content = kind.encode(item)
    if kind.inline:
        message = {"text": content.decode("utf-8", "surrogatepass")}
    else:
        message = {"file": f"{folder}/{number}{kind.suffix}"}
        Path(message["file"]).write_bytes(content)
    return json.dumps({**message, "request": dict(request)}).encode() + b"\n"


def standard_error(errors: bytearray) -> str:
    """A sentence with the end of what a program wrote to standard error."""
    text = errors.decode("utf-8", "replace").strip()[-MAX_ERROR_CHARACTERS:]
    return f" On standard error: {text}" if text else " It wrote nothing to standard error."


def run_program(
    command: Sequence[str], lines: list[bytes], first: int, context: Context, running: list[Process]
) -> Scored:
    """The numbers that one process prints for the lines of the items from `first` on. Raises ScoringError."""
    n, seconds = len(lines), context.seconds
    try:
        process = Process(command, subprocess.PIPE, context.folder)
    except OSError as e:
        raise ScoringError(
            f"the program cannot be started ({e}). A script needs a first line such as #!/bin/sh."
        ) from None
    running.append(process)
    output = bytearray()
    try:
        errors = exchange(process, b"".join(lines), seconds, SPARE_BYTES + LINE_BYTES * n, False, output)
    except TimeoutError as e:
        reason = f"the program did not finish within {seconds:g} s and was stopped.{standard_error(e.args[0])}"
        raise ScoringError(reason, again=True, values=leading(output)) from None
    except TooMuchOutput as e:
        raise ScoringError(f"the program printed far more than {n} numbers.{standard_error(e.args[0])}") from None
    finally:
        end(process)
    printed = output.decode("utf-8", "replace").splitlines()
    details = standard_error(errors)
    if process.returncode != 0:
        at = first + len(printed) if len(printed) < n else None
        reason = f"the program {ending(process)} after {len(printed)} of {n} lines.{details}"
        raise ScoringError(reason, at, again=len(printed) < n, values=leading(output))
    if len(printed) != n:
        raise ScoringError(
            f"the program printed {len(printed)} lines for {n} items, but must print one for each.{details}"
        )
    out = Scored([math.nan] * n, {})
    for i, text in enumerate(printed):
        try:
            out.values[i] = float(text)
        except ValueError:
            out.reasons[i] = f"the program printed {text[:80]!r}, which is not a number.{details}"
    return out


def leading(output: bytearray) -> list[float]:
    """The numbers of the first lines of an output that was broken off, up to the first line that is not one."""
    out: list[float] = []
    for line in output.decode("utf-8", "replace").split("\n")[:-1]:  # the last line may be broken off
        try:
            out.append(float(line))
        except ValueError:
            break
    return out
