"""Observing texts while they are sampled: incremental detokenisation, stop strings and log-probabilities of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Literal

import torch

from afresh.core import Encoder, Family, Space, UserError, events
from afresh.data.text.pieces import utf8
from afresh.engine.sampling.constraint import Maker, is_complete
from afresh.engine.sampling.request import Request, writes_text
from afresh.engine.sampling.tokens import Alternatives, Watch

Finish = Literal["stop", "end", "length"]
REMEMBERED = 8192  # tokens and pairs of tokens whose text is not computed again
BROKEN = "\ufffd"  # replaces bytes that are not a character, or not a complete one yet


@dataclass(frozen=True)
class Token:
    """A sampled token, the text that it added, and its log-probability in nats.

    The text is empty while a character is incomplete, and for the `end` token. The log-probability is that of the
    guided model at temperature 1, in the precision of sampling, before truncation (top-k, top-p, min-p) and
    constraints.
    """

    text: str
    id: int
    logprob: float
    top: Alternatives = ()  # the likeliest tokens at its place


@dataclass(frozen=True)
class Written:
    """Why a text ended: it reached a stop string (`stop`), the model ended it or nothing may follow it under its
    constraint (`end`), or it reached the requested length (`length`).

    `tokens` are all sampled tokens, including those of the stop string and `end`, or None if they were not requested.
    """

    finish: Finish
    tokens: tuple[Token, ...] | None = None

    def record(self) -> dict[str, Any]:
        """{finish, logprobs: [{text, id, logprob}]}."""
        record: dict[str, Any] = {"finish": self.finish}
        if self.tokens is not None:
            record["logprobs"] = [token_record(t) for t in self.tokens]
        return record


def token_record(token: Token) -> dict[str, Any]:
    """{text, id, logprob, top: [{id, logprob}]}, without `top` if it was not asked for."""
    record: dict[str, Any] = {"text": token.text, "id": token.id, "logprob": token.logprob}
    if token.top:
        record["top"] = [{"id": i, "logprob": logprob} for i, logprob in token.top]
    return record


class Detokenizer:
    """Decode tokens one by one into pieces of whole characters. Joined, the pieces equal `decode` of all tokens.

    The text of a token may depend on the token before it (some tokenizers drop the first space of a text), so each
    piece is the text that `decode` adds to that of the preceding piece.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self.decode = decode
        self.before: list[int] = []  # the tokens of the last piece
        self.seen = ""  # the text of these tokens alone
        self.waiting: list[int] = []

    def add(self, token: int) -> str:
        """Add a token. Returns the text that has become final, which is empty while a character is incomplete."""
        self.waiting.append(token)
        text = self.decode(self.before + self.waiting)
        if text.endswith(BROKEN) or len(text) == len(self.seen) or not text.startswith(self.seen):
            return ""
        piece = text[len(self.seen) :]
        self.before, self.waiting = self.waiting, []
        self.seen = self.decode(self.before)
        return piece

    def rest(self) -> str:
        """The text of the tokens that are still pending at the end of a text."""
        return self.decode(self.before + self.waiting)[len(self.seen) :] if self.waiting else ""


@dataclass(frozen=True)
class Stops:
    """Strings before which a text ends. Raises UserError if one is empty or not valid Unicode."""

    strings: tuple[str, ...]

    def __post_init__(self) -> None:
        if "" in self.strings:
            raise UserError(
                "A stop string is empty, which would stop every text before its first character. Leave it out."
            )
        for s in self.strings:
            utf8(s)

    @staticmethod
    def of(given: str | Sequence[str]) -> Stops:
        return Stops((given,) if isinstance(given, str) else tuple(given))

    def first(self, text: str, since: int = 0) -> int | None:
        """The start of the stop string that ends first among those that end after position `since`, or None.

        Of several that end at the same position, the longest counts. The result does not depend on how the text was
        divided into pieces.
        """
        matches = []
        for s in self.strings:
            start = text.find(s, max(0, since - len(s) + 1))
            if start >= 0:
                matches.append((start + len(s), start))
        return min(matches)[1] if matches else None

    def pending(self, text: str) -> int:
        """The number of characters at the end of a text that may be the beginning of a stop string."""
        most = min(len(text), max(map(len, self.strings), default=1) - 1)
        return next((k for k in range(most, 0, -1) if any(s.startswith(text[-k:]) for s in self.strings)), 0)


