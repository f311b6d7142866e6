"""What is typed at a command line, as the values that verbs take. Each function takes the run, what was typed, and
the option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from afresh.core import UserError
from afresh.core.options import pairs
from afresh.engine.sampling.request import several_labels

if TYPE_CHECKING:
    from afresh.runs.run import Run


def labels(run: Run, given: Sequence[str], flag: str) -> str | Mapping[str, str] | None:
    """One label as it is; several must each be NAME=CLASS, or a class that one label alone of the run knows."""
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
