"""Requests for samples, and their translation to tensors of conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from afresh.core import (
    Cond,
    CondSpec,
    Encoder,
    Family,
    Item,
    Part,
    Prompt,
    Prompts,
    Space,
    UserError,
    events,
    registry,
)
from afresh.core.plural import counted
from afresh.data.conditions import caption_ids, closest, label_id
from afresh.data.conditions import caption_words as split_caption
from afresh.engine.sampling.settings import steers

if TYPE_CHECKING:
    from afresh.data.text.chat import Turns

CLASSES = 8  # of each label, in a message
QUICK = 100_000  # characters that are tokenised in a moment, so that an error can say how many tokens they are
LONGEST = 64  # characters of a token, where no tokenizer says it


@dataclass(frozen=True)
class Request:
    """A request for samples; parts that are None are left open.

    `prompt`: a text to continue, or a message to answer unless `raw` is true; or a text for each sample, or the ids of
    its tokens. `label`: one label, or labels by name.
    `number`: numbers by name. `caption`: a description. `infill`: a text with holes, [[N]] for N tokens, instead of a
    prompt. `stop`: strings before which a text ends. `logprobs`: whether to return the log-probability of each token
    (afresh.engine.sampling.text_stream). `image`: the image to start from, or images by name, each a file or an array
    (H, W, C) uint8. `negative`: labels, numbers and a caption that guidance steers away from. `turns`: what was said
    in a conversation before the prompt. `strength`: the share of the prompt, an item, that is drawn again; None: the
    prompt is a part that samples contain. Only for items that contain their prompt (`afresh.core.Prompts`).
    """

    prompt: str | Sequence[Prompt] | None = None
    label: str | Mapping[str, str] | None = None
    number: Mapping[str, float] | None = None
    caption: str | None = None
    raw: bool = False
    infill: str | Sequence[str] | None = None
    stop: str | Sequence[str] = ()
    logprobs: bool = False
    image: Any = None
    negative: Request | None = None
    turns: Turns = ()
    strength: float | None = None


def unwanted(label: str | Mapping[str, str] | None, caption: str | None) -> Request | None:
    """The negative request of a label and a caption, or None if neither is given: an empty caption is that of no text,
    which guidance leads away from in any case."""
    return None if label is None and not caption else Request(label=label, caption=caption or None)


def of_kind(spec: CondSpec, *kinds: str) -> list[str]:
    return [k for k, p in spec.items() if p.kind in kinds]


def labels_by_name(spec: CondSpec, label: str | Mapping[str, str] | None) -> dict[str, str]:
    """Labels as {part: class}. A label without a name belongs to the only label part, or the only one with that class.
    A class may be written in other cases, `flags` for `Flags`, if it is clear which one is meant.

    Raises UserError if the model has no labels, if no part has the class or if several have it.
    """
    if label is None:
        return {}
    parts = of_kind(spec, "label")
    if not parts:
        raise UserError(f"This model was trained without labels, so `label={label}` has no effect. Leave it out.")
    if isinstance(label, Mapping):
        return {name: class_of(value, spec[name]) if name in parts else value for name, value in label.items()}
    if "=" in label and label.split("=", 1)[0] in parts:
        name, value = label.split("=", 1)
        return {name: class_of(value, spec[name])}
    if len(parts) == 1:
        return {parts[0]: class_of(label, spec[parts[0]])}
    matching = [p for p in parts if label in spec[p].classes]
    matching = matching or [p for p in parts if is_class(label, spec[p])]
    if len(matching) == 1:
        return {matching[0]: class_of(label, spec[matching[0]])}
    if matching:
        names = ", ".join(matching)
        raise UserError(f"Name the part that {label!r} belongs to: `label=NAME={label}`, with NAME one of: {names}.")
    known = "; ".join(f"{p}: {', '.join(closest(label, spec[p])[:CLASSES])}" for p in parts)
    raise UserError(f"No label {label!r} was seen in training. The nearest and first of those that were: {known}.")


def class_of(label: str, part: Part) -> str:
    """The class that is meant: the label itself, or the only class that differs from it in upper and lower case alone;
    the label as it is if none exists."""
    if label in part.classes:
        return label
    alike = [c for c in part.classes if c.casefold() == label.casefold()]
    return alike[0] if len(alike) == 1 else label


def is_class(label: str, part: Part) -> bool:
    """Whether the label is a class of the part, written in any case."""
    return class_of(label, part) in part.classes


def several_labels(spec: CondSpec, texts: Sequence[str]) -> dict[str, str]:
    """Parse labels, each NAME=CLASS or a class of only one part, into {part: class}.

    Raises UserError for any other label, and if two labels name the same part.
    """
    out: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        known = any(is_class(text, part) for part in spec.values())
        for part, label in ({name: value} if equals and not known else labels_by_name(spec, text)).items():
            if part in out:
                raise UserError(f"The label {part} is given twice: {out[part]!r} and {label!r}. Give it once.")
            out[part] = label
    return out


def words(request: Request) -> dict[str, Any]:
    """The labels, numbers and caption of a request, as they are recorded with a sample."""
    record = {"label": request.label, **(request.number or {}), "caption": request.caption}
    return {k: v for k, v in record.items() if v is not None}


def images_by_name(spec: CondSpec, image: Any) -> dict[str, Any]:
    """Images as {part: file or array}. An image without a name belongs to the only image part."""
    if image is None:
        return {}
    parts = of_kind(spec, "aligned")
    if not parts:
        raise UserError(
            "This model learnt neither to start from an image nor to follow a curve of a sound, so `image` has no "
            "effect. Leave it out. To train sounds on curves, use `data.curves=loudness,pitch`."
        )
    if isinstance(image, Mapping):
        named = dict(image)
    elif isinstance(image, str) and image.partition("=")[0] in parts:
        named = {image.partition("=")[0]: image.partition("=")[2]}
    elif len(parts) == 1:
        named = {parts[0]: image}
    else:
        raise UserError(f"Name the part that {image} is for: `image=NAME=FILE`, with NAME one of: {', '.join(parts)}.")
    for name in named:
        if name not in parts:
            raise UserError(f"No image condition named {name!r}. Known: {', '.join(parts)}.")
    return {k: Path(v) if isinstance(v, str) else v for k, v in named.items()}


def make_cond(spec: CondSpec, base: Cond, request: Request, encoder: Encoder | None = None) -> Cond:
    """Return `base` with the parts of the request set in every row.

    Images, and captions that are encoded as vectors, need the `encoder`. Raises UserError for unknown parts or classes.
    """
    changes: dict[str, Any] = {}
    for name, value in labels_by_name(spec, request.label).items():
        if name not in of_kind(spec, "label"):
            raise UserError(f"No label named {name!r}. Known: {', '.join(of_kind(spec, 'label')) or 'none'}.")
        changes[name] = torch.tensor(label_id(name, value, spec[name]))
    for name, number in (request.number or {}).items():
        if name not in of_kind(spec, "number"):
            raise UserError(f"No number named {name!r}. Known: {', '.join(of_kind(spec, 'number')) or 'none'}.")
        changes[name] = torch.tensor((number - spec[name].mean) / spec[name].std)
    if request.caption is not None:
        name = caption_part(spec)
        if spec[name].kind == "prompt":
            changes[name] = caption_words(request.caption, spec[name])
        else:
            changes[name] = encoded(encoder, spec, Item(None, caption=request.caption)).parts[name][0]
    images = images_by_name(spec, request.image)
    if images:
        image_cond = encoded(encoder, spec, Item(None, images=images))
        changes |= {name: image_cond.parts[name][0] for name in images}
    parts, present = dict(base.parts), dict(base.present)
    for name, tensor in changes.items():
        parts[name] = tensor.to(parts[name].dtype).expand_as(parts[name]).contiguous()
        present[name] = torch.ones(base.size, dtype=torch.bool)
    cond = replace(base, parts=parts, present=present)
    if request.negative is None:
        return cond
    return replace(cond, negative=make_cond(spec, Cond.unconditional(spec, base.size), request.negative, encoder))


def with_caption(spec: CondSpec, space: Space, request: Request) -> Request:
    """The request with its prompt as the caption, if the model makes images or sounds and knows captions. Raises
    UserError for a request with both."""
    if not isinstance(request.prompt, str) or space.kind != "field" or not of_kind(spec, "prompt", "vector"):
        return request
    if request.caption is not None:
        raise UserError("`prompt` and `caption` both say what to make. Give one of them.")
    return replace(request, prompt=None, caption=request.prompt)


def caption_part(spec: CondSpec) -> str:
    """The name of the caption part. Raises UserError if none exists."""
    parts = of_kind(spec, "prompt", "vector")
    if not parts:
        raise UserError("This model was trained without captions. Leave `caption` out.")
    return parts[0]


def caption_words(caption: str, part: Part) -> Tensor:
    """The ids (S,) of a caption's words. Raises UserError if it is too long, or if none of its words is known."""
    ids, left_out = caption_ids(caption, part)
    if left_out:
        raise UserError(
            f"The caption is too long by {counted(left_out, 'word')}; this model takes {part.length}. Shorten it."
        )
    if not any(i > 1 for i in ids):
        raise UserError(f"None of the words of {caption!r} occurred in the training captions.")
    unknown = [word for word, i in zip(split_caption(caption), ids, strict=False) if i == 1]
    if unknown:
        which = ", ".join(dict.fromkeys(unknown))
        events.warning(f"words that did not occur in the training captions have no effect: {which}")
    return torch.tensor(ids)


