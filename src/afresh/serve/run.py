"""The server as a process: its socket, its proxies, its end."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

import uvicorn

from afresh.core import UserError
from afresh.core.memory import available_memory
from afresh.serve.app import ServeSettings, make_app
from afresh.serve.connection import Connection
from afresh.serve.errors import log

DRAIN_SECONDS = 30  # that requests may still take after the server was asked to end
SHARE = 0.5  # of the free memory, for weights


def memory_budget() -> int:
    """Bytes of weights that a server holds unless told otherwise: half of what is free, or 4 GiB if that is unknown."""
    free = available_memory()
    return 4 * 2**30 if free is None else int(SHARE * free)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises UserError if the address cannot be used."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends small packets at once; otherwise an answer waits 40 ms for a delayed ACK.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except (OSError, OverflowError) as error:
        sock.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            message = f"Port {port} is in use. Choose another: `port={port + 1}`, or `port=0` for a free one."
            raise UserError(message, "port_in_use") from None
        raise UserError(f"The server cannot listen at {host}, port {port}: {error}.", "cannot_listen") from None
    sock.listen(1024)
    return sock


def serve(settings: ServeSettings, host: str, port: int, ready: Callable[[str], None], log_file: bool = False) -> None:
    """Serve an application with these settings, as `serve_with` does. Raises UserError as it does, and if a place is
    not a run."""
    serve_with(server_of(settings), host, port, ready, log_file)


def serve_with(
    server: uvicorn.Server, host: str, port: int, ready: Callable[[str], None], log_file: bool = False
) -> None:
    """Serve until the process is asked to end; requests that are being answered are finished then. `ready` is called
    with the address as soon as the server listens. `log_file`: write a line of JSON for each request to standard
    error.

    Raises UserError if the address cannot be used.
    """
    sock = bound(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{sock.getsockname()[1]}"
    if log_file:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False
    ready(address)
    with suppress(ValueError):  # outside of the main thread, which does not receive signals
        signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again at the end, when all is well
    with suppress(KeyboardInterrupt):
        server.run(sockets=[sock])


def server_of(settings: ServeSettings) -> uvicorn.Server:
    """The server of an application, which `app.state.stop()` ends: what is being answered is finished. Raises UserError
    if a place is not a run."""
    app = make_app(settings)
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,  # uvicorn's own closes every handler of the process, and those of others their files
        log_level="error",
        access_log=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
        proxy_headers=bool(settings.proxies),  # otherwise anybody could say that a request came by https, or whence
        forwarded_allow_ips=list(settings.proxies),
        root_path=settings.root_path,
    )
    server = uvicorn.Server(config)
    app.state.ending = lambda: server.should_exit  # streams without an end of their own end then
    app.state.stop = lambda: setattr(server, "should_exit", True)
    return server
