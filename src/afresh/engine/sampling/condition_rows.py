"""Requests compared with the conditions of training items: what goes with a label or a caption, and what a number may
be."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from afresh.core import Cond, CondSpec, UserError
from afresh.core.plural import digits
from afresh.core.rng import Rng
from afresh.data.conditions import label_id
from afresh.data.load import draw_conditions
from afresh.engine.sampling.request import Request, caption_part, images_by_name, labels_by_name, of_kind

EQUAL = 1e-4  # difference of two likenesses below which captions are equally near
FAR = 3.0  # widths of the range that was learnt, beyond which a number is refused
SHOWN = 3  # classes in a note


def with_matching_rows(spec: CondSpec, known: Cond, cond: Cond, request: Request, seed: int) -> tuple[Cond, list[str]]:
    """The condition in which what was not asked for goes with the labels and the caption that were: it is drawn among
    the training items (`known`) of these labels, whose captions are nearest to it. Drawn independently, it would
    contradict them.

    Returns the condition, and a note that names the labels and numbers that were taken.
    """
    labels = labels_by_name(spec, request.label)
    if request.caption is None and not labels:
        return cond, []
    name = caption_part(spec) if request.caption is not None else ""
    asked = {name, *labels, *(request.number or {}), *images_by_name(spec, request.image)}
    left_open = [part for part in of_kind(spec, "label", "number", "prompt", "vector") if part not in asked]
    if not left_open:
        return cond, []
    rows, like = rows_of(spec, known, labels), "of these labels"
    if request.caption is not None:
        wanted, like = cond.parts[name][0], "whose captions are nearest"
        near = nearest_rows(known.select(rows), name, spec[name].kind, wanted)
        rows = rows[near] if len(near) else nearest_rows(known, name, spec[name].kind, wanted)
    if not len(rows):  # no item is known: captions of others would contradict the labels
        words = {
            part: torch.zeros_like(cond.present[part])
            for part in left_open
            if part in of_kind(spec, "prompt", "vector")
        }
        return replace(cond, present={**cond.present, **words}), []
    drawn = draw_conditions(known.select(rows), cond.size, Rng(seed), "sample/conditions")
    parts = {**cond.parts, **{k: drawn.parts[k] for k in left_open}}
    present = {**cond.present, **{k: drawn.present[k] for k in left_open}}
    values = taken(spec, drawn, [part for part in left_open if spec[part].kind in ("label", "number")])
    notes = [f"taken from the training items {like}: {'; '.join(values)}"] if values else []
    return replace(cond, parts=parts, present=present), notes


def rows_of(spec: CondSpec, known: Cond, labels: Mapping[str, str]) -> Tensor:
    """The rows (n,) of `known` that have all these labels."""
    match = torch.ones(known.size, dtype=torch.bool)
    for name, value in labels.items():
        match &= known.present[name] & (known.parts[name] == label_id(name, value, spec[name]))
    return match.nonzero()[:, 0]


def taken(spec: CondSpec, drawn: Cond, names: list[str]) -> list[str]:
    """The values of labels and numbers, in words."""
    values = []
    for name in names:
        there = drawn.parts[name][drawn.present[name]]
        if not len(there):
            continue
        if spec[name].kind == "number":
            low, high = (float(v) * spec[name].std + spec[name].mean for v in torch.aminmax(there))
            values.append(f"{name} {digits(low)}" + ("" if low == high else f" to {digits(high)}"))
        else:
            classes = [spec[name].classes[i] for i, _ in Counter(there.tolist()).most_common()]
            values.append(f"{name} {', '.join(classes[:SHOWN])}{', ...' if len(classes) > SHOWN else ''}")
    return values


def nearest_rows(known: Cond, name: str, kind: str, wanted: Tensor) -> Tensor:
    """The rows (n,) of `known` whose captions are nearest to `wanted`, of its vector (D,) or of the ids (S,) of its
    words; none if no row has a caption."""
    rows = known.present[name].nonzero()[:, 0]
    if not len(rows):
        return rows
    captions = known.parts[name][rows]
    if kind == "vector":
        likeness = torch.nn.functional.cosine_similarity(captions.float(), wanted.float()[None], dim=1)
    else:
        likeness = torch.tensor([shared_words(row, wanted) for row in captions])
    return rows[likeness >= likeness.max() - EQUAL]


def shared_words(a: Tensor, b: Tensor) -> float:
    """The number of known words that two captions share, divided by that of all their words (Jaccard)."""
    first, second = ({i for i in ids.tolist() if i > 1} for ids in (a, b))  # 0 is not a word, 1 an unknown one
    return len(first & second) / max(1, len(first | second))


def number_range(spec: CondSpec, known: Cond, name: str) -> tuple[float, float]:
    """The smallest and the largest value of a number among training items."""
    part = spec[name]
    values = known.parts[name][known.present[name]] * part.std + part.mean
    return (float(values.min()), float(values.max())) if len(values) else (part.mean, part.mean)


def extrapolations(spec: CondSpec, known: Cond, request: Request) -> list[str]:
    """Notes on numbers outside of what was learnt. Raises UserError for one so far outside that nothing of what was
    learnt applies to it."""
    notes = []
    for name, value in (request.number or {}).items():
        if name not in of_kind(spec, "number"):
            continue  # which is refused with the names that there are
        low, high = number_range(spec, known, name)
        beyond = max(low - value, value - high)
        if beyond <= 1e-6 * max(abs(low), abs(high)):
            continue
        span = f"{digits(low)} to {digits(high)}"
        if not beyond <= FAR * max(high - low, spec[name].std):
            raise UserError(
                f"`number={name}={value:g}` is far outside of what this model has learnt, whose data has {span}. "
                "Ask for a number in or near this range."
            )
        notes.append(f"{name}={value:g} is outside of what was learnt ({span}), so this is an extrapolation")
    return notes
