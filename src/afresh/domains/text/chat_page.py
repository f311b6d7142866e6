"""The page on which one talks with a run: conversations are kept, named, taken along, branched and answered again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from markupsafe import Markup, escape
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from afresh.core import UserError
from afresh.engine.sampling.request import converses
from afresh.faces import studio
from afresh.runs.about import newest_text
from afresh.runs.run import Run
from afresh.verbs.conversations import MOST_CHARACTERS, Conversation, Conversations, now

if TYPE_CHECKING:
    from markdown_it import MarkdownIt


@cache
def parser() -> MarkdownIt:
    """CommonMark with tables. HTML is text, images are links, and links lead to http, https and mail alone, in a page
    that does not learn where they were followed."""
    from markdown_it import MarkdownIt  # here: a server with which nobody talks starts earlier

    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    markdown.disable("image")
    markdown.validateLink = allowed  # type: ignore[assignment, method-assign]
    markdown.add_render_rule("link_open", link_open)
    markdown.add_render_rule("heading_open", heading)
    markdown.add_render_rule("heading_close", heading)
    markdown.add_render_rule("fence", code)
    markdown.add_render_rule("code_block", code)
    markdown.add_render_rule("table_open", lambda *_: '<div class="wide-table" tabindex="0"><table>')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>")
    return markdown


def markdown(text: str) -> Markup:
    """A text as HTML."""
    return Markup(parser().render(text))


def allowed(address: str) -> bool:
    """Whether a link may lead there."""
    return address.strip().lower().startswith(("http://", "https://", "mailto:"))


def link_open(renderer: Any, tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    tokens[at].attrSet("rel", "noopener noreferrer nofollow")
    tokens[at].attrSet("target", "_blank")
    return str(renderer.renderToken(tokens, at, options, env))


def heading(renderer: Any, tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    """Headings of an answer stand below those of the page."""
    tokens[at].tag = f"h{min(6, int(tokens[at].tag[1]) + 2)}"
    return str(renderer.renderToken(tokens, at, options, env))


def code(renderer: Any, tokens: Sequence[Any], at: int, options: Any, env: Any) -> str:
    """A block of code, which is scrolled by the keyboard as well."""
    return f'<pre tabindex="0"><code>{Markup.escape(tokens[at].content)}</code></pre>\n'


WORDS = 2_000  # characters of a message that a page begins with
FOLDER = "chats"  # in the folder of the works of a person


def chats_of(request: Request) -> Conversations:
    """The visitor's conversations: with keys, everybody has their own."""
    return Conversations(studio.own_folder(request) / FOLDER)


