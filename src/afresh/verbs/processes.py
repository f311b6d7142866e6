"""Training a run by several processes of this machine, which torchrun starts, watches and restarts.

The parent has planned the run and made its folder. Each process opens it as `resume` does, and they meet
(training/ranks.py). Process 0 reports what it would show, which the parent hands on to its own listener, and how
training ended; a process that dies is started again with all others, from the newest checkpoint.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from afresh.core import RewardError, UserError, events
from afresh.core.errors import Diverged, Interrupted
from afresh.core.events import Event
from afresh.data.storage.files import replace_file
from afresh.engine.training import ranks
from afresh.engine.training.checkpoint import steps_in
from afresh.engine.training.signals import interrupts_caught
from afresh.engine.training.training_clock import Clock

VARIABLE = "AFRESH_RANK"  # of the environment: what a process is to train
RESTARTS = 1_000  # of all processes, after one of them died; ATTEMPTS decides
ATTEMPTS = 3  # to come further than the newest checkpoint
ERRORS: dict[str, type[Exception]] = {e.__name__: e for e in (UserError, RewardError, Diverged, Interrupted)}


@dataclass(frozen=True)
class Order:
    """What a process is to train, and where it says what happens: `events` is a pipe, `ended` a file."""

    run: str
    folder: str  # of `events`, `ended` and the numbers of the processes
    clock: tuple[float, bool] | None  # Clock.wall
    ignore_stop: bool
    log: Sequence[str] = ()

    @property
    def events(self) -> Path:
        return Path(self.folder) / "events"

    @property
    def ended(self) -> Path:
        return Path(self.folder) / "ended.json"

    def to_clock(self) -> Clock | None:
        return None if self.clock is None else Clock.of_wall(*self.clock)


def order_of(environment: str) -> Order:
    return Order(**json.loads(environment))


def ended(order: Order, error: Exception | None) -> None:
    """Say how training ended, unless another process has said it."""
    if not order.ended.exists():
        replace_file(order.ended, json.dumps(account_of(error)).encode())


def account_of(error: Exception | None) -> dict[str, Any]:
    """How training ended, as plain JSON; empty without an error."""
    if error is None:
        return {}
    return {
        "error": type(error).__name__,
        "message": str(error),
        "code": getattr(error, "code", ""),
        "fields": {k: v for k, v in getattr(error, "fields", {}).items() if isinstance(v, str | int | float)},
    }


def raise_again(account: Mapping[str, Any]) -> None:
    """Raise the error that another process has met, if there is one."""
    if not account:
        return
    kind = ERRORS.get(account["error"], RuntimeError)
    if issubclass(kind, UserError):
        raise kind(account["message"], account["code"], **account["fields"])
    raise kind(account["message"])


def check_processes(count: int) -> None:
    """Raises UserError unless so many processes can train on this machine."""
    cores = ranks.cores()
    if not 1 <= count <= 4 * cores:
        raise UserError(
            f"`processes` must be from 1 to {4 * cores}, four for each of the {cores} cores of this machine. Given: "
            f"{count}.",
            "range",
            name="processes",
        )


def learn_together(path: Path, processes: int, clock: Clock | None, ignore_stop: bool, log: Sequence[str]) -> float:
    """Train a run by so many processes. Returns the seconds spent. Raises what a single process would raise."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="afresh-ranks-") as folder:
        own = None if clock is None else clock.wall()
        order = Order(str(path.resolve()), folder, own, ignore_stop, tuple(log))
        with interrupts_caught() as interrupted, forwarded(order):
            agent = start_agent(order, processes)
            try:
                wait_for(agent, order, interrupted)
            finally:
                if agent.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(agent.pid, signal.SIGKILL)  # first, so that it starts none again
                    agent.wait()
                    signal_all(order, signal.SIGKILL)
        if not order.ended.exists():
            ended(order, lost(path, f"torchrun ended with code {agent.returncode}"))
        account = json.loads(order.ended.read_bytes())
    raise_again(account)
    return time.perf_counter() - start


def torchrun(processes: int) -> list[str]:
    """The beginning of a command that starts so many processes on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]


def start_agent(order: Order, processes: int) -> subprocess.Popen[bytes]:
    command = [*torchrun(processes), f"--max-restarts={RESTARTS}", "-m", "afresh.verbs.rank"]
    environment = {**os.environ, VARIABLE: json.dumps(asdict(order))}
    environment.setdefault("OMP_NUM_THREADS", str(ranks.threads_each(processes)))
    with (Path(order.folder) / "agent.log").open("wb") as said:
        # In a session of its own, since Ctrl-C is for the parent, which passes it on once.
        # Its input ends when this process does, in whatever way, which the processes notice.
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=said, stderr=said, start_new_session=True
        )


def parent_ended(seconds: float | None) -> bool:
    """Whether the process that gave the order has ended, or does within so many seconds; None waits for it."""
    return bool(select.select([0], [], [], seconds)[0])


def wait_for(agent: subprocess.Popen[bytes], order: Order, interrupted: Any) -> None:
    """Wait until training has ended. An interruption is passed on to the processes, which then save."""
    asked = False
    while agent.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            agent.wait(0.2)
        if interrupted() and not asked:
            asked = True
            signal_all(order, signal.SIGTERM)


def signal_all(order: Order, number: signal.Signals) -> None:
    """Send a signal to every process that trains: torchrun gives each a session of its own."""
    for file in Path(order.folder).glob("*.pid"):
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(file.read_text()), number)


def attempt(order: Order) -> None:
    """Note that training begins once more. Raises UserError if it has begun ATTEMPTS times at the same checkpoint."""
    newest = newest_step(order)
    file = Path(order.folder) / "attempts"
    before = file.read_text().splitlines() if file.exists() else []
    check_attempts(order, before, newest)
    file.write_text("\n".join([*before, newest]))


def newest_step(order: Order) -> str:
    """The name of the run's newest checkpoint."""
    steps = steps_in(Path(order.run) / "checkpoints")
    return steps[-1] if steps else "none"


def check_attempts(order: Order, before: Sequence[str], newest: str) -> None:
    """Raises UserError if training has begun ATTEMPTS times at the newest checkpoint."""
    if list(before[-ATTEMPTS:]) == [newest] * ATTEMPTS:
        raise lost(Path(order.run), f"{ATTEMPTS} times in a row before they had saved more")


def lost(path: Path, how: str) -> UserError:
    return UserError(
        f"The processes that train {path} died: {how}. What was saved last is kept. Is there enough memory for so many "
        f"of them? Go on: `afresh.resume({str(path)!r})`",
        "ranks_lost",
    )


@contextmanager
def forwarded(order: Order) -> Iterator[None]:
    """Hand on the events of the leading process to the listener of this context."""
    os.mkfifo(order.events, 0o600)
    reader = os.open(order.events, os.O_RDWR)  # for writing, too, so that it does not end when a process dies
    listener = events.listener()

    def read() -> None:
        with os.fdopen(reader, "rb") as stream:
            for line in stream:
                if line == b"\n":
                    return
                event = Event(**json.loads(line))
                if listener is None:
                    events.emit(event)
                else:
                    listener(event)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.write(reader, b"\n")
        thread.join()


def event_line(event: Event) -> bytes:
    known = {"kind": event.kind, "code": event.code, "text": event.text, "fields": dict(event.fields)}
    return (json.dumps({**known, "detail": event.detail}, default=str) + "\n").encode()
