"""`afresh open`: the studio in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.cli.extras import require
from afresh.cli.paths import existing_run
from afresh.cli.show import say


def open(
    run: Annotated[Path | None, typer.Argument(help="Run to create with; all runs if not given.")] = None,
    port: Annotated[int, typer.Option(help="Port; 0 = a free one.", min=0, max=65535)] = 0,
) -> None:
    """Open the studio in the browser: create, look at and keep what your models make.

    The page is served from this machine to this machine only, until Ctrl-C. With a run, it opens where one creates.
    """
    require("serve", "The studio")
    import webbrowser
    from urllib.parse import quote

    from afresh.preferences import preferences
    from afresh.serve.app import ServeSettings
    from afresh.serve.run import memory_budget, serve

    folder = preferences().runs
    run = existing_run(run)
    if run is None:
        folder.mkdir(parents=True, exist_ok=True)
    places = [*([run] if run is not None else []), *([folder] if folder.is_dir() else [])]

    def ready(address: str) -> None:
        page = f"{address}/studio/" + ("" if run is None else f"create?run={quote(run.resolve().name)}")
        say(f"the studio is at {page} (Ctrl-C ends)")
        webbrowser.open(page)

    serve(ServeSettings(places, memory_budget(), local=True), "127.0.0.1", port, ready)
