"""A user of a log, for a command that can be tried."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afresh.core.safe_text import shell_word
from afresh.data.tables.batches import most_frequent_value
from afresh.data.tables.delimited import Unusable
from afresh.domains.interactions.columns import choose
from afresh.domains.interactions.event_tables import events_of


def recommend_command(run: str, data: Path | None, options: Mapping[str, Any]) -> str:
    """How a run on a log is used: for a user in it, or for all if the log is not there."""

    def column(batch: Any) -> str | None:
        named = {role: options.get(role) for role in ("user", "item", "time", "rating", "event", "session")}
        columns = choose(batch.schema.names, named)
        by_session = options.get("by") == "session" and columns.session is not None
        return None if columns.item is None else columns.session if by_session else columns.user

    user = most_frequent_value(data, column, lambda file: events_of(file, Unusable(), options.get("query")))
    if not user:
        return f"afresh recommend {run} --all --out lists.parquet"
    return f"afresh recommend {run} --user {shell_word(user)}"