def encoded(encoder: Encoder | None, spec: CondSpec, item: Item) -> Cond:
    """Encode an item's caption and images as one row of conditions, which does not depend on the item's value."""
    if item.caption is not None and not item.caption.strip():
        raise UserError("The caption is empty. Describe the sample, or leave the caption out.")
    if encoder is None:
        raise ValueError(f"{', '.join(spec)} cannot be encoded without the model's encoder")
    blank = encoder.decode(torch.zeros(1, *encoder.space.shape))[0]
    return encoder.encode([replace(item, value=blank)]).cond


def prompts_of(encoder: Encoder, space: Space) -> Prompts | None:
    """How a model of tokens reads prompts; None if it takes none."""
    return encoder.abilities.prompts if space.kind == "tokens" else None


def writes_text(encoder: Encoder, space: Space) -> bool:
    """Whether a model writes texts token by token, so that it can continue a prompt."""
    prompts = prompts_of(encoder, space)
    return prompts is not None and prompts.writes


def converses(encoder: Encoder, space: Space) -> bool:
    """Whether a model answers in conversations."""
    prompts = prompts_of(encoder, space)
    return prompts is not None and prompts.converses


def contains_prompts(encoder: Encoder) -> bool:
    """Whether samples contain their prompt, instead of following it."""
    return encoder.abilities.prompts is not None and encoder.abilities.prompts.contained


