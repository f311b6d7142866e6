"""The studio for one session of votes, as `afresh compare` opens it: for one browser, until the person has finished."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

from afresh.engine.sampling.request import labels_by_name
from afresh.faces.http.app import ServeSettings, memory_budget, server_of
from afresh.faces.http.keys import Keys
from afresh.faces.http.listen import serve_with
from afresh.faces.http.rights import TRAIN, Holder
from afresh.faces.studio.vote_request import VoteRequest
from afresh.faces.studio.vote_session import VoteSession
from afresh.runs.run import Run
from afresh.verbs.annotate import PairRequest, Session

HOST = "127.0.0.1"


def serve(session: Session, runs: Sequence[Run], wish: PairRequest, port: int, ready: Callable[[str], None]) -> None:
    """Serve the questions of a session until the person has finished. Calls `ready` with the address, which lets one
    browser in, once: other users of the machine can neither see items nor vote.

    Raises UserError if the port cannot be used, and KeyboardInterrupt on Ctrl-C. No vote is written in part.
    """
    settings = ServeSettings(places=tuple(run.path for run in runs), memory=memory_budget(), keys=Keys())
    ticket = settings.sessions.ticket(Holder("", TRAIN))
    server = server_of(settings)
    sitting = session_of(session, runs, wish)
    server.config.app.state.sittings.add(sitting)  # type: ignore[union-attr]

    def listening(address: str) -> None:
        ready(f"{address}/studio/enter?to=vote/{sitting.id}&ticket={ticket}")

    try:
        serve_with(server, HOST, port, listening)
        if not sitting.over:
            raise KeyboardInterrupt
    finally:
        with sitting.lock:  # wait for a vote that is being written
            sitting.over = True


def session_of(session: Session, runs: Sequence[Run], wish: PairRequest) -> VoteSession:
    """A session that was begun in a terminal, for the page."""
    names = [run.path.resolve().name for run in runs]
    asking = VoteRequest.model_construct(
        run=names[0],
        other=names[1] if len(names) > 1 else "",
        n=session.of,
        prompts="\n".join(wish.prompts),
        labels=labels_by_name(runs[0].conds, wish.label) if wish.label else {},
        caption=wish.caption or "",
        question=session.question,
        seed=session.plan.seed,
    )
    run = runs[0].path if len(runs) == 1 else None
    id_ = secrets.token_hex(12)
    return VoteSession(id_, session, runs[0].encoder, " and ".join(names), run, wish=asking.model_dump(), whole=True)
