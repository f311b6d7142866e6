"""`afresh verify`: is a run sound?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from afresh.cli import options as o
from afresh.cli.show import answer, emit, one_line


def verify(
    run: o.Run,
    trust: Annotated[
        bool,
        typer.Option("--trust", help="Trust a run of somebody else: run and read what it names, now and later."),
    ] = False,
    as_json: Annotated[bool, o.json_of("{run, passed, checks}")] = False,
) -> None:
    """Check a run: hashes, weights, data, resuming, the cache, and that a seed gives the same sample.

    Exit code 0 when nothing is wrong, 1 when a check failed. What cannot be looked at (data that is gone) is said
    and does not fail.
    """
    from rich.text import Text

    from afresh.runs.run import Run
    from afresh.verbs.trust_prompt import check_trust
    from afresh.verbs.verify import verify as all_checks

    found = Run.open(run)
    if trust:
        check_trust(found, trust)
    checks = all_checks(found)
    broken = [c.name for c in checks if c.passed is False]
    if as_json:
        emit({"run": str(run), "passed": not broken, "checks": [asdict(c) for c in checks]})
    else:
        for c in checks:
            word, style = {True: ("pass", "green"), False: ("FAIL", "bold red"), None: ("-", "dim")}[c.passed]
            answer(
                Text(f"{word:5}", style=style)
                + Text(f"{c.name:9}{one_line(c.detail)}", style="" if c.passed else style)
            )
        answer(f"{run}: {'failed: ' + ', '.join(broken) if broken else 'sound'}")
    if broken:
        raise typer.Exit(1)
