"""The programs that proved each format, for the table in docs/reference/formats.md.

python -m tools.proved      # runs the tests, and writes the versions with which they passed
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

JSON = Path(__file__).with_suffix(".json")


def rows() -> list[dict[str, Any]]:
    """One row a proof: format, of, direction (out, in, or both), program, version, what was equal, test."""
    return list(json.loads(JSON.read_text(encoding="utf-8")))


class Outcomes:
    """Notes the tests that ran to their end and passed, of every parameter. One that was skipped has proved nothing."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.others: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.partition("[")[0]
        if not report.passed:
            self.others.add(name)
        elif report.when == "call":
            self.passed.add(name)


def passing(tests: Sequence[str], *arguments: str) -> set[str]:
    """Those of the tests, "FILE::NAME", that pass here; neither skipped, nor failed, nor missing."""
    outcomes = Outcomes()
    pytest.main([*dict.fromkeys(tests), *arguments], plugins=[outcomes])
    return outcomes.passed - outcomes.others


def renewed(passed: Collection[str]) -> list[dict[str, Any]]:
    """The rows with the installed versions, where the test has passed with them; elsewhere the version stays."""
    out = rows()
    for row in out:
        if row["test"] in passed:
            row["version"] = version(row["program"])
    return out


if __name__ == "__main__":
    found = passing([row["test"] for row in rows()])
    JSON.write_text(json.dumps(renewed(found), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
