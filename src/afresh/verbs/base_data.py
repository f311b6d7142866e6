"""Data as a base model reads it, which goes on to learn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from afresh.core import Encoder, Item, UserError
from afresh.data.prepare import Prepared, choose_modality, claims, prepare, read_options
from afresh.data.sources import readable
from afresh.engine.training.weights import has_rows_of_classes
from afresh.runs.formats.public import BaseModel


def prepare_for(
    base: BaseModel,
    path: Path,
    modality: str | None = None,
    options: Mapping[str, Any] | None = None,
    validation: Path | None = None,
) -> Prepared:
    """Prepare the data at `path` with the encoder of the base (data/prepare.py).

    Raises UserError for data of another modality, and for options that the base determines.
    """
    given = options or {}
    own = None if modality is not None else own_modality(path, base)
    read_as, why = choose_modality(path, modality or own)
    from afresh.data.text.documents import DocumentOptions

    texts = issubclass(read_as.options, DocumentOptions)
    base_texts = base.encoder.abilities.texts is not None
    if texts != base_texts:
        makes = "texts" if base_texts else (base.modality or "something else")
        raise UserError(f"{base.name} makes {makes}, and {path} is {read_as.name}. Give data of the same modality.")
    fixed = sorted({"tokenizer", "vocab_size"} & set(given)) if texts else []
    if fixed:
        raise UserError(f"`data.{fixed[0]}` cannot be chosen, because the tokenizer is that of the base. Leave it out.")
    settled = base.encoder.settled
    wanted = read_options(read_as, given)
    other = [] if texts else [k for k in given if k in settled and getattr(wanted, k) != settled[k]]
    if other:
        used = settled[other[0]]
        raise UserError(f"`data.{other[0]}` cannot be chosen, because it is that of the base: {used}. Leave it out.")

    def fit(items: Sequence[Item], options: Any) -> Encoder:
        tunable = base.encoder.abilities.tunable
        grows = bool(base.encoder.space.vocab) or has_rows_of_classes(base.weights)  # a network of others may not
        return tunable.encoder_for(items, options, base.context) if tunable is not None and grows else base.encoder

    prepared = prepare(path, read_as.name, {**settled, **given}, validation, fit=fit)
    return replace(prepared, why=why if own is None else "like the base's data")


def own_modality(path: Path, base: BaseModel) -> str | None:
    """The base's own modality, or None to detect the modality from the data.

    The modality is detected if the base makes texts and its own modality does not recognise the file, such as a table
    of instructions for a model of source code.
    """
    if base.modality is None or base.encoder.abilities.texts is None or not path.exists():
        return base.modality
    return base.modality if any(s.score and m.name == base.modality for s, m in claims(readable(path, None))) else None
