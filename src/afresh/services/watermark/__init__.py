"""The imperceptible marks of generated tokens and images: how they are put there, and the exact tests for them."""

from __future__ import annotations

from afresh.core import UserError

LEAST_KEY, LONGEST_KEY = 16, 64  # bytes


def check_key(key: bytes, of: str) -> None:
    """Raises UserError for a key that is too short or too long."""
    if not LEAST_KEY <= len(key) <= LONGEST_KEY:
        raise UserError(
            f"The key of {of} has {LEAST_KEY} to {LONGEST_KEY} bytes. Given: {len(key)}. "
            "Make one with secrets.token_bytes(32)."
        )
