"""The application: every endpoint of a server of runs, and its process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from afresh import __version__
from afresh.core import registry
from afresh.core.memory import available_memory, give_back
from afresh.data.preferences import preferences
from afresh.data.uploaded import MOST_KEPT as MOST_UPLOADED
from afresh.faces.http import errors, health
from afresh.faces.http.connection import server_for
from afresh.faces.http.guard import Guard
from afresh.faces.http.keys import NO_KEYS, Door, Keys
from afresh.faces.http.listen import serve_with
from afresh.faces.http.loaded_runs import Library
from afresh.faces.http.native import edits, runs, verbs, verification, votes
from afresh.faces.http.origins import Origins
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.sessions import Sessions
from afresh.faces.studio import exports, pages, sign_in, train, vote
from afresh.faces.studio import routes as studio
from afresh.faces.studio import runs as runs_pages
from afresh.faces.studio.vote_session import VoteSessions

MOST_BYTES = 32 * 2**20  # of the body of a request
MOST_REQUESTS = 64  # at once
MOST_EVALUATIONS = 100_000  # of a network, for one request
GIVEN_BACK = 60  # times of looking after which freed memory is given back
WATCH_SECONDS = 1.0  # after which the server knows at the latest that an adapter was removed
LOADED = "afresh.loaded"  # in the scope of a request for which the dialect of its path was added
SHARE = 0.5  # of the free memory, for weights
PARTS = (runs, edits, verbs, health, verification)


@dataclass(frozen=True)
class ServeSettings:
    """How a server runs. `memory`: bytes of weights that may be held. `hosts`: the names it is addressed by. `rate`:
    requests a minute of one key that make or change something. `works`: the folder for what is made in the studio.
    `sessions`: of browsers that were let in. `proxies`: addresses of proxies that are believed who asks, and whether by
    https. `uploads`: bytes that one name may send and keep through the page. `origins`: of pages of other sites that
    may use the API. `page`: whether there are the page for people and comparisons, which remember in this process."""

    places: Sequence[Path]
    memory: int
    hosts: Sequence[str] = ("127.0.0.1", "localhost", "::1")
    keys: Keys = NO_KEYS
    sessions: Sessions = field(default_factory=Sessions)
    most_requests: int = MOST_REQUESTS
    most_bytes: int = MOST_BYTES
    most_evaluations: int = MOST_EVALUATIONS
    rate: float | None = None
    root_path: str = ""
    works: Path = field(default_factory=lambda: preferences().works_folder)
    proxies: Sequence[str] = ()
    uploads: int = MOST_UPLOADED
    origins: Sequence[str] = ()
    page: bool = True


async def watch(library: Library) -> None:
    """Let go of adapters soon after they were removed, also without requests, and of freed memory from time
    to time."""
    for second in count(1):
        await asyncio.sleep(WATCH_SECONDS)
        if second % GIVEN_BACK == 0:
            await run_in_threadpool(give_back)
        if any(s.base is not None for s in list(library.held.values())):
            await run_in_threadpool(library.prune)


def make_app(settings: ServeSettings) -> FastAPI:
    """The application. Raises UserError if a place is neither a run nor a folder."""
    desk = Desk(Library(settings.places, settings.memory), settings.most_requests, settings.most_evaluations)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(watch(desk.library))
        yield
        watching.cancel()
        desk.close()

    app = FastAPI(
        title="afresh",
        version=__version__,
        description="Your own models, for programs and for people.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        responses=errors.described(errors.body),
        lifespan=lifespan,
    )
    app.state.desk, app.state.works = desk, settings.works
    door = Door(settings.keys, settings.sessions)
    errors.install(app, pages.failure_for_people)
    for part in PARTS:
        app.include_router(part.routes(desk))
    if settings.page:
        add_page(app, desk, door, settings)
    speak_protocols(app, desk)
    app.add_middleware(
        Guard,
        hosts=settings.hosts,
        door=door,
        most_bytes=settings.most_bytes,
        metrics=desk.metrics,
        rate=settings.rate,
        origins=settings.origins,
    )
    if settings.origins:
        app.add_middleware(Origins, origins=settings.origins)
    return app


def add_page(app: FastAPI, desk: Desk, door: Door, settings: ServeSettings) -> None:
    """Add the page for people, and the comparisons that it shares with programs."""
    app.state.sittings = VoteSessions()
    app.include_router(sign_in.routes(door))
    app.include_router(studio.routes(desk, settings.works, settings.most_bytes))
    app.include_router(train.routes(desk, settings.uploads))
    app.include_router(runs_pages.routes(desk))
    app.include_router(exports.routes())
    app.include_router(vote.routes(desk, app.state.sittings))
    app.include_router(votes.routes(desk, app.state.sittings))


def speak_protocols(app: FastAPI, desk: Desk) -> None:
    """Add each dialect of other servers when the first request to one of its paths comes, or when the application is
    described."""
    waiting = registry.protocols()
    lock, nothing, describe = threading.Lock(), app.router.default, app.openapi

    def load(path: str | None) -> None:
        """Add the dialects to which the path belongs, or all. Waits for one that another request is adding."""
        with lock:
            for dialect in [d for d in waiting if path is None or errors.belongs(path, d[0])]:
                app.include_router(dialect[1]().routes(desk))
                waiting.remove(dialect)

    async def unknown(scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request for whose path no route was known when it came."""
        if scope["type"] == "http" and LOADED not in scope:
            scope[LOADED] = True
            await run_in_threadpool(load, scope["path"])
            await app.router(scope, receive, send)
        else:
            await nothing(scope, receive, send)

    def openapi() -> dict[str, Any]:
        load(None)
        return describe()

    app.router.default = unknown
    app.openapi = openapi  # type: ignore[method-assign]


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
