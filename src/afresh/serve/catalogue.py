"""The endpoint of a catalogue: it takes the notices of a payment service, and delivers what they released."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse

from afresh import __version__
from afresh.catalogue.folder import Catalogue
from afresh.catalogue.links import Link
from afresh.catalogue.orders import Orders
from afresh.catalogue.stripe import check_signature, notice_of
from afresh.core import UserError
from afresh.serve import errors
from afresh.serve.connection import Connection
from afresh.serve.errors import RefusedRequest
from afresh.serve.guard import Guard
from afresh.serve.keys import NO_KEYS, Door
from afresh.serve.run import DRAIN_SECONDS
from afresh.serve.sessions import Sessions

MOST_BYTES = 1 << 18  # of a notice; those of Stripe have a few thousand
STATUS = {"forged": 403, "expired": 410, "removed": 410, "no_such_order": 404, "no_such_listing": 404}


def make_catalogue_app(catalogue: Catalogue, secret: str | None) -> FastAPI:
    """The application. `secret`: that of the endpoint at Stripe, without which no notice is taken. Raises UserError if
    the ledger was changed."""
    orders = Orders(catalogue)
    app = FastAPI(
        title=catalogue.settings.name, version=__version__, docs_url=None, redoc_url=None, responses=errors.ERRORS
    )
    errors.install(app, lambda request, error: None)

    @app.post("/payments/stripe")
    async def stripe(request: Request) -> Any:
        """A notice of Stripe. Answered with 200 once it is recorded, whatever came of it: others are sent again."""
        if secret is None:
            raise RefusedRequest(503, "This server has no secret of an endpoint, so it takes no notices.")
        payload = await request.body()
        return await run_in_threadpool(take, payload, request.headers.get("stripe-signature", ""), secret)

    def take(payload: bytes, header: str, secret: str) -> dict[str, str]:
        check_signature(payload, header, secret)
        notice = notice_of(payload)
        if isinstance(notice, str):
            return {"result": "ignored", "detail": notice}
        outcome = orders.receive(notice)
        return {"result": outcome.result, "detail": outcome.detail}

    @app.get("/orders/{order}")
    def order(order: str) -> Any:
        """The receipt and the link of an order, whose number only the buyer knows."""
        catalogue.ledger.read()
        if order not in orders.known:
            raise RefusedRequest(404, "No notice of this payment has come yet. Try again in a moment.", retry=5)
        receipt = orders.receipt(order).read_bytes()
        return JSONResponse({"link": orders.link(order) or None, "receipt": receipt.decode()}, headers=PRIVATE)

    @app.get("/bundles/{listing}")
    def bundle(listing: str, order: str, expires: int, signature: str) -> FileResponse:
        """The file of an order, whole or the range that is asked for."""
        try:
            file = orders.delivered(Link(listing, order, expires), signature)
        except UserError as error:
            raise RefusedRequest(STATUS.get(error.code, 400), str(error), error.code) from None
        return FileResponse(file, filename=file.name, media_type="application/octet-stream", headers=PRIVATE)

    names = [urlsplit(catalogue.settings.delivery).hostname or "", "127.0.0.1", "localhost", "::1"]
    app.add_middleware(Guard, hosts=names, door=Door(NO_KEYS, Sessions()), most_bytes=MOST_BYTES)
    return app


PRIVATE = {"cache-control": "private, no-store", "x-content-type-options": "nosniff"}


def catalogue_server(catalogue: Catalogue, secret: str | None) -> uvicorn.Server:
    """The server of that application, as `afresh.serve.run.serve_with` takes it."""
    config = uvicorn.Config(
        make_catalogue_app(catalogue, secret),
        http=Connection,
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        server_header=False,
    )
    return uvicorn.Server(config)
