"""What every request passes: whether it is addressed to this server, comes from its own page, has a key, and is not too
large.

Pages of other sites can send requests to a server on the loopback. A page whose name is made to resolve to this machine
(DNS rebinding) sends its own name as Host, and a page of another site sends its own address as Origin, so both are
checked.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afresh.serve.errors import Refused, answer, log, refused
from afresh.serve.library import asking

OPEN = ("/health", "/studio/sign-in", "/studio/enter")  # paths without a key
OPEN_BELOW = "/studio/static/"
PAGES, SIGN_IN = "/studio/", "/studio/sign-in"  # where people are asked for their key
COOKIE = "afresh_key"
BODY_SECONDS = 30.0  # within which a body must arrive
SAFE = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Keys:
    """The keys that are accepted, by the name of who has it. Without any, everybody who reaches the port may ask."""

    names: dict[str, str] = field(default_factory=dict)  # key -> name
    tickets: dict[str, str] = field(default_factory=dict)  # what lets one browser in, once -> the key that it gets

    def owner(self, key: str) -> str | None:
        """Whose key it is. Each comparison takes the same time."""
        return next((n for k, n in self.names.items() if hmac.compare_digest(k.encode(), key.encode())), None)

    def redeem(self, ticket: str) -> str | None:
        """The key of a ticket, which is spent then; None for another one."""
        known = next((t for t in self.tickets if hmac.compare_digest(t.encode(), ticket.encode())), None)
        return None if known is None else self.tickets.pop(known, None)


class Allowances:
    """How many requests each owner of a key may still send. An allowance that was not used is kept for a minute, so
    that a page or a program may send several at once (a token bucket)."""

    def __init__(self, rate: float) -> None:
        """`rate`: requests a minute."""
        self.rate = rate
        self.left: dict[str, tuple[float, float]] = {}  # by owner: how many requests at which time, in seconds

    def spend(self, owner: str, now: float) -> None:
        """Raises Refused if the owner has sent too many."""
        most = max(1.0, self.rate)
        left, then = self.left.get(owner, (most, now))
        left = min(most, left + (now - then) * self.rate / 60)
        if left < 1:
            message = f"This key has sent more than {self.rate:g} requests a minute. Try again later."
            raise Refused(429, message, "rate_limit_exceeded", retry=math.ceil((1 - left) * 60 / self.rate))
        self.left[owner] = (left - 1, now)


class Guard:
    """ASGI middleware that refuses what does not pass, gives each request an id, and logs it."""

    def __init__(
        self, app: ASGIApp, hosts: Sequence[str], keys: Keys, most_bytes: int, rate: float | None = None
    ) -> None:
        """`hosts`: names under which this server is addressed, without ports; "*" for any. `rate`: requests a minute of
        one key, or of all without keys, other than those that only read."""
        self.app, self.hosts, self.keys, self.most = app, frozenset(hosts), keys, most_bytes
        self.allowances = None if rate is None else Allowances(rate)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.monotonic(), 0
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = (
            given if given.isascii() and given.isprintable() and 0 < len(given) <= 128 else secrets.token_hex(8)
        )

        failed: list[Refused] = []  # while the body was read, where frameworks turn any error into one of their own

        async def sending(message: Message) -> None:
            nonlocal status
            if failed and not status:
                status = failed[0].status
                await answer(failed[0], scope["path"])(scope, receive, sending_own)
            if failed:
                return
            await sending_own(message)

        async def sending_own(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        owner = ""
        try:
            owner = self.checked(scope, headers)
            if self.allowances is not None and scope["method"] not in SAFE:
                self.allowances.spend(owner, time.monotonic())
            scope.setdefault("state", {})["owner"] = owner
            asking.set(owner or None)  # a key without a name is that of whoever started the server
            await self.app(scope, bounded(receive, headers, self.most, failed), sending)
        except Exception as error:
            if status:
                raise
            known = refused(error)
            await (self.page(scope, headers, known) or answer(known, scope["path"]))(scope, receive, sending)
        finally:
            line = {
                "id": request_id,
                "method": scope["method"],
                "path": scope["path"][:200],
                "status": status,
                "seconds": round(time.monotonic() - begun, 4),
                "key": owner,
            }
            log.info(json.dumps(line))

    def page(self, scope: Scope, headers: dict[str, str], error: Refused) -> Response | None:
        """The way to the page that asks for a key, if a person asked for a page without one."""
        path = own_path(scope)
        if error.status != 401 or scope["method"] not in SAFE or not (path == "/" or path.startswith(PAGES)):
            return None
        where = scope.get("root_path", "") + SIGN_IN
        if headers.get("hx-request"):
            return Response(status_code=204, headers={"hx-redirect": where})
        return RedirectResponse(where, 303)

    def checked(self, scope: Scope, headers: dict[str, str]) -> str:
        """Whose key the request has, or an empty string without keys. Raises Refused."""
        host = headers.get("host", "")
        if "*" not in self.hosts and hostname(host) not in self.hosts:
            raise Refused(
                403,
                f"This server is not {host!r}. To serve under that name, start it with `allow_host={hostname(host)}`.",
                "wrong_host",
            )
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in SAFE and urlsplit(origin).netloc != host:
            raise Refused(403, f"Pages of {origin!r} may not send requests to this server.", "wrong_origin")
        size = headers.get("content-length", "0")
        if not size.isdigit() or int(size) > self.most:
            raise Refused(413, f"A request may have {self.most:,} bytes. Given: {size}.", "request_too_large")
        if not self.keys.names or own_path(scope) in OPEN or own_path(scope).startswith(OPEN_BELOW):
            return ""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = token if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        cookies = cookie_parser(headers.get("cookie", ""))
        sent = [key] if key else [cookies[name] for name in (cookie_name(host), COOKIE) if name in cookies]
        owner = next((o for k in sent if (o := self.keys.owner(k)) is not None), None)
        if owner is None:
            message = "The key is wrong." if sent else "This server needs a key: Authorization: Bearer KEY."
            raise Refused(401, message, "invalid_api_key")
        return owner


def own_path(scope: Scope) -> str:
    """The path below that under which a proxy shows the server."""
    return str(scope["path"]).removeprefix(scope.get("root_path", "")) or "/"


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


def bounded(receive: Receive, headers: dict[str, str], most: int, failed: list[Refused]) -> Receive:
    """What receives a body that is neither longer than `most` bytes nor slower than BODY_SECONDS; otherwise it raises
    Refused, which is appended to `failed`."""
    total = 0
    complete = headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers
    until = time.monotonic() + BODY_SECONDS

    async def received() -> Message:
        nonlocal total, complete
        if complete:
            return await receive()
        try:
            message: Any = await asyncio.wait_for(receive(), max(0.0, until - time.monotonic()))
        except TimeoutError:
            message = f"The body did not arrive within {BODY_SECONDS:g} seconds."
            failed.append(Refused(408, message, "request_timeout"))
            raise failed[0] from None
        total += len(message.get("body", b""))
        if total > most:
            failed.append(Refused(413, f"A request may have {most:,} bytes.", "request_too_large"))
            raise failed[0]
        complete = not message.get("more_body", False)
        return message

    return received
