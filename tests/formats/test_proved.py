"""Every proof that the documentation names is a test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.formats.proved import rows

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("row", rows(), ids=lambda r: f"{r['format']}-{r['direction']}-{r['program']}")
def test_the_test_of_a_proof_exists(row: dict[str, str]) -> None:
    file, _, name = row["test"].partition("::")
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
    assert row["direction"] in ("out", "in", "both") and row["what"] and row["program"]
