"""A connection to a client: how long it may take to say what it wants, and how many there may be.

Uvicorn waits without end for the head of a request, so clients that send it byte by byte, or nothing, could take every
connection (slow loris). Those of one address could do so in the time that a head may take, or that a connection is kept
after a request.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from afresh.faces.http.errors import RefusedRequest, answer
from afresh.faces.http.listen import DRAIN_SECONDS
from afresh.faces.http.tries import network


def server_for(app: Any, **more: Any) -> uvicorn.Server:
    """The server of an application, with more of uvicorn's settings."""
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,  # uvicorn's own closes every handler of the process, and those of others their files
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
        **more,
    )
    return uvicorn.Server(config)


class Connection(H11Protocol):
    """HTTP/1.1 over a connection. The head of a request must arrive within `head_seconds`. Beyond `most` connections
    one that waits for its next request is closed for a new one, which is refused if there is none, and if its address
    has `most_unfinished` already whose requests have not arrived as a whole."""

    head_seconds: ClassVar[float] = 10.0
    most: ClassVar[int] = 512
    most_unfinished: ClassVar[int] = 256
    patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        others: list[Connection] = list(self.connections)  # type: ignore[arg-type]
        super().connection_made(transport)
        unfinished = sum(other.unfinished and other.network == self.network for other in others)
        idle = next((other for other in others if other.idle), None) if len(others) >= self.most else None
        if idle is not None:
            idle.shutdown()
        if unfinished >= self.most_unfinished:
            message = f"{self.network} has {unfinished} connections whose requests have not arrived as a whole."
            self.refuse(RefusedRequest(429, f"{message} Finish or close some of them.", retry=5))
        elif len(others) >= self.most and idle is None:
            self.refuse(
                RefusedRequest(503, f"The server has {self.most} connections, which is as many as it takes.", retry=5)
            )
        else:
            self.wait()

    @property
    def network(self) -> str:
        """What one client has many addresses of."""
        return network((self.client or ("",))[0])

    @property
    def unfinished(self) -> bool:
        """Whether the request that comes has not arrived as a whole."""
        return self.patience is not None or self.conn.their_state is h11.SEND_BODY

    @property
    def idle(self) -> bool:
        """Whether a request was answered, and no other one has begun."""
        answered = self.cycle is not None and self.cycle.response_complete
        return answered and not self.unfinished and not self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self.wait()
        else:
            self.stop_waiting()

    def wait(self) -> None:
        """Wait for the head of a request, from now on if that did not begin earlier."""
        if self.patience is None:
            self.patience = self.loop.call_later(self.head_seconds, self.too_slow)

    def stop_waiting(self) -> None:
        if self.patience is not None:
            self.patience.cancel()
            self.patience = None

    def too_slow(self) -> None:
        if not self.conn.trailing_data[0]:  # nothing was asked
            self.transport.close()
            return
        self.refuse(
            RefusedRequest(408, f"The head of the request did not arrive within {self.head_seconds:g} seconds.")
        )

    def send_400_response(self, msg: str) -> None:
        self.refuse(RefusedRequest(400, msg))

    def refuse(self, error: RefusedRequest) -> None:
        """Answer without having read a request, and close."""
        given = answer(error, "")
        lines = [f"HTTP/1.1 {error.status} Refused", "connection: close"]
        lines += [f"{name}: {value}" for name, value in given.headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + bytes(given.body))
        self.transport.close()
