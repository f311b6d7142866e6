"""The items of a run as methods that search see them: decoded, recombined, written as rows of tokens, and asked."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from afresh.core import Batch, Cond, Examples, Item, Memory, SearchSpace, events
from afresh.core.rng import Rng
from afresh.engine.alignment.feedback.preference_pairs import row_of, tokens_or_field
from afresh.runs.run import Run

Vary = Callable[[Batch, Rng], Batch]


def search_space(
    run: Run,
    examples: Callable[[int, int], Sequence[Any]],
    decode: Callable[[torch.Tensor], Sequence[Any]],
    memory: Callable[[int], Memory],
    vary: Vary | None,
) -> SearchSpace:
    """`examples`, `decode` and `memory` are as in core.SearchSpace. `vary` writes a batch of training differently."""
    encoder = run.encoder

    def batch(items: Sequence[Any], seed: int) -> tuple[Batch, list[int]]:
        return rows_of(run, items, vary, seed)

    def exchanged(pairs: Sequence[tuple[Any, Any]], seed: int) -> Sequence[Any]:
        return crossed(run, pairs, decode, seed)

    recombines = encoder.abilities.recombines
    return SearchSpace(
        kind=encoder.kind,
        examples=examples,
        decode=decode,
        valid=encoder.valid,
        batch=batch,
        offspring=exchanged if recombines is None else recombines.offspring,
        memory=memory,
    )


def rows_of(run: Run, items: Sequence[Any], vary: Vary | None, seed: int) -> tuple[Batch, list[int]]:
    """Rows for `Policy.steps` of those items that fit in the model's context, and their positions."""
    space = run.space
    if not space.stream:
        examples = run.encoder.encode([Item(i) for i in items])
        if run.codec is not None:
            examples = run.codec.encode(Examples(examples.x.float() * examples.scale + examples.shift, examples.cond))
        batch = tokens_or_field(run, examples.x.long())
        return batch, list(range(len(items)))
    rows, kept = [], []
    for i, item in enumerate(items):
        with events.listening(events.ignore):  # unknown tokens of an offspring: such a row is not learnt from
            ids, counted = row_of(run, None, item)
        if any(counted) and len(ids) <= space.shape[0] + 1:
            rows.append((ids, counted))
            kept.append(i)
    width, end = max((len(ids) for ids, _ in rows), default=2), space.special["end"]
    x = torch.tensor([[*ids, *[end] * (width - len(ids))] for ids, _ in rows], dtype=torch.int64).view(len(rows), width)
    mask = torch.tensor([[*m, *[False] * (width - len(m))] for _, m in rows], dtype=torch.bool).view(len(rows), width)
    batch = Batch(x, Cond.unconditional(run.conds, len(rows)), torch.arange(len(rows)), mask[:, 1:])
    return (batch if vary is None or not rows else vary(batch, Rng(seed))), kept


def crossed(
    run: Run, pairs: Sequence[tuple[Any, Any]], decode: Callable[[torch.Tensor], Sequence[Any]], seed: int
) -> list[Any]:
    """New items whose tokens are those of one, but for a stretch that is that of another: two-point crossover (De Jong
    1975), with stretches of about the same place in both."""
    rng, out = random.Random(seed), []
    batch, kept = rows_of(run, [i for pair in pairs for i in pair], None, 0)
    mask = batch.mask if batch.mask is not None else torch.ones_like(batch.x[:, 1:], dtype=torch.bool)
    rows = {i: row[1:][m].tolist() for i, row, m in zip(kept, batch.x, mask, strict=True)}
    for k in range(len(pairs)):
        a, b = rows.get(2 * k), rows.get(2 * k + 1)
        if a and b:
            ends = sorted(rng.random() for _ in range(2))
            first, last = (round(e * len(a)) for e in ends)
            start, stop = (round(e * len(b)) for e in ends)
            out.append([*a[:first], *b[start:stop], *a[last:]][: run.space.shape[0]])
    if not out:
        return []
    width = max(map(len, out))
    if not run.space.stream:
        out = [row for row in out if len(row) == run.space.shape[0]]
    fill = run.space.special["end"] if run.space.stream else 0
    found: list[Any] = list(decode(torch.tensor([[*row, *[fill] * (width - len(row))] for row in out])))
    return found
