"""Asks a person at a terminal before something from another user runs or reads what it names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import typer

from afresh.core import UserError
from afresh.faces.cli.show import fail
from afresh.faces.cli.wording import as_typed

T = TypeVar("T")


def with_consent(work: Callable[[bool], T], trust: bool, as_json: bool) -> T:
    """The result of work that takes whether something is trusted. Where it is not, a person at a terminal is asked.

    Raises what the work raises, and typer.Exit if the person does not agree.
    """
    try:
        return work(trust)
    except UserError as error:
        if error.code != "not_trusted" or as_json or not sys.stdin.isatty():
            raise
        fail(as_typed(str(error), {"--trust"}))
        if not typer.confirm("Do it?", err=True):
            raise typer.Exit(2) from None
        return work(True)
