"""Jobs for tests, and programs that stand for those of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afresh.verbs.launch.job import LaunchJob, TrainingCommand

ODD = ("it's", "$HOME", "$(date)", "a b", '"x"', "*", "\\", "😀", "-", "")  # words that a careless file would change


def job(folder: Path, data: str = "data", out: str = "runs/a", words: tuple[str, ...] = (), **fields: Any) -> LaunchJob:
    """A job that trains for an hour; `words` are added to its command."""
    typed = ("train", data, "--minutes", "60", "--out", out, *words)
    command = TrainingCommand(typed, Path(out), (Path(data),), folder, 60.0)
    return LaunchJob(command, **{"name": "a", **fields})


def put_programs(folder: Path, programs: Mapping[str, str]) -> Path:
    """A folder of programs by name, each the body of a script of bash."""
    folder.mkdir(exist_ok=True)
    for name, body in programs.items():
        (folder / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder
