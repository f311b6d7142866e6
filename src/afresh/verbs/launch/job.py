"""What is launched: a command that trains, and the machines that it gets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from afresh.core import UserError
from afresh.core.plural import counted

NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")  # a label of DNS (RFC 1035), with room for what engines append
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
GPUS = re.compile(r"(?:([A-Za-z][\w.-]*):)?(\d{1,3})")
PASSWORD = re.compile(r"://[^/@\s]*:[^/@\s]*@")
CPUS = 8  # of a node for each of its GPUs
GRACE = 120  # seconds from SIGTERM until a process is killed
SAVING = 90  # of them, those that torchrun leaves to its processes
PORT = 29400  # on which the processes meet, where a node has one job


@dataclass(frozen=True)
class TrainingCommand:
    """A command line of afresh that trains: its `words` from the verb on, the run's folder, the other `paths` that it
    names, and its budget in `minutes`, if it has one. `folder`: where it was typed."""

    words: tuple[str, ...]
    out: Path
    paths: tuple[Path, ...]
    folder: Path
    minutes: float | None = None

    def __post_init__(self) -> None:
        for text in (*self.words, *map(str, (self.out, *self.paths, self.folder))):
            if not text.isprintable():
                raise UserError(
                    f"{text!a} has characters that cannot be printed, which a job file cannot hold. Use others.",
                    "not_printable",
                )
        for word in self.words:
            if PASSWORD.search(word) is not None:
                raise UserError(
                    "An address in the command holds a password, which would stand in the job file. Leave it out of "
                    "the address, and give the name of the variable that holds it with `env`.",
                    "secret_in_command",
                )

    def __str__(self) -> str:
        return shlex.join(("afresh", *self.words))


@dataclass(frozen=True)
class LaunchJob:
    """A command and its machines, all alike.

    processes, gpus, cpus, memory (GiB; None: what the engine gives): of one node. gpu_kind: as the engine calls it.
    restarts: how often a job that failed begins again. env: the names of variables that the command gets from where the
    job is submitted. mounts: what is mounted on each node, by the folder where it appears there. Raises UserError for
    what no engine accepts.
    """

    command: TrainingCommand
    name: str
    nodes: int = 1
    gpus: int = 1
    gpu_kind: str | None = None
    processes: int = 1
    cpus: int = CPUS
    memory: int | None = None
    restarts: int = 3
    env: tuple[str, ...] = ()
    mounts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if NAME.fullmatch(self.name) is None:
            raise UserError(
                f"`name={self.name}` names no job: use up to 40 lower-case letters, digits and hyphens, a letter first."
            )
        for name in self.env:
            if VARIABLE.fullmatch(name) is None:
                raise UserError(
                    f"`env={name.partition('=')[0]}` must be the name of a variable alone, as WANDB_API_KEY: its value "
                    "is taken from where the job is submitted and never written to the file."
                )
        for place in self.mounts:
            if not PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts or place == "/":
                raise UserError(f"`mount={place}`: a place begins with / and is not / itself, as /data=SOURCE.")
        if self.gpus and self.processes > self.gpus:
            raise UserError(
                f"{counted(self.processes, 'process', 'processes')} cannot share {counted(self.gpus, 'GPU')}: give "
                "`processes` at most as many as `gpus`."
            )

    @property
    def threads(self) -> int:
        """The processors of each process."""
        return max(1, self.cpus // self.processes)

    @property
    def variables(self) -> dict[str, str]:
        """The variables of every process."""
        return {
            "OMP_NUM_THREADS": str(self.threads),
            "PET_SHUTDOWN_TIMEOUT": str(SAVING),  # torchrun leaves its processes 30 seconds to save by default
            "PYTHONUNBUFFERED": "1",
        }


@dataclass(frozen=True)
class JobFile:
    """A job as its engine reads it. program: what submits it, to which the file's path is appended, or, with
    `as_input`, the file is given as standard input. notes: what the job needs and the file cannot hold."""

    text: str
    suffix: str
    program: tuple[str, ...]
    as_input: bool = False
    notes: tuple[str, ...] = ()


def gpus_of(text: str) -> tuple[str | None, int]:
    """The kind and number of GPUs: "8", "h100:8". Raises UserError for other words."""
    found = GPUS.fullmatch(text)
    if found is None:
        raise UserError(f"`gpus={text}` is not a number of GPUs. Give a number, or a kind and a number: 8, h100:8.")
    return found[1], int(found[2])


def mounts_of(texts: Sequence[str]) -> dict[str, str]:
    """Sources by the folder where they are mounted, of texts as /runs=SOURCE. Raises UserError for other texts."""
    found: dict[str, str] = {}
    for text in texts:
        place, separator, source = text.partition("=")
        if not (separator and source and source.isprintable() and place.isprintable()):
            raise UserError(f"`mount={text}`: give the folder on the node, and what is mounted there: /runs=SOURCE.")
        place = place.rstrip("/") or "/"
        if place in found:
            raise UserError(f"`mount={place}` is given twice. Mount one source at each place.")
        found[place] = source
    return found


def default_name(out: Path) -> str:
    """The name of the job that makes a run: that of the run's folder, as far as engines accept it."""
    name = re.sub(r"[^a-z0-9]+", "-", out.name.lower()).strip("-")
    return (name if name[:1].isalpha() else f"run-{name}")[:40].strip("-")
