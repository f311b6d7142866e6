"""What the shell offers when a person presses the tab key. It must answer at once: nothing heavy is imported, and the
names of families and settings are read from completion.json, which `make docs` writes.

Where these functions find nothing, the shell offers files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import typer

from afresh.faces.cli.paths import run_path

MOST_BYTES = 1 << 20  # of a file of a run that is read for a completion


@cache
def names() -> dict[str, Any]:
    """Families and modalities, and their settings by name."""
    return dict(json.loads(Path(__file__).with_name("completion.json").read_text("utf-8")))


def beginning(incomplete: str, words: Iterable[str]) -> list[str]:
    return [w for w in dict.fromkeys(words) if w.startswith(incomplete)]


def runs(incomplete: str) -> list[str]:
    """The names of runs in the folder of runs."""
    from afresh.data.preferences import preferences

    try:
        folder = preferences().runs
    except Exception:  # the preferences are not valid, which the command itself will say
        return []
    return beginning(incomplete, sorted(p.parent.name for p in folder.glob("*/run.json")))


def families(incomplete: str) -> list[str]:
    return beginning(incomplete, names()["families"])


def modalities(incomplete: str) -> list[str]:
    return beginning(incomplete, names()["modalities"])


def logs(incomplete: str) -> list[str]:
    return beginning(incomplete, names()["logs"])


def classes(ctx: typer.Context, incomplete: str) -> list[str]:
    """The classes that the run knows."""
    conds = of_run(ctx, "encoder/encoder.json").get("conds")
    parts = conds.values() if isinstance(conds, dict) else ()
    return beginning(incomplete, (str(c) for part in parts if isinstance(part, dict) for c in part.get("classes", ())))


def settings(ctx: typer.Context, incomplete: str, known: Mapping[str, Iterable[str]] | None = None) -> list[str]:
    """NAME= of the settings that the command declares itself, and PREFIX.NAME= of those that are known by prefix."""
    every = {"": getattr(ctx.command, "settings", ()), **(known or {})}
    return beginning(incomplete, (f"{prefix}{name}=" for prefix, names in every.items() for name in names))


def train_settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """train.NAME=, and family.NAME= of the family that is given, or of all."""
    chosen = names()["family"]
    given = ctx.params.get("family")
    known = chosen.get(given, ()) if given else [n for each in chosen.values() for n in each]
    return settings(ctx, incomplete, {"train.": names()["train"], "family.": known})


def align_settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """align.NAME= of every method, and train.NAME=."""
    return settings(ctx, incomplete, {"align.": names()["align"], "train.": names()["train"]})


def sample_settings(ctx: typer.Context, incomplete: str) -> list[str]:
    """Settings of sampling of the run's family, of what is drawn, and of the command."""
    of_families = names()["sampling"]
    known = of_families.get(of_run(ctx, "run.json").get("family")) or [n for each in of_families.values() for n in each]
    return beginning(incomplete, [f"{n}=" for n in (*known, *names()["results"])]) + settings(ctx, incomplete)


def data_options(ctx: typer.Context, incomplete: str) -> list[str]:
    """Options of the modality that is given, or of all."""
    chosen = names()["data"]
    given = ctx.params.get("modality")
    known = chosen.get(given, ()) if given else [n for each in chosen.values() for n in each]
    return beginning(incomplete, (f"{name}=" for name in known))


def of_run(ctx: typer.Context, file: str) -> dict[str, Any]:
    """A JSON file of the run on the command line; empty if there is none that can be read."""
    # While an option has no value yet, click leaves the arguments before it unparsed.
    given = ctx.params.get("run") or next(iter(ctx.args), None)
    if given is None:
        return {}
    try:
        data = ((run_path(Path(given)) or Path(given)) / file).read_bytes()
        found = json.loads(data) if len(data) <= MOST_BYTES else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
