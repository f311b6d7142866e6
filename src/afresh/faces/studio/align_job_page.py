"""Learning from votes, in a process of its own: how far it is, and what it changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from afresh.data.preferences import Minutes
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.request_threads import Desk
from afresh.faces.http.rights import TRAIN, owner_of
from afresh.faces.studio.media_keys import HeldMedia, MediaRef
from afresh.faces.studio.pages import moved, page, page_router
from afresh.faces.studio.train import card, free_place, own_job
from afresh.faces.studio.vote_request import VoteRequest
from afresh.faces.studio.vote_session import VoteSessions
from afresh.runs.run import Run
from afresh.verbs import jobs
from afresh.verbs.annotate import beside, default_votes
from afresh.verbs.jobs import BackgroundJob

VERB = "align"
FURTHER = 30  # pairs to vote on, after what was learnt was too little
BESIDE = 4  # samples of each run that are shown side by side
FormMinutes = Annotated[Minutes, Form(ge=0.1, le=1440, allow_inf_nan=False)]


def routes(desk: Desk, sittings: VoteSessions) -> APIRouter:
    router = page_router(TRAIN)

    @router.post("/studio/vote/{id_}/learn")
    def learn(request: Request, id_: str, minutes: FormMinutes, anyway: Annotated[bool, Form()] = False) -> Response:
        sitting = sittings.find(request, id_)
        if sitting.run is None:
            raise RefusedRequest(400, "These votes compare two runs. To learn from votes, vote on samples of one.")
        evidence = sitting.session.summary().evidence
        if evidence.state == "impossible":
            raise RefusedRequest(400, evidence.outlook(), "votes_too_few")
        if evidence.state == "guesses" and not anyway:
            raise RefusedRequest(400, " ".join(evidence.lines()), "votes_are_guesses")
        return begun(
            request, start(sitting.run, sitting.session.path, minutes, sitting.wish, sitting.owner, anyway=anyway)
        )

    @router.post("/studio/vote/learnt/{id_}/anyway")
    def learn_anyway(request: Request, id_: str) -> Response:
        """Learn from the same votes, also if they are no better than guessing."""
        job = own_job(request, id_, VERB)
        about = job.about
        base = Path(about["base"])
        votes = default_votes(desk.library.open(desk.library.offer(base)))
        return begun(request, start(base, votes, about["minutes"], about["wish"], owner_of(request), anyway=True))

    def begun(request: Request, job: BackgroundJob) -> Response:
        return moved(request, f"vote/learnt/{job.id}")

    @router.get("/studio/vote/learnt/{id_}")
    def show(request: Request, id_: str) -> Response:
        return page(request, "learnt.html", **values(own_job(request, id_, VERB)))

    @router.get("/studio/vote/learnt/{id_}/state")
    def state(request: Request, id_: str) -> Response:
        return page(request, "learnt_state.html", **values(own_job(request, id_, VERB)))

    @router.post("/studio/vote/learnt/{id_}/stop")
    def stop(request: Request, id_: str) -> Response:
        job = own_job(request, id_, VERB)
        jobs.stop(job)
        return page(request, "learnt_state.html", **values(job))

    @router.get("/studio/vote/learnt/{id_}/after")
    async def after(request: Request, id_: str) -> Response:
        """Samples of both runs, made from the same random numbers."""
        job = own_job(request, id_, VERB)
        base, made = (desk.library.offer(Path(job.about[name])) for name in ("base", "out"))
        asking = VoteRequest(**{**job.about["wish"], "run": base, "other": made, "n": BESIDE})
        rows = await desk.run(request, base, lambda served: pairs(served, made, asking))
        again = asking.model_copy(update={"n": 20, "seed": asking.seed + 1, "again": False})
        return page(request, "learnt_after.html", base=base, made=made, rows=rows, fields=again.fields())

    def pairs(served: Served, made: str, asking: VoteRequest) -> list[tuple[str, MediaRef, MediaRef]]:
        other = desk.library.acquire(made)
        try:
            runs = [served.run, other.run]
            votes = default_votes(served.run)
            drawn = beside(runs, asking.wish(), asking.n, seed=asking.seed, votes=votes)
        finally:
            desk.library.release(other)

        def face(run: Run, item: str) -> MediaRef:
            return sittings.album.face(HeldMedia(run.encoder.kind, run.encoder, votes.parent, item))

        return [
            (", ".join(w for w in asked.words if w), face(runs[0], one), face(runs[1], two))
            for asked, (one, two) in drawn
        ]

    return router


def values(job: BackgroundJob) -> dict[str, Any]:
    outcome = jobs.outcome(job)
    asking = VoteRequest(**{**job.about["wish"], "other": "", "again": False})
    return {
        "job": card(job, outcome),
        "outcome": outcome,
        "base": Path(job.about["base"]).name,
        "made": Path(job.about["out"]).name,
        "guesses": outcome.code == "votes_are_guesses",
        "further": asking.model_copy(update={"n": FURTHER, "seed": asking.seed + 1}).fields(),
        "usable": (Path(job.about["out"]) / "checkpoints").is_dir(),
    }


def start(
    run: Path, votes: Path, minutes: float, wish: Mapping[str, object], whose: str, anyway: bool = False
) -> BackgroundJob:
    """Begin `afresh align` with these votes. The new run stands beside the old one. `anyway`: also if the votes turn
    out to be no better than guessing. Raises UserError."""
    base, votes = run.resolve(), votes.resolve()
    out = free_place(base.parent, f"{base.name}-aligned")
    options = {"preferences": votes, "minutes": f"{minutes:g}", "out": out, "set": "anyway=yes" if anyway else None}
    about = {"base": str(base), "out": str(out), "wish": dict(wish), "minutes": minutes}
    return jobs.start(VERB, [base], options, f"Learning from votes on {base.name}", out, whose, about)
