"""The packages of the extra `science`, which are imported when a file needs them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from afresh.core import UserError

INSTALL = "pip install 'afresh[science]'"


def library(name: str, path: Path) -> Any:
    """The module that a file is read with. Raises UserError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(
            f"{path.name} is read with {name}, which is not installed or does not work ({error}). Install the extra "
            f"science: {INSTALL}.",
            "extra_missing",
            extra="science",
        ) from None
