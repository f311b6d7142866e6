"""The patterns of paths that robots.txt and TDMRep use."""

from __future__ import annotations


def matches(pattern: str, path: str) -> bool:
    """Whether a path begins as the pattern says: `*` is any characters, and `$` the end (RFC 9309, 2.2.3).

    In time that is linear in the path for each `*`, whatever the pattern.
    """
    whole = pattern.endswith("$")
    first, *rest = (pattern[:-1] if whole else pattern).split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    if not rest:
        return not whole or at == len(path)
    for piece in rest[:-1] if whole else rest:
        at = path.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return not whole or (len(path) - at >= len(rest[-1]) and path.endswith(rest[-1]))
