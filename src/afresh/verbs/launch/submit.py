"""Handing a job file to its engine."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from afresh.core import UserError, events
from afresh.data.storage.files import replace_file
from afresh.verbs.launch.job import JobFile


def write_job(job: JobFile, path: Path, replace: bool = False) -> None:
    """Write the file of a job. Raises UserError if there is another file, unless it is to be replaced, and if the file
    cannot be written."""
    content = job.text.encode()
    try:
        if not replace and path.exists() and path.read_bytes() != content:
            raise UserError(
                f"{path} is there and holds something else. Replace it with `force=True`, or choose another `file`.",
                "file_exists",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}. Choose another `file`.") from None


def submit_job(job: JobFile, path: Path) -> str:
    """Hand a job that is written to `path` to the program of its engine, and return what that said, which is also noted
    line by line.

    Raises UserError if the program is missing or ends with an error.
    """
    words = list(job.program) if job.as_input else [*job.program, str(path)]
    typed = shlex.join(words) + (f" < {shlex.quote(str(path))}" if job.as_input else "")
    if shutil.which(words[0]) is None:
        raise UserError(
            f"The program {words[0]} is not on this machine. The job is in {path}: submit it where {words[0]} is, by "
            f"{typed}",
            "program_missing",
            program=words[0],
            file=str(path),
        )
    with standard_input(job, path) as stdin:
        process = subprocess.Popen(
            words, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
    said = list(lines_of(process))
    if process.returncode:
        raise UserError(
            f"{words[0]} ended with exit code {process.returncode}: {said[-1] if said else 'it said nothing'}. The job "
            f"is in {path}; again: {typed}",
            "not_submitted",
            program=words[0],
            file=str(path),
        )
    return "\n".join(said)


@contextmanager
def standard_input(job: JobFile, path: Path) -> Iterator[IO[bytes] | int]:
    """The file of the job, for programs that read it from there."""
    with ExitStack() as stack:
        yield stack.enter_context(path.open("rb")) if job.as_input else subprocess.DEVNULL


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """What a program says, each line noted when it comes."""
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            events.note(line.rstrip("\n"), "engine")
            yield line.rstrip("\n")
