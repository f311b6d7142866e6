"""`afresh doctor`: what this machine can do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afresh.cli.extras import EXTRAS, Extra
from afresh.cli.show import answer, emit, table

if TYPE_CHECKING:
    from afresh.tasks.doctor import Finding


def doctor(
    folder: Annotated[Path, typer.Argument(help="Where runs would be written.")] = Path("runs"),
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; the best one if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="{machine, findings} on standard output.")] = False,
) -> None:
    """Check this machine: measure it for a moment, say what follows for training, and what absent extras would open."""
    from afresh.tasks.doctor import examine_machine

    machine, findings = examine_machine(folder, device)
    findings += map(extra_finding, EXTRAS)
    if as_json:
        emit({"machine": machine.record(), "findings": [asdict(f) for f in findings]})
        return
    rows = [["" if f.fine else "!", f.name, f.value, f.follows] for f in findings]
    answer(table(["", "", "here", "so"], rows, wrap=(2, 3)))


def extra_finding(extra: Extra) -> Finding:
    """What an extra opens, and how it is installed if it is not."""
    from afresh.tasks.doctor import Finding

    name, opens = f"extra {extra.name}", extra.opens.replace("`", "")
    if not extra.missing:
        return Finding(name, "installed", opens)
    value = "not installed" if extra.missing == list(extra.modules) else f"lacks {', '.join(extra.missing)}"
    return Finding(name, value, f"{extra.command} opens {opens}")
