"""How likely a model finds items: log-likelihoods in nats, or lower bounds of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from afresh.core import Batch, Cond, Examples, Item, Likelihood, Sound, UserError, events, registry
from afresh.core.cost import check_cost
from afresh.core.plural import counted, digits
from afresh.core.rng import Rng
from afresh.core.safe_text import visible_line
from afresh.core.solver_progress import step
from afresh.core.verb import Line, Remark, ShownResult, Table
from afresh.data.files import must_exist
from afresh.data.load import MAX_LOGITS
from afresh.data.prepare import read_options
from afresh.data.refusals import refusal_lines
from afresh.data.sources import readable
from afresh.engine.sampling.density import bits_per_dim, dequantise
from afresh.engine.sampling.request import Request, converses, make_cond, prompt_ids, writes_text
from afresh.engine.sampling.text_stream import Detokenizer, Stops, TextRow, Token, token_record
from afresh.engine.sampling.tokens import window_start
from afresh.runs.about import AboutRun
from afresh.runs.data import check_query
from afresh.runs.inputs import checked_array
from afresh.runs.run import Run

LONGEST = 60  # characters of a text in a table
FIELDS_AT_ONCE, WINDOWS_AT_ONCE = 16, 32
MOST_DRAWS = 1000


@dataclass(frozen=True)
class ItemScore:
    """How likely one item is: `nats` is its log-likelihood or a lower bound of it, of all its `size` tokens or values
    together; higher is likelier.

    `error` is the standard error of nats that are the mean of several draws of noise. `tokens` are those that were
    scored, each with its log-probability given all before it, if they were asked for.
    """

    source: str
    nats: float
    size: int
    unit: Literal["token", "dimension"]
    error: float | None = None
    tokens: tuple[Token, ...] | None = None
    name: str = ""  # for people

    @property
    def nats_per_token(self) -> float | None:
        """Minus nats for each token, as in a loss: lower is likelier. None if the item has no tokens."""
        return -self.nats / self.size if self.unit == "token" else None

    @property
    def bits_per_dim(self) -> float | None:
        """Bits for each value, where the byte itself has 8: lower is likelier. None if the item has tokens."""
        return -self.nats / self.size / math.log(2) if self.unit == "dimension" else None

    def json(self) -> dict[str, Any]:
        """{item, nats, tokens, nats_per_token} or {item, nats, dimensions, bits_per_dim}, with error and logprobs if
        there are some."""
        record: dict[str, Any] = {"item": self.source, "nats": self.nats, f"{self.unit}s": self.size}
        rates = {"nats_per_token": self.nats_per_token, "bits_per_dim": self.bits_per_dim, "error": self.error}
        record |= {name: value for name, value in rates.items() if value is not None}
        if self.tokens is not None:
            record["logprobs"] = [token_record(t) for t in self.tokens]
        return record


@dataclass(frozen=True)
class Scores(ShownResult, Sequence[ItemScore]):
    """The scores of items in their order. `kind` says whether their nats are exact log-likelihoods or lower bounds, and
    `method` how they were computed."""

    items: tuple[ItemScore, ...]
    kind: Literal["exact", "bound"]
    method: str
    notes: tuple[str, ...] = ()

    @property
    def nats(self) -> list[float]:
        """The log-likelihood of each item, or a lower bound of it."""
        return [item.nats for item in self.items]

    @property
    def unit(self) -> Literal["token", "dimension"]:
        return self.items[0].unit

    @property
    def mean(self) -> float:
        """Of all items together: nats per token, or bits per dimension. Lower is likelier."""
        per = -sum(self.nats) / sum(item.size for item in self.items)
        return per if self.unit == "token" else per / math.log(2)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> ItemScore: ...
    @overload
    def __getitem__(self, index: slice) -> Scores: ...
    def __getitem__(self, index: int | slice) -> ItemScore | Scores:
        return replace(self, items=self.items[index]) if isinstance(index, slice) else self.items[index]

    def __repr__(self) -> str:
        if not self.items:
            return "Scores(no items)"
        rate = f"{self.mean:.4g} {'nats per token' if self.unit == 'token' else 'bits per dimension'}"
        return f"Scores({counted(len(self), 'item')}, {self.kind}: {self.method}; {rate})"

    def json(self) -> dict[str, Any]:
        """{kind, method, unit, mean, items, notes} as plain values."""
        return {
            "kind": self.kind,
            "method": self.method,
            "unit": self.unit,
            "mean": self.mean,
            "items": [item.json() for item in self.items],
            "notes": list(self.notes),
        }

    def lines(self) -> list[Line]:
        """A table of the items, the tokens of each if they were asked for, and what the nats are."""
        per = "nats per token" if self.unit == "token" else "bits per dimension"
        errors = any(item.error is not None for item in self.items)
        rows = []
        for item in self.items:
            rate = item.nats_per_token if item.bits_per_dim is None else item.bits_per_dim
            error = [digits(item.error)] if errors else []
            rows.append([item.name or item.source, digits(item.nats), *error, f"{item.size:,}", digits(rate)])
        columns = ["item", "nats", *(["+-"] if errors else []), f"{self.unit}s", per]
        out: list[Line] = [Table(columns, rows, range(1, len(columns)), wrap=(0,))]
        for item in self.items:
            if item.tokens is not None:
                tokens = [[json.dumps(t.text, ensure_ascii=False), f"{t.logprob:.4f}"] for t in item.tokens]
                out.append(Table(["token", "log-probability"], tokens, right=[1]))
        word = "log-likelihoods" if self.kind == "exact" else "lower bounds of log-likelihoods"
        return [*out, Remark(f"{word} ({self.method}); all items: {digits(self.mean)} {per}")]


def score_items(
    run: Run,
    items: Sequence[Item],
    request: Request | None = None,
    *,
    end: bool = True,
    draws: int = 1,
    seed: int = 0,
) -> Scores:
    """The log-likelihood in nats of each item, or a lower bound of it where the family has no more.

    request: the conditions that are set in all items, whose other conditions are those that were read with it, or
    left open; the `prompt` that precedes texts and is not scored itself; `logprobs` for those of each token. end:
    whether the end of a text is scored with it; without, the text may go on. draws: how many draws of noise an estimate
    is the mean of.

    A text that is longer than the context is scored in windows as they are used in sampling: each token is given at
    least half a context of those before it.

    Raises UserError if the family has no likelihood of these items, and for draws outside 1 to 1,000.
    """
    request = request or Request()
    likelihood = likelihood_of(run)
    if not 1 <= draws <= MOST_DRAWS:
        raise UserError(f"`draws` is the number of draws of noise, from 1 to {MOST_DRAWS:,}. Given: {draws}.")
    check_request(run, likelihood, request, end)
    each = draws * run.family.evaluations.score(run.space)
    check_cost(len(items) * each, f"{len(items):,} items of {each:,} evaluations each")
    if run.space.kind == "tokens":
        if draws > 1 and not likelihood.bound:
            raise UserError(f"{run.family.name} gives exact log-likelihoods, without noise: leave `draws={draws}` out.")
        return token_scores(run, likelihood, items, request, end, draws, seed)
    return field_scores(run, likelihood, items, request, draws, seed)


def likelihood_of(run: Run) -> Likelihood:
    """How the run rates items. Raises UserError, naming the families that can, if it has no log-likelihood."""
    likelihood = run.family.likelihood
    tokens = run.space.kind == "tokens"
    if likelihood is not None and (tokens or (likelihood.density is not None and run.codec is None)):
        return likelihood
    space = run.encoder.space
    able = [
        f.name
        for f in registry.families()
        if f.accepts(space) is None and f.likelihood and (space.kind == "tokens" or f.likelihood.density)
    ]
    raise UserError(
        f"{run.path} is a {AboutRun(run).family}, which has no likelihood: it draws {run.encoder.kind.plural} and "
        f"cannot say how likely one is. Families that can for such data: {', '.join(able) or 'none'}.",
        "no_likelihood",
        families=able,
    )


def check_request(run: Run, likelihood: Likelihood, request: Request, end: bool) -> None:
    """Raises UserError for parts of the request that this model has no use for."""
    text = writes_text(run.encoder, run.space)
    wrong = {"prompt": request.prompt is not None, "logprobs": request.logprobs, "end=False": not end}
    if not text and (names := ", ".join(f"`{name}`" for name, given in wrong.items() if given)):
        raise UserError(f"{names} is for texts; this model makes {run.encoder.kind.plural}. Leave it out.", "not_text")
    if request.logprobs and likelihood.tokens is None:
        raise UserError(
            f"{run.family.name} does not write from left to right: a token has no probability given those before it. "
            "Leave `logprobs` out.",
            "not_left_to_right",
        )
    if request.prompt is not None and not isinstance(request.prompt, str):
        raise UserError("`prompt` is one text, which precedes every item. Score items of other prompts separately.")


# --------------------------------------------------------------------------- items


def items_of(run: Run, inputs: Any, texts: Sequence[str] = ()) -> list[Item]:
    """`texts`, and `inputs`: one item or several, texts, arrays (H, W, C) of uint8 and Sounds as they are, and those
    that the files or folders of paths hold, read as the run's data was. Of kinds that are not texts, a str is a path.

    Raises UserError for none, an empty one, and one of another kind.
    """
    kind = run.encoder.kind
    if texts and kind.medium != "text":
        raise UserError(f"`text` is for texts; this model makes {kind.plural}. Give files of them.", "not_text")
    alone = isinstance(inputs, str | Path | Sound | np.ndarray)
    items: list[Item] = []
    for value in [*texts, *([inputs] if alone else inputs)]:
        if isinstance(value, Path) or (isinstance(value, str) and kind.medium != "text"):
            items += read_items(run, Path(value))
        else:
            items.append(checked(run, value, f"item {len(items) + 1}"))
    if not items:
        raise UserError(f"There is nothing to score. Give {kind.plural}, or paths of files that hold them.", "no_items")
    return items


def checked(run: Run, value: Any, source: str) -> Item:
    """A value as an item. Raises UserError if it is empty or not what the run makes."""
    kind = run.encoder.kind
    try:
        kind.digest(value)
        size = kind.size(value)
    except (TypeError, AttributeError, ValueError, LookupError):
        raise UserError(
            f"{source} is a {type(value).__name__}, but this model makes {kind.plural}. Give {kind.plural}, or paths "
            "of files that hold them.",
            "wrong_kind",
        ) from None
    if not size:
        raise UserError(f"{source} is empty, so there is nothing to score. Leave it out.", "empty_item")
    return Item(checked_array(value) if isinstance(value, np.ndarray) else value, source)


def read_items(run: Run, path: Path) -> list[Item]:
    """The items in a file or folder, read as the run's data was. Warns about files that are refused. Raises UserError
    if it holds no item."""
    must_exist(path)
    kind = run.encoder.kind
    if path.is_file() and path.suffix.lower() in kind.suffixes:  # a single image or sound
        try:
            return [Item(kind.decode(path.read_bytes()), str(path))]
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read as {kind.name}: {error}. Give a file of {kind.plural}.") from None
    check_query(run)
    modality, given = registry.modality(run.record.modality), run.record.data.options
    if "stream" in given:  # every item is wanted, in memory
        given = {**given, "stream": False}
    corpus = modality.read(readable(path, modality.name), read_options(modality, given))
    lines = refusal_lines(corpus.refused)
    if not corpus.items:
        raise UserError(f"Nothing in {path} could be used as {modality.name}.", "no_items", lines=lines)
    for line in lines:
        events.warning(f"not scored: {line}")
    return [item if item.source else replace(item, source=str(path)) for item in corpus.items]


def conditioned(run: Run, cond: Cond, request: Request) -> Cond:
    """The conditions of items with those of the request. Warns if one is absent that training never left out."""
    cond = make_cond(run.conds, cond, request, run.encoder)
    absent = [name for name, present in cond.present.items() if not bool(present.all())]
    if absent and run.record.train.cond_dropout == 0:
        events.warning(
            f"This model always learnt with {', '.join(absent)}; without it, it was never asked how likely an item is.",
            "condition_absent",
        )
    return cond


# --------------------------------------------------------------------------- fields


def has_density(run: Run, examples: Examples) -> bool:
    """Whether the run has a likelihood of these examples, which are fields of bytes."""
    likelihood = run.family.likelihood
    bytes_ = examples.x.dtype == torch.uint8 and run.codec is None
    return likelihood is not None and likelihood.density is not None and bytes_


def byte_likelihood(run: Run, examples: Examples, rows: Tensor, index: Tensor, rng: Rng) -> Tensor:
    """Log-likelihoods in nats, (n,) float64, of the bytes in `rows` (n,) under the run's density of x, whose noise is
    keyed by `index` (n,). In expectation over the noise they are lower bounds (see `density.bits_per_dim`)."""
    likelihood = run.family.likelihood
    assert likelihood is not None and likelihood.density is not None
    dims, scale, out = examples.x[0].numel(), examples.scale, []
    for part, keys in zip(rows.split(FIELDS_AT_ONCE), index.split(FIELDS_AT_ONCE), strict=True):
        x = dequantise(examples.x[part].float() * scale + examples.shift, scale, rng, keys)
        batch = Batch(x, examples.cond.select(part), keys).to(run.train.device)
        logp = likelihood.density(run.modules, run.config, run.space, batch, rng)
        out.append(-bits_per_dim(logp.cpu().double(), dims, scale) * dims * math.log(2))
    return torch.cat(out)


def field_scores(
    run: Run, likelihood: Likelihood, items: Sequence[Item], request: Request, draws: int, seed: int
) -> Scores:
    """Scores of images, sounds and other fields of bytes."""
    examples = run.encoder.encode(items)
    if not has_density(run, examples):
        raise UserError(
            f"{run.path} learnt numbers rather than bytes, which have no probability. Sounds have one as "
            "spectrograms, as by default.",
            "no_likelihood",
        )
    examples = replace(examples, cond=conditioned(run, examples.cond, request))
    rows = torch.arange(len(items))
    each = [byte_likelihood(run, examples, rows, torch.full_like(rows, k), Rng(seed)) for k in range(draws)]
    dims = examples.x[0].numel()
    scores = [
        ItemScore(item.source, mean, dims, "dimension", error, name=name_of(item, i))
        for i, (item, (mean, error)) in enumerate(zip(items, means(torch.stack(each)), strict=True))
    ]
    return Scores(tuple(scores), "bound", f"{likelihood.method}, with noise within the bin of each byte")


def name_of(item: Item, number: int) -> str:
    """The item's source, or the beginning of a text that was given itself."""
    if not isinstance(item.value, str) or item.source != f"item {number + 1}":
        return item.source
    line = visible_line(item.value)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def means(nats: Tensor) -> Iterator[tuple[float, float | None]]:
    """The mean over draws (K, n) of each item, and its standard error if there are several."""
    errors = nats.std(0).div(math.sqrt(len(nats))).tolist() if len(nats) > 1 else [None] * nats.shape[1]
    yield from zip(nats.mean(0).tolist(), errors, strict=True)


