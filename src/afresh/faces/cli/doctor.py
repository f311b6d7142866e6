"""`afresh doctor`: what this machine can do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from afresh.core.plural import size
from afresh.faces.cli import options as o
from afresh.faces.cli.extras import EXTRAS, Extra
from afresh.faces.cli.show import answer, emit, table

if TYPE_CHECKING:
    from afresh.data.imported import WrittenData
    from afresh.verbs.doctor import Finding


def doctor(
    folder: Annotated[
        Path | None, typer.Argument(help="Where runs would be written; the folder of runs by default.")
    ] = None,
    device: Annotated[str | None, o.option("cpu, cuda, mps; the best one if not given.")] = None,
    processes: Annotated[
        int, o.option("Also start so many processes of this machine and measure how they add up.")
    ] = 1,
    as_json: Annotated[bool, o.json_of("{machine, findings, settings, ranks}")] = False,
) -> None:
    """Check this machine: measure it for a moment, say what follows for training, what absent extras would open, and
    which settings are in force.

    Under torchrun (`torchrun ... -m afresh doctor`), or with `--processes`, list the processes that would train
    together, and measure how fast they add numbers up.
    """
    from afresh.data.imported import written_data
    from afresh.data.preferences import in_force, preferences
    from afresh.engine.training import ranks
    from afresh.verbs.doctor import examine_machine
    from afresh.verbs.rank_check import examine_processes, examine_ranks, rank_findings

    report = None
    if ranks.launched() and processes == 1:
        with ranks.losses_named():
            report = examine_ranks(device)
        if not ranks.leads():
            return
    elif processes != 1:
        report = examine_processes(processes, device)
    machine, findings = examine_machine(folder or preferences().runs, device)
    if report is not None:
        findings += rank_findings(report)
    findings += [*map(data_finding, written_data()), *map(extra_finding, EXTRAS)]
    settings = in_force()
    if as_json:
        written = [asdict(s) for s in settings]
        listed = None if report is None else report.record()
        found = [asdict(f) for f in findings]
        emit({"machine": machine.record(), "findings": found, "settings": written, "ranks": listed})
        return
    rows = [["" if f.fine else "!", f.name, f.value, f.follows] for f in findings]
    answer(table(["", "", "here", "so"], rows, wrap=(2, 3)))
    answer(table(["setting", "value", "from"], [[s.name, shown(s.value), s.source] for s in settings], wrap=(1, 2)))


def shown(value: Any) -> str:
    """A setting as it is written in the configuration file; a dash if nothing is set."""
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def data_finding(data: WrittenData) -> Finding:
    """Data that was given in memory and kept as files, and how to remove it."""
    from afresh.verbs.doctor import Finding

    return Finding(
        "kept data", f"{size(data.bytes)} in {data.path}", f"if no run needs it: afresh rm --data {data.name}"
    )


def extra_finding(extra: Extra) -> Finding:
    """What an extra opens, and how it is installed if it is not."""
    from afresh.verbs.doctor import Finding

    name, opens = f"extra {extra.name}", extra.opens.replace("`", "")
    if not extra.missing:
        return Finding(name, "installed", opens)
    value = "not installed" if extra.missing == list(extra.modules) else f"lacks {', '.join(extra.missing)}"
    return Finding(name, value, f"{extra.command} opens {opens}")
