"""What a person asks for, in words, to conditions in tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import Cond, CondSpec, Encoder, Family, Item, Part, Space, UserError, events, registry
from afresh.data.conditions import caption_ids, label_id
from afresh.data.conditions import caption_words as split_caption
from afresh.data.text.kind import TEXT
from afresh.sampling.settings import steers

HOLE = re.compile(r"\[\[(\d+)\]\]")


@dataclass(frozen=True)
class Request:
    """A prompt to continue (or to answer, unless `raw`), labels (one, or by name), numbers by name, a caption.

    `infill`: a text with holes, [[N]] for N tokens, in place of a prompt. `stop`: strings before which a text ends;
    `logprobs`: whether to tell each token's log-probability (afresh.sampling.text_stream). `image`: the picture to make
    it from (one, or by name), a file or an array (H, W, C) of uint8. `negative`: labels, numbers and a caption that
    guidance is to steer away from.
    """

    prompt: str | Sequence[str] | None = None
    label: str | Mapping[str, str] | None = None
    number: Mapping[str, float] | None = None
    caption: str | None = None
    raw: bool = False
    infill: str | Sequence[str] | None = None
    stop: str | Sequence[str] = ()
    logprobs: bool = False
    image: Any = None
    negative: Request | None = None


def unwanted(label: str | Mapping[str, str] | None, caption: str | None) -> Request | None:
    """A negative request, where there is one."""
    return None if label is None and caption is None else Request(label=label, caption=caption)


def of_kind(spec: CondSpec, *kinds: str) -> list[str]:
    return [k for k, p in spec.items() if p.kind in kinds]


def labels_by_name(spec: CondSpec, label: str | Mapping[str, str] | None) -> dict[str, str]:
    """{part: class}. A bare label goes to the only label part, or to the only one that knows the class."""
    if label is None:
        return {}
    parts = of_kind(spec, "label")
    if not parts:
        raise UserError(f"This model was trained without labels, so `label={label}` means nothing. Leave it out.")
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
    raise UserError(f"Say which label {label!r} is: `label=NAME={label}`, with NAME one of: {', '.join(parts)}.")


def several_labels(spec: CondSpec, given: Sequence[str]) -> dict[str, str]:
    """{part: class} of labels that are each NAME=CLASS, or a class that one part alone knows. Raises UserError for
    another, and for a part that is named twice."""
    out: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        known = any(text in part.classes for part in spec.values())
        for part, label in ({name: value} if equals and not known else labels_by_name(spec, text)).items():
            if part in out:
                raise UserError(f"The label {part} is given twice: {out[part]!r} and {label!r}. Give it once.")
            out[part] = label
    return out


def words(request: Request) -> dict[str, Any]:
    """The labels, numbers and caption that are asked for, as records tell them."""
    said = {"label": request.label, **(request.number or {}), "caption": request.caption}
    return {k: v for k, v in said.items() if v is not None}


def images_by_name(spec: CondSpec, image: Any) -> dict[str, Any]:
    """{part: file or array}. A picture without a name goes to the only part that is one."""
    if image is None:
        return {}
    parts = of_kind(spec, "aligned")
    if not parts:
        raise UserError(
            "This model learnt neither to start from a picture nor to follow a curve of a sound, so `image` says "
            "nothing to it. Leave it out; sounds learn curves with `data.curves=loudness,pitch`."
        )
    if isinstance(image, Mapping):
        named = dict(image)
    elif isinstance(image, str) and image.partition("=")[0] in parts:
        named = {image.partition("=")[0]: image.partition("=")[2]}
    elif len(parts) == 1:
        named = {parts[0]: image}
    else:
        raise UserError(f"Say what {image} is for: `image=NAME=FILE`, with NAME one of: {', '.join(parts)}.")
    for name in named:
        if name not in parts:
            raise UserError(f"There is no image condition named {name!r}. Known: {', '.join(parts)}.")
    return {k: Path(v) if isinstance(v, str) else v for k, v in named.items()}


def make_cond(spec: CondSpec, base: Cond, request: Request, encoder: Encoder | None = None) -> Cond:
    """`base` with what was asked for put in its place, for every row. Captions that are vectors, and pictures, need the
    `encoder`. Raises UserError for what is unknown."""
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
        name = caption_part(spec)
        if spec[name].kind == "prompt":
            wanted[name] = caption_words(request.caption, spec[name])
        else:
            wanted[name] = encoded(encoder, spec, Item(None, caption=request.caption)).parts[name][0]
    images = images_by_name(spec, request.image)
    if images:
        found = encoded(encoder, spec, Item(None, images=images))
        wanted |= {name: found.parts[name][0] for name in images}
    parts, present = dict(base.parts), dict(base.present)
    for name, tensor in wanted.items():
        parts[name] = tensor.to(parts[name].dtype).expand_as(parts[name]).contiguous()
        present[name] = torch.ones(base.size, dtype=torch.bool)
    cond = replace(base, parts=parts, present=present)
    if request.negative is None:
        return cond
    return replace(cond, negative=make_cond(spec, Cond.unconditional(spec, base.size), request.negative, encoder))


def caption_part(spec: CondSpec) -> str:
    """The part that a caption is. Raises UserError where there is none."""
    parts = of_kind(spec, "prompt", "vector")
    if not parts:
        raise UserError("This model was trained without captions. Leave `caption` out.")
    return parts[0]


def caption_words(caption: str, part: Part) -> Tensor:
    """(S,) ids. Raises UserError for a caption that is too long, or of which no word is known."""
    ids, left_out = caption_ids(caption, part)
    if left_out:
        raise UserError(f"The caption is too long by {left_out} words; this model takes {part.length}. Shorten it.")
    if not any(i > 1 for i in ids):
        raise UserError(f"None of the words of {caption!r} occurred in the training captions.")
    unknown = [word for word, i in zip(split_caption(caption), ids, strict=False) if i == 1]
    if unknown:
        which = ", ".join(dict.fromkeys(unknown))
        events.warning(f"not known from the training captions, so without effect: {which}")
    return torch.tensor(ids)


def encoded(encoder: Encoder | None, spec: CondSpec, item: Item) -> Cond:
    """What the encoder makes of an item's caption and pictures: one row, the same for any value."""
    if item.caption is not None and not item.caption.strip():
        raise UserError("The caption is empty. Say what is to be seen or heard, or leave it out.")
    if encoder is None:
        raise ValueError(f"{', '.join(spec)} cannot be encoded without the model's encoder")
    blank = encoder.decode(torch.zeros(1, *encoder.space.shape))[0]
    return encoder.encode([replace(item, value=blank)]).cond


