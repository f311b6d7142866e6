"""`afresh help`: what `--help` shows."""

from __future__ import annotations

from typing import Annotated

import typer


def help(
    context: typer.Context,
    verb: Annotated[str | None, typer.Argument(help="A command; all of them if not given.", metavar="VERB")] = None,
) -> None:
    """Show the help of a command: afresh help train is afresh train --help."""
    group = context.find_root()
    group.command.main(
        args=[*([] if verb is None else [verb]), "--help"],
        prog_name=group.info_name,
        standalone_mode=False,
    )
