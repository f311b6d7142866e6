"""Works while they are made: a wish waits for the page to listen, is made as long as it listens, and each result is
kept."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from markupsafe import escape

from afresh.core import events
from afresh.core.events import Event
from afresh.core.solver_progress import Step, following
from afresh.data.image.kind import png_bytes
from afresh.engine.pages.render import data_uri
from afresh.faces.http.batching import Cancelled, alone, cancelled
from afresh.faces.http.errors import RefusedRequest, refused
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.forms import event
from afresh.faces.http.requests.text import TextPiece, merged
from afresh.faces.studio.page_words import plain_words
from afresh.faces.studio.pages import rendered
from afresh.verbs.creation_request import CreationRequest, Made, make
from afresh.verbs.gallery import Work, Works

WAIT = 60.0  # seconds within which the page listens after it asked
MOST_WAITING = 256
SHARPER = 6  # how often a picture is shown while it is drawn


@dataclass
class PendingCreation:
    """A wish that a page has sent. `stop` ends it."""

    run: str
    wish: CreationRequest
    files: Mapping[str, bytes]
    works: Works
    since: float = field(default_factory=time.monotonic)
    stop: threading.Event = field(default_factory=threading.Event)
    begun: bool = False


class CreationQueue:
    """The wishes of all pages by their tokens, which only the page that asked knows."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.all: dict[str, PendingCreation] = {}

    def order(self, making: PendingCreation) -> str:
        """The token under which to listen. Raises Refused if the server is busy."""
        self.desk.admit()
        now = time.monotonic()
        self.all = {t: m for t, m in self.all.items() if m.begun or now - m.since < WAIT}
        if len(self.all) >= MOST_WAITING:
            raise RefusedRequest(429, "Too many requests are waiting. Try again in a minute.", "busy", retry=60)
        token = secrets.token_urlsafe(18)
        self.all[token] = making
        return token

    def stop(self, token: str) -> None:
        if token in self.all:
            self.all[token].stop.set()

    async def events(self, request: Request, token: str) -> AsyncIterator[str]:
        """What the page shows, as it comes. A wish that has begun or ended already is not made twice."""
        making = self.all.get(token)
        if making is None or making.begun:
            yield event("", "end")
            return
        making.begun = True
        try:
            async for items in self.desk.stream(making.run, lambda served, put: made(served, making, put)):
                shown = [shown_as(request, making, item) for item in merged(items) if item is not None]
                if shown:
                    yield "".join(shown)
        except Cancelled:
            yield event(rendered(request, "stopped.html"), "failed")
        except Exception as error:
            message = plain_words(str(refused(error)))
            yield event(rendered(request, "error_part.html", message=message), "failed")
        finally:
            self.all.pop(token, None)
        yield event("", "end")


def made(served: Served, making: PendingCreation, put: Callable[[Any], None]) -> None:
    """Make the works of a wish and keep each. `put` gets pieces, works, and events of pictures on the way and notes."""
    gone, run = cancelled.get(), served.run
    alone.set(True)

    def check() -> None:
        if making.stop.is_set() or (gone is not None and gone.is_set()):
            raise Cancelled

    def on_text(index: int, piece: str) -> None:
        check()
        if piece:
            put(TextPiece(index, piece))

    wish = making.wish
    whole: list[Made] = []
    notes: list[str] = []

    def hear(told: Event) -> None:
        if told.kind in ("note", "warning") and (text := plain_words(told.text)) not in notes:
            notes.append(text)
            put(event(f"<p>{escape(text)}</p>", "note"))

    def follow(step: Step) -> None:
        check()
        due = step.done < step.total and step.done % max(1, step.total // SHARPER) == 0
        if due and step.estimate is not None and run.encoder.kind.view == "image" and wish.verb == "sample":
            values = run.encoder.decode(run.from_space(step.estimate().float().cpu()))
            for k, value in enumerate(values):
                image = run.encoder.kind.preview(value).image
                assert image is not None  # as it is one to look at
                picture = f'<img alt="on the way" src="{data_uri("image/png", png_bytes(image))}">'
                put(event(picture, f"sharper-{len(whole) + step.first + k}"))

    with following(follow), events.listening(hear):
        for result in make(run, wish, making.files, on_text=on_text):
            whole.append(result)
            put(making.works.keep(run, served.name, served.version, wish, making.files, result, notes))
            check()


def shown_as(request: Request, making: PendingCreation, item: Any) -> str:
    """An item as an event whose data is HTML."""
    if isinstance(item, TextPiece):
        return event(str(escape(item.text)), f"piece-{item.index}")
    if isinstance(item, str):
        return item
    assert isinstance(item, Work)
    return event(rendered(request, "work.html", work=item), f"work-{item.recipe.index}")
