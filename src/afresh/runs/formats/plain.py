"""The safetensors format of language models: one file with weights under afresh's names, and a JSON file of sizes."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save

from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.families.transformer import TransformerConfig
from afresh.runs.formats.base import Base
from afresh.runs.formats.files import load_tensors, read_model, write_json
from afresh.runs.formats.huggingface import WEIGHTS, write_tokenizer
from afresh.runs.formats.model_card import README
from afresh.runs.formats.parts import DTYPES, Precision, check, check_finite, fused_shapes

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
    first: int | None  # the id to feed before a text


def write(base: Base, folder: Path, precision: Precision) -> list[str]:
    """Write model.safetensors, model.json, the tokenizer and README.md into an empty folder; returns notes (none)."""
    vocab = base.tokenizer.size
    check({k: tuple(v.shape) for k, v in base.weights.items()}, fused_shapes(base.config, vocab), "The model")
    tensors = {k: v.detach().to(DTYPES[precision]).clone() for k, v in base.weights.items()}
    (folder / WEIGHTS).write_bytes(save(tensors))
    saved = _Saved(config=base.config, context=base.context, vocab=vocab, first=base.first)
    write_json(folder / FILE, saved.model_dump(mode="json"))
    write_tokenizer(base.tokenizer, folder, base.context, base.first)
    (folder / README).write_text(guide(base), encoding="utf-8")
    return []


def guide(base: Base) -> str:
    """README.md: how to load the model."""
    return f"""# {Path(base.source).name}

A decoder in afresh's own names: `{WEIGHTS}` holds its tensors, `{FILE}` its sizes, `tokenizer.json` its tokenizer.
`proof.json` states how it was checked. The likeliest token that follows a text:

```python
from pathlib import Path

import torch

from afresh.runs.formats.base import decoder_of
from afresh.runs.formats.load import load_base

base = load_base(Path("."))  # this folder
ids = [*([] if base.first is None else [base.first]), *base.tokenizer.encode("The")]
with torch.no_grad():
    logits = decoder_of(base)(torch.tensor([ids]), None)[0, -1]
print(base.tokenizer.decode([int(logits.argmax())]))
```
"""


def read(folder: Path) -> Base:
    """Read what `write` wrote. Raises UserError, naming fields or tensors, if the files do not fit together."""
    saved = read_model(folder / FILE, _Saved)
    tokenizer = Tokenizer.load(folder / "tokenizer.json").with_rows(saved.vocab, str(folder))
    weights = load_tensors(folder / WEIGHTS)
    check({k: tuple(v.shape) for k, v in weights.items()}, fused_shapes(saved.config, saved.vocab), str(folder))
    check_finite(weights, str(folder))
    return Base(saved.config, saved.context, weights, tokenizer, str(folder), saved.first)
