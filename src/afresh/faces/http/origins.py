"""Pages of other sites that may ask this server (CORS, https://fetch.spec.whatwg.org/#http-cors-protocol): none, unless
the server's owner names their origins.

A page that is named may send requests and read the answers, as any program may: with a key where the server has keys.
It never acts for the person who is signed in to the studio in the same browser: the pages of the studio stay closed to
it, answers do not allow credentials, and the guard looks at no cookie of its requests.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from afresh.core import UserError
from afresh.faces.http.guard import SAFE, is_page
from afresh.faces.http.requests.forms import CAPPED, IGNORED

ANY = "*"
ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
USUAL_PORTS = {"http": ":80", "https": ":443"}
SECONDS = 600  # for which a browser remembers what a page may send
READABLE = (
    "retry-after",
    "x-request-id",
    "request-id",
    CAPPED,
    IGNORED,
)  # headers of answers, beside those that any page may read


def origin_of(given: str) -> str:
    """An origin as browsers send it: https://app.example.org, or * for any. Raises UserError if it is invalid."""
    origin = given.strip().removesuffix("/").lower()
    scheme = origin.partition(":")[0]
    origin = origin.removesuffix(USUAL_PORTS.get(scheme, ""))
    if origin != ANY and not ORIGIN.fullmatch(origin):
        raise UserError(
            f"{given!r} is not the origin of a page. Write its scheme, name and port without a path, as in "
            "https://app.example.org or http://localhost:3000; * allows the pages of every site.",
            "invalid_origin",
        )
    return origin


class Origins:
    """ASGI middleware outside of the guard, which answers browsers that ask what a page may send, and lets pages of
    these origins read the answers of everything but the studio."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        """`origins`: as `origin_of` gives them."""
        self.app = app
        self.shared = CORSMiddleware(
            app,
            allow_origins=list(origins),
            allow_methods=[*SAFE, "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["*"],  # those of keys and of the clients' own
            allow_credentials=False,
            expose_headers=list(READABLE),
            max_age=SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        closed = scope["type"] != "http" or is_page(scope)
        await (self.app if closed else self.shared)(scope, receive, send)
