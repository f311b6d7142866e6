"""Structured output: constraints on the texts of a model, expressed over its tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afresh.core import Encoder, Family, UserError
from afresh.data.text.pieces import utf8
from afresh.engine.sampling import constraint
from afresh.engine.sampling.constraint import Alphabet, Maker


def alphabet_of(encoder: Encoder) -> Alphabet:
    """The text that each token spells. Raises UserError if the model does not make text."""
    texts = encoder.abilities.texts
    if texts is None:
        raise UserError(
            "This model does not make text, so a JSON schema, a regular expression or a grammar cannot apply. Leave it "
            "out.",
            "not_text",
        )
    return Alphabet(texts.tokenizer.spelling(), encoder.space.special["end"], texts.tokenizer.nibbles)


def structure(
    family: Family,
    encoder: Encoder,
    *,
    json_schema: Mapping[str, Any] | bool | str | None = None,
    regex: str | None = None,
    grammar: str | None = None,
) -> Maker | None:
    """The constraint of a JSON schema, a regular expression or a grammar; None if none of them is given.

    A prompt is not part of what must match. Raises UserError for more than one of the three, for one that is invalid,
    is not Unicode or cannot be satisfied, and if the family does not write from left to right.
    """
    structures = {"json_schema": json_schema, "regex": regex, "grammar": grammar}
    names = [name for name, value in structures.items() if value is not None]
    if not names:
        return None
    if len(names) > 1:
        raise UserError(f"A text can match one structure. Given: {' and '.join(names)}. Choose one.")
    for text in (t for t in structures.values() if isinstance(t, str)):
        utf8(text)
    alphabet = alphabet_of(encoder)
    if "constraint" not in family.sampling.settings.model_fields:  # type: ignore[attr-defined]
        raise UserError(
            f"{family.name} does not write from left to right, so it cannot follow a structure ({names[0]}). "
            "Leave it out, or train a transformer."
        )
    if json_schema is not None:
        return constraint.json_schema(json_schema, alphabet)
    if regex is not None:
        return constraint.regex(regex, alphabet)
    assert grammar is not None
    return constraint.grammar(grammar, alphabet)


def text_of(file: Path, flag: str) -> str:
    """The text of a file of a schema or grammar. Raises UserError if the file cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{flag} {file} cannot be read as text: {error}. Give a file in UTF-8.") from None
