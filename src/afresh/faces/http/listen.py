"""A socket that listens, and a server at it until it is asked to end. Nothing heavy is imported."""

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

DRAIN_SECONDS = 30  # that requests may still take after the server was asked to end
log = logging.getLogger("afresh.serve")


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
