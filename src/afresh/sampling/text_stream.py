"""What is seen of texts while they are drawn: tokens as text, piece by piece, where a text stops, how likely each token
was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from afresh.core import Encoder, Family, Space, UserError, events
from afresh.data.text.pieces import utf8
from afresh.sampling.request import Request, writes_text
from afresh.sampling.tokens import Watch

Finish = Literal["stop", "end", "length"]
Tell = Callable[[str], None]  # takes each further piece of a text, after every token; it may be empty
BROKEN = "\ufffd"  # what stands for bytes that are no character, or not yet


@dataclass(frozen=True)
class Token:
    """A token as it was drawn: the text it added (none while a character is not whole, and for the mark that ends a
    text), and its log-probability in nats: of the model at temperature 1, guided and in the precision it was drawn in,
    before top-k, top-p, min-p or a structure leave anything out."""

    text: str
    id: int
    logprob: float


@dataclass(frozen=True)
class Written:
    """Why a text ended: a stop string came (`stop`), the model said so (`end`), or it is as long as was asked for
    (`length`); and where they were asked for, all tokens that were drawn, also those of the stop string and the end."""

    finish: Finish
    tokens: tuple[Token, ...] | None = None

    def record(self) -> dict[str, Any]:
        """{finish, logprobs: [{text, id, logprob}]}."""
        found: dict[str, Any] = {"finish": self.finish}
        if self.tokens is not None:
            found["logprobs"] = [{"text": t.text, "id": t.id, "logprob": t.logprob} for t in self.tokens]
        return found


class Detokenizer:
    """Tokens to text one by one: only whole characters, and together what `decode` makes of all tokens at once.

    What a token says may depend on the one before it (some tokenizers drop the first space of a text), so each piece is
    what `decode` adds to the tokens of the piece before.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self.before: list[int] = []  # the tokens of the last piece
        self.seen = ""  # what they say alone
        self.waiting: list[int] = []

    def add(self, token: int) -> str:
        """The text that is certain now and was not before."""
        self.waiting.append(token)
        text = self.decode(self.before + self.waiting)
        if text.endswith(BROKEN) or len(text) == len(self.seen) or not text.startswith(self.seen):
            return ""
        piece = text[len(self.seen) :]
        self.before, self.waiting = self.waiting, []
        self.seen = self.decode(self.before)
        return piece

    def rest(self) -> str:
        """The text of the tokens that wait for more, when no more come."""
        return self.decode(self.before + self.waiting)[len(self.seen) :] if self.waiting else ""


@dataclass(frozen=True)
class Stops:
    """Strings before which a text ends. Raises UserError for an empty one, and for one that is no Unicode."""

    strings: tuple[str, ...]

    def __post_init__(self) -> None:
        if "" in self.strings:
            raise UserError("A stop string is empty, and would stop every text before it begins. Leave it out.")
        for s in self.strings:
            utf8(s)

    @staticmethod
    def of(given: str | Sequence[str]) -> Stops:
        return Stops((given,) if isinstance(given, str) else tuple(given))

    def first(self, text: str, since: int = 0) -> int | None:
        """Where the stop string that is complete first begins, if one is complete only behind `since`: the same
        whatever pieces the text comes in. Of those that are complete together it is the longest."""
        found = []
        for s in self.strings:
            start = text.find(s, max(0, since - len(s) + 1))
            if start >= 0:
                found.append((start + len(s), start))
        return min(found)[1] if found else None

    def held(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        most = min(len(text), max(map(len, self.strings), default=1) - 1)
        return next((k for k in range(most, 0, -1) if any(s.startswith(text[-k:]) for s in self.strings)), 0)


@dataclass
class Row:
    """One text on its way. `detokenizer`: None where its text is not needed; `keep`: its tokens are."""

    stops: Stops
    detokenizer: Detokenizer | None
    keep: bool
    tell: Tell | None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)  # the text that each token added
    text: str = ""  # cut before a stop string
    told: int = 0
    finish: Finish | None = None

    def take(self, token: int, logprob: float, end: int) -> None:
        if token == end:
            self.close("end")
        if self.keep:
            self.ids.append(token)
            self.logprobs.append(logprob)
            self.pieces.append("")
        if token != end and self.detokenizer is not None:
            self.put(self.detokenizer.add(token))

    def close(self, finish: Finish) -> None:
        """No more tokens come: for `finish`, unless what waited for more makes a stop string."""
        rest = "" if self.detokenizer is None else self.detokenizer.rest()
        self.finish = finish
        self.put(rest)

    def put(self, piece: str) -> None:
        """More text, of the token that came last."""
        if self.pieces:
            self.pieces[-1] += piece
        since = len(self.text)
        self.text += piece
        start = self.stops.first(self.text, since)
        if start is not None:
            self.text, self.finish = self.text[:start], "stop"
        if self.tell is not None:
            upto = len(self.text) - (self.stops.held(self.text) if self.finish is None else 0)
            self.tell(self.text[self.told : upto])
            self.told = max(self.told, upto)

    def written(self) -> Written:
        assert self.finish is not None
        tokens = map(Token, self.pieces, self.ids, self.logprobs)
        return Written(self.finish, tuple(tokens) if self.keep else None)


