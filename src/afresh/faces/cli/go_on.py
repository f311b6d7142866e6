"""`python -m afresh.faces.cli.go_on train PATH --out RUN`: the command, or what continues its run if it exists.

Job files run this (`afresh launch`), since a job that starts again is given the same words. All processes of a training
find the same answer: they meet before one of them creates the run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from afresh.core import UserError
from afresh.faces.cli import UsageError, main
from afresh.faces.cli.training_command import values_of


def continued(words: Sequence[str]) -> list[str]:
    """The command, or, if its run is there, `train --resume RUN` with those options that a run does not remember. A
    wrong command stays as it is, and says itself what is wrong."""
    try:
        values = values_of(words)
    except (UserError, UsageError):
        return list(words)
    out = values["out"]
    if out is None or not (out / "run.json").is_file():
        return list(words)
    options = [word for name in values["log"] or () for word in ("--log", name)]
    options += [] if values["measure"] else ["--no-measure"]
    options += ["--verbose"] if values["verbose"] else []
    options += ["--json"] if values["as_json"] else []
    return ["train", "--resume", str(out), *options]


if __name__ == "__main__":
    sys.argv[1:] = continued(sys.argv[1:])
    main()
