"""The page on which one talks with a run: conversations are kept, named, taken along, branched and answered again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import RedirectResponse
from markupsafe import escape
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from afresh.core import UserError
from afresh.domains.text.answers import Answers
from afresh.engine.sampling.request import converses
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.forms import event, event_stream
from afresh.faces.http.rights import USE, needs
from afresh.faces.studio.controls import Controls, controls_of
from afresh.faces.studio.form import number
from afresh.faces.studio.gallery_page import works_of
from afresh.faces.studio.markdown import markdown
from afresh.faces.studio.pages import HEADERS, PageRoute, RunPage, address, moved, page
from afresh.faces.studio.run_card import cards, newest_text
from afresh.runs.run import Run
from afresh.verbs.conversations import MOST_CHARACTERS, Conversation, Conversations, now

FOLDER = "chats"  # in the folder of the works of a person
Name = Annotated[str, Query(max_length=255)]


def chats_of(request: Request) -> Conversations:
    """The conversations of the caller: with keys, everybody has their own."""
    return Conversations(works_of(request, request.app.state.works).root / FOLDER)


def routes(desk: Desk) -> APIRouter:
    router = APIRouter(route_class=PageRoute, include_in_schema=False, dependencies=[needs(USE)])
    answers = Answers(desk)

    @router.get("/studio/chat")
    def begin(request: Request, run: Name = "", words: Annotated[str, Query(max_length=2_000)] = "") -> Response:
        """A new conversation."""
        runs = talking(desk)
        name = run or (runs[0] if runs else "")
        controls = controls_of(desk.library.open(name)) if name else None
        if controls is not None and not controls.talks:
            raise RefusedRequest(400, f"{name} did not learn conversations, so it cannot answer.", "not_chat", "run")
        return shown(request, None, "", name, controls, words)

    @router.post("/studio/chat")
    async def first(request: Request) -> Response:
        """The first message of a conversation."""
        run, text, system, settings = await message_of(request)
        if not (await run_in_threadpool(lambda: controls_of(desk.library.open(run)))).talks:
            raise RefusedRequest(400, f"{run} did not learn conversations, so it cannot answer.", "not_chat", "run")
        chats, time = chats_of(request), now()
        desk.admit()
        id_ = chats.begin(Conversation(run=run, made=time, changed=time, system=system, settings=settings))
        answers.begin(chats, id_, lambda c: c.asked(text))
        return moved(request, f"chat/{id_}")

    @router.get("/studio/chat/bin")
    def bin(request: Request) -> Response:
        return page(request, "chats_bin.html", rows=chats_of(request).listed(binned=True))

    @router.post("/studio/chat/bin/empty")
    def empty(request: Request, sure: Annotated[bool, Form()] = False) -> Response:
        if not sure:
            raise RefusedRequest(400, "Emptying the bin cannot be undone. Tick that you mean it.", None, "sure")
        chats_of(request).empty_bin()
        return RedirectResponse(address(request, "chat/bin"), 303, HEADERS)

    @router.get("/studio/chat/{id_}")
    def show(request: Request, id_: str) -> Response:
        chats = chats_of(request)
        # Before the conversation is read: an answer that ends now is kept in it first, and then counts as ended.
        answer = answers.of(chats, id_)
        writing, failed = (False, "") if answer is None else (not answer.ended, answer.failed)
        conversation = chats.get(id_)
        try:
            controls = controls_of(desk.library.open(conversation.run))
        except UserError:
            controls = None
        return shown(request, conversation, id_, conversation.run, controls, conversation.draft, writing, failed)

    @router.post("/studio/chat/{id_}")
    async def ask(request: Request, id_: str) -> Response:
        """One more message."""
        _, text, system, settings = await message_of(request)
        chats = chats_of(request)
        if chats.get(id_).waits:
            raise RefusedRequest(409, "The last message has no answer yet. Let it be answered first.", "busy")
        update = {"system": system, "settings": settings}
        answers.begin(chats, id_, lambda c: c.asked(text).model_copy(update=update))
        return moved(request, f"chat/{id_}")

    @router.post("/studio/chat/{id_}/again")
    async def again(request: Request, id_: str) -> Response:
        """Another answer to the last message."""
        chats = chats_of(request)
        if not chats.get(id_).messages:
            raise RefusedRequest(400, "Nothing was said yet that could be answered.")
        answers.begin(chats, id_, lambda c: c)
        return moved(request, f"chat/{id_}")

    @router.get("/studio/chat/{id_}/answer")
    async def listen(request: Request, id_: str) -> Response:
        """The answer that is being written, as it grows."""
        chats = chats_of(request)
        chats.get(id_)
        return event_stream(events(chats, id_), headers={**HEADERS, "x-accel-buffering": "no"})

    @router.post("/studio/chat/{id_}/stop")
    async def stop(request: Request, id_: str) -> Response:
        answers.stop(chats_of(request), id_)
        return Response(status_code=204, headers=HEADERS)

    @router.post("/studio/chat/{id_}/choose")
    def choose(
        request: Request, id_: str, index: Annotated[int, Form(ge=0)], answer: Annotated[int, Form(ge=0)]
    ) -> Response:
        """Another answer that was given to a message counts."""
        chats = chats_of(request)
        chats.change(id_, lambda c: c.choosing(index, answer), said=False)
        return moved(request, f"chat/{id_}")

    @router.post("/studio/chat/{id_}/branch")
    def branch(request: Request, id_: str, index: Annotated[int, Form(ge=0)]) -> Response:
        """A new conversation that begins as this one: up to an answer, or before a message that is then said again."""
        chats = chats_of(request)
        return moved(request, f"chat/{chats.branch(id_, index)}")

    @router.post("/studio/chat/{id_}/rename")
    def rename(request: Request, id_: str, title: Annotated[str, Form(max_length=200)] = "") -> Response:
        if not (words := " ".join(title.split())):
            raise RefusedRequest(400, "A conversation needs a name of a letter at least.", None, "title")
        chats = chats_of(request)
        chats.change(id_, lambda c: c.model_copy(update={"title": words}), said=False)
        return moved(request, f"chat/{id_}")

    @router.get("/studio/chat/{id_}/download/{kind}")
    def download(request: Request, id_: str, kind: str) -> Response:
        conversation = chats_of(request).get(id_)
        if kind == "md":
            content, media = conversation.markdown(), "text/markdown; charset=utf-8"
        elif kind == "json":
            content = json.dumps(conversation.json_messages(), indent=1, ensure_ascii=False) + "\n"
            media = "application/json"
        else:
            raise RefusedRequest(404, f"Conversations are not kept as {kind[:20]}.", "not_found")
        headers = {**HEADERS, "content-disposition": f'attachment; filename="afresh-chat-{id_}.{kind}"'}
        return Response(content.encode("utf-8", "backslashreplace"), media_type=media, headers=headers)

    @router.post("/studio/chat/{id_}/{deed}")
    def move(request: Request, id_: str, deed: str) -> Response:
        chats = chats_of(request)
        chats.get(id_)
        if deed == "bin":
            answers.stop(chats, id_)
            chats.move(id_, binned=True)
            return RedirectResponse(address(request, "chat/bin"), 303, HEADERS)
        if deed == "restore":
            chats.move(id_, binned=False)
            return moved(request, f"chat/{id_}")
        raise RefusedRequest(404, f"A conversation cannot be asked to {deed[:40]}.", "not_found")

    def shown(
        request: Request,
        conversation: Conversation | None,
        id_: str,
        run: str,
        controls: Controls | None,
        draft: str,
        writing: bool = False,
        failed: str = "",
    ) -> Response:
        return page(
            request,
            "chat.html",
            chat=conversation,
            id=id_,
            run=run,
            runs=talking(desk),
            controls=controls,
            draft=draft,
            writing=writing,
            failed=failed,
            chats=chats_of(request).listed(),
            markdown=markdown,
        )

    async def events(chats: Conversations, id_: str) -> AsyncIterator[str]:
        answer = answers.of(chats, id_)
        if answer is not None:
            async for state in answer.states():
                yield event(str(markdown(state.text)), "answer")
                if state.notes:
                    yield event("".join(f"<p>{escape(note)}</p>" for note in state.notes), "notes")
        yield event("", "end")

    return router


def talking(desk: Desk) -> list[str]:
    """The names of the runs with which one can talk."""
    return [card.name for card in cards(desk.library) if card.usable and card.page == PAGE.name]


async def message_of(request: Request) -> tuple[str, str, str, dict[str, float]]:
    """(run, message, system message, settings) of a form. Raises Refused and UserError."""
    fields: dict[str, str] = {}
    settings: dict[str, float] = {}
    async with request.form(max_files=0, max_fields=50, max_part_size=4 * MOST_CHARACTERS) as form:
        for name, given in form.multi_items():
            text = str(given).replace("\r\n", "\n")  # as browsers send every end of a line
            part, _, of = name.partition(".")
            if part == "setting" and of:
                if text.strip():
                    settings[of] = float(number(of, text))
            elif name in ("run", "message", "system"):
                fields[name] = text
            else:
                raise RefusedRequest(400, f"The form has a field {name[:60]!r}, which is not known here.", None, name)
    if not fields.get("message", "").strip():
        raise RefusedRequest(400, "The message is empty. Write what the model is to answer.", None, "message")
    return fields.get("run", ""), fields["message"], fields.get("system", "").strip(), settings


def able(run: Run) -> str | None:
    """Why one cannot talk with a run; None if one can."""
    return None if converses(run.encoder, run.space) else "it did not learn conversations"


HERE = Path(__file__).parent
PAGE = RunPage(
    "chat", "Chat with it", able, routes, HERE / "templates", newest_text, judged=True, static=HERE / "static"
)
