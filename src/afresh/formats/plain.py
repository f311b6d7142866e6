"""One safetensors file with weights in our own names, and a JSON of its sizes: for programs of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save

from afresh.core import UserError
from afresh.data.text.tokenizer import Tokenizer
from afresh.families.transformer import TransformerConfig
from afresh.formats.base import Base
from afresh.formats.huggingface import WEIGHTS, opened, read_json, write_json, write_tokenizer
from afresh.formats.parts import DTYPES, Precision, check, check_finite, fused_shapes

FILE = "model.json"


class _Saved(BaseModel):
    """model.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = "afresh.decoder"
    version: int = Field(1, ge=1, le=1)
    config: TransformerConfig
    context: int = Field(gt=0)
    vocab: int = Field(gt=0)
    tokenizer: str = "tokenizer.json"
    first: int | None  # the id to be fed before a text


def write(base: Base, folder: Path, precision: Precision) -> list[str]:
    """model.safetensors, model.json and the tokenizer, into an empty folder; returns notes (none)."""
    vocab = base.tokenizer.size
    check({k: tuple(v.shape) for k, v in base.weights.items()}, fused_shapes(base.config, vocab), "The model")
    tensors = {k: v.detach().to(DTYPES[precision]).clone() for k, v in base.weights.items()}
    (folder / WEIGHTS).write_bytes(save(tensors))
    saved = _Saved(config=base.config, context=base.context, vocab=vocab, first=base.first)
    write_json(folder / FILE, saved.model_dump(mode="json"))
    write_tokenizer(base.tokenizer, folder, base.context, base.first)
    return []


def read(folder: Path) -> Base:
    """What `write` wrote. Raises UserError, naming fields or tensors, for what does not fit."""
    file = folder / FILE
    try:
        saved = _Saved.model_validate(read_json(file))
    except ValidationError as e:
        problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors()[:5])
        raise UserError(f"{file} is no export that this version can read: {problems}.") from None
    tokenizer = Tokenizer.load(folder / "tokenizer.json").with_rows(saved.vocab, str(folder))
    with opened(folder / WEIGHTS) as f:
        found: dict[str, Any] = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118 - no mapping
    check({k: tuple(v.shape) for k, v in found.items()}, fused_shapes(saved.config, saved.vocab), str(folder))
    check_finite(found, str(folder))
    return Base(saved.config, saved.context, found, tokenizer, str(folder), saved.first)
