"""The style of all reports."""

from __future__ import annotations

from importlib.resources import files
from typing import Any


def stylesheet() -> Any:
    """The style of all reports, for a page's <style>."""
    from markupsafe import Markup

    return Markup((files("afresh.evaluation") / "templates" / "report.css").read_text("utf-8"))