@dataclass
class TextRow:
    """The state of a text while it is sampled. `detokenizer` is None if its text is not needed, and `keep_tokens`
    records its tokens with their texts and log-probabilities."""

    stops: Stops
    detokenizer: Detokenizer | None
    keep_tokens: bool
    on_text: Callable[[str], None] | None
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    top: list[Alternatives] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)  # the text that each token added
    text: str = ""  # cut before a stop string
    sent: int = 0  # number of characters passed to `on_text`
    finish: Finish | None = None

    def add(self, token: int, logprob: float, end: int, top: Alternatives = ()) -> None:
        if token == end:
            self.close("end")
        self.ids.append(token)
        if self.keep_tokens:
            self.logprobs.append(logprob)
            self.top.append(top)
            self.pieces.append("")
        if token != end and self.detokenizer is not None:
            self.append(self.detokenizer.add(token))

    def close(self, finish: Finish) -> None:
        """End the text for the reason `finish`, or `stop` if its pending characters complete a stop string."""
        rest = "" if self.detokenizer is None else self.detokenizer.rest()
        self.finish = finish
        self.append(rest)

    def append(self, piece: str) -> None:
        """Append the text of the last token."""
        if self.pieces:
            self.pieces[-1] += piece
        since = len(self.text)
        self.text += piece
        start = self.stops.first(self.text, since)
        if start is not None:
            self.text, self.finish = self.text[:start], "stop"
        if self.on_text is not None:
            upto = len(self.text) - (self.stops.pending(self.text) if self.finish is None else 0)
            self.on_text(self.text[self.sent : upto])
            self.sent = max(self.sent, upto)

    def written(self) -> Written:
        """The text so far, with the reason why it ended, which must be known."""
        assert self.finish is not None
        tokens = map(Token, self.pieces, self.ids, self.logprobs, self.top)
        return Written(self.finish, tuple(tokens) if self.keep_tokens else None)


# Called after each token with the index of the sample, the new piece of its text, which may be empty, and its state.
TextCallback = Callable[[int, str, TextRow], None]


class Watcher:
    """A `Watch` for `generate` that follows each text and ends it at a stop string.

    `decode` converts ids to text. It is called only if text is needed: for stop strings, for `tokens` (whether to
    record them, each with its text), or for `on_text`, which receives each new piece, but never a part of a stop
    string. `also` is another `Watch`, which may end a text as well. `constraint`: what the texts match.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        end: int,
        stops: Stops,
        tokens: bool = False,
        on_text: TextCallback | None = None,
        also: Watch | None = None,
        constraint: Maker | None = None,
    ) -> None:
        self.decode, self.end, self.stops = decode, end, stops
        self.tokens, self.on_text, self.also, self.constraint = tokens, on_text, also, constraint
        self.decodes = bool(stops.strings) or tokens or on_text is not None
        self.rows: dict[int, TextRow] = {}

    def __call__(self, index: int, token: int, logprob: float, top: Alternatives = ()) -> bool:
        row = self.rows.get(index)
        if row is None:
            row = TextRow(self.stops, Detokenizer(self.decode) if self.decodes else None, self.tokens, None)
            if self.on_text is not None:
                row.on_text = partial(self._tell, self.on_text, index, row)
            self.rows[index] = row
        row.add(token, logprob, self.end, top)
        if self.also is not None and self.also(index, token, logprob, top) and row.finish is None:
            row.close("stop")
        return row.finish == "stop"

    @staticmethod
    def _tell(on_text: TextCallback, index: int, row: TextRow, piece: str) -> None:
        on_text(index, piece, row)

    def close(self) -> list[TextRow]:
        """End the texts that are not finished, which have the requested length: those to which their constraint lets
        nothing be added are complete. Returns all texts in order.

        Warns once about those of them that contain no stop string, if there are stop strings.
        """
        rows = [self.rows[i] for i in sorted(self.rows)]
        unfinished = [row for row in rows if row.finish is None]
        for row in unfinished:
            complete = self.constraint is not None and is_complete(self.constraint, row.ids)
            row.close("end" if complete else "length")
        cut = sum(row.finish == "length" for row in unfinished)
        if cut and self.stops.strings:
            events.warning(
                f"{cut:,} of {len(rows):,} texts did not reach a stop string and were cut at the requested length.",
            )
        return rows

    def texts(self) -> list[str] | None:
        """The texts, each cut before its stop string; None if no text was needed."""
        return [r.text for r in self.close()] if self.decodes else None

    def written(self) -> list[Written]:
        return [r.written() for r in self.close()]


def watcher_of(
    family: Family,
    encoder: Encoder,
    space: Space,
    request: Request,
    on_text: TextCallback | None = None,
    also: Watch | None = None,
    constraint: Maker | None = None,
) -> Watcher | None:
    """The watcher of the texts of a model while they are sampled, under a constraint if there is one.

    None if the model does not make text, or not from left to right; it raises UserError if the request nevertheless has
    stop strings, log-probabilities or a stream. Also raises UserError for an empty stop string.
    """
    stops = Stops.of(request.stop)
    wanted = {"stop": bool(stops.strings), "logprobs": request.logprobs, "stream": on_text is not None}
    requested = ", ".join(name for name, used in wanted.items() if used)
    if not writes_text(encoder, space):
        if requested:
            raise UserError(f"{requested} applies to texts; this model does not make texts. Leave it out.", "not_text")
        return None
    if "watch" not in family.sampling.settings.model_fields:  # type: ignore[attr-defined]
        if requested:
            raise UserError(
                f"{family.name} does not write from left to right: a text has no beginning to show before it is "
                f"complete, and a token has no probability given those before it ({requested}). Leave it out, or "
                "train a transformer.",
                "not_left_to_right",
            )
        return None

    @lru_cache(REMEMBERED)
    def spelled(ids: tuple[int, ...]) -> str:
        return encoder.decode(torch.tensor(ids))[0]

    def decode(ids: list[int]) -> str:
        if not ids:
            return ""
        return spelled(tuple(ids)) if len(ids) <= 2 else encoder.decode(torch.tensor(ids))[0]

    return Watcher(decode, space.special["end"], stops, request.logprobs, on_text, also, constraint)
