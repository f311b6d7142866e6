"""Structured output of a run: what its texts must match, over the run's own tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.data.text.documents import DocumentEncoder
from afresh.data.text.pieces import utf8
from afresh.runs.run import Run
from afresh.sampling import constraint
from afresh.sampling.constraint import Alphabet, Maker


def alphabet_of(run: Run) -> Alphabet:
    """What each token of the run's texts spells. Raises UserError for a run that does not make texts."""
    encoder = run.encoder
    if not isinstance(encoder, DocumentEncoder):
        raise UserError(
            f"{run.path} makes {run.record.modality}, not text: a JSON schema, a regular expression or a grammar "
            "says nothing about it. Leave it out."
        )
    tokenizer = encoder.tokenizer
    return Alphabet(tokenizer.spelling(), encoder.space.special["end"], tokenizer.nibbles)


def structure(
    run: Run,
    *,
    json_schema: Mapping[str, Any] | bool | str | None = None,
    regex: str | None = None,
    grammar: str | None = None,
) -> Maker | None:
    """For `run.sample(..., constraint=structure(run, regex="[0-9]{4}"))`; None when nothing is asked for.

    A prompt is not part of what must match. Raises UserError for more than one of the three, for one that is no
    Unicode, invalid or cannot be satisfied, and for a run whose family draws its tokens in no order from left to right.
    """
    asked = {"json_schema": json_schema, "regex": regex, "grammar": grammar}
    given = [name for name, value in asked.items() if value is not None]
    if not given:
        return None
    if len(given) > 1:
        raise UserError(f"A text can match one structure. Given: {' and '.join(given)}. Choose one.")
    for text in (t for t in asked.values() if isinstance(t, str)):
        utf8(text)
    alphabet = alphabet_of(run)
    if "constraint" not in run.family.sampling.settings.model_fields:  # type: ignore[attr-defined]
        raise UserError(
            f"{run.record.family} does not write from left to right, so it cannot follow a structure ({given[0]}). "
            "Leave it out, or train a transformer."
        )
    if json_schema is not None:
        return constraint.json_schema(json_schema, alphabet)
    if regex is not None:
        return constraint.regex(regex, alphabet)
    assert grammar is not None
    return constraint.grammar(grammar, alphabet)


def text_of(file: Path, flag: str) -> str:
    """The text of a schema's or grammar's file. Raises UserError where it cannot be read."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{flag} {file}: it cannot be read as text ({error}). Give a file in UTF-8.") from None
