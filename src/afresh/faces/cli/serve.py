"""`afresh serve`: runs for programs and for people, over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.extras import require
from afresh.faces.cli.show import note, say

QUOTA = 32  # GiB of one key


def serve(
    places: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, or folders of runs; runs/ if not given.", metavar="RUN..."),
    ] = None,
    host: Annotated[str, o.option("Address to listen at; other machines reach 0.0.0.0.")] = "127.0.0.1",
    port: o.Port = 8080,
    key_file: Annotated[
        Path | None,
        o.option("Keys that clients must send, one a line: NAME KEY ROLE; roles: use, train, own.", metavar="FILE"),
    ] = None,
    local_files: Annotated[
        bool, o.setting("Keys of the role `own` may name folders of this machine on the page.")
    ] = False,
    allow_host: Annotated[
        list[str] | None, o.option("A name under which the server is reached; may be repeated.")
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        o.option(
            "Pages of this site may use the API: https://app.example.org, or * for all; may be repeated.",
            metavar="ORIGIN",
        ),
    ] = None,
    memory: Annotated[
        float | None, o.setting("GiB of weights that may be held; half of the free memory if not given.")
    ] = None,
    requests: Annotated[int, o.setting("Requests at once; others are asked to try again.", min=1)] = 64,
    evaluations: Annotated[
        int, o.setting("Evaluations of a network that one request may take; larger ones are refused.", min=1)
    ] = 100_000,
    rate: Annotated[
        float | None, o.setting("Requests a minute that one key may send; others are refused.", min=0.01)
    ] = None,
    upload_quota: Annotated[
        float, o.setting("GiB of data that one key may send and keep through the page.", min=0)
    ] = QUOTA,
    root_path: Annotated[str, o.setting("Path under which a proxy shows the server.")] = "",
    proxy: Annotated[
        list[str] | None,
        o.option(
            "Address, or network, of a proxy whose X-Forwarded-For and -Proto are believed; may be repeated.",
            metavar="ADDRESS",
        ),
    ] = None,
    log_requests: Annotated[
        bool, o.setting("A line of JSON for each request on standard error, without its content.")
    ] = False,
    open_page: Annotated[bool, o.open_option("Open the page in the browser.")] = False,
    no_marks: o.Unmarked = False,
    on: o.On = None,
    replicas: Annotated[int, o.setting("With --on: servers that share the requests.", min=1)] = 1,
) -> None:
    """Serve runs: OpenAI's API for programs, and a page for people.

    A folder is watched: runs that appear in it later are served too. Weights are loaded when a run is first asked for.
    Without keys, everybody who reaches the port may use the models; training and removing need the address that is
    shown, which lets one browser in, once.
    """
    require("serve", "A server of runs")
    from afresh.core import UserError
    from afresh.core.plural import counted
    from afresh.data.preferences import preferences, variable
    from afresh.faces.http.app import ServeSettings, memory_budget
    from afresh.faces.http.app import serve as serve_runs
    from afresh.faces.http.keys import NO_KEYS, read_keys
    from afresh.faces.http.origins import ANY, origin_of
    from afresh.faces.http.rights import LOCAL, OWN, Holder
    from afresh.faces.http.sessions import Sessions
    from afresh.runs.run_store import opened

    if no_marks:
        os.environ[variable("mark_works")] = "false"  # for the processes that it starts, too
    here = host in ("127.0.0.1", "localhost", "::1")
    if key_file is None and (proxy or not here):
        reached = host if not here else "the proxy"
        raise UserError(
            f"Everybody who reaches {reached} could use the models. Give the keys that they must have: --key-file FILE."
        )
    if on is None and replicas > 1:
        raise UserError("Replicas are processes of a Ray cluster. Say which: --on ray://HOST, or --on local.")
    if on is not None:
        require("cluster", "A server on a cluster")
        given = {"--open": open_page, "`local_files`": local_files, "`upload_quota`": upload_quota != QUOTA}
        given |= {"`rate`": rate is not None, "`log_requests`": log_requests, "--port 0": port == 0}
        check_shared([name for name, is_given in given.items() if is_given])
    owner = Holder("", LOCAL if local_files else OWN)
    kept = preferences().works_folder.parent / f"sessions-{port}.json" if key_file is None and port else None
    keys = NO_KEYS if key_file is None else read_keys(key_file, local_files)
    names = ("127.0.0.1", "localhost", "::1", *([] if host in ("0.0.0.0", "::") else [host]), *(allow_host or ()))
    shown = places or [preferences().runs]
    settings = ServeSettings(
        places=tuple(shown if on else map(opened, shown)),
        memory=memory_budget() // replicas if memory is None else int(memory * 2**30),
        hosts=names,
        keys=keys,
        sessions=Sessions(kept=kept, owner=owner),
        most_requests=requests,
        most_evaluations=evaluations,
        rate=rate,
        root_path=root_path,
        proxies=tuple(proxy or ()),
        uploads=int(upload_quota * 2**30),
        origins=tuple(map(origin_of, allow_origin or ())),
    )
    ticket = settings.sessions.ticket(owner) if key_file is None else ""

    def ready(address: str) -> None:
        say(f"serving at {address}; OpenAI's API is at {address}/v1 (Ctrl-C ends)")
        page = f"{address}/studio/enter?ticket={ticket}" if ticket else f"{address}/studio/"
        if ticket:
            note(f"To train and remove as well, open {page} in one browser, once.")
            note("Every user of this machine sees its chats, works and votes: --key-file FILE gives each their own.")
        if open_page:
            import webbrowser

            webbrowser.open(page)

    if ANY in settings.origins and key_file is None:
        note("Without keys, every page that is open in a browser of this machine can use the models: --key-file FILE.")
    if not here and not allow_host:
        note(f"Other machines must name this server as {host}; for another name add --allow-host NAME.")
    if on is not None:
        from afresh.faces.http.replicas import serve_replicas

        where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        text = f"serving by {counted(replicas, 'replica')} at {where} of the first machine of the cluster (Ctrl-C ends)"
        serve_replicas(settings, on, replicas, host, port, lambda: say(text))
        return
    serve_runs(settings, host, port, ready, log_requests)


def check_shared(given: list[str]) -> None:
    """Raises UserError if options are given that need what the replicas of a server do not share."""
    from afresh.core import UserError

    if given:
        raise UserError(
            f"Replicas on a cluster have no page, no free choice of port, and each its own count of requests, which "
            f"Ray Serve logs. Leave out {', '.join(given)}, or serve without --on."
        )
