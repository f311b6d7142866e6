"""A learner of a log, for a command that can be tried."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afresh.core.safe_text import shell_word
from afresh.data.tables.batches import batches, most_frequent_value
from afresh.data.tables.delimited import Unusable
from afresh.domains.exercises.columns import FIELDS, ROWS, find


def practise_command(run: str, data: Path | None, options: Mapping[str, Any]) -> str:
    """How a run on answers is used: for a learner of its log, or for a new learner if the log is not there."""
    by_hand = {what: options[what] for what in FIELDS if options.get(what)}

    def column(batch: Any) -> str | None:
        found = find(batch.slice(0, ROWS).to_pylist(), batch.schema.names, by_hand)
        return None if isinstance(found, str) else found.of["learner"]

    learner = most_frequent_value(data, column, lambda file: batches(file, Unusable(), options.get("query")))
    return f"afresh practise {run} --learner {shell_word(learner)}" if learner else f"afresh practise {run}"
