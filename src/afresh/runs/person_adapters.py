"""Adapters of persons: what one person's data taught a base is RUN/adapters/NAME, which is a run without a copy of RUN.

Each is apart from the base and from all others, so that it can be used, replaced and deleted alone. Its name is
RUN:NAME wherever a run is named, as it is in SGLang.
"""

from __future__ import annotations

import re
from pathlib import Path

from afresh.core import UserError

FOLDER, SEPARATOR = "adapters", ":"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def adapter_folder(base: Path, name: str) -> Path:
    """Where the adapter of a person is. Raises UserError if the name cannot be that of one."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"The adapter of a person is named with letters, digits, '.', '_' and '-', at most 64 of them. Given: "
            f"{name!r}.",
            "adapter_name",
        )
    return base / FOLDER / name


def adapters_in(base: Path) -> dict[str, Path]:
    """The adapters of persons of a run, by name."""
    found = {file.parent.name: file.parent for file in sorted((base / FOLDER).glob("*/run.json"))}
    return {name: path for name, path in found.items() if NAME.fullmatch(name)}


def base_of(folder: Path) -> Path | None:
    """The run whose adapter a folder is; None for any other folder."""
    inside, base = folder.parent, folder.parent.parent
    return base if inside.name == FOLDER and (base / "run.json").is_file() else None


def runs_in(folder: Path) -> list[Path]:
    """The runs directly in a folder, each followed by its adapters, by name."""
    runs = sorted(file.parent for file in folder.glob("*/run.json"))
    return [path for run in runs for path in (run, *adapters_in(run).values())]


def check_without_adapters(base: Path, doing: str) -> None:
    """Raises UserError if a run has adapters of persons, which would not be usable without it."""
    if names := list(adapters_in(base)):
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        raise UserError(
            f"{base} has the adapters of persons ({listed}), which are of no use without it, so it cannot be {doing}. "
            f"Remove them first: afresh rm {base / FOLDER / names[0]}.",
            "has_adapters",
        )