def encode_parts(encoder: Encoder, cond: Cond, request: Request, seed: int) -> Cond:
    """Set cond.known to the beginnings of items that contain the prompt. Raises UserError for an invalid part or
    strength."""
    prompts = encoder.abilities.prompts
    assert prompts is not None and request.prompt is not None
    if request.strength is not None and not 0 < request.strength <= 1:
        raise UserError(f"`strength` is the share that is drawn again, above 0 and up to 1. Given: {request.strength}.")
    if isinstance(request.prompt, str):
        rows = prompts.beginnings(request.prompt, cond.size, strength=request.strength, seed=seed)
    else:
        each = enumerate(one_each(request.prompt, cond.size))
        rows = [prompts.beginnings(p, strength=request.strength, seed=seed + i)[0] for i, p in each]
    return known(cond, rows)


def encode_prompts(
    encoder: Encoder,
    space: Space,
    cond: Cond,
    prompt: str | Sequence[Prompt],
    raw: bool = False,
    turns: Turns = (),
) -> tuple[Cond, list[str]]:
    """Set cond.known to prompts that samples follow: one for all rows, or one for each row. Returns the condition and
    notes.

    A model of conversations answers a prompt, after the earlier `turns`; with `raw` it continues the prompt. A note
    reports a prompt that is longer than the context. Raises UserError if the model does not continue prompts, or if a
    conversation has an empty one.
    """
    prompts = prompts_of(encoder, space)
    if prompts is None or prompts.contained:
        raise UserError("`prompt` continues a text; this model does not make texts. Use `label` or `caption`.")
    notes, rows = [], []
    each = one_each(prompt, cond.size)
    before = turns if prompts.converses and not raw else None
    read = {text: prompts.beginnings(text, turns=before)[0] for text in dict.fromkeys(each)}
    for text in each:
        ids = read[text]
        if prompts.converses and not len(ids):
            raise UserError("A conversation cannot begin with an empty prompt. Give a prompt that is not empty.")
        if space.records and not encoder.space.records:  # a text that is a record begins with `end`
            ids = nn.functional.pad(ids, (1, 0), value=space.special["end"])
        elif prompts.converses and raw and isinstance(text, str) and space.opening is not None:
            ids = nn.functional.pad(ids, (1, 0), value=space.opening)
        if len(ids) > space.shape[0]:
            notes.append(
                f"The prompt has {counted(len(ids), 'token')}; the model sees the last {space.shape[0]} of them."
            )
        rows.append(ids)
    return known(cond, rows), sorted(set(notes))


def one_each(texts: str | Sequence[Prompt], n: int) -> list[Prompt]:
    """One text for each of n samples, where a single text is repeated.

    Raises UserError for any other number of texts.
    """
    each: list[Prompt] = [texts] * n if isinstance(texts, str) else list(texts)
    if len(each) != n:
        raise UserError(f"{len(each)} prompts for {n} samples: give one prompt, or one for each sample.")
    return each


