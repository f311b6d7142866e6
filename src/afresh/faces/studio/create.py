"""Where one creates: the page for a run, and the works as they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from afresh.core import registry
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.forms import event_stream
from afresh.faces.studio.controls import Controls, controls_of
from afresh.faces.studio.creation_stream import CreationQueue, PendingCreation
from afresh.faces.studio.form import form_of, parse_creation_request
from afresh.faces.studio.gallery_page import works_of
from afresh.faces.studio.pages import HEADERS, Name, moved, page, page_router
from afresh.faces.studio.recipe import how_made
from afresh.faces.studio.run_card import cards, page_of
from afresh.faces.studio.verb_page import verbs_of
from afresh.verbs.gallery import Work

Id = Annotated[str, Query(max_length=40)]
MOST_WORDS = 2_000  # characters of the words that a page begins with
NEAR = 12  # works to blend with
EARLIER = 6  # works that the page begins with, as what was made on it is not gone when it is loaded again
# What is done with what exists, by its name in the address, and the words of the button that does it.
DEEDS = {
    "edit": "Change it",
    "outpaint": "Extend it",
    "enlarge": "Enlarge it",
    "extend": "Lengthen it",
    "loop": "Make it a loop",
    "move": "Move it",
    "blend": "Blend",
    "continue": "Continue",
}


def routes(desk: Desk, root: Path) -> APIRouter:
    router = page_router()
    workshop = CreationQueue(desk)
    deeds = DEEDS | {name: creation.title for name, creation in registry.creations().items()}

    @router.get("/studio/create")
    def create(
        request: Request,
        run: Name = "",
        words: Annotated[str, Query(max_length=MOST_WORDS)] = "",
        start: Id = "",
        verb: Annotated[str, Query(max_length=40)] = "",
    ) -> Response:
        if verb not in {"", "again", *deeds}:
            raise RefusedRequest(400, f"Unknown verb {verb}. Known: {', '.join(deeds)}.", None, "verb")
        runs = [card for card in cards(desk.library) if card.usable and card.page == "create"]
        works = works_of(request, root)
        work = works.get(start) if start else None
        if not run and work is None and not runs:
            return page(request, "home.html", runs=cards(desk.library), works=[])
        name = run or (work.recipe.run if work is not None else runs[0].name)
        opened = desk.library.open(name)
        if (elsewhere := page_of(opened)) is not None:  # also for a work of a time when it had none
            asked = (work.recipe.wish.prompt or "") if work is not None else ""
            words = words or (asked if len(asked) <= MOST_WORDS else "")
            return moved(request, elsewhere.name, run=name, words=words)
        controls = controls_of(opened)
        able = {way.verb for way in controls.ways}
        if verb in deeds and verb not in able | {"blend", "continue"}:
            raise RefusedRequest(400, f"{name} cannot do this: {deeds[verb].lower()}.", None, "verb")
        going = verb in able or (verb == "continue" and controls.form == "music" and work is not None)
        fields = begun(controls, words, work, verb)
        near = works.find(run=name, most=NEAR) if verb == "blend" else []
        earlier = works.find(run=name, most=EARLIER)
        return page(
            request,
            "create.html",
            run=name,
            runs=runs,
            controls=controls,
            fields=fields,
            work=work,
            earlier=earlier,
            verb=verb,
            going=going,
            deeds=deeds,
            creation=registry.creations().get(verb),
            verbs=verbs_of(opened),
            near=[w for w in near if work is None or w.id != work.id],
        )

    @router.post("/studio/create")
    async def order(request: Request, run: Name) -> Response:
        works = works_of(request, root)
        async with request.form(max_files=4, max_fields=400, max_part_size=2 * 2**20) as form:
            wish, files = await parse_creation_request(form, works)
        opened = await run_in_threadpool(lambda: desk.library.open(run))
        if page_of(opened) is not None:
            raise RefusedRequest(400, f"{run} is used on a page of its own. Choose it under Models.", None, "run")
        controls = await run_in_threadpool(lambda: controls_of(opened))
        token = workshop.order(PendingCreation(run, wish, files, works))
        return page(
            request, "making.html", token=token, wish=wish, how=how_made(wish.verb).capitalize(), controls=controls
        )

    @router.get("/studio/making/{token}")
    async def listen(request: Request, token: str) -> Response:
        return event_stream(workshop.events(request, token), headers={**HEADERS, "x-accel-buffering": "no"})

    @router.post("/studio/making/{token}/stop")
    async def stop(token: str) -> Response:
        workshop.stop(token)
        return Response(status_code=204, headers=HEADERS)

    return router


def begun(controls: Controls, words: str, work: Work | None, verb: str) -> dict[str, Any]:
    """The fields that are filled in when the page opens: with the words of the first page, or those of a work."""
    fields: dict[str, Any] = dict(form_of(work.recipe.wish)) if work is not None else {}
    if work is not None and verb == "continue":
        fields = {"prompt": work.text()}
    elif work is not None and verb != "again":
        fields = {k: v for k, v in fields.items() if k.startswith(("label.", "number.")) or k == "caption"}
    if not words:
        return fields
    if controls.writes:
        fields["prompt"] = words
        return fields
    for choice in controls.labels:
        match = next((c for c in choice.classes if c.lower() == words.strip().lower()), None)
        if match is not None:
            return {**fields, f"label.{choice.name}": match}
    if controls.caption:
        fields["caption"] = words
    elif controls.labels:
        fields["unknown"] = words
    return fields
