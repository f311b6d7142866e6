"""Autoregressive sampling: functions over a `Predict` that returns logits for the next token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Predict, UserError
from afresh.core.device import tensor_on, wide
from afresh.core.rng import Rng
from afresh.core.solver_progress import step as tell
from afresh.engine.sampling.constraint import Constraint, check_finished, restrict
from afresh.engine.sampling.prefix_cache import KEPT_BYTES, LEAST, CachedPrefix, Prefixes, Slotted, common
from afresh.engine.sampling.text_time_limit import Deadline
from afresh.services.watermark.marked_text import MarkedText, contexts_of, mark
from afresh.services.watermark.watermark import Watermark

Alternatives = Sequence[tuple[int, float]]  # the likeliest tokens and their log-probabilities, the likeliest first
# (index of the sample, token, its log-probability at temperature 1 among all tokens, the likeliest tokens) -> whether
# to end the sample
Watch = Callable[[int, int, float, Alternatives], bool]


@dataclass(frozen=True)
class Cut:
    """How a next-token distribution is truncated before drawing. Temperature 0 draws the likeliest token."""

    temperature: float = 1.0
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0


def narrow(logits: Tensor, cut: Cut) -> Tensor:
    """Probabilities (B, V) of logits (B, V) after temperature, top-k, top-p (Holtzman et al. 2020) and min-p (Nguyen et
    al. 2024), in this order; float64, on the CPU if the device of the logits has none.

    Ties at a threshold are treated alike, so that the result does not depend on the order of the vocabulary.
    """
    if cut.temperature == 0:
        return wide(torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]))
    p = (wide(logits) / cut.temperature).softmax(-1)
    if cut == Cut(cut.temperature):
        return p
    keep = torch.ones_like(p, dtype=torch.bool)
    if 0 < cut.top_k < p.shape[-1]:
        keep &= p >= p.topk(cut.top_k, -1).values[:, -1:]
    if cut.top_p < 1:
        ranked = torch.where(keep, p, 0.0)
        ranked, _ = (ranked / ranked.sum(-1, keepdim=True)).sort(-1, descending=True)
        within = ranked.cumsum(-1) - ranked < cut.top_p  # includes the token that exceeds the mass
        last = within.sum(-1, keepdim=True) - 1
        mass = torch.where(keep, p, 0.0)
        keep &= mass / mass.sum(-1, keepdim=True) >= ranked.gather(-1, last)
    if cut.min_p > 0:
        keep &= p >= cut.min_p * p.amax(-1, keepdim=True)
    p = torch.where(keep, p, 0.0)
    return p / p.sum(-1, keepdim=True)


def draw(p: Tensor, u: Tensor) -> Tensor:
    """Draw by the inverse of the cumulative distribution: p (B, V), u (B,) in [0, 1) -> (B,) int64, where u is."""
    total = wide(p).cumsum(-1)  # float64, so that u times the sum is less than the sum (u has 24 bits)
    return torch.searchsorted(total, (u.to(total) * total[:, -1])[:, None], right=True)[:, 0].to(u.device)


def window_start(position: int, context: int) -> int:
    """The first position that the token at `position` may attend to.

    It is 0 while all tokens fit in the context, and then advances by half a context at a time, so that at least half of
    the context is visible.
    """
    stride = context + 1 - max(1, context // 2)
    return -(-max(0, position - context) // stride) * stride


@dataclass(frozen=True)
class Penalties:
    """What is added to the logits of tokens: `bias` by token, and for tokens that were drawn before, minus `presence`
    once and minus `frequency` for each time (as in OpenAI's API)."""

    frequency: float = 0.0
    presence: float = 0.0
    bias: tuple[tuple[int, float], ...] = ()

    def applied(self, logits: Tensor, drawn: Sequence[int]) -> Tensor:
        """The logits (V,) after the tokens `drawn`."""
        logits = logits.clone()
        if drawn and (self.frequency or self.presence):
            tokens, counts = (tensor_on(logits.device, list(v)) for v in zip(*Counter(drawn).items(), strict=True))
            logits[tokens] -= self.frequency * counts + self.presence
        for token, value in self.bias:
            logits[token] += value
        return logits


NO_PENALTIES = Penalties()
BLOCK = 32  # positions whose random numbers are drawn at once


@dataclass(eq=False)
class TokenSequence:
    """A sequence that is drawn token by token: its prompt, which begins with the token of context, and how it goes on.

    The draw at position i uses rng.uniform("token/i", index), whatever is drawn beside it. `constraint`: what the new
    tokens must match. `watch` is called with every token, and may end the sequence; it receives the `top` likeliest
    tokens, and log-probabilities if `scored`, otherwise zeros. `marked`: how tokens that are drawn at a temperature
    above 0 are marked, if they are. `error`: why the sequence could not be finished.
    """

    tokens: list[int]
    index: int
    rng: Rng
    length: int  # new tokens, at most
    cut: Cut = Cut()
    penalties: Penalties = NO_PENALTIES
    constraint: Constraint | None = None
    watch: Watch | None = None
    top: int = 0
    scored: bool = True
    marked: MarkedText | None = None
    stopped: bool = False  # by `watch`
    error: UserError | None = None

    def __post_init__(self) -> None:
        self.prompt = len(self.tokens)
        self.start = 0  # the first position that the next token may attend to
        self.fed: list[int] = []  # the tokens of the next step
        self.deadline: Deadline | None = None
        self.uniforms: list[float] = []  # of the positions from `uniforms_from`
        self.uniforms_from = 0

    @property
    def new(self) -> list[int]:
        return self.tokens[self.prompt :]

    @property
    def left(self) -> int:
        """The number of tokens that may still be drawn."""
        return self.prompt + self.length - len(self.tokens)

    def finished(self) -> bool:
        """Whether the new tokens match the constraint, if there is one."""
        return self.stopped or self.deadline is None or self.deadline.constraint.finished()


def next_uniforms(sequences: Sequence[TokenSequence], ahead: int) -> list[float]:
    """rng.uniform(f"token/{position}", index) of each sequence at the position of its next token but `ahead`. The
    numbers of a block of positions are drawn at once, for all sequences that are at the same position."""
    places = [len(s.tokens) + ahead for s in sequences]
    alike: dict[tuple[int, int], list[TokenSequence]] = {}
    for s, place in zip(sequences, places, strict=True):
        if not 0 <= place - s.uniforms_from < len(s.uniforms):
            alike.setdefault((id(s.rng), place), []).append(s)
    for (_, place), same in alike.items():
        count = min(BLOCK, max(1, *(s.prompt + s.length - place for s in same)))
        purposes = [f"token/{p}" for p in range(place, place + count)]
        drawn = same[0].rng.uniforms(purposes, torch.tensor([s.index for s in same]))
        for s, numbers in zip(same, drawn.T.tolist(), strict=True):
            s.uniforms, s.uniforms_from = numbers, place
    return [s.uniforms[place - s.uniforms_from] for s, place in zip(sequences, places, strict=True)]


@dataclass(frozen=True)
class Together:
    """What the sequences of a step have in common, for as long as the same ones are drawn.

    drawings: for each cut and watermark, if there is one, the rows that are drawn by them, None for all, and the
    sequences of these. bias: rows, tokens and what is added to their logits, of sequences without other penalties.
    penalised, constrained: rows that are treated one by one.
    """

    drawings: Sequence[tuple[Cut, Watermark | None, Tensor | None, Sequence[TokenSequence]]]
    bias: tuple[Tensor, Tensor, Tensor] | None
    penalised: Sequence[int]
    constrained: Sequence[int]

    @classmethod
    def of(cls, active: Sequence[TokenSequence], device: torch.device) -> Together:
        alike: dict[tuple[Cut, Watermark | None], list[int]] = {}
        added: list[tuple[int, int, float]] = []
        penalised: list[int] = []
        for row, s in enumerate(active):
            if s.cut.temperature > 0:
                alike.setdefault((s.cut, None if s.marked is None else s.marked.watermark), []).append(row)
            if s.penalties.frequency or s.penalties.presence:
                penalised.append(row)
            else:
                added += [(row, token, value) for token, value in s.penalties.bias]
        drawings = [
            (*how, None if len(rows) == len(active) else tensor_on(device, rows), [active[row] for row in rows])
            for how, rows in alike.items()
        ]
        bias = None
        if added:
            rows, tokens, values = (tensor_on(device, x) for x in zip(*added, strict=True))
            bias = rows, tokens, values
        return cls(drawings, bias, penalised, [r for r, s in enumerate(active) if s.deadline is not None])


class Decoding:
    """Sequences that are drawn side by side, one token of each a step. They join and leave at any step.

    When `context` is full, the window of a sequence restarts with its last half, at positions that depend on nothing
    else (`window_start`). `end` ends a sequence; tokens in `banned` are never drawn. `among_drawn`: watchers receive
    log-probabilities among the tokens that are not banned.
    """

    def __init__(
        self,
        predict: Predict,
        context: int,
        device: torch.device,
        end: int | None = None,
        banned: Sequence[int] = (),
        among_drawn: bool = False,
    ) -> None:
        self.predict, self.context, self.end, self.among_drawn = predict, context, end, among_drawn
        self.device = device
        self.banned = torch.tensor(banned, dtype=torch.int64, device=device)
        self.active: list[TokenSequence] = []
        self.together: Together | None = None  # of those that are active
        self.late: list[tuple[TokenSequence, Cond]] = []  # join after the next step
        self.cond = Cond(0)
        self.state: Any = None
        self.prefixes = Prefixes()

    def join(self, sequences: Sequence[TokenSequence], cond: Cond) -> None:
        """Draw these sequences too, under the conditions of the rows of `cond`. Raises UserError if a constraint cannot
        be met within the length."""
        for s in sequences:
            if s.constraint is not None:
                assert self.end is not None, "constraints need a token that ends a text"
                s.deadline = Deadline(s.constraint, s.length, self.end)
        cond = replace(cond, known=None, known_mask=None)
        now, later = self._unlike(sequences, cond)
        self.late += [(sequences[i], cond.select(torch.tensor([i]))) for i in later]
        self._admit([sequences[i] for i in now], cond.select(torch.tensor(now)) if later else cond)

    def _unlike(self, sequences: Sequence[TokenSequence], cond: Cond) -> tuple[list[int], list[int]]:
        """Which sequences join now, and which after the next step, because most of their prompt is then known from
        one that joins now."""
        now: list[int] = []
        later: list[int] = []
        alike: dict[tuple[int, ...], list[int]] = {}  # those that join now, by a beginning that is worth copying
        for i, s in enumerate(sequences):
            beginning = tuple(s.tokens[: LEAST + 1])
            if self.device.type == "cpu" and len(beginning) > LEAST:
                others = alike.setdefault(beginning, [])
                if any(2 * common(s.tokens, sequences[j].tokens) > len(s.tokens) for j in others):
                    later.append(i)
                    continue
                others.append(i)
            now.append(i)
        return now, later

    def _admit(self, sequences: Sequence[TokenSequence], cond: Cond) -> None:
        for s in sequences:
            s.start = window_start(len(s.tokens), self.context)
            s.fed = s.tokens[s.start :]
        first = len(self.active)
        if self.state is not None:
            if isinstance(self.state, Slotted):
                self.state = self.state.extend(len(sequences), self.prefixes.left)
                self._reuse(sequences, cond, first)
            else:
                self.state = self.state.extend(len(sequences))
        self.cond = Cond.cat([self.cond, cond]) if self.active else cond
        self.active += sequences
        self.together = None

    def _reuse(self, sequences: Sequence[TokenSequence], cond: Cond, first: int) -> None:
        """Copy what is known of the prompts of new rows, the first of which is `first`."""
        state = self.state
        others = [
            CachedPrefix(slot, s.tokens[:length], self.cond.select(torch.tensor([row])), start)
            for row, (s, slot, length, start) in enumerate(
                zip(self.active, *(t[:first].tolist() for t in (state.slots, state.lengths, state.starts)), strict=True)
            )
            if s.start == 0 and length >= LEAST
        ]
        for row, s in enumerate(sequences, first):
            own = cond.select(torch.tensor([row - first]))
            if s.start == 0 and (match := self.prefixes.longest(s.tokens, own, others)) is not None:
                known, length = match
                state.copy_prefix(row, known.slot, length, known.start)
                s.fed = s.tokens[length:]
        self.prefixes.forget(state.slots[first:].tolist())

    def leave(self, sequences: Sequence[TokenSequence]) -> None:
        """Stop drawing these sequences."""
        leaving = set(map(id, sequences))
        self.late = [(s, cond) for s, cond in self.late if id(s) not in leaving]
        self._keep([row for row, s in enumerate(self.active) if id(s) not in leaving])

    def _keep(self, rows: Sequence[int]) -> None:
        if len(rows) == len(self.active):
            return
        index, state = tensor_on(self.device, rows, torch.int64), self.state
        if isinstance(state, Slotted):
            staying = set(rows)
            for row, s in enumerate(self.active):
                if row not in staying and s.start == 0 and len(s.tokens) > LEAST:
                    self.prefixes.remember(state, row, s.tokens, self.cond.select(torch.tensor([row])))
            if not rows and state.k.nbytes + state.v.nbytes > KEPT_BYTES:
                state, self.prefixes = None, Prefixes()
        elif not rows:
            state = None
        self.active = [self.active[row] for row in rows]
        self.together = None
        self.cond = self.cond.select(index)
        self.state = None if state is None else state.select(index)

    def step(self) -> list[TokenSequence]:
        """Draw the next token of every sequence, or on a GPU, which every reading stalls, the next few before they are
        read. Returns the sequences that have ended, which leave."""
        x, counts = pad_rows([s.fed for s in self.active], self.device)
        watched = any(s.watch is not None and s.scored for s in self.active)
        unread: list[Tensor] = []
        for ahead in range(self._together()):
            logits, self.state = self.predict(x, counts, self.cond, self.state)
            log_probs = logits.log_softmax(-1) if watched and not self.among_drawn else None
            if len(self.banned):
                logits = logits.index_fill(1, self.banned, -torch.inf)
            if watched and self.among_drawn:
                log_probs = logits.log_softmax(-1)
            unread.append(self._drawn(logits, ahead))
            x, counts = unread[-1][:, None], None
        drawn = self._read(unread)
        tokens = [new[-1] for new in drawn]
        ended = [s for s in self.active if s.error is not None]
        logps = [0.0] * len(tokens)
        if log_probs is not None:
            logps = log_probs.gather(1, tensor_on(self.device, tokens)[:, None])[:, 0].tolist()
        staying: list[int] = []
        restarted: list[int] = []  # among those that stay
        for row, (s, new, logp) in enumerate(zip(self.active, drawn, logps, strict=True)):
            if s.error is not None:
                continue
            s.tokens += new
            token = new[-1]
            if s.watch is not None:
                top = () if log_probs is None else likeliest(log_probs[row], s.top)
                s.stopped = s.watch(s.index, token, logp, top)
            if token == self.end or s.left <= 0 or s.stopped:
                ended.append(s)
                continue
            start = window_start(len(s.tokens), self.context)
            if start != s.start:
                s.start = start
                restarted.append(len(staying))
                s.fed = s.tokens[start:]
            else:
                s.fed = [token]
            staying.append(row)
        self._keep(staying)
        if restarted and self.state is not None:
            self.state.restart(tensor_on(self.device, restarted))
        if self.late:
            late, self.late = self.late, []
            self._admit([s for s, _ in late], Cond.cat([cond for _, cond in late]))
        return ended

    def run(self) -> None:
        """Draw until every sequence has ended, each token a step that is reported."""
        most = max((s.left for s in self.active), default=0)
        while self.active:
            self.step()
            tell(most - max((s.left for s in self.active), default=0), most)

    def _together(self) -> int:
        """How many tokens of every sequence can be drawn before one is read: until one is complete or its window
        moves."""
        most = read_together(torch.device(self.device))
        for s in self.active if most > 1 else ():
            if s.watch is not None or s.deadline is not None or s.penalties != NO_PENALTIES or s.marked is not None:
                return 1
            most = max(1, min(most, s.left))
            moved = (n for n in range(1, most) if window_start(len(s.tokens) + n, self.context) != s.start)
            most = next(moved, most)
        return most

    def _read(self, unread: Sequence[Tensor]) -> list[list[int]]:
        """The new tokens of every sequence up to `end`, as its constraint allows."""
        rows: list[list[int]] = torch.stack(list(unread), 1).tolist()
        for s, row in zip(self.active, rows, strict=True):
            if self.end in row:
                del row[row.index(self.end) + 1 :]
            if s.deadline is not None and s.error is None:
                row[0] = s.deadline.take(row[0], s.left)
        return rows

    def _drawn(self, logits: Tensor, ahead: int) -> Tensor:
        """The token of every sequence (B,) that is `ahead` of the next one. A sequence that has none, under its
        constraint, gets an error."""
        together = self.together = self.together or Together.of(self.active, self.device)
        if together.bias or together.penalised or together.constrained:
            logits = logits.clone()
        if together.bias is not None:
            rows, tokens, values = together.bias
            logits[rows, tokens] += values
        for row in together.penalised:
            logits[row] = self.active[row].penalties.applied(logits[row], self.active[row].new)
        for row in together.constrained:
            s = self.active[row]
            assert s.deadline is not None and self.end is not None
            try:
                logits[row] = restrict(logits[row][None], [s.deadline.constraint], self.end)[0]
            except UserError as error:
                s.error = error
                logits[row] = 0.0
        drawn = logits.argmax(-1)
        if together.drawings:
            u = tensor_on(self.device, next_uniforms(self.active, ahead))
            for cut, watermark, which, sequences in together.drawings:
                p = narrow(logits if which is None else logits[which], cut)
                if watermark is not None:
                    p = marked(p, sequences)
                if which is None:
                    drawn = draw(p, u)
                else:
                    drawn[which] = draw(p, u[which])
        return drawn


def marked(p: Tensor, sequences: Sequence[TokenSequence]) -> Tensor:
    """The distributions p (B, V) of the next tokens of sequences with one watermark, marked."""
    texts = [s.marked for s in sequences if s.marked is not None]
    return mark(p, contexts_of([s.tokens for s in sequences], texts[0].watermark), texts)


def draw_plain(
    decoding: Decoding, sequences: Sequence[TokenSequence], cond: Cond, rng: Rng, index: Tensor
) -> list[TokenSequence]:
    """Draw sequences that have only a cut and perhaps a watermark, all the same, until each ends or its window is full.

    The tokens are those of `decoding`, without the work in Python that it does for every token, most of the time of a
    small network. Returns the sequences that have not ended.
    """
    first, end, device = sequences[0], decoding.end, decoding.device
    prompts = torch.tensor([s.prompt for s in sequences], device=device)
    room = decoding.context + 1 - int(prompts.max())  # tokens until a window moves
    x, counts = pad_rows([s.tokens for s in sequences], device)
    alive, state = torch.arange(len(sequences), device=device), None
    new = torch.full((len(sequences), max(0, min(first.length, room))), -1, dtype=torch.int64, device=device)
    cond = replace(cond, known=None, known_mask=None)
    texts = [s.marked for s in sequences if s.marked is not None and s.cut.temperature > 0]
    contexts = contexts_of([s.tokens for s in sequences], texts[0].watermark).to(device) if texts else None
    for step in range(new.shape[1]):
        logits, state = decoding.predict(x, counts, cond, state)
        tell(step + 1, new.shape[1])
        if len(decoding.banned):
            logits = logits.index_fill(1, decoding.banned, -torch.inf)
        if first.cut.temperature == 0:
            token = logits.argmax(-1)
        else:
            if step % BLOCK == 0:
                uniforms = _uniforms(rng, index, prompts + step)
            p = narrow(logits, first.cut)
            if contexts is not None:
                p = mark(p, contexts, texts)
            token = draw(p, uniforms[step % BLOCK, alive])
        new[alive, step] = token
        if contexts is not None:
            contexts = torch.cat([contexts[:, 1:], token[:, None]], 1)
        x, counts = token[:, None], None
        if end is not None:
            going = token != end
            if not bool(going.all()):
                rows = going.nonzero()[:, 0]
                if not len(rows):
                    break
                alive, cond, state, x = alive[rows], cond.select(rows), state.select(rows), x[rows]
                if contexts is not None:
                    contexts, texts = contexts[rows], [texts[row] for row in rows.tolist()]
    left = []
    for s, row in zip(sequences, new.tolist(), strict=True):
        s.tokens += [t for t in row if t >= 0]
        if s.tokens[-1] != end and s.left > 0:
            left.append(s)
    return left


def _uniforms(rng: Rng, index: Tensor, position: Tensor) -> Tensor:
    """rng.uniform(f"token/{position + i}", index) of each row and i < BLOCK, (BLOCK, B)."""
    out = torch.empty(BLOCK, len(index), device=index.device)
    for p in position.unique().tolist():
        here = position == p
        out[:, here] = rng.uniforms([f"token/{p + i}" for i in range(BLOCK)], index[here])
    return out


def likeliest(log_probs: Tensor, count: int) -> Alternatives:
    """The `count` likeliest tokens of log-probabilities (V,), with these."""
    if not count:
        return ()
    best = log_probs.topk(min(count, len(log_probs)))
    return tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))


def continuations(sequences: Sequence[TokenSequence], end: int | None) -> list[list[int]]:
    """The new tokens of sequences that have ended, without `end`. Raises UserError if one could not be finished."""
    for s in sequences:
        if s.error is not None:
            raise s.error
    check_finished([s.finished() for s in sequences], max((s.length for s in sequences), default=0))
    return [n[:-1] if end is not None and n[-1:] == [end] else n for n in (s.new for s in sequences)]


def read_together(device: torch.device) -> int:
    """How many tokens of a sequence are drawn before they are read, at most."""
    return 1 if device.type == "cpu" else 8


def pad_rows(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Pad rows with zeros to (B, T). Also returns their lengths (B,), or None if all lengths are equal."""
    counts = [len(r) for r in rows]
    longest = max(counts, default=0)
    x = tensor_on(device, [[*r, *[0] * (longest - len(r))] for r in rows])
    return x, None if min(counts, default=0) == longest else tensor_on(device, counts)
