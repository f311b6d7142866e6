"""`afresh runs`: what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from afresh.core.plural import digits, size
from afresh.faces.cli import options as o
from afresh.faces.cli.show import answer, emit, note, say, table


def runs(
    root: Annotated[Path | None, typer.Argument(help="Folder that holds runs; runs/ by default.")] = None,
    as_json: Annotated[bool, o.json_of("{runs}")] = False,
) -> None:
    """List the runs in a folder, and the adapters of persons of each: what each is, how far it came, its held-out loss,
    its size on the disk."""
    from afresh.core import UserError
    from afresh.data.preferences import preferences
    from afresh.runs.person_adapters import adapters_in, runs_in

    root = root or preferences().runs
    if not root.is_dir():
        raise UserError(f"There is no folder {root}. Give one that holds runs; afresh train makes runs/.")
    folders = [root, *adapters_in(root).values()] if (root / "run.json").is_file() else runs_in(root)
    found = []
    for folder in folders:
        try:
            found.append(facts(folder))
        except UserError as e:  # one bad folder does not hide the others
            note(str(e))
    if as_json:
        emit({"runs": found})
    elif found:
        columns = ["run", "modality", "family", "parameters", "steps", "state", "held-out loss", "disk"]
        answer(table(columns, [row(f) for f in found], right=(3, 4, 6, 7), wrap=(0,)))
    else:
        say(f"No run in {root}. Make one: afresh train PATH")


def facts(folder: Path) -> dict[str, Any]:
    """What a run's folder says. Raises UserError when its run.json is not understood."""
    from afresh.data.storage.files import bytes_on_disk
    from afresh.runs.about import AboutRun
    from afresh.runs.run import Run

    about = AboutRun(Run.open(folder))
    return {
        "run": str(about.run.path),
        **about.state,
        "state": "done" if about.done else "stopped" if about.steps else "not begun",
        "heldout_loss": next(reversed(about.heldout), None),
        "bytes": bytes_on_disk(folder),
        "data": about.record.data.path,
    }


def row(f: dict[str, Any]) -> list[str]:
    steps = f"{f['steps']:,}" if f["state"] == "done" else f"{f['steps']:,} of {f['planned']:,}"
    words = [f["run"], f["modality"], f["family"], f"{f['parameters']:,}", steps, f["state"]]
    return [*words, digits(f["heldout_loss"]), size(f["bytes"])]
