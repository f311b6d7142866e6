"""The templates of job files, in which every value is quoted for the language of the file."""

from __future__ import annotations

import json
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afresh.verbs.launch.job import LaunchJob

if TYPE_CHECKING:
    from jinja2 import Environment

GO_ON = "afresh.faces.cli.go_on"  # runs the command, or goes on with its run, when a job starts again


@cache
def environment() -> Environment:
    """`word`: a word of a shell. `scalar`: a text of YAML, which includes JSON. A misspelt name is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["word"] = shlex.quote
    made.filters["scalar"] = scalar
    return made


def scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # \ud83d\ude00 would be two characters in YAML


def render(template: str, job: LaunchJob, **values: Any) -> str:
    """A template with the job and what its engine adds."""
    return environment().get_template(template).render(job=job, command=job.command, **values)


def meeting(job: LaunchJob) -> list[str]:
    """The options of torchrun, but for the address at which the processes meet."""
    return [
        f"--nnodes={job.nodes}",
        f"--nproc-per-node={job.processes}",
        f"--max-restarts={job.restarts}",
        "--rdzv-backend=c10d",
        f"--rdzv-id={job.name}",
    ]


def program(job: LaunchJob) -> list[str]:
    """What every process runs, behind the options of torchrun."""
    return ["-m", GO_ON, *job.command.words]
