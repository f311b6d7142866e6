"""Texts that a run writes for a request, whatever the endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from afresh.core import UserError
from afresh.engine.sampling.request import Prompt, Request, check_fits, converses, prompt_ids, writes_text
from afresh.engine.sampling.text_stream import BROKEN, TextRow, Token
from afresh.faces.http.batching import Cancelled, cancelled
from afresh.faces.http.counts import count_tokens
from afresh.faces.http.errors import RefusedRequest, own
from afresh.faces.http.loaded_runs import Served
from afresh.faces.http.request_threads import alone
from afresh.faces.http.requests.forms import check_context
from afresh.runs.run import Run
from afresh.verbs.embed import Embeddings, embed
from afresh.verbs.sample import Sampler

FINISH = {"stop": "stop", "end": "stop", "length": "length"}


@dataclass(frozen=True)
class Begun:
    """A run has read the prompts of a request, which have so many tokens."""

    run: Run
    prompt_tokens: int


@dataclass(frozen=True)
class TextPiece:
    """What was added to the text of a sample: whole characters, its tokens, and why it ended if it did."""

    index: int
    text: str
    tokens: tuple[Token, ...] = ()
    finish: str | None = None


Put = Callable[[Begun | TextPiece], None]


def merged(items: Sequence[Any]) -> list[Any]:
    """The items, with all pieces of a sample in one, at the place of the first."""
    pieces: dict[int, list[TextPiece]] = {}
    for item in items:
        if isinstance(item, TextPiece):
            pieces.setdefault(item.index, []).append(item)
    out: list[Any] = []
    for item in items:
        if not isinstance(item, TextPiece):
            out.append(item)
        elif (group := pieces.pop(item.index, [])) != []:
            tokens = tuple(t for p in group for t in p.tokens)
            out.append(TextPiece(item.index, "".join(p.text for p in group), tokens, group[-1].finish))
    return out


@dataclass(frozen=True)
class WrittenText:
    """A written text. `tokens` are all drawn tokens, the one that ends the text included."""

    text: str
    finish: str
    tokens: tuple[Token, ...]

    def stop_string(self, stops: Sequence[str]) -> str | None:
        """The one of the strings before which the text ended, or None."""
        after = "".join(t.text for t in self.tokens)[len(self.text) :]
        return min((s for s in stops if after.startswith(s)), key=len, default=None)


@dataclass(frozen=True)
class WrittenTexts:
    """The texts of a request, the number of tokens of its prompts, and its seed."""

    texts: Sequence[WrittenText]
    prompt_tokens: int
    seed: int

    @property
    def usage(self) -> dict[str, int]:
        drawn = sum(len(t.tokens) for t in self.texts)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": drawn,
            "total_tokens": self.prompt_tokens + drawn,
        }


async def events_of(
    stream: AsyncIterator[list[Any]],
    opening: Callable[[Begun], Sequence[str]],
    piece: Callable[[Run, TextPiece], Sequence[str]],
    end: Callable[[Run, WrittenTexts], Sequence[str]],
) -> AsyncIterator[str]:
    """The events of a stream of `write`: those that open it, those of each piece, and those at its end."""
    begun: Begun | None = None
    opened = False
    async for items in stream:
        out: list[str] = []
        for item in merged(items):
            if isinstance(item, Begun):
                begun = item
                continue
            assert begun is not None
            if not opened:
                opened = True
                out += opening(begun)
            out += piece(begun.run, item) if isinstance(item, TextPiece) else end(begun.run, item)
        if out:
            yield "".join(out)


def check_writes(run: Run) -> None:
    """Raises UserError if the run does not make texts."""
    if not writes_text(run.encoder, run.space):
        plural = run.encoder.kind.plural
        raise UserError(
            f"The model {run.path.name} makes {plural}, not texts. {own('GET /v1/models')} lists the models.",
            "wrong_modality",
            param="model",
        )


def prompt_counts(run: Run, request: Request) -> list[int]:
    """The number of tokens of each different prompt. Raises UserError if the run does not make texts, or if a prompt
    does not fit in its context."""
    check_writes(run)
    asks = converses(run.encoder, run.space) and not request.raw
    prompts = list(dict.fromkeys([request.prompt or ""] if isinstance(request.prompt, str | None) else request.prompt))
    earlier = sum(len(content) for _, content in request.turns)
    check_fits(run.encoder, run.space, earlier + max(map(len, prompts)), "The prompt")
    counts = [len(prompt_ids(run.encoder, p, asks, request.turns)) for p in prompts]
    check_context(run, max(counts))
    return counts


def check_length(settings: Mapping[str, Any]) -> None:
    """Raises UserError for settings with a length, which requests for texts have a parameter for."""
    if "length" in settings:
        raise UserError(
            f"The number of tokens is `{own('max_tokens')}` here. Give that, and leave `length` out of `settings`.",
            "given_twice",
            param="settings.length",
        )


def write(
    run: Run,
    request: Request,
    n: int,
    seed: int,
    settings: Mapping[str, Any],
    put: Put | None = None,
    length: int | None = None,
) -> WrittenTexts:
    """n texts of a request, `put` receiving a Begun and then their pieces as they are written. A `length` of None is
    what the context has room for. Raises UserError for what the run cannot do, and for a length among the settings."""
    check_length(settings)
    counts = prompt_counts(run, request)
    if length is None:
        length = max(1, run.space.shape[0] - max(counts))
    if put is not None:
        put(Begun(run, sum(counts)))
    finished: dict[int, int] = {}
    gone = cancelled.get()

    def on_text(index: int, piece: str, row: TextRow) -> None:
        if gone is not None and gone.is_set():
            raise Cancelled
        assert put is not None
        seen = finished.get(index, 0)
        tokens = tuple(map(Token, row.pieces[seen:], row.ids[seen:], row.logprobs[seen:], row.top[seen:]))
        finished[index] = len(row.ids)
        finish = None if row.finish is None else FINISH[row.finish]
        if piece or tokens or finish:
            put(TextPiece(index, piece, tokens, finish))

    chosen = {**settings, "length": length}
    samples = Sampler(run, n, request, seed, chosen, on_text if put is not None else None)()
    texts = [
        WrittenText(value, FINISH[w.finish], w.tokens or ())
        for value, w in zip(samples.values, samples.written, strict=True)
    ]
    made = WrittenTexts(texts, sum(counts), seed)
    count_tokens(made.prompt_tokens, made.usage["completion_tokens"])
    return made


def embedded(served: Served, texts: Sequence[Prompt], dimensions: int | None) -> Embeddings:
    """The vectors of texts. Raises Refused for another number of dimensions than the model has."""
    with alone(served):
        found = embed(served.run, texts)
    count_tokens(found.tokens, 0)
    width = found.vectors.shape[1]
    if dimensions not in (None, width):
        raise RefusedRequest(
            400,
            f"Vectors of {served.run.path.name} have {width} numbers, and a part of them says little. Leave dimensions "
            f"out. Given: {dimensions}.",
            "unsupported_dimensions",
            "dimensions",
        )
    return found


def prompt_text(run: Run, prompt: Prompt) -> str:
    """A prompt as text."""
    if isinstance(prompt, str):
        return prompt
    ids = prompt_ids(run.encoder, prompt, False)
    return run.encoder.decode(ids)[0] if len(ids) else ""


def spelled(run: Run, token: int) -> str:
    """The text of a token. One that is a part of a character, or special, is named by its id."""
    text = run.encoder.decode(torch.tensor([token]))[0]
    return text if text and BROKEN not in text else f"<token {token}>"


def token_logprobs(run: Run, tokens: Sequence[Token]) -> dict[str, Any]:
    """Log-probabilities in the form of OpenAI's API."""

    def entry(text: str, logprob: float) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    rows = [
        {**entry(t.text, t.logprob), "top_logprobs": [entry(spelled(run, i), value) for i, value in t.top]}
        for t in tokens
    ]
    return {"content": rows, "refusal": None}