def routes(desk: studio.Desk) -> APIRouter:
    router = studio.page_router()
    answers = studio.Answers(desk)

    @router.get("/studio/chat")
    def begin(request: Request, run: studio.Name = "", words: Annotated[str, Query(max_length=WORDS)] = "") -> Response:
        """A new conversation."""
        runs = studio.runs_on(desk, PAGE.name)
        name = run or (runs[0] if runs else "")
        controls = talker(desk, name) if name else None
        return shown(request, None, "", name, controls, words)

    @router.post("/studio/chat")
    async def first(request: Request) -> Response:
        """The first message of a conversation."""
        run, text, system, settings = await message_of(request)
        await run_in_threadpool(talker, desk, run)
        chats, time = chats_of(request), now()
        desk.admit()
        id_ = chats.begin(Conversation(run=run, made=time, changed=time, system=system, settings=settings))
        answers.begin(chats, id_, lambda c: c.asked(text))
        return studio.moved(request, f"chat/{id_}")

    @router.get("/studio/chat/bin")
    def bin(request: Request) -> Response:
        return studio.page(request, "chats_bin.html", rows=chats_of(request).listed(binned=True))

    @router.post("/studio/chat/bin/empty")
    def empty(request: Request, sure: Annotated[bool, Form()] = False) -> Response:
        if not sure:
            raise studio.RefusedRequest(400, "Emptying the bin cannot be undone. Tick that you mean it.", None, "sure")
        chats_of(request).empty_bin()
        return studio.moved(request, "chat/bin")

    @router.get("/studio/chat/{id_}")
    def show(request: Request, id_: str) -> Response:
        chats = chats_of(request)
        # Before the conversation is read: an answer that ends now is kept in it first, and then counts as ended.
        answer = answers.of(chats, id_)
        writing, failed = (False, "") if answer is None else (not answer.ended, answer.failed)
        conversation = chats.get(id_)
        try:
            controls = studio.controls_of(desk.library.open(conversation.run))
        except UserError:
            controls = None
        return shown(request, conversation, id_, conversation.run, controls, conversation.draft, writing, failed)

    @router.post("/studio/chat/{id_}")
    async def ask(request: Request, id_: str) -> Response:
        """One more message."""
        _, text, system, settings = await message_of(request)
        chats = chats_of(request)
        if chats.get(id_).waits:
            raise studio.RefusedRequest(409, "The last message has no answer yet. Let it be answered first.", "busy")
        update = {"system": system, "settings": settings}
        answers.begin(chats, id_, lambda c: c.asked(text).model_copy(update=update))
        return studio.moved(request, f"chat/{id_}")

    @router.post("/studio/chat/{id_}/again")
    async def again(request: Request, id_: str) -> Response:
        """Another answer to the last message."""
        chats = chats_of(request)
        if not chats.get(id_).messages:
            raise studio.RefusedRequest(400, "Nothing was said yet that could be answered.")
        answers.begin(chats, id_, lambda c: c)
        return studio.moved(request, f"chat/{id_}")

    @router.get("/studio/chat/{id_}/answer")
    async def listen(request: Request, id_: str) -> Response:
        """The answer that is being written, as it grows."""
        chats = chats_of(request)
        chats.get(id_)
        return studio.stream(events(chats, id_))

    @router.post("/studio/chat/{id_}/stop")
    async def stop(request: Request, id_: str) -> Response:
        answers.stop(chats_of(request), id_)
        return Response(status_code=204)

    @router.post("/studio/chat/{id_}/choose")
    def choose(
        request: Request, id_: str, index: Annotated[int, Form(ge=0)], answer: Annotated[int, Form(ge=0)]
    ) -> Response:
        """Another answer that was given to a message counts."""
        chats = chats_of(request)
        chats.change(id_, lambda c: c.choosing(index, answer), said=False)
        return studio.moved(request, f"chat/{id_}")

    @router.post("/studio/chat/{id_}/branch")
    def branch(request: Request, id_: str, index: Annotated[int, Form(ge=0)]) -> Response:
        """A new conversation that begins as this one: up to an answer, or before a message that is then edited. Nothing
        is kept of one in which nothing was said yet."""
        chats = chats_of(request)
        source = chats.get(id_)
        if index == 0 and source.messages and not source.system and len(source.messages[0].text) <= WORDS:
            return studio.moved(request, "chat", run=source.run, words=source.messages[0].text)
        return studio.moved(request, f"chat/{chats.branch(id_, index)}")

    @router.post("/studio/chat/{id_}/rename")
    def rename(request: Request, id_: str, title: Annotated[str, Form(max_length=200)] = "") -> Response:
        if not (words := " ".join(title.split())):
            raise studio.RefusedRequest(400, "A conversation needs a name of a letter at least.", None, "title")
        chats = chats_of(request)
        chats.change(id_, lambda c: c.model_copy(update={"title": words}), said=False)
        return studio.moved(request, f"chat/{id_}")

    @router.get("/studio/chat/{id_}/download/{kind}")
    def download(request: Request, id_: str, kind: str) -> Response:
        conversation = chats_of(request).get(id_)
        if kind == "md":
            content, media = conversation.markdown(), "text/markdown; charset=utf-8"
        elif kind == "json":
            content = json.dumps(conversation.json_messages(), indent=1, ensure_ascii=False) + "\n"
            media = "application/json"
        else:
            raise studio.RefusedRequest(404, f"Conversations are not kept as {kind[:20]}.", "not_found")
        headers = {"content-disposition": f'attachment; filename="afresh-chat-{id_}.{kind}"'}
        return Response(content.encode("utf-8", "backslashreplace"), media_type=media, headers=headers)

    @router.post("/studio/chat/{id_}/{deed}")
    def move(request: Request, id_: str, deed: str) -> Response:
        chats = chats_of(request)
        chats.get(id_)
        if deed == "bin":
            answers.stop(chats, id_)
            chats.move(id_, binned=True)
            return studio.moved(request, "chat/bin")
        if deed == "restore":
            chats.move(id_, binned=False)
            return studio.moved(request, f"chat/{id_}")
        raise studio.RefusedRequest(404, f"Unknown action {deed[:40]} for a conversation.", "not_found")

    def shown(
        request: Request,
        conversation: Conversation | None,
        id_: str,
        run: str,
        controls: Any,
        draft: str,
        writing: bool = False,
        failed: str = "",
    ) -> Response:
        return studio.page(
            request,
            "chat.html",
            chat=conversation,
            id=id_,
            run=run,
            runs=studio.runs_on(desk, PAGE.name),
            controls=controls,
            draft=draft,
            writing=writing,
            failed=failed,
            chats=chats_of(request).listed(),
            markdown=markdown,
        )

    async def events(chats: Conversations, id_: str) -> AsyncIterator[tuple[str, str]]:
        answer = answers.of(chats, id_)
        if answer is not None:
            async for state in answer.states():
                yield "answer", str(markdown(state.text))
                if state.notes:
                    yield "notes", "".join(f"<p>{escape(note)}</p>" for note in state.notes)
        yield "end", ""

    return router


def talker(desk: studio.Desk, run: str) -> Any:
    """The controls of a run. Raises RefusedRequest unless it answers."""
    controls = studio.controls_of(desk.library.open(run))
    if not controls.talks:
        raise studio.RefusedRequest(400, f"{run} did not learn conversations.", "not_chat", "run")
    return controls


async def message_of(request: Request) -> tuple[str, str, str, dict[str, float]]:
    """(run, message, system message, settings) of a form. Raises Refused and UserError."""
    fields: dict[str, str] = {}
    settings: dict[str, float] = {}
    async with request.form(max_files=0, max_fields=50, max_part_size=4 * MOST_CHARACTERS) as form:
        for name, given in form.multi_items():
            text = str(given).replace("\r\n", "\n")  # as browsers send every end of a line
            part, _, of = name.partition(".")
            if part == "setting" and of:
                try:
                    settings |= {of: float(text)} if text.strip() else {}
                except ValueError:
                    raise studio.RefusedRequest(400, f"{of} must be a number, not {text[:40]!r}.") from None
            elif name in ("run", "message", "system"):
                fields[name] = text
            else:
                raise studio.RefusedRequest(400, f"The form has an unknown field {name[:60]!r}.", None, name)
    if not fields.get("message", "").strip():
        raise studio.RefusedRequest(400, "The message is empty. Write what the model is to answer.", None, "message")
    return fields.get("run", ""), fields["message"], fields.get("system", "").strip(), settings


def able(run: Run) -> str | None:
    """Why one cannot talk with a run; None if one can."""
    return None if converses(run.encoder, run.space) else "it did not learn conversations"


HERE = Path(__file__).parent
PAGE = studio.RunPage(
    "chat", "Chat with it", able, routes, newest_text, HERE / "templates", judged=True, static=HERE / "static"
)
