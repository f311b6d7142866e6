"""The extras that are named are those of the package."""

from __future__ import annotations

import tomllib
from pathlib import Path

from afresh.faces.cli.extras import EXTRAS

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def test_every_extra_for_users_is_described() -> None:
    extras = tomllib.loads(PROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    assert set(extras) - {"dev", "docs", "bench"} == {e.name for e in EXTRAS}
    assert all(e.modules and e.opens for e in EXTRAS)
