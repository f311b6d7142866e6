"""Prints constraints for pip that hold every dependency of afresh at the lowest version that pyproject.toml allows:
`python -m tools.lowest torch` leaves torch free, for a machine that has one build of it."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Collection
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(free: Collection[str] = ()) -> list[str]:
    """NAME==VERSION for each requirement NAME>=VERSION of the package and of its extras for users."""
    project = tomllib.loads(PROJECT.read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    of_users = [name for name in extras if name not in ("dev", "docs", "bench")]
    wanted = [*project["dependencies"], *(r for name in of_users for r in extras[name])]
    found = (re.fullmatch(r"([\w.-]+)(?:\[.*\])?>=([\w.]+)(?:;.*)?", r) for r in wanted)
    return sorted({f"{m[1]}=={m[2]}" for m in found if m is not None and m[1] not in free})


if __name__ == "__main__":
    print("\n".join(lowest(sys.argv[1:])))
