"""Converts votes to pairs of encoded items for training."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import Batch, Cond, CondSpec, Item, UserError, Votes
from afresh.core.plural import counted
from afresh.engine.alignment.feedback.preferences import PreferenceData, Vote
from afresh.engine.sampling.request import Request, converses, labels_by_name, make_cond, of_kind, prompt_ids
from afresh.runs.inputs import encoded
from afresh.runs.run import Run

HELDOUT_SHARE = 0.1  # of the pairs, chosen by a hash of their content
MIN_VOTES = 50  # with fewer votes, none are held out


def encoded_votes(run: Run, found: PreferenceData, note: Callable[[str], None]) -> tuple[Votes, Votes | None]:
    """Training votes, and held-out votes (None if there are fewer than MIN_VOTES votes). All votes on a pair are on the
    same side.

    Raises UserError for labels that the model does not know, and if no pair fits in the model's context.
    """
    for line in found.summary.lines():
        note(line)
    votes = list(found.votes)
    sides = [(v.decided or (v.a, v.b)) for v in votes]
    if run.space.stream:
        encoded_sides, kept = documents(run, found, votes, sides)
        if len(kept) < len(votes):
            what = "longer than the model's context, or without anything that the model knows"
            note(f"{counted(len(votes) - len(kept), 'pair')} left out: {what}.")
        if not kept:
            raise UserError(
                f"No pair of {found.folder} fits in the model's context of {run.space.shape[0]} tokens and has "
                "anything that the model knows. Vote on shorter items, or train a model with a longer context."
            )
    else:
        encoded_sides, kept = examples(run, found, sides), list(range(len(votes)))
    cond = Cond.cat([cond_of(run, votes[i]) for i in kept])
    tied = torch.tensor([votes[i].winner == "tie" for i in kept])
    win, lose = (replace(side, cond=cond) for side in encoded_sides)
    weight = torch.tensor([votes[i].weight for i in kept])
    every = Votes(win, lose, tied, weight / weight.mean())
    held = torch.tensor([is_held(votes[i]) for i in kept])
    if len(kept) < MIN_VOTES or not bool(held.any()) or bool((tied | held).all()):
        return every, None
    learnt, unseen = (which.nonzero()[:, 0] for which in (~held, held & ~tied))
    return every.select(learnt), every.select(unseen) if len(unseen) else None


def is_held(vote: Vote) -> bool:
    """Whether a vote is held out, which depends only on the content of its pair."""
    pair = vote.pair
    digest = hashlib.sha256("\0".join((pair.first, pair.second, pair.prompt or "", pair.label or "")).encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELDOUT_SHARE * 2**32


def cond_of(run: Run, vote: Vote) -> Cond:
    """The condition of a vote, one row: its label, if it has one."""
    label = None if vote.label is None else labels_of(run.conds, vote.label)
    return make_cond(run.conds, Cond.unconditional(run.conds, 1), Request(label=label), run.encoder)


def labels_of(spec: CondSpec, label: str) -> dict[str, str]:
    """{part: class} for the label of a vote: a class, or for several parts "digit=1, half=low" (see `Asked.words` in
    verbs/annotate.py). Raises UserError for a model without labels, and for a class that several parts have."""
    parts = of_kind(spec, "label")
    if not parts:
        raise UserError(
            f"The votes are on samples with the label {label!r}, but this model was trained without labels. Remove the "
            "field label from the votes, or align a model with such labels."
        )
    pieces = re.split(rf"(?:^|, )({'|'.join(map(re.escape, parts))})=", label)
    if pieces[0] == "" and len(pieces) > 1:
        return dict(zip(pieces[1::2], pieces[2::2], strict=True))
    return labels_by_name(spec, label)


def examples(run: Run, found: PreferenceData, sides: Sequence[tuple[str, str]]) -> tuple[Batch, Batch]:
    """The preferred items and the others, in a space of the family whose examples have the same size."""
    names = list(dict.fromkeys(name for pair in sides for name in pair))
    x = encoded(run, [found.value(n) for n in names])
    if run.codec is not None:
        from afresh.core import Examples

        x = run.codec.encode(Examples(x, Cond.unconditional(run.conds, len(x)))).x
    row_of_item = {name: i for i, name in enumerate(names)}
    out = []
    for k in (0, 1):
        rows = torch.tensor([row_of_item[pair[k]] for pair in sides])
        out.append(tokens_or_field(run, x[rows]))
    return out[0], out[1]


def tokens_or_field(run: Run, x: Tensor) -> Batch:
    index = torch.arange(len(x))
    if run.space.kind == "field":
        return Batch(x, Cond(len(x)), index)
    begin = torch.full((len(x), 1), run.space.special["begin"])
    return Batch(torch.cat([begin, x.long()], 1), Cond(len(x)), index, torch.ones_like(x, dtype=torch.bool))


def documents(
    run: Run, found: PreferenceData, votes: Sequence[Vote], sides: Sequence[tuple[str, str]]
) -> tuple[tuple[Batch, Batch], list[int]]:
    """Rows of tokens whose mask is true for the answers, and the indices of the votes that fit in the context."""
    written: dict[tuple[str | None, str], tuple[list[int], list[bool]]] = {}
    kept: list[int] = []
    rows: tuple[list[list[int]], list[list[int]]] = ([], [])
    counts: tuple[list[list[bool]], list[list[bool]]] = ([], [])
    for i, (vote, pair) in enumerate(zip(votes, sides, strict=True)):
        for item in pair:
            if (vote.prompt, item) not in written:
                written[vote.prompt, item] = row_of(run, vote.prompt, found.value(item))
        both = [written[vote.prompt, item] for item in pair]
        if all(any(m) and len(ids) <= run.space.shape[0] + 1 for ids, m in both):
            kept.append(i)
            for k, (ids, counted) in enumerate(both):
                rows[k].append(ids)
                counts[k].append(counted)
    width = max((len(r) for side in rows for r in side), default=2)
    end = run.space.special["end"]
    out = []
    for side, counted_rows in zip(rows, counts, strict=True):
        x = torch.tensor([[*r, *[end] * (width - len(r))] for r in side]).view(len(side), width)
        mask = torch.tensor([[*m, *[False] * (width - len(m))] for m in counted_rows], dtype=torch.bool)
        out.append(Batch(x, Cond(len(x)), torch.arange(len(x)), mask.view(len(side), width)[:, 1:]))
    return (out[0], out[1]), kept


def row_of(run: Run, prompt: str | None, answer: Any) -> tuple[list[int], list[bool]]:
    """Tokens of a prompt and its answer, and a mask of those of the answer. In conversations, the mask includes the end
    of the answer, which such a model generates. Of a long history of items of a catalogue the last ones count."""
    if run.space.records:
        turns = (("user", prompt or ""), ("assistant", answer)) if converses(run.encoder, run.space) else ()
        record = run.encoder.encode([Item(answer, turns=turns)])
        record = record if run.codec is None else run.codec.encode(record)
        assert record.mask is not None
        return record.x.tolist(), record.mask.tolist()
    end = run.space.special["end"]
    ids = [t for t in run.encoder.encode([Item(answer)]).x.tolist() if t != end]  # it stands before or after them
    before = prompt_ids(run.encoder, prompt, False).tolist() if prompt else []
    if run.space.catalogue:
        before = before[max(0, len(before) + len(ids) - run.space.shape[0]) :]
    front = [end, *before]
    return [*front, *ids], [False] * len(front) + [True] * len(ids)
