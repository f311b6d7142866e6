"""/afresh/v1/comparisons: pairs of samples that a program's users compare. The votes are those that
`afresh compare` and the studio save, and `afresh align` learns from."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from afresh.faces.http.native.items import answer
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.requests.forms import Form, Words
from afresh.faces.http.rights import USE, needs, owner_of
from afresh.faces.studio.media_keys import MediaRef, MediaStore
from afresh.faces.studio.vote import session_of
from afresh.faces.studio.vote_request import VoteRequest
from afresh.faces.studio.vote_session import VoteSession, VoteSessions

Text = Annotated[str, Field(max_length=2_000)]


class ComparisonForm(Form):
    """What is compared. The same request by the same person goes on with the votes that there are."""

    model: Annotated[str, Field(min_length=1, max_length=255)]
    other: Annotated[str, Field(max_length=255)] = Field("", description="A second run; none compares samples of one.")
    n: Annotated[int, Field(ge=1, le=1000)] = Field(20, description="Pairs.")
    prompts: Annotated[list[Text], Field(max_length=100)] = Field([], description="Beginnings, which take turns.")
    label: dict[str, Words] = Field({}, description="The class of each label that is not left to chance.")
    caption: Text = ""
    question: Text = ""
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0

    def asking(self) -> VoteRequest:
        """The same as the form of the page."""
        values = self.model_dump(exclude={"model", "prompts", "label"})
        return VoteRequest(run=self.model, prompts="\n".join(self.prompts), labels=self.label, **values)


class VoteForm(Form):
    pair: Annotated[str, Field(max_length=100)] = Field(description="The id of the pair that was shown.")
    vote: Literal["a", "b", "tie", "skip"]


def state(sitting: VoteSession, album: MediaStore) -> dict[str, Any]:
    """{id, model, pair, judged, ties, skipped, file}; `pair` is None when all are answered."""
    pair, session = sitting.pair(album), sitting.session
    shown = None
    if pair is not None:
        shown = {"id": pair.id, "number": pair.number, "of": pair.of, "question": pair.question}
        shown |= {"asked": list(pair.asked), "a": item(pair.a, album), "b": item(pair.b, album)}
    return {
        "id": sitting.id,
        "model": sitting.title,
        "pair": shown,
        "judged": len(session.judged),
        "ties": session.ties,
        "skipped": len(session.skipped),
        "file": session.path.name,
    }


def item(face: MediaRef, album: MediaStore) -> dict[str, str]:
    """{text} or {base64, media_type}; the latter is empty if its file is gone."""
    if face.form == "text":
        return {"text": face.text}
    media_type, content = album.content(face.key) or ("", b"")
    return {"base64": base64.b64encode(content).decode(), "media_type": media_type}


def routes(desk: Desk, sittings: VoteSessions) -> APIRouter:
    router = APIRouter(tags=["afresh"], dependencies=[needs(USE)])

    async def changed(request: Request, id_: str, change: Callable[[VoteSession], None]) -> Response:
        def work() -> dict[str, Any]:
            sitting = sittings.find(request, id_)
            with sitting.lock:
                change(sitting)
                return state(sitting, sittings.album)

        return answer(await run_in_threadpool(work))

    @router.post("/afresh/v1/comparisons", summary="A comparison of samples, and its first pair")
    async def begin(form: ComparisonForm, request: Request) -> Response:
        asking, whose = form.asking(), owner_of(request)

        def work(served: Any) -> dict[str, Any]:
            known = sittings.all.get(asking.id(whose))
            sitting = known or session_of(desk, served, asking, whose)
            sittings.add(sitting)
            with sitting.lock:
                return state(sitting, sittings.album)

        return answer(await desk.run(request, form.model, work))

    @router.get("/afresh/v1/comparisons/{comparison}", summary="The open pair of a comparison")
    async def now(comparison: str, request: Request) -> Response:
        return await changed(request, comparison, lambda sitting: None)

    @router.post("/afresh/v1/comparisons/{comparison}/votes", summary="Which of a pair is better; the next pair")
    async def vote(comparison: str, form: VoteForm, request: Request) -> Response:
        return await changed(request, comparison, lambda sitting: sitting.answer(form.pair, form.vote))

    @router.delete("/afresh/v1/comparisons/{comparison}/votes", summary="Withdraw the last vote; its pair again")
    async def undo(comparison: str, request: Request) -> Response:
        return await changed(request, comparison, VoteSession.undo)

    return router
