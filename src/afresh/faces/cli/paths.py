"""Paths on the command line, checked before anything heavy is imported: a mistyped name is answered at once."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import typer

from afresh.data.storage.object_store import address_of, is_address
from afresh.faces.cli.wording import as_typed
from afresh.runs.names import no_run
from afresh.runs.person_adapters import FOLDER, NAME, SEPARATOR

# click's plain usage error, whose message has no prefix; newer versions of typer hold a copy of their own.
Refusal: type[Exception] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")


def is_missing(path: Path) -> bool:
    """Whether nothing has this name. Of a broken symbolic link, the task itself says what is wrong."""
    return not path.exists() and not path.is_symlink()


def existing(path: Path | None) -> Path | None:
    """The path or address of data itself. Raises a usage error, with a similar name if there is one, if no file has
    that path."""
    if path is None or is_address(path) or not is_missing(path):
        return path
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    near = get_close_matches(path.name, siblings, n=1)
    hint = f" Did you mean {path.with_name(near[0])}?" if near else ""
    raise Refusal(f"No file or folder {path}.{hint} Give the path of your data.")


def run_path(path: Path | None) -> Path | None:
    """The folder that RUN names: a run, or else the run of that name where runs are, so that `notes` is runs/notes. An
    adapter of a person is RUN:NAME."""
    if path is None or (path / "run.json").is_file():
        return path
    if is_address(path):
        from afresh.runs.run_store import opened

        return opened(path)
    return run_here(path) or path


def run_here(path: Path) -> Path | None:
    """The folder on this machine that RUN names; None if there is none."""
    return next((place for place in places(path) if (place / "run.json").is_file()), None)


def places(path: Path) -> list[Path]:
    """The folders that RUN may name, the first that is a run."""
    from afresh.data.preferences import preferences

    within = preferences().runs / path
    return [path, within, *adapters_named(path), *adapters_named(within)]


def adapters_named(path: Path) -> list[Path]:
    """The folder of the adapter RUN:NAME; none if the path does not end in the name of one."""
    run, separator, name = path.name.rpartition(SEPARATOR)
    return [path.with_name(run) / FOLDER / name] if run and separator and NAME.fullmatch(name) else []


def existing_run(path: Path | None) -> Path | None:
    """The folder that RUN names. Raises a usage error that lists similar names if nothing has that name."""
    found = run_path(path)
    if found is not None and is_missing(found):
        raise Refusal(as_typed(no_run(found), ()))
    return found


def run_paths(paths: list[Path] | None) -> list[Path] | None:
    """The folders of runs that are to be removed. Raises a usage error for one that lives in a store."""
    for path in paths or []:
        if is_address(path):
            raise Refusal(f"{address_of(path)} lives in a store: remove it there, with the tools of the store.")
    return None if paths is None else [run_path(p) or p for p in paths]


def base_path(base: str | None) -> str | None:
    """BASE as `run_path` names it, unless it is a file or a folder of weights."""
    if base is None or Path(base).is_file() or (Path(base) / "config.json").is_file():
        return base
    return str(run_path(Path(base)) or base)