class Watcher:
    """A `Watch` for `generate`: follows each text, and says when it holds a stop string.

    `decode` makes text of ids. It is asked only where text is needed: for stops, `tokens` (each with its text), or
    `tell`, which is told every further piece, never a part of a stop string. `also` watches beside, and may stop too.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        end: int,
        stops: Stops,
        tokens: bool = False,
        tell: Tell | None = None,
        also: Watch | None = None,
    ) -> None:
        self.decode, self.end, self.stops, self.tokens, self.tell, self.also = decode, end, stops, tokens, tell, also
        self.reads = bool(stops.strings) or tokens or tell is not None
        self.rows: dict[int, Row] = {}

    def __call__(self, index: int, token: int, logprob: float) -> bool:
        row = self.rows.get(index)
        if row is None:
            row = Row(self.stops, Detokenizer(self.decode) if self.reads else None, self.tokens, self.tell)
            self.rows[index] = row
        row.take(token, logprob, self.end)
        if self.also is not None and self.also(index, token, logprob) and row.finish is None:
            row.close("stop")
        return row.finish == "stop"

    def close(self) -> list[Row]:
        """Every row in order, when all are drawn: those not yet finished are as long as was asked for. Warns, once, of
        those among them that met no stop string."""
        rows = [self.rows[i] for i in sorted(self.rows)]
        waiting = [row for row in rows if row.finish is None]
        for row in waiting:
            row.close("length")
        cut = sum(row.finish == "length" for row in waiting)
        if cut and self.stops.strings:
            events.warning(
                f"{cut:,} of {len(rows):,} texts met no stop string and were cut where they are as long as was asked "
                "for.",
            )
        return rows

    def texts(self) -> list[str] | None:
        """Cut before a stop string; None where no text was needed."""
        return [r.text for r in self.close()] if self.reads else None

    def written(self) -> list[Written]:
        return [r.written() for r in self.close()]


def watcher_of(
    family: Family,
    encoder: Encoder,
    space: Space,
    request: Request,
    tell: Tell | None = None,
    also: Watch | None = None,
) -> Watcher | None:
    """The watcher that follows the texts of a model while they are sampled; None if the family or the modality has
    nothing to follow.

    Raises UserError if something was asked for all the same, and for an empty stop string.
    """
    stops = Stops.of(request.stop)
    wanted = {"stop": bool(stops.strings), "logprobs": request.logprobs, "stream": tell is not None}
    asked = ", ".join(name for name, wish in wanted.items() if wish)
    if not writes_text(encoder, space):
        if asked:
            raise UserError(f"This model does not make text, and {asked} is for text. Leave it out.", "not_text")
        return None
    if "watch" not in family.sampling.settings.model_fields:  # type: ignore[attr-defined]
        if asked:
            raise UserError(
                f"{family.name} does not write from left to right: a text has no beginning to show before it is "
                f"complete, and a token has no probability given those before it ({asked}). Leave it out, or train a "
                "transformer.",
                "not_left_to_right",
            )
        return None

    def decode(ids: list[int]) -> str:
        return encoder.decode(torch.tensor(ids))[0] if ids else ""

    return Watcher(decode, space.special["end"], stops, request.logprobs, tell, also)
