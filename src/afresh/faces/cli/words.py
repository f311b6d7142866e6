"""What is typed at a command line, as the values that verbs take. Each function takes the run, what was typed, and
the option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afresh.core import UserError
from afresh.core.options import pairs
from afresh.faces.cli.paths import base_path, existing, existing_run

if TYPE_CHECKING:
    from afresh.runs.run import Run


def labels(run: Run, given: Sequence[str], flag: str) -> str | Mapping[str, str] | None:
    """One label as it is; several must each be NAME=CLASS, or a class that one label alone of the run knows."""
    from afresh.engine.sampling.request import several_labels

    if len(given) < 2:
        return given[0] if given else None
    return several_labels(run.conds, given)


def numbers(run: Run, given: Sequence[str], flag: str) -> dict[str, float] | None:
    """Numbers by name. Raises UserError for what is no number."""
    out = {}
    for name, value in pairs(given, flag).items():
        try:
            out[name] = float(value)
        except (TypeError, ValueError):
            raise UserError(f"{flag} {name}={value}: {value!r} is not a number.") from None
    return out or None


def texts(run: Run, given: Sequence[str], flag: str) -> dict[str, str]:
    """NAME=VALUE by name; a list is its values separated by `|`, any of which fits."""
    return {k: "|".join(map(str, v)) if isinstance(v, list) else v for k, v in pairs(given, flag).items()}


def settings(run: Run, given: Sequence[str], flag: str) -> dict[str, Any]:
    """Settings by name."""
    return pairs(given, flag)


def data(run: None, given: Path, flag: str) -> Path | None:
    return existing(given)


def run(_: None, given: Path, flag: str) -> Path | None:
    return existing_run(given)


def base(run: None, given: str, flag: str) -> str | None:
    return base_path(given)


def logs(run: None, given: Sequence[str], flag: str) -> Sequence[str]:
    """Raises UserError before anything is spent if a log cannot be used."""
    from afresh.engine.training.logs.run_log import check_logs

    check_logs(given)
    return given


def lines(run: None, path: Path, flag: str) -> list[str]:
    """The lines of a file that are not empty. Raises UserError where it cannot be read, or has none."""
    try:
        found = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise UserError(f"Cannot read the prompts in {path}: {e}. Give a text file with one prompt a line.") from e
    if not found:
        raise UserError(f"{path} has no prompt: give one a line.")
    return found
