"""`afresh serve`: runs for programs and for people, over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.cli.extras import require
from afresh.cli.show import note, say


def serve(
    places: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, or folders of runs; runs/ if not given.", metavar="RUN..."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; other machines reach 0.0.0.0.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 = a free one.", min=0, max=65535)] = 8080,
    key_file: Annotated[
        Path | None, typer.Option(help="Keys that clients must send, one a line: NAME KEY.", metavar="FILE")
    ] = None,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A name under which the server is reached; may be repeated.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB of weights that may be held; half of the free memory if not given.")
    ] = None,
    requests: Annotated[int, typer.Option(help="Requests at once; others are asked to try again.", min=1)] = 64,
    evaluations: Annotated[
        int, typer.Option(help="Evaluations of a network that one request may take; larger ones are refused.", min=1)
    ] = 100_000,
    rate: Annotated[
        float | None, typer.Option(help="Requests a minute that one key may send; others are refused.", min=0.01)
    ] = None,
    root_path: Annotated[str, typer.Option(help="Path under which a proxy shows the server.")] = "",
    log_requests: Annotated[
        bool,
        typer.Option("--log-requests", help="A line of JSON for each request on standard error, without its content."),
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Serve runs: OpenAI's API for programs, and a page for people.

    A folder is watched: runs that appear in it later are served too. Weights are loaded when a run is first asked for.
    """
    require("serve", "A server of runs")
    from afresh.core import UserError
    from afresh.preferences import preferences
    from afresh.serve.app import ServeSettings
    from afresh.serve.guard import Keys
    from afresh.serve.run import memory_budget, read_keys
    from afresh.serve.run import serve as serve_runs

    local = host in ("127.0.0.1", "localhost", "::1")
    if not local and key_file is None:
        raise UserError(
            f"Everybody who reaches {host} could use the models. Give the keys that they must have: --key-file FILE."
        )
    names = ("127.0.0.1", "localhost", "::1", *([] if host in ("0.0.0.0", "::") else [host]), *(allow_host or ()))
    settings = ServeSettings(
        places=tuple(places or [preferences().runs]),
        memory=memory_budget() if memory is None else int(memory * 2**30),
        hosts=names,
        keys=Keys() if key_file is None else read_keys(key_file),
        most_requests=requests,
        most_evaluations=evaluations,
        rate=rate,
        root_path=root_path,
        local=local and not allow_host and not root_path,
    )

    def ready(address: str) -> None:
        say(f"serving at {address}; OpenAI's API is at {address}/v1 (Ctrl-C ends)")
        if open_page:
            import webbrowser

            webbrowser.open(address)

    if not local and not allow_host:
        note(f"Other machines must name this server as {host}; for another name add --allow-host NAME.")
    serve_runs(settings, host, port, ready, log_requests)