# --------------------------------------------------------------------------- tokens


@dataclass(frozen=True)
class ScoreWindow:
    """A part of an item as the model sees it: `ids` (L,), of which those `scored` (L,) are to be predicted. The first
    is never scored. `number` counts the windows of an item."""

    item: int
    number: int
    ids: Tensor
    scored: Tensor


def token_scores(
    run: Run, likelihood: Likelihood, items: Sequence[Item], request: Request, end: bool, draws: int, seed: int
) -> Scores:
    """Scores of texts, of music in notes, and of what a codec turns into tokens."""
    sequences, conds = [], []
    for item in items:
        ids, scored, cond = sequence(run, item, request, end)
        sequences.append((ids, scored))
        conds.append(cond)
    cond = conditioned(run, Cond.cat(conds), request)
    windows = [w for i, s in enumerate(sequences) for w in windows_of(i, *s, run.space.shape[0])]
    each = draws * run.family.evaluations.score(run.space)
    check_cost(len(windows) * each, f"{len(windows):,} windows of {each:,} evaluations each")
    nats = torch.zeros(draws, len(items), dtype=torch.float64)
    logprobs: list[list[float]] = [[] for _ in items]
    for draw in range(draws):
        for window, values in zip(windows, window_nats(run, likelihood, windows, cond, draw, seed), strict=True):
            nats[draw, window.item] += values.sum()
            logprobs[window.item] += values.tolist()
    scores = []
    for i, (item, (ids, scored), (mean, error)) in enumerate(zip(items, sequences, means(nats), strict=True)):
        tokens = tokens_of(run, ids[scored].tolist(), logprobs[i]) if request.logprobs else None
        scores.append(ItemScore(item.source, mean, int(scored.sum()), "token", error, tokens, name_of(item, i)))
    notes, longer = [], sum(w.number == 1 for w in windows)
    if longer:
        notes.append(
            f"{longer:,} of {counted(len(items), 'item')} are longer than the context of {run.space.shape[0]:,} "
            "tokens: there, each token is given at least half a context of those before it, as in sampling."
        )
    if run.codec is not None:
        notes.append(f"The nats are those of the tokens of the codec {run.record.codec}, not of the bytes themselves.")
    return Scores(tuple(scores), "bound" if likelihood.bound else "exact", likelihood.method, tuple(notes))


