"""What every request passes: whether it is addressed to this server, comes from its own page, shows a key or a session,
and is not too large. What its holder may do is asked where it is done (rights.py).

Pages of other sites can send requests to a server on the loopback. A page whose name is made to resolve to this machine
(DNS rebinding) sends its own name as Host, and a page of another site sends its own address as Origin, so both are
checked. Origins that the server's owner names may send requests (origins.py), but not to the studio, and none of
their cookies counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afresh.faces.http.counts import Metrics
from afresh.faces.http.errors import RefusedRequest, answer, log, refused
from afresh.faces.http.keys import Door
from afresh.faces.http.loaded_runs import asking
from afresh.faces.http.rights import NOBODY, OWN, Holder
from afresh.faces.http.tries import Allowances
from afresh.faces.studio.pages import failure_for_people

# Paths that need no right. Their routes say so too: one that does not is refused there.
OPEN = ("/health", "/studio/sign-in", "/studio/sign-out", "/studio/enter")
OPEN_BELOW = "/studio/static/"
PAGES, SIGN_IN = "/studio/", "/studio/sign-in"  # where people are asked for their key
COOKIE = "afresh_session"
BODY_SECONDS = 30.0  # within which a body must arrive
# What is still read, before it is answered, of a request whose body was not needed. A proxy written in Go (Caddy,
# Traefik) stops sending a body as soon as an answer begins, and then loses the connection and the answer with it.
REST_BYTES, REST_SECONDS = 1 << 20, 2.0
SAFE = ("GET", "HEAD", "OPTIONS")


class Guard:
    """ASGI middleware that refuses what does not pass, gives each request an id, and logs it."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Sequence[str],
        door: Door,
        most_bytes: int,
        metrics: Metrics,
        rate: float | None = None,
        origins: Sequence[str] = (),
    ) -> None:
        """`hosts`: names under which this server is addressed, without ports; "*" for any. `rate`: requests a minute of
        one key, or of all without keys, other than those that only read. `origins`: of pages of other sites that may
        send requests; "*" for any."""
        self.app, self.hosts, self.door, self.most = app, frozenset(hosts), door, most_bytes
        self.origins, self.metrics = frozenset(origins), metrics
        self.allowances = None if rate is None else Allowances(rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status, ended = time.monotonic(), 0, False
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        body = Body(receive, headers)
        given = headers.get("x-request-id", "")
        request_id = (
            given if given.isascii() and given.isprintable() and 0 < len(given) <= 128 else secrets.token_hex(8)
        )

        # While the body was read, where frameworks turn any error into one of their own.
        failed = list[RefusedRequest]()

        async def sending(message: Message) -> None:
            nonlocal status
            if failed and not status:
                status = failed[0].status
                await answer(failed[0], scope["path"], headers)(scope, body.receive, sending_own)
            if failed:
                return
            await sending_own(message)

        async def sending_own(message: Message) -> None:
            nonlocal status, ended
            if message["type"] == "http.response.start":
                if not failed:
                    await body.read_rest()
                status = message["status"]
                names = (b"x-request-id", b"request-id")  # the second one is Anthropic's
                message["headers"] = [*message["headers"], *((name, request_id.encode()) for name in names)]
            elif scope["method"] == "HEAD":  # answered as GET, up to the body
                if ended:
                    return
                ended, message = True, {"type": message["type"], "body": b""}
            await send(message)

        holder = NOBODY
        asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
        try:
            self.check(scope, headers)
            holder, signed_in = await self.holder(scope, headers)
            if self.allowances is not None and holder is not NOBODY and scope["method"] not in SAFE:
                self.allowances.spend(holder.name, time.monotonic())
            asked.setdefault("state", {}).update(
                holder=holder, signed_in=signed_in, shared=self.door.keys.everybody is not None
            )
            asking.set(None if holder.right >= OWN else holder.name or None)
            await self.app(asked, bounded(body, self.most, failed), sending)
        except Exception as error:
            if status:
                raise
            known = refused(error)
            await (self.page(scope, headers, known) or answer(known, scope["path"], headers))(
                scope, body.receive, sending
            )
        finally:
            seconds = time.monotonic() - begun
            self.metrics.answered(getattr(asked.get("route"), "path", ""), scope["method"], status, seconds)
            line = {
                "id": request_id,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "seconds": round(seconds, 4),
                "key": holder.name,
            }
            log.info(json.dumps(line))

    def page(self, scope: Scope, headers: dict[str, str], error: RefusedRequest) -> Response | None:
        """The way to the page that asks for a key, if a person asked for a page without one; other errors as a page."""
        path = own_path(scope)
        if error.status != 401 or scope["method"] not in SAFE or not (path == "/" or path.startswith(PAGES)):
            return failure_for_people(Request(scope), error)
        where = scope.get("root_path", "") + SIGN_IN
        if headers.get("hx-request"):
            return Response(status_code=204, headers={"hx-redirect": where})
        return RedirectResponse(where, 303)

    def check(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raises Refused for a request to another server, from the page of another site, or with too large a body."""
        host = headers.get("host", "")
        if "*" not in self.hosts and hostname(host) not in self.hosts:
            raise RefusedRequest(
                403,
                f"This server is not {host!r}. To serve under that name, start it with `allow_host={hostname(host)}`.",
                "wrong_host",
            )
        if scope["method"] not in SAFE and is_foreign(headers) and (is_page(scope) or not self.allows(headers)):
            origin = headers["origin"]
            raise RefusedRequest(
                403,
                f"Pages of {origin!r} may not send requests to this server. `afresh serve --allow-origin ORIGIN` lets "
                "pages of a site use the API.",
                "wrong_origin",
            )
        size = headers.get("content-length", "0")
        if not size.isdigit() or int(size) > self.most:
            raise RefusedRequest(413, f"A request may have {self.most:,} bytes. Given: {size}.", "request_too_large")

    def allows(self, headers: dict[str, str]) -> bool:
        """Whether pages of the origin of this request may send requests."""
        return "*" in self.origins or headers.get("origin") in self.origins

    async def holder(self, scope: Scope, headers: dict[str, str]) -> tuple[Holder, bool]:
        """Whose key or session the request shows, and whether it is a session. Raises Refused if it must show one."""
        path, everybody = own_path(scope), self.door.keys.everybody
        if path in OPEN or path.startswith(OPEN_BELOW):
            return NOBODY, False
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if key and everybody is None:
            return await self.door.enter(key, address_of(scope)), False
        # A page of another port of this machine is of the same site, so browsers would send the cookie for it.
        cookies = "" if is_foreign(headers) else headers.get("cookie", "")
        session = cookie_parser(cookies).get(cookie_name(headers.get("host", "")), "")
        if (holder := self.door.sessions.holder(session)) is not None:
            return holder, True
        if everybody is not None:
            return everybody, False
        needed = "This server needs a key: Authorization: Bearer KEY."
        raise RefusedRequest(401, "The session has ended. Sign in again." if session else needed, "invalid_api_key")


def address_of(scope: Scope) -> str:
    """The address of the client, as far as it is known."""
    return str((scope.get("client") or ("",))[0])


def own_path(scope: Scope) -> str:
    """The path below that under which a proxy shows the server."""
    return str(scope["path"]).removeprefix(scope.get("root_path", "")) or "/"


def is_page(scope: Scope) -> bool:
    """Whether a request is for the pages of people, and not for programs."""
    path = own_path(scope)
    return path == "/" or path == PAGES.rstrip("/") or path.startswith(PAGES)


def is_foreign(headers: dict[str, str]) -> bool:
    """Whether a page of another site, or of another port of this machine, sends a request."""
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("host", "")


def cookie_name(host: str) -> str:
    """The name of the cookie of a server for one session. Servers on several ports of a host share their cookies, so it
    has the port."""
    return f"{COOKIE}_{host.rpartition(':')[2]}" if host.rpartition(":")[2].isdigit() else COOKIE


def hostname(host: str) -> str:
    """The name in a Host header, without the port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class Body:
    """The body of a request, and whether all of it was read."""

    def __init__(self, receive: Receive, headers: dict[str, str]) -> None:
        self.source = receive
        self.complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
        self.waits = "expect" in headers  # the client sends the body only when it is asked for

    async def receive(self) -> Message:
        message = await self.source()
        self.complete = self.complete or not message.get("more_body", False)  # also when the client went away
        return message

    async def read_rest(self) -> None:
        """Reads and drops what is left, up to REST_BYTES that arrive within REST_SECONDS."""
        total = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REST_SECONDS):
                while not self.complete and not self.waits and total < REST_BYTES:
                    total += len((await self.receive()).get("body", b""))


def bounded(body: Body, most: int, failed: list[RefusedRequest]) -> Receive:
    """What receives a body that is neither longer than `most` bytes nor slower than BODY_SECONDS, from a client that
    stays until its end; otherwise it raises Refused, which is appended to `failed`."""
    total = 0
    until = time.monotonic() + BODY_SECONDS

    async def received() -> Message:
        nonlocal total
        if body.complete:
            return await body.receive()
        try:
            message: Any = await asyncio.wait_for(body.receive(), max(0.0, until - time.monotonic()))
        except TimeoutError:
            message = f"The body did not arrive within {BODY_SECONDS:g} seconds."
            failed.append(RefusedRequest(408, message, "request_timeout"))
            raise failed[0] from None
        if message["type"] == "http.disconnect":
            failed.append(RefusedRequest(499, "The client went away."))
            raise failed[0]
        total += len(message.get("body", b""))
        if total > most:
            failed.append(RefusedRequest(413, f"A request may have {most:,} bytes.", "request_too_large"))
            raise failed[0]
        return message

    return received
