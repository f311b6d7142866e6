"""What a person asks for, in words, to conditions in tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from afresh import catalog
from afresh.core import Cond, CondSpec, Encoder, Family, Item, Space, UserError
from afresh.data.conditions import caption_ids, label_id

HOLE = re.compile(r"\[\[(\d+)\]\]")


@dataclass(frozen=True)
class Request:
    """A prompt to continue (or to answer, unless `raw`), labels (one, or by name), numbers by name, a caption.

    `infill`: a text with holes, [[N]] for N tokens, in place of a prompt. `stop`: strings before which a text ends;
    `logprobs`: whether to tell each token's log-probability (afresh.watch).
    """

    prompt: str | Sequence[str] | None = None
    label: str | Mapping[str, str] | None = None
    number: Mapping[str, float] | None = None
    caption: str | None = None
    raw: bool = False
    infill: str | Sequence[str] | None = None
    stop: str | Sequence[str] = ()
    logprobs: bool = False


def of_kind(spec: CondSpec, kind: str) -> list[str]:
    return [k for k, p in spec.items() if p.kind == kind]


def labels_by_name(spec: CondSpec, label: str | Mapping[str, str] | None) -> dict[str, str]:
    """{part: class}. A bare label goes to the only label part, or to the only one that knows the class."""
    if label is None:
        return {}
    parts = of_kind(spec, "label")
    if not parts:
        raise UserError(f"This model was trained without labels, so --label {label} means nothing. Leave it out.")
    if isinstance(label, Mapping):
        return dict(label)
    if "=" in label and label.split("=", 1)[0] in parts:
        name, value = label.split("=", 1)
        return {name: value}
    if len(parts) == 1:
        return {parts[0]: label}
    knowing = [p for p in parts if label in spec[p].classes]
    if len(knowing) == 1:
        return {knowing[0]: label}
    raise UserError(f"Say which label {label!r} is: --label NAME={label}, with NAME one of: {', '.join(parts)}.")


def make_cond(spec: CondSpec, base: Cond, request: Request) -> Cond:
    """`base` with what was asked for put in its place, for every row. Raises UserError for what is unknown."""
    parts, present = dict(base.parts), dict(base.present)
    wanted: dict[str, Any] = {}
    for name, value in labels_by_name(spec, request.label).items():
        if name not in of_kind(spec, "label"):
            raise UserError(f"There is no label named {name!r}. Known: {', '.join(of_kind(spec, 'label')) or 'none'}.")
        wanted[name] = torch.tensor(label_id(name, value, spec[name]))
    for name, number in (request.number or {}).items():
        if name not in of_kind(spec, "number"):
            raise UserError(
                f"There is no number named {name!r}. Known: {', '.join(of_kind(spec, 'number')) or 'none'}."
            )
        wanted[name] = torch.tensor((number - spec[name].mean) / spec[name].std)
    if request.caption is not None:
        prompts = of_kind(spec, "prompt")
        if not prompts:
            raise UserError("This model was trained without captions. Leave --caption out.")
        part = spec[prompts[0]]
        ids, left_out = caption_ids(request.caption, part)
        if left_out:
            raise UserError(f"The caption is too long by {left_out} words; this model takes {part.length}. Shorten it.")
        if not any(i > 1 for i in ids):
            raise UserError(f"None of the words of {request.caption!r} occurred in the training captions.")
        wanted[prompts[0]] = torch.tensor(ids)
    for name, tensor in wanted.items():
        parts[name] = tensor.to(parts[name].dtype).expand_as(parts[name]).contiguous()
        present[name] = torch.ones(base.size, dtype=torch.bool)
    return replace(base, parts=parts, present=present)


def encode_prompts(
    encoder: Encoder, space: Space, cond: Cond, prompt: str | Sequence[str], raw: bool = False
) -> tuple[Cond, list[str]]:
    """Put prompts in cond.given: one for all rows, or one a row. A model of conversations answers a prompt, or with
    `raw` goes on with it as it is. Notes say when one was cut to the context."""
    if not space.stream:
        raise UserError("--prompt continues a text; this model does not make texts. Use --label or --caption.")
    notes, rows = [], []
    for text in one_each(prompt, cond.size):
        ids = prompt_ids(encoder, text, space.records and not raw)
        if space.records and not len(ids):
            raise UserError("A conversation has to begin with something: give a prompt that is not empty.")
        if len(ids) > space.shape[0]:
            notes.append(f"The prompt has {len(ids)} tokens; the model sees the last {space.shape[0]} of them.")
        rows.append(ids.long())
    return known(cond, rows), sorted(set(notes))


def one_each(texts: str | Sequence[str], n: int) -> list[str]:
    """One text for all of n samples, or one for each. Raises UserError for another number."""
    found = [texts] * n if isinstance(texts, str) else list(texts)
    if len(found) != n:
        raise UserError(f"{len(found)} prompts for {n} samples: give one prompt, or one for each sample.")
    return found


def known(cond: Cond, rows: Sequence[Tensor]) -> Cond:
    """The same request with known tokens, (length,) int64 a row, -1 where one is to be found."""
    width = max(1, *map(len, rows))
    given = torch.stack([nn.functional.pad(ids.long(), (0, width - len(ids)), value=-1) for ids in rows])
    return replace(cond, given=given.clamp_min(0), given_mask=given >= 0)


def encode_holes(encoder: Encoder, space: Space, cond: Cond, infill: str | Sequence[str]) -> Cond:
    """Texts with holes, [[N]] for N tokens, to cond.given: one for all rows, or one a row.

    Raises UserError for a text without a hole, with one at its end, or with one that is longer than the context.
    """
    if not space.stream or space.records:
        what = "conversations" if space.records else "no texts"
        raise UserError(f"--infill fills holes in a text; this model makes {what}. Leave it out.")
    rows = []
    for text in one_each(infill, cond.size):
        pieces = HOLE.split(text)  # text, N, text, N, ..., text
        if len(pieces) == 1:
            raise UserError(
                f"There is no hole in {text!r}: write [[N]] where N tokens are missing, as in 'A [[5]] day'."
            )
        if not pieces[-1]:
            raise UserError("The hole at the end of --infill has no end: go on from a text with --prompt and --length.")
        sizes = [int(n) for n in pieces[1::2]]
        if not all(1 <= n <= space.shape[0] for n in sizes):
            raise UserError(f"A hole has 1 to {space.shape[0]} tokens here (the context). Given: {sizes}.")
        filled = [torch.full((n,), -1) for n in sizes]
        parts = [prompt_ids(encoder, p, False).long() for p in pieces[::2]]
        rows.append(torch.cat([t for pair in zip(parts, [*filled, filled[0][:0]], strict=True) for t in pair]))
    return known(cond, rows)


def check_fills(family: Family, request: Request) -> None:
    """Raises UserError for holes in a text beside a prompt, and naming the families that fill holes, where this one
    does not."""
    if request.prompt is not None:
        raise UserError("Give --prompt, a text to go on from, or --infill, a text with holes, not both.")
    if not family.fills:
        able = ", ".join(f for f in catalog.FAMILIES if catalog.family(f).fills)
        raise UserError(f"{family.name} cannot fill holes (--infill). Families that can: {able}.")


def prompt_ids(encoder: Encoder, text: str, ask: bool) -> Tensor:
    """A text without the `end` after it, or with `ask` a conversation that waits for the answer to it."""
    if ask:
        return encoder.encode([Item(text, turns=(("user", text),))]).x
    return encoder.encode([Item(text)]).x[:-1] if text else torch.zeros(0, dtype=torch.int64)


def prompt_texts(encoder: Encoder, space: Space, cond: Cond) -> list[str | None]:
    """The prompts in cond.given as they are, without marks."""
    if cond.given is None or cond.given_mask is None:
        return [None] * cond.size
    out: list[str | None] = []
    for ids, mask in zip(cond.given, cond.given_mask, strict=True):
        known = ids[mask]
        ends = (known == space.special["end"]).nonzero()[:, 0] + 1
        out.append("".join(encoder.decode(part)[0] for part in known.tensor_split(ends) if len(part)))
    return out


def describe(spec: CondSpec, cond: Cond, request: Request) -> list[dict[str, Any]]:
    """{prompt, label, ...} of every row; `label` is the only label, or a mapping when there are several."""
    labels = of_kind(spec, "label")
    prompts = (
        [request.prompt] * cond.size if request.prompt is None or isinstance(request.prompt, str) else request.prompt
    )
    out = []
    for i in range(cond.size):
        named = {k: spec[k].classes[int(cond.parts[k][i])] if bool(cond.present[k][i]) else None for k in labels}
        label = named[labels[0]] if len(labels) == 1 else (named or None)
        row: dict[str, Any] = {"prompt": prompts[i], "label": label}
        for k in of_kind(spec, "number"):
            if bool(cond.present[k][i]):
                row[k] = float(cond.parts[k][i]) * spec[k].std + spec[k].mean
        if request.caption is not None:
            row["caption"] = request.caption
        if request.infill is not None:
            row["infill"] = request.infill if isinstance(request.infill, str) else request.infill[i]
        out.append(row)
    return out
