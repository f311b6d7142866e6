"""Where a person says which of two is better: choosing what is asked, the pairs, and what the votes say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.engine.alignment.rewards.vote_evidence import VoteEvidence
from afresh.engine.sampling.request import converses, of_kind, writes_text
from afresh.faces.http.errors import RefusedRequest, refused
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import owner_of
from afresh.faces.studio import align_job_page
from afresh.faces.studio.page_words import plain_words
from afresh.faces.studio.pages import HEADERS, Name, moved, page, page_router
from afresh.faces.studio.run_card import cards
from afresh.faces.studio.vote_request import VoteRequest, comparable, parse_vote_request
from afresh.faces.studio.vote_session import VoteSession, VoteSessions
from afresh.verbs.annotate import Session, begin_again, default_votes, make_plan

FURTHER, MOST_FURTHER = 10, 100  # pairs that are offered next
Text = Annotated[str, Form(max_length=100)]


def routes(desk: Desk, sittings: VoteSessions) -> APIRouter:
    router = page_router()
    album = sittings.album

    @router.get("/studio/vote")
    def choose(request: Request, run: Name = "", other: Name = "") -> Response:
        return page(request, "vote.html", **choices(desk, run, other), fields=dict(request.query_params), message="")

    @router.post("/studio/vote")
    async def ask(request: Request) -> Response:
        async with request.form(max_files=0, max_fields=200, max_part_size=2**16) as form:
            asking = parse_vote_request(form.multi_items())
        whose = owner_of(request)
        await desk.run(request, asking.run, lambda served: sittings.add(session_of(desk, served, asking, whose)))
        return moved(request, f"vote/{asking.id(whose)}", **asking.fields())

    @router.get("/studio/vote/items/{key}")
    async def item(key: str) -> Response:
        found = await run_in_threadpool(album.content, key)
        if found is None:
            raise RefusedRequest(404, "This item is gone. Load the page again.", "not_found")
        kind, content = found
        return Response(content, media_type=kind, headers={**HEADERS, "cache-control": "private, max-age=3600"})

    @router.get("/studio/vote/{id_}")
    def sit(request: Request, id_: str) -> Response:
        try:
            sitting = sittings.find(request, id_)
        except RefusedRequest as error:
            fields = dict(request.query_params)
            shown = choices(desk, fields.get("run", ""), fields.get("other", ""))
            return page(request, "vote.html", 404, **shown, fields=fields, message=str(error))
        return page(request, "vote_session.html", sitting=sitting, **now(sitting))

    @router.post("/studio/vote/{id_}/answer")
    def answer(request: Request, id_: str, pair: Text, vote: Text) -> Response:
        return changed(request, id_, lambda sitting: sitting.answer(pair, vote))

    @router.post("/studio/vote/{id_}/undo")
    def undo(request: Request, id_: str) -> Response:
        return changed(request, id_, VoteSession.undo)

    @router.post("/studio/vote/{id_}/said")
    def said(request: Request, id_: str) -> Response:
        sitting = sittings.find(request, id_)
        with sitting.lock:
            return page(request, "vote_said.html", **saying(sitting))

    @router.post("/studio/vote/{id_}/end")
    def end(request: Request, id_: str) -> Response:
        """The person has finished with a program that is there for this session alone."""
        sitting = sittings.find(request, id_)
        if not sitting.whole:
            raise RefusedRequest(404, "This server serves more than one session. Stop it where it was started.")
        with sitting.lock:
            sitting.over = True
            saved = sitting.session.saved()
        request.app.state.stop()
        return page(request, "vote_over.html", saved=saved)

    def changed(request: Request, id_: str, change: Any) -> Response:
        """The page after a change, or an error beside the pair, which stays."""
        try:
            sitting = sittings.find(request, id_)
            with sitting.lock:
                if sitting.over:
                    raise RefusedRequest(409, "This session has ended. Start the same command again to go on.")
                change(sitting)
                shown = now(sitting)
                template = "vote_pair.html" if shown["pair"] is not None else "vote_said.html"
                return page(request, template, sitting=sitting, **shown)
        except (RefusedRequest, UserError) as error:
            failed = refused(error)
            answer = page(request, "vote_error.html", failed.status, message=plain_words(str(failed)))
            answer.headers["hx-retarget"], answer.headers["hx-reswap"] = "#vote-error", "innerHTML"
            return answer

    def now(sitting: VoteSession) -> dict[str, Any]:
        pair = sitting.pair(album)
        if pair is None:
            return {"pair": None, **saying(sitting, False)}
        asking = VoteRequest.model_validate(sitting.wish) if sitting.wish else None
        fresh = {} if asking is None else asking.model_copy(update={"seed": asking.seed + 1, "again": False}).fields()
        return {"pair": pair, "fresh": fresh}

    def saying(sitting: VoteSession, whole: bool = True) -> dict[str, Any]:
        """What the votes say, with the strongest and the weakest items to look at."""
        tally = sitting.session.summary()
        ends = [(s, album.face(sitting.held(s.item))) for s in (*tally.strongest, *tally.weakest)]
        strongest, weakest = ends[: len(tally.strongest)], ends[len(tally.strongest) :]
        first, *lines = replace(tally, strongest=(), weakest=()).lines()
        if set(tally.raters) == {""}:  # one person, who has not said a name
            first = f"{counted(tally.votes, 'vote')}, {tally.ties:,} of them ties."
        kept = f"They are kept in {sitting.session.path.name}, and the same choices go on where you stop."
        values = {
            "lines": [first, *lines],
            "tally": tally,
            "strongest": strongest,
            "weakest": weakest,
            "evidence": tally.evidence,
            "further": further(sitting, tally.evidence),
            "saved": sitting.session.saved() if sitting.whole else kept,
            "more": sitting.session.next() is not None,
        }
        return {"sitting": sitting, **values} if whole else values

    router.include_router(align_job_page.routes(desk, sittings))
    return router


def session_of(desk: Desk, served: Served, asking: VoteRequest, whose: str) -> VoteSession:
    """Draw the samples of a session, unless they are kept beside the votes already. Raises UserError."""
    others = [desk.library.acquire(asking.other)] if asking.other else []
    try:
        runs, votes = [served.run, *(o.run for o in others)], default_votes(served.run)
        if asking.again:
            session = begin_again(served.run, asking.n, votes, rater=whose, question=asking.question)
        else:
            plan = make_plan(runs, asking.wish(), asking.n, seed=asking.seed, votes=votes)
            session = Session(plan, votes, whose, question=asking.question)
    finally:
        for other in others:
            desk.library.release(other)
    title = asking.run + (f" and {asking.other}" if asking.other else "")
    run = None if asking.other else served.run.path
    return VoteSession(asking.id(whose), session, served.run.encoder, title, run, whose, asking.model_dump())


def further(sitting: VoteSession, evidence: VoteEvidence) -> list[tuple[str, Mapping[str, Any]]]:
    """What to vote on next to teach more: the words of a button and the fields of the form that it sends. Pairs that
    were not shown yet, and those that this person decided long enough ago to be asked once more."""
    if sitting.run is None or sitting.whole:
        return []
    asking = VoteRequest.model_validate(sitting.wish)
    fresh = asking.model_copy(update={"n": min(MOST_FURTHER, max(FURTHER, evidence.wanted)), "again": False})
    fresh = fresh.model_copy(update={"seed": asking.seed + 1})
    ways: list[tuple[str, Mapping[str, Any]]] = [(f"Vote on {fresh.n} new pairs", fresh.fields())]
    if evidence.decided >= FURTHER and (evidence.agreement is None or evidence.agreement.n < FURTHER):
        again = asking.model_copy(update={"n": FURTHER, "again": True})
        ways.append((f"Judge {FURTHER} pairs once more", again.fields()))
    return ways


def choices(desk: Desk, run: str, other: str) -> dict[str, Any]:
    """What the form offers for a run."""
    runs = [card for card in cards(desk.library) if card.usable and (card.place is None or card.place.judged)]
    if not runs:
        return {"runs": [], "run": "", "others": [], "other": ""}
    name = run if run in {card.name for card in runs} else runs[0].name
    chosen = desk.library.open(name)
    opened = {card.name: desk.library.open(card.name) for card in runs if card.name != name}
    votes = default_votes(chosen)
    return {
        "runs": runs,
        "run": name,
        "others": [n for n, o in opened.items() if comparable(chosen, o)],
        "other": other,
        "labels": {k: chosen.conds[k].classes for k in of_kind(chosen.conds, "label")},
        "captioned": bool(of_kind(chosen.conds, "prompt", "vector")),
        "writes": writes_text(chosen.encoder, chosen.space),
        "talks": converses(chosen.encoder, chosen.space),
        "votes": len(votes.read_bytes().splitlines()) if votes.is_file() else 0,
        "file": votes.name,
    }