def sequence(run: Run, item: Item, request: Request, end: bool) -> tuple[Tensor, Tensor, Cond]:
    """The tokens (L,) int64 of an item after the token of context and the prompt, which of them are scored (L,) bool,
    and its conditions as they were read."""
    encoder, space, prompt = run.encoder, run.space, request.prompt
    assert prompt is None or isinstance(prompt, str)
    if converses(encoder, space):
        item = answer(run, item, prompt)
    elif item.turns:
        raise UserError(
            f"{item.source} is a conversation; {run.path} was not trained on conversations. Give texts.", "not_chat"
        )
    encoded = encoder.encode([item])
    examples = encoded if run.codec is None else run.codec.encode(encoded)
    ids = examples.x.flatten().long()
    if examples.mask is not None:  # nothing precedes a conversation
        scored = examples.mask.clone()
        scored[0] = False
    else:
        before = torch.tensor([space.context_token])
        if prompt:
            before = torch.cat([before, prompt_ids(encoder, prompt, False).long()])
        scored = torch.arange(len(before) + len(ids)) >= len(before)
        ids = torch.cat([before, ids])
    if not end:
        last = int(scored.nonzero()[-1])
        scored[last] = False
    return ids, scored, encoded.cond


def answer(run: Run, item: Item, prompt: str | None) -> Item:
    """An item of a conversation: as it was read, or the answer to `prompt`. Raises UserError without a prompt."""
    if item.turns:
        if prompt is not None:
            raise UserError(f"{item.source} is a conversation of its own: leave `prompt` out.")
        return item
    if not prompt:
        raise UserError(
            f"{run.path} answers messages: give the `prompt` that the texts answer.",
            "prompt_missing",
            path=str(run.path),
        )
    return replace(item, turns=(("user", prompt), ("assistant", item.value)))


