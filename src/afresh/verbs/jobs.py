"""Commands of afresh that run as processes of their own, and go on when the process that started them ends.

Each has a folder with what it was asked (`job.json`), its events (`events.jsonl`, what `--json` writes) and what it
wrote on standard error. The process inherits a lock on a file of that folder, which the operating system releases when
it ends in whatever way: a command is found again, and is known to run, by any later process.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from afresh.core import UserError
from afresh.core.safe_text import visible
from afresh.data.preferences import preferences
from afresh.data.storage.files import free_bytes, replace_file, write_json
from afresh.data.storage.lock import is_locked, open_locked

State = Literal["running", "done", "stopped", "failed"]
MOST_RUNNING = 4  # commands at once
MOST_KEPT = 200  # of those that have ended
RECORD, EVENTS, MESSAGES, LOCK, STOP = "job.json", "events.jsonl", "messages.txt", "lock", "stop"
TAIL = 2_000  # bytes of standard error that are shown if a command ended without an event that says why

_children: list[subprocess.Popen[bytes]] = []  # of this process, so that none of them is left as a zombie


@dataclass(frozen=True)
class BackgroundJob:
    """A command: its verb, the run that it makes or changes, who started it, and when (seconds since 1970). `about`
    holds plain values of the one who started it."""

    id: str
    verb: str
    title: str
    run: str | None
    owner: str
    began: float
    process: int
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return jobs_folder() / self.id


@dataclass(frozen=True)
class JobOutcome:
    """How far a command has come. `progress`: the fields of its last event of progress; `result`: of the event that
    ends it; `error`: why it failed, for a person; `kinds`: as which kinds
    the data can be read, and why, if it is not clear; `settings`: of data, by kind, with which it is read so."""

    state: State
    progress: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    error: str = ""
    code: str = ""
    kinds: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, dict[str, Any]] = field(default_factory=dict)


def jobs_folder() -> Path:
    return preferences().jobs_folder


def start(
    verb: str,
    arguments: Sequence[str | Path],
    options: Mapping[str, Any],
    title: str,
    run: Path | None = None,
    owner: str = "",
    about: dict[str, Any] | None = None,
    files: Mapping[str, str] | None = None,
) -> BackgroundJob:
    """Start a command of afresh. `options` by their names on the command line, without dashes: those that are True are
    switched on, those that are None are left out, and a list is one option for each of its values; the values of
    `files` are names in the folder of the command, into which it writes. `title` names it for a person. Returns at
    once.

    Raises UserError if too many commands run already, or if the folder of commands cannot be written.
    """
    check_room(owner)
    root, id = jobs_folder(), secrets.token_hex(8)
    own = {name: root / id / file for name, file in (files or {}).items()}
    words = [verb, *command_line(arguments, {**options, **own, "json": True})]
    try:
        (root / id).mkdir(parents=True)
        child = _started(root / id, words)
    except OSError as error:
        raise UserError(
            f"The command cannot be started in {root}: {error.strerror or error}. {free_bytes(root):,} bytes are free. "
            "Make room there, or set AFRESH_JOBS_FOLDER to another folder.",
            "cannot_start",
        ) from error
    name = None if run is None else str(run)
    job = BackgroundJob(id, verb, title, name, owner, time.time(), child.pid, about or {})
    write_json(job.folder / RECORD, asdict(job))
    for old in [j for j in jobs() if not is_running(j)][MOST_KEPT:]:
        forget(old)
    return job


def check_room(owner: str = "") -> None:
    """Raises UserError if as many commands run as may run at once. Of these, only those of this owner are named."""
    running = [job for job in jobs() if is_running(job)]
    if len(running) < MOST_RUNNING:
        return
    own = ", ".join(job.title for job in running if job.owner == owner)
    if not own:
        which, way = " for others", "Wait until one has ended."
    elif all(job.owner == owner for job in running):
        which, way = f": {own}", "Wait until one has ended, or stop one."
    else:
        which, way = f", among them yours: {own}", "Wait until one has ended, or stop one of yours."
    raise UserError(f"{len(running)} commands are running already{which}. {way}", "too_many_jobs")


def command_line(arguments: Sequence[str | Path], options: Mapping[str, Any]) -> list[str]:
    """The words of a command after its verb. No argument can be taken for an option."""
    given = [(name, v) for name, value in options.items() for v in (value if isinstance(value, list) else [value])]
    out = [f"--{name}" if v is True else f"--{name}={v}" for name, v in given if v is not None]
    return [*out, "--", *map(str, arguments)]


def _started(folder: Path, words: Sequence[str]) -> subprocess.Popen[bytes]:
    lock = open_locked(folder / LOCK, mode=0o600)
    try:
        with (folder / EVENTS).open("ab") as out, (folder / MESSAGES).open("ab") as err:
            child = subprocess.Popen(
                # -P: the current folder is not searched for modules, as it is not when the console script runs
                [sys.executable, "-P", "-m", "afresh", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                pass_fds=[lock],
                start_new_session=True,
            )
    finally:
        os.close(lock)  # the child has it now
    _children.append(child)
    return child


def jobs() -> list[BackgroundJob]:
    """All commands that are known, the newest first. Folders that are damaged are left out."""
    _children[:] = [c for c in _children if c.poll() is None]
    root = jobs_folder()
    found = [read(p.name) for p in root.iterdir()] if root.is_dir() else []
    return sorted((job for job in found if job is not None), key=lambda j: -j.began)


def read(id: str) -> BackgroundJob | None:
    """The command of this id; None without one, or if its folder is damaged."""
    if not re.fullmatch(r"[0-9a-f]{16}", id):
        return None
    try:
        job = BackgroundJob(**json.loads((jobs_folder() / id / RECORD).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return job if job.id == id else None


def is_running(job: BackgroundJob) -> bool:
    """Whether the process of the command lives."""
    _children[:] = [c for c in _children if c.poll() is None]
    return is_locked(job.folder / LOCK)


def outcome(job: BackgroundJob) -> JobOutcome:
    """How far the command has come."""
    running = is_running(job)  # before its events are read: what ended it is among them then
    progress, last, notes = None, {}, []
    for event in _events(job):
        kind = event.get("event")
        if kind == "progress":
            progress = event
        elif kind in ("note", "warning"):
            notes.append(str(event.get("text", "")))
        else:
            last = event
    state: State = "running"
    error = ""
    if not running:
        if last.get("event") == "result":
            state = "done"
        elif last.get("code") == "interrupted" or stop_asked(job):
            state = "stopped"
        else:
            state, error = "failed", str(last.get("text") or last_words(job))
    result = last if last.get("event") == "result" else None
    fits = (last.get("reasons", {}), last.get("settings", {}))
    return JobOutcome(state, progress, result, tuple(notes), error, str(last.get("code", "")), *fits)


def _events(job: BackgroundJob) -> list[dict[str, Any]]:
    """The events so far, of those of progress only the last one."""
    try:
        lines = (job.folder / EVENTS).read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    latest = max((i for i, line in enumerate(lines) if line.startswith(b'{"event": "progress"')), default=-1)
    found = []
    for i, line in enumerate(lines):
        if i != latest and line.startswith(b'{"event": "progress"'):
            continue
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            found.append(event)
    return found


def last_words(job: BackgroundJob) -> str:
    """The end of what a command wrote on standard error, for one that ended without saying why."""
    try:
        text = (job.folder / MESSAGES).read_bytes()[-TAIL:].decode("utf-8", "replace")
    except OSError:
        text = ""
    lines = [line for line in text.split("\n") if line.strip()]
    said = f" Its last words: {visible(lines[-1].strip())}" if lines else ""
    return f"The process ended without saying why: it was killed, or the machine was switched off.{said}"


def stop(job: BackgroundJob) -> None:
    """Ask a command to end, as Ctrl-C does: training saves. Asked again, it ends at once. Does nothing to one that has
    ended."""
    again = stop_asked(job)
    if is_running(job):  # its process cannot have ended and given its number to another one
        replace_file(job.folder / STOP, b"")
        with suppress(ProcessLookupError):  # it has ended since
            os.kill(job.process, signal.SIGTERM if again else signal.SIGINT)


def stop_asked(job: BackgroundJob) -> bool:
    """Whether a command was asked to end."""
    return (job.folder / STOP).exists()


def forget(job: BackgroundJob) -> None:
    """Remove what is known of a command that has ended. Raises UserError if it runs."""
    if is_running(job):
        raise UserError(f"{job.title} is running. Stop it first.", "job_is_running")
    shutil.rmtree(job.folder, ignore_errors=True)
