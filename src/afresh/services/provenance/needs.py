"""What manifests of C2PA need: a library that has builds for the usual machines only."""

from __future__ import annotations

from importlib.util import find_spec

from afresh.core import UserError


def can_embed() -> bool:
    """Whether manifests of C2PA can be written and read. Without that, a sidecar is written for every format."""
    return find_spec("c2pa") is not None


def require_c2pa(what: str) -> None:
    """Raises UserError if manifests cannot be written and read."""
    if not can_embed():
        raise UserError(
            f"{what} needs the package c2pa-python, which is not installed: pip install c2pa-python. It has builds for "
            "Linux, macOS and Windows on x86-64 and ARM64.",
            "no_c2pa",
        )
