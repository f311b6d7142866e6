"""afresh: a person's own data into a generative model, on that person's own machine.

    model = afresh.train("photos/", minutes=10)
    model.sample(16, label="cat", guidance=2.0).save("cats.png")

Importing this package loads nothing heavy: what it offers is imported from `afresh.api` when first used.
"""

# ruff: noqa: F403, F405

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Read when torch is first loaded. Threads that spin long while they wait slow each other down beside other work: two
# small trainings at once took 944 ms a step each, with short spinning 90, alone 20 and 22 (docs/development/log.md).
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

if TYPE_CHECKING:
    from afresh.api import *

__all__ = [
    "Event",
    "JsonLines",
    "Look",
    "Model",
    "Run",
    "Samples",
    "Scores",
    "Session",
    "UserError",
    "__version__",
    "collect_data",
    "doctor",
    "forget",
    "get",
    "inspect_data",
    "label",
    "list_models",
    "listening",
    "load",
    "make_data",
    "remove_data",
    "resume",
    "train",
    "tune",
    "verb",
    "verify_works",
]


if not TYPE_CHECKING:  # a type checker then finds a misspelt name

    def __getattr__(name: str) -> Any:
        if name in __all__:
            from afresh import api

            return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
