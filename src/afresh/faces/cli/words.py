"""What is typed at a command line, as the values that verbs take. Each function takes the run, what was typed, and
the option."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from afresh.core import UserError
from afresh.core.options import pairs
from afresh.faces.cli.paths import base_path, existing, existing_run, run_path
from afresh.faces.cli.show import say

if TYPE_CHECKING:
    from afresh.runs.run import Run


def labels(run: Run, given: Sequence[str], flag: str) -> str | Mapping[str, str] | None:
    """One label as it is; several must each be NAME=CLASS, or a class that one label alone of the run knows."""
    from afresh.engine.sampling.request import several_labels

    if len(given) < 2:
        return given[0] if given else None
    return several_labels(run.conds, given)


def numbers(run: Run, given: Sequence[str], flag: str) -> dict[str, float] | None:
    """Numbers by name. Raises UserError for an invalid number."""
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


def guidances(run: Run, given: Sequence[str], flag: str) -> float | dict[str, float] | None:
    """One number for all, or by part: {"caption": 3, "": 2}, "" for the others. Raises UserError for no number."""
    out: dict[str, float] = {}
    for text in given:
        name, _, value = text.rpartition("=")
        if name in out:
            raise UserError(f"{flag} {name or value} is given twice. Give it once.")
        try:
            out[name] = float(value)
        except ValueError:
            raise UserError(f"{flag} takes a number, or PART=NUMBER as in caption=3. Given: {text!r}.") from None
    return out[""] if list(out) == [""] else out or None


def prompt(run: Run, given: str, flag: str) -> str:
    """The prompt; `-` stands for standard input, of which one line end at its end is left out.

    Raises UserError if standard input is not UTF-8.
    """
    if given != "-":
        return given
    if sys.stdin.isatty():
        say("Type the prompt, then Ctrl-D on a line of its own.")
    try:
        return sys.stdin.read().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as e:
        raise UserError(f"The prompt on standard input is not UTF-8 text: {e.reason}. Convert it first.") from None


def images(run: Run, given: Sequence[str], flag: str) -> str | Mapping[str, str]:
    """One file as it is, and several by name."""
    return given[0] if len(given) == 1 else pairs(given, flag)


def file_text(run: Run, given: Path, flag: str) -> str:
    """The text of a file."""
    from afresh.engine.sampling.constrained import text_of

    return text_of(given, flag)


def adapters(run: Run, given: Sequence[str], flag: str) -> dict[str, float]:
    """The weights of adapters by their paths."""
    from afresh.runs.adapters import parse_adapters

    return {str(run_path(Path(path))): scale for path, scale in parse_adapters(list(given)).items()}


def opened(first: Run, given: Path, flag: str) -> Run:
    """Another run. Raises a usage error for a name that nothing has."""
    from afresh.runs.run import Run

    return Run.open(existing_run(given) or given)


def outpaint(run: Run, given: str, flag: str) -> Mapping[str, int]:
    """Pixels by side."""
    from afresh.verbs.outpaint import sides

    return sides(given)


def colours(run: Run, given: str, flag: str) -> tuple[str, ...]:
    """Colours with commas between them."""
    return tuple(c.strip() for c in given.split(","))


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
