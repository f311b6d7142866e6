"""The programs that proved each format, for the table in docs/reference/formats.md.

python -m tests.formats.proved      # writes the versions that are installed; run the tests first
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

JSON = Path(__file__).with_suffix(".json")


def rows() -> list[dict[str, Any]]:
    """One row a proof: format, of, direction (out, in, or both), program, version, what was equal, test."""
    return list(json.loads(JSON.read_text(encoding="utf-8")))


def renewed() -> list[dict[str, Any]]:
    """The rows with the installed versions; of a program that is not installed, the version stays."""
    out = rows()
    for row in out:
        try:
            row["version"] = version(row["program"])
        except PackageNotFoundError:
            continue
    return out


if __name__ == "__main__":
    JSON.write_text(json.dumps(renewed(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
