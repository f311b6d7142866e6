"""Names of runs, without anything heavy: a mistyped name is answered at once."""

from __future__ import annotations

from difflib import SequenceMatcher
from pathlib import Path

from afresh.runs.lock import half_made, holder_of


def near_runs(folder: Path) -> list[str]:
    """The runs beside a folder and in that of the preferences, those with the most similar names first."""
    from afresh.data.preferences import preferences

    found = {str(p.parent) for root in (folder.parent, preferences().runs) for p in root.glob("*/run.json")}
    return sorted(found, key=lambda p: (-SequenceMatcher(None, Path(p).name, folder.name).ratio(), p))


def no_run(folder: Path) -> str:
    """The message of the error that a folder is not a run."""
    if half_made(folder):
        process, _, _, since = holder_of(folder) or ("?",) * 4
        return (
            f"{folder} is not a run yet: process {process} began to make it {since}, and has not finished. If it was "
            f"killed, give its command again, or remove what it left: afresh rm {folder}."
        )
    near = near_runs(folder)
    why = "it has no run.json" if folder.exists() else "there is no such folder"
    hint = f"Runs: {', '.join(near[:8])}." if near else "Make one: `afresh.train(PATH)`."
    return f"{folder} is not a run: {why}. {hint}"
