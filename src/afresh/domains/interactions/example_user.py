"""A user of a log, for a command that can be tried: found in its first rows, so that nothing of it need be kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.core.safe_text import shell_word
from afresh.data.files import FileError
from afresh.domains.interactions.columns import choose
from afresh.domains.interactions.log import log_files
from afresh.domains.interactions.tables import Unusable, batches

LOOKED_AT = 5_000  # rows


def recommend_command(run: str, data: Path | None, options: Mapping[str, Any]) -> str:
    """How a run on a log is used: for somebody in it, or for all if the log is not there."""

    def column(batch: Any) -> str | None:
        named = {role: options.get(role) for role in ("user", "item", "time", "rating", "event", "session")}
        columns = choose(batch.schema.names, named)
        by_session = options.get("by") == "session" and columns.session is not None
        return None if columns.item is None else columns.session if by_session else columns.user

    user = somebody(data, column, options.get("query"))
    if not user:
        return f"afresh recommend {run} --all --out lists.parquet"
    return f"afresh recommend {run} --user {shell_word(user)}"


def somebody(data: Path | None, column: Callable[[Any], str | None], query: str | None) -> str | None:
    """Who occurs most in the first rows of the first table whose batches have such a column; None if none does, or if
    the data is not to be read."""
    if data is None:
        return None
    try:
        for file in log_files(data)[0]:
            first = next(batches(file, Unusable(), query), None)
            name = None if first is None else column(first)
            if first is not None and name is not None:
                values = [str(v).strip() for v in first.column(name).slice(0, LOOKED_AT).to_pylist() if v is not None]
                names = Counter(v.removesuffix(".0") if v.removesuffix(".0").isdigit() else v for v in values if v)
                return names.most_common(1)[0][0] if names else None
    except (UserError, FileError, OSError, EOFError, LookupError):
        pass
    return None
