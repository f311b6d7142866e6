"""What a single text asks of a model that does not continue texts: a caption, or its labels."""

from __future__ import annotations

from dataclasses import replace

from afresh.core import CondSpec, UserError
from afresh.engine.sampling.request import Request, is_class, of_kind, several_labels

CAPTIONS = ("prompt", "vector")  # kinds of parts that are captions
SHOWN = 40  # labels that an error lists


def conditions_from_text(spec: CondSpec, text: str, request: Request | None = None) -> Request:
    """The `request` with what a text asks for: its caption if the model learnt captions, otherwise one label or
    several with commas between them, each a class or NAME=CLASS. An empty text asks for nothing.

    Raises UserError, listing the labels, for a text that is none, and if the request has a caption or labels already.
    """
    request, text = request or Request(), text.strip()
    if not text:
        return request
    if of_kind(spec, *CAPTIONS):
        if request.caption is not None:
            raise UserError("The caption is given twice, also by the text. Give one of them.", "given_twice")
        return replace(request, caption=text)
    return with_labels(spec, text, request)


def with_labels(spec: CondSpec, text: str, request: Request) -> Request:
    """The `request` with labels: one, or several with commas between them, each a class or NAME=CLASS. An empty text
    asks for none.

    Raises UserError, listing the labels, for a text that is none, and if the request has labels already.
    """
    if not text:
        return request
    if request.label is not None:
        raise UserError("The label is given twice. Give it once.", "given_twice")
    parts = of_kind(spec, "label")
    if not parts:
        raise UserError(
            f"This model learnt no labels{'' if of_kind(spec, *CAPTIONS) else ' and no captions'}, so {text!r} has no "
            "effect. Leave it empty.",
            "unconditional",
        )
    words = [text] if any(is_class(text, spec[name]) for name in parts) else [w.strip() for w in text.split(",")]
    for word in words:
        name, equals, value = word.partition("=")
        named = bool(equals) and name in parts and is_class(value, spec[name])
        if not named and not any(is_class(word, spec[part]) for part in parts):
            raise UserError(f"This model has no label {word!r}. {labels_in_words(spec)}", "unknown_label")
    labels = several_labels(spec, words)
    return replace(request, label=next(iter(labels.values())) if len(parts) == 1 else labels)


def labels_in_words(spec: CondSpec) -> str:
    """The labels of a model in a sentence."""
    out = []
    for name in (parts := of_kind(spec, "label")):
        classes = spec[name].classes
        more = f", and {len(classes) - SHOWN:,} more" if len(classes) > SHOWN else ""
        out.append(f"{f'{name}: ' if len(parts) > 1 else ''}{', '.join(classes[:SHOWN])}{more}")
    return f"Its labels are {'; '.join(out)}."