def writes_text(encoder: Encoder, space: Space) -> bool:
    """Whether a model writes texts token by token, so that it can go on from one."""
    return encoder.kind is TEXT and space.stream


def encode_prompts(
    encoder: Encoder, space: Space, cond: Cond, prompt: str | Sequence[str], raw: bool = False
) -> tuple[Cond, list[str]]:
    """Put prompts in cond.known: one for all rows, or one a row. A model of conversations answers a prompt, or with
    `raw` goes on with it as it is. Notes say when one was cut to the context."""
    if not writes_text(encoder, space):
        raise UserError("`prompt` continues a text; this model does not make texts. Use `label` or `caption`.")
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
    return replace(cond, known=given.clamp_min(0), known_mask=given >= 0)


def encode_holes(encoder: Encoder, space: Space, cond: Cond, infill: str | Sequence[str]) -> Cond:
    """Texts with holes, [[N]] for N tokens, to cond.known: one for all rows, or one a row.

    Raises UserError for a text without a hole, with one at its end, or with one that is longer than the context.
    """
    if not writes_text(encoder, space) or space.records:
        what = "conversations" if space.records else "no texts"
        raise UserError(f"`infill` fills holes in a text; this model makes {what}. Leave it out.")
    rows = []
    for text in one_each(infill, cond.size):
        pieces = HOLE.split(text)  # text, N, text, N, ..., text
        if len(pieces) == 1:
            raise UserError(
                f"There is no hole in {text!r}: write [[N]] where N tokens are missing, as in 'A [[5]] day'."
            )
        if not pieces[-1]:
            raise UserError("The hole at the end of `infill` has no end: go on from a text with `prompt` and `length`.")
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
        raise UserError("Give `prompt`, a text to go on from, or `infill`, a text with holes, not both.")
    if not family.sampling.fills:
        able = ", ".join(f for f in registry.FAMILIES if registry.family(f).sampling.fills)
        raise UserError(f"{family.name} cannot fill holes (`infill`). Families that can: {able}.")


def check_negative(request: Request, settings: Any) -> None:
    """Raises UserError for a negative request without guidance, which would do nothing; tells of one that is the
    request itself."""
    if request.negative is not None and words(request.negative) == words(request):
        events.warning("what guidance steers away from is what is asked for, so it does nothing")
    if request.negative is not None and not steers(settings):
        raise UserError(
            "A negative label or caption is what guidance steers away from; without guidance it does nothing. Add "
            "`guidance=2`, or leave it out."
        )


def prompt_ids(encoder: Encoder, text: str, ask: bool) -> Tensor:
    """A text without the `end` after it, or with `ask` a conversation that waits for the answer to it."""
    if ask:
        return encoder.encode([Item(text, turns=(("user", text),))]).x
    return encoder.encode([Item(text)]).x[:-1] if text else torch.zeros(0, dtype=torch.int64)


def prompt_texts(encoder: Encoder, space: Space, cond: Cond) -> list[str | None]:
    """The prompts in cond.known as they are, without marks."""
    if cond.known is None or cond.known_mask is None or not writes_text(encoder, space):
        return [None] * cond.size
    out: list[str | None] = []
    for ids, mask in zip(cond.known, cond.known_mask, strict=True):
        known = ids[mask]
        ends = (known == space.special["end"]).nonzero()[:, 0] + 1
        out.append("".join(encoder.decode(part)[0] for part in known.tensor_split(ends) if len(part)))
    return out


def describe(encoder: Encoder, space: Space, cond: Cond, request: Request) -> list[dict[str, Any]]:
    """What every row asks for, in words. A conversation's prompt that was drawn is told, too."""
    described = describe_parts(encoder.conds, cond, request)
    if request.prompt is None and request.infill is None and cond.known is not None:
        texts = prompt_texts(encoder, space, cond)
        described = [{**d, "prompt": text} for d, text in zip(described, texts, strict=True)]
    return described


def describe_parts(spec: CondSpec, cond: Cond, request: Request) -> list[dict[str, Any]]:
    """{prompt, label, ...} of every row, `negative` in the same words; `label` is the only label, or a mapping when
    there are several."""
    labels = of_kind(spec, "label")
    prompts = (
        [request.prompt] * cond.size if request.prompt is None or isinstance(request.prompt, str) else request.prompt
    )
    images = images_by_name(spec, request.image)
    unwanted = request.negative or Request()
    said = {**labels_by_name(spec, unwanted.label), **(unwanted.number or {}), "caption": unwanted.caption}
    negative = {k: v for k, v in said.items() if v is not None}
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
        if request.image is not None:
            row["image"] = {k: str(v) if isinstance(v, Path) else "array" for k, v in images.items()}
        if request.negative is not None:
            row["negative"] = negative
        if request.infill is not None:
            row["infill"] = request.infill if isinstance(request.infill, str) else request.infill[i]
        out.append(row)
    return out
