"""`afresh doctor`: what this machine can do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from afresh.cli.show import answer, emit, table


def doctor(
    folder: Annotated[Path, typer.Argument(help="Where runs would be written.")] = Path("runs"),
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; the best one if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="{machine, findings} on standard output.")] = False,
) -> None:
    """Check this machine: measure it for a moment, and say what follows for training."""
    from afresh.tasks.doctor import examine_machine

    machine, findings = examine_machine(folder, device)
    if as_json:
        emit({"machine": machine.record(), "findings": [asdict(f) for f in findings]})
        return
    rows = [["" if f.fine else "!", f.name, f.value, f.follows] for f in findings]
    answer(table(["", "", "here", "so"], rows, wrap=(2, 3)))
