"""The server of runs as a process: its settings and its memory."""

from __future__ import annotations

from collections.abc import Callable

import uvicorn

from afresh.core.memory import available_memory
from afresh.faces.http.app import ServeSettings, make_app
from afresh.faces.http.connection import server_for
from afresh.faces.http.listen import serve_with

SHARE = 0.5  # of the free memory, for weights


def memory_budget() -> int:
    """Bytes of weights that a server holds unless told otherwise: half of what is free, or 4 GiB if that is unknown."""
    free = available_memory()
    return 4 * 2**30 if free is None else int(SHARE * free)


def serve(settings: ServeSettings, host: str, port: int, ready: Callable[[str], None], log_file: bool = False) -> None:
    """Serve an application with these settings, as `serve_with` does. Raises UserError as it does, and if a place is
    not a run."""
    serve_with(server_of(settings), host, port, ready, log_file)


def server_of(settings: ServeSettings) -> uvicorn.Server:
    """The server of an application, which `app.state.stop()` ends: what is being answered is finished. Raises UserError
    if a place is not a run."""
    app = make_app(settings)
    server = server_for(
        app,
        timeout_keep_alive=75,
        proxy_headers=bool(settings.proxies),  # otherwise anybody could say that a request came by https, or whence
        forwarded_allow_ips=list(settings.proxies),
        root_path=settings.root_path,
    )
    app.state.ending = lambda: server.should_exit  # streams without an end of their own end then
    app.state.stop = lambda: setattr(server, "should_exit", True)
    return server
