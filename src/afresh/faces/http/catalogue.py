"""The endpoint of a catalogue: it takes the notices of a payment service, and delivers what they released.

It is a small process of its own, which imports no networks: it has to be there again soon after it was ended.
"""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from afresh import __version__
from afresh.core import UserError
from afresh.engine.pages.render import render_page
from afresh.faces.http.connection import server_for
from afresh.services.catalogue.folder import Catalogue
from afresh.services.catalogue.orders import Link, Orders
from afresh.services.catalogue.site import HERE
from afresh.services.catalogue.stripe import check_signature, notice_of

MOST_BYTES = 1 << 18  # of a notice; those of Stripe have a few thousand
BODY_SECONDS = 30.0  # within which a notice must arrive
STATUS = {"forged": 403, "expired": 410, "removed": 410, "no_such_order": 404, "no_such_listing": 404}
# Faults of this machine: a notice is sent again after them.
OURS = ("ledger", "damaged", "cannot_write", "no_secret", "signer")
TEMPLATE = HERE / "order.html"
PRIVATE = {"referrer-policy": "no-referrer", "cache-control": "private, no-store", "x-content-type-options": "nosniff"}


def make_catalogue_app(catalogue: Catalogue, secret: str | None) -> FastAPI:
    """The application. `secret`: that of the endpoint at Stripe, without which no notice is taken. Raises UserError if
    the ledger was changed."""
    orders = Orders(catalogue)
    app = FastAPI(title=catalogue.settings.name, version=__version__, docs_url=None, redoc_url=None)

    @app.exception_handler(UserError)
    async def on_user_error(request: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 500 if error.code in OURS else 400)

    @app.post("/payments/stripe")
    async def stripe(request: Request) -> dict[str, str]:
        """A notice of Stripe. Answered with 200 once it is recorded, whatever came of it: others are sent again."""
        if secret is None:
            raise HTTPException(503, "This server has no secret of an endpoint, so it takes no notices.")
        payload = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    payload += part
                    if len(payload) > MOST_BYTES:
                        raise HTTPException(413, f"A notice may have {MOST_BYTES:,} bytes.")
        except TimeoutError:
            raise HTTPException(408, f"A notice did not arrive within {BODY_SECONDS:g} seconds.") from None
        return await run_in_threadpool(take, bytes(payload), request.headers.get("stripe-signature", ""), secret)

    def take(payload: bytes, header: str, secret: str) -> dict[str, str]:
        check_signature(payload, header, secret)
        notice = notice_of(payload)
        if isinstance(notice, str):
            return {"result": "ignored", "detail": notice}
        outcome = orders.receive(notice)
        return {"result": outcome.result, "detail": outcome.detail}

    @app.get("/orders/{order}")
    def order(order: str, request: Request) -> Response:
        """The receipt and the link of an order, whose number only the buyer knows: a page, or JSON for programs."""
        catalogue.ledger.read()
        receipt, link, known = None, "", order in orders.known
        if known:
            receipt, link = json.loads(orders.receipt(order).read_bytes()), orders.link(order)
        headers = PRIVATE if known else {**PRIVATE, "retry-after": "5", "refresh": "5"}
        if "text/html" not in request.headers.get("accept", ""):
            content = {"link": link or None, "receipt": receipt}
            return JSONResponse(content, 200 if known else 404, headers=headers)
        days, title = catalogue.settings.days, catalogue.settings.name
        page = render_page(TEMPLATE, title=title, receipt=receipt, link=link, days=days)
        return HTMLResponse(page, 200 if known else 404, headers=headers)

    @app.get("/bundles/{listing}")
    def bundle(listing: str, order: str, expires: int, signature: str) -> FileResponse:
        """The file of an order, whole or the range that is asked for."""
        try:
            file = orders.delivered(Link(listing, order, expires), signature)
        except UserError as error:
            raise HTTPException(STATUS.get(error.code, 400), str(error)) from None
        return FileResponse(file, filename=file.name, media_type="application/octet-stream", headers=PRIVATE)

    names = [urlsplit(catalogue.settings.delivery).hostname or "", "127.0.0.1", "localhost", "::1"]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    return app


def catalogue_server(catalogue: Catalogue, secret: str | None) -> uvicorn.Server:
    """The server of that application, as `afresh.faces.http.listen.serve_with` takes it."""
    return server_for(make_catalogue_app(catalogue, secret))
