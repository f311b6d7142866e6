"""`afresh open`: the studio in the browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.extras import require
from afresh.faces.cli.paths import existing_run
from afresh.faces.cli.show import say


def open(
    run: Annotated[Path | None, typer.Argument(help="Run to create with; all runs if not given.")] = None,
    port: o.Port = 0,
    open_page: Annotated[bool, o.open_option("Open the page in the browser, or only say its address.")] = True,
) -> None:
    """Open the studio in the browser: create, look at and keep what your models make.

    The page is served to this machine only, until Ctrl-C, and only to the browser that is opened: its address lets one
    browser in, once. With a run, it opens where one creates.
    """
    require("serve", "The studio")
    import webbrowser
    from urllib.parse import urlencode

    from afresh.data.preferences import preferences
    from afresh.faces.http.app import ServeSettings, memory_budget, serve
    from afresh.faces.http.keys import Keys
    from afresh.faces.http.rights import LOCAL, Holder

    folder = preferences().runs
    run = existing_run(run)
    if run is None:
        folder.mkdir(parents=True, exist_ok=True)
    places = [*([run] if run is not None else []), *([folder] if folder.is_dir() else [])]

    settings = ServeSettings(places, memory_budget(), keys=Keys())
    ticket = settings.sessions.ticket(Holder("", LOCAL))

    def ready(address: str) -> None:
        asked = {"ticket": ticket} | ({} if run is None else {"to": "create", "run": run.resolve().name})
        page = f"{address}/studio/enter?{urlencode(asked)}"
        say(f"the studio is at {page} (for one browser; Ctrl-C ends)")
        if open_page:
            webbrowser.open(page)

    serve(settings, "127.0.0.1", port, ready)