def known(cond: Cond, rows: Sequence[Tensor]) -> Cond:
    """Return the condition with known tokens: (length,) int64 for each row, -1 where a token is to be sampled."""
    width = max(1, *map(len, rows))
    tokens = torch.stack([nn.functional.pad(ids.long(), (0, width - len(ids)), value=-1) for ids in rows])
    return replace(cond, known=tokens.clamp_min(0), known_mask=tokens >= 0)


def encode_holes(encoder: Encoder, space: Space, cond: Cond, infill: str | Sequence[str]) -> Cond:
    """Set cond.known to items with holes, [[N]] for N tokens: one text for all rows, or one for each row.

    Raises UserError for a text without a hole, and for holes that cannot be filled.
    """
    prompts = prompts_of(encoder, space)
    if prompts is None:
        raise UserError("`infill` fills holes in a text; this model makes no texts. Leave it out.")
    return known(cond, [prompts.with_holes(str(text), space) for text in one_each(infill, cond.size)])


def check_fills(family: Family, request: Request) -> None:
    """Raises UserError if the request has both a prompt and holes, or if the family cannot fill holes."""
    if request.prompt is not None:
        raise UserError("Give `prompt`, a text to continue, or `infill`, a text with holes, but not both.")
    if not family.sampling.fills:
        able = ", ".join(f.name for f in registry.families() if f.sampling.fills)
        raise UserError(f"{family.name} cannot fill holes (`infill`). Families that can: {able}.")


def check_negative(request: Request, settings: Any) -> None:
    """Raises UserError for a negative request without guidance, which has no effect. Warns if it equals the request."""
    if request.negative is not None and words(request.negative) == words(request):
        events.warning("the negative request equals the request itself, so it has no effect")
    if request.negative is not None and not steers(settings):
        raise UserError(
            "A negative label or caption is what guidance steers away from; without guidance it has no effect. Add "
            "`guidance=2`, or leave it out."
        )


def prompt_ids(encoder: Encoder, prompt: Prompt, ask: bool, turns: Turns = ()) -> Tensor:
    """The ids of a prompt without the `end` token; with `ask`, those of a conversation, of earlier `turns` and the
    prompt, that the model is to answer. Raises UserError for a prompt of what the model does not know."""
    prompts = encoder.abilities.prompts
    assert prompts is not None, f"{encoder.kind.plural} have no prompts"
    return prompts.beginnings(prompt, turns=turns if ask else None)[0]


def check_fits(encoder: Encoder, space: Space, characters: int, what: str) -> None:
    """Raises UserError for a long text that does not fit in the context whatever its tokens are, before they are
    counted."""
    longest = LONGEST if encoder.abilities.texts is None else encoder.abilities.texts.tokenizer.longest
    most = space.shape[0] * longest
    if characters > max(most, QUICK):
        raise UserError(
            f"{what} has {characters:,} characters, and this model sees at most {most:,} of them: "
            f"{space.shape[0]:,} tokens of at most {longest}. Shorten it.",
            "context_length_exceeded",
            param="prompt",
        )


def prompt_texts(encoder: Encoder, space: Space, cond: Cond) -> list[str | None]:
    """The prompts in cond.known as texts."""
    prompts = prompts_of(encoder, space)
    if cond.known is None or cond.known_mask is None or prompts is None:
        return [None] * cond.size
    return [prompts.prompt_text(ids[mask]) for ids, mask in zip(cond.known, cond.known_mask, strict=True)]


def describe(encoder: Encoder, space: Space, cond: Cond, request: Request) -> list[dict[str, Any]]:
    """The request of every row as a record, including a conversation's prompt that was drawn from the data."""
    described = describe_parts(encoder.conds, cond, request)
    if request.prompt is None and request.infill is None and cond.known is not None:
        texts = prompt_texts(encoder, space, cond)
        described = [{**d, "prompt": text} for d, text in zip(described, texts, strict=True)]
    return described


def describe_parts(spec: CondSpec, cond: Cond, request: Request) -> list[dict[str, Any]]:
    """{prompt, label, ...} of every row; `negative` has the same form.

    `label` is a class if the model has one label, and {name: class} if it has several.
    """
    labels = of_kind(spec, "label")
    prompts = (
        [request.prompt] * cond.size if request.prompt is None or isinstance(request.prompt, str) else request.prompt
    )
    images = images_by_name(spec, request.image)
    unwanted = request.negative or Request()
    record = {**labels_by_name(spec, unwanted.label), **(unwanted.number or {}), "caption": unwanted.caption}
    negative = {k: v for k, v in record.items() if v is not None}
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
        if request.strength is not None:
            row["strength"] = request.strength
        if request.infill is not None:
            row["infill"] = request.infill if isinstance(request.infill, str) else request.infill[i]
        out.append(row)
    return out