def windows_of(item: int, ids: Tensor, scored: Tensor, context: int) -> list[ScoreWindow]:
    """The windows of at most `context` tokens to predict that a sampler would use for the scored tokens of a sequence,
    each of which is scored in one window."""
    out: list[ScoreWindow] = []
    for start, group in groupby(scored.nonzero()[:, 0].tolist(), lambda place: window_start(place, context)):
        places = torch.tensor(list(group))
        part = ids[start : int(places[-1]) + 1]
        here = torch.zeros(len(part), dtype=torch.bool)
        here[places - start] = True
        out.append(ScoreWindow(item, len(out), part, here))
    return out


@torch.no_grad()
def window_nats(
    run: Run, likelihood: Likelihood, windows: Sequence[ScoreWindow], cond: Cond, draw: int, seed: int
) -> Iterator[Tensor]:
    """Log-likelihoods, float64 on the CPU: of each scored token of every window if the family has them, otherwise of
    the window, (1,). They are computed in float32, because in bfloat16 a score would depend on the other items."""
    longest = max((len(w.ids) for w in windows), default=1)
    size = max(1, min(WINDOWS_AT_ONCE, MAX_LOGITS // (longest * max(run.space.vocab, default=1))))
    for first in range(0, len(windows), size):
        step(first, len(windows))
        part = windows[first : first + size]
        x = torch.nn.utils.rnn.pad_sequence([w.ids for w in part], batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([w.scored for w in part], batch_first=True)[:, 1:]
        rows = torch.tensor([w.item for w in part])
        index = torch.tensor([w.number * MOST_DRAWS + draw for w in part])
        batch = Batch(x, cond.select(rows), index, mask).to(run.train.device)
        rate = likelihood.score if likelihood.tokens is None else likelihood.tokens
        nats = rate(run.modules, run.config, run.space, batch, Rng(seed)).cpu().double()
        yield from nats[:, None] if likelihood.tokens is None else (n[m] for n, m in zip(nats, mask, strict=True))


def tokens_of(run: Run, ids: Sequence[int], logprobs: Sequence[float]) -> tuple[Token, ...]:
    """The scored tokens of a text with the text that each adds, as `Model.sample` gives them."""

    def decode(ids: list[int]) -> str:
        return str(run.encoder.decode(torch.tensor(ids))[0]) if ids else ""

    row = TextRow(Stops(()), Detokenizer(decode), True, None)
    for token, logprob in zip(ids, logprobs, strict=True):
        row.add(token, logprob, run.space.special["end"])
    if row.finish is None:
        row.close("length")
    return row.written().tokens or ()
