"""Reports with their charts, which other tests leave out."""

from __future__ import annotations

import pytest

from afresh.engine.evaluation import curves, report


@pytest.fixture(autouse=True)
def charts_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "draw_curves", curves.draw_curves)
