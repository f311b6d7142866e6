"""One person's pairs: which was shown, how each was answered, and how the page may go on after a lost reply."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request

from afresh.core import Encoder, UserError
from afresh.core.safe_text import visible
from afresh.engine.alignment.feedback.preferences import Winner
from afresh.faces.http.errors import RefusedRequest
from afresh.faces.http.rights import owner_of
from afresh.faces.studio.media_keys import HeldMedia, MediaRef, MediaStore
from afresh.verbs.annotate import Session, VoteQuestion

MOST = 500  # sessions that are held; the votes of those that are forgotten are on the disk
ANSWERS: dict[str, Winner | None] = {"a": "a", "b": "b", "tie": "tie", "skip": None}


@dataclass(frozen=True)
class ShownPair:
    """A pair for the page. `id` names it; `asked`: the request of both; `counts`: of what was judged so far."""

    id: str
    number: int
    of: int
    question: str
    asked: Sequence[str]
    a: MediaRef
    b: MediaRef
    counts: str
    undo: bool

    @property
    def form(self) -> str:
        """The form of both; a tune beside one that cannot be played is still heard."""
        return self.a.form if self.a.form == self.b.form else "sound"


@dataclass(eq=False)
class VoteSession:
    """A session of votes as a page sees it. Changes are made under `lock`.

    `title` names the runs; `run`: the one that can learn from the votes, None if two runs are compared; `owner`: whose
    key began it. `whole`: the program is there for this session alone, and ends with it.
    """

    id: str
    session: Session
    encoder: Encoder
    title: str
    run: Path | None
    owner: str = ""
    wish: dict[str, object] = field(default_factory=dict)  # as `VoteRequest` stores it
    whole: bool = False
    over: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    shown: dict[str, VoteQuestion] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    open: str = ""  # the pair that has no answer yet
    before: int = field(init=False)  # pairs that were judged before the session began

    def __post_init__(self) -> None:
        self.before = len(self.session.judged)

    def held(self, item: str) -> HeldMedia:
        return HeldMedia(self.session.plan.kind, self.encoder, self.session.path.parent, item)

    def pair(self, album: MediaStore) -> ShownPair | None:
        """The open pair; None if all are answered or skipped. Raises UserError if a text cannot be read."""
        session = self.session
        question = session.next()
        if question is None:
            return None
        if not self.open:
            self.open = secrets.token_hex(8)
            self.shown[self.open] = question
        judged, skipped = len(session.judged), len(session.skipped)
        counts = [f"{judged:,} judged"] if judged else []
        counts += [f"{session.ties:,} of them ties"] if session.ties else []
        counts += [f"{skipped:,} skipped"] if skipped else []
        return ShownPair(
            self.open,
            question.number,
            question.of,
            visible(session.question),
            [visible(text) for text in (question.pair.label, question.pair.prompt) if text],
            album.face(self.held(question.a)),
            album.face(self.held(question.b)),
            ", ".join(counts),
            session.can_undo,
        )

    def answer(self, pair: str, vote: str) -> None:
        """Save an answer to a pair that was shown; it is on the disk when this returns. The same answer again, because
        the reply was lost, is not saved twice. Raises Refused."""
        if pair not in self.shown:
            raise RefusedRequest(409, "This pair was not shown here, so the vote was not saved. Load the page again.")
        if vote not in ANSWERS:
            raise RefusedRequest(400, f"A vote is one of {', '.join(ANSWERS)}.", param="vote")
        if self.answers.get(pair, vote) != vote:
            raise RefusedRequest(409, "This pair has already been judged, perhaps in another tab. Load the page again.")
        if pair in self.answers:
            return
        winner = ANSWERS[vote]
        try:
            if winner is None:
                self.session.skip(self.shown[pair])
            else:
                self.session.vote(self.shown[pair], winner)
        except (UserError, OSError) as error:
            raise RefusedRequest(500, f"The vote was not saved. {visible(str(error))}") from None
        self.answers[pair], self.open = vote, ""

    def undo(self) -> None:
        """Withdraw the last answer. Raises Refused."""
        try:
            if not self.session.undo():
                raise RefusedRequest(409, "No vote of this session to undo. Load the page again.")
        except (UserError, OSError) as error:
            raise RefusedRequest(500, f"The vote was not withdrawn. {visible(str(error))}") from None
        self.open = ""


class VoteSessions:
    """The sessions of a server by their ids."""

    def __init__(self) -> None:
        self.all: OrderedDict[str, VoteSession] = OrderedDict()
        self.album = MediaStore()

    def add(self, sitting: VoteSession) -> None:
        self.all[sitting.id] = sitting
        self.all.move_to_end(sitting.id)
        while len(self.all) > MOST:
            self.all.popitem(last=False)

    def find(self, request: Request, id_: str) -> VoteSession:
        """A session of the visitor. Raises Refused."""
        sitting = self.all.get(id_)
        if sitting is None or sitting.owner != owner_of(request):
            raise RefusedRequest(
                404,
                "This session is not open here: the server was started again since. All votes are kept; begin again "
                "with the same run to go on.",
                "session_not_found",
            )
        return sitting
