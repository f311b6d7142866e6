"""`afresh make-data`: data that is computed, to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.show import emit, say


def make_data(
    name: Annotated[str | None, typer.Argument(help="What to compute; without it, what can be.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A number that it depends on, as trajectories=100.")
    ] = None,
    out: Annotated[Path | None, o.option("The folder to write to; the name by default.")] = None,
    seed: Annotated[int, o.option("The same seed gives the same data.")] = 0,
    force: o.Force = False,
    as_json: Annotated[bool, o.json_of("{path, maker, settings, seed, notes}, or {makers}")] = False,
) -> None:
    """Compute data to learn from, such as trajectories of a physical system, where one has none.

    afresh make-data kuramoto-sivashinsky --set trajectories=100 --out ks; afresh train ks.
    """
    from afresh.core import registry
    from afresh.core.options import pairs
    from afresh.verbs.make_data import make_data as make
    from afresh.verbs.make_data import maker_named

    if name is None:
        makers = registry.makers()
        if as_json:
            emit({"makers": {k: {"about": m.about, "settings": list(m.settings)} for k, m in makers.items()}})
            return
        for key, maker in makers.items():
            say(f"{key}: {maker.about}")
        return
    made = make(name, out, pairs(setting or [], "--set"), seed, force)
    if as_json:
        emit(made.json())
        return
    for note in made.notes:
        say(note)
    others = ", ".join(maker_named(name).settings)
    say(f"settings: {others}")
    say(f"next: afresh train {made.path}")
