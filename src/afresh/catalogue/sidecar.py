"""The signature beside a file of a catalogue: its index, or a receipt."""

from __future__ import annotations

from datetime import datetime
from typing import Literal


def sidecar_of(
    content: bytes, name: str, catalogue: str, medium: Literal["catalogue", "receipt"], made: datetime
) -> bytes:
    """The content of the sidecar of a file of JSON, which this user signs. Raises UserError if it cannot be signed."""
    from afresh.provenance.sign_work import signed_work
    from afresh.provenance.work import work

    facts = work(run="", model=catalogue, family="", medium=medium, made=made, recipe={})
    sidecar = signed_work(content, name, facts).sidecar
    assert sidecar is not None  # JSON carries no manifest
    return sidecar
