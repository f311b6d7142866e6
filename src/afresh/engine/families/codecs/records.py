"""Documents of a stream as records: each stands alone in a window, for families that draw sequences as a whole.

A record is `end`, the tokens of one document, and `end`; the vocabulary has one id more, `filler`. Nothing is lost, and
tokens are decoded as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from afresh.core import Examples, Space, UserError, events
from afresh.core.plural import counted
from afresh.core.safe_json import MOST_TOKENS

SOURCE = "tokens"  # the kind of space that this codec encodes
LONGEST = 512  # tokens of a record
FILE = "records.json"


class _Saved(BaseModel):
    """records.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: Literal["records"] = "records"
    version: Literal[1] = 1
    shape: tuple[int] = Field(description="of the source")
    vocab: tuple[int] = Field(description="of the source")
    special: dict[str, int]
    context: int = Field(ge=2, le=MOST_TOKENS)


def takes(space: Space) -> bool:
    """Whether examples are documents of a stream."""
    return space.kind == SOURCE and space.stream and not (space.records or space.catalogue)


@dataclass(frozen=True)
class RecordsCodec:
    """`context`: tokens of a window. Longer documents are learnt in several windows."""

    source: Space
    context: int

    @property
    def target(self) -> Space:
        (size,) = self.source.vocab
        special = {**self.source.special, "filler": size}
        return Space("tokens", (self.context,), (size + 1,), special, stream=True, records=True)

    @property
    def factor(self) -> int:
        """Tokens of the source for each token."""
        return 1

    def encode(self, examples: Examples) -> Examples:
        """Puts `end` before each document of x (total,), which `mask` (total,) leaves out. Rows (N, T) stay as they
        are."""
        bounds, end = examples.bounds, self.source.special["end"]
        if bounds is None:
            return examples
        documents = len(bounds) - 1
        later = bounds + torch.arange(documents + 1)
        x = torch.full((int(later[-1]),), end, dtype=examples.x.dtype)
        mask = torch.ones(len(x), dtype=torch.bool)
        mask[later[:-1]] = False
        x[mask] = examples.x
        return Examples(x, examples.cond, bounds=later, bytes=examples.bytes, mask=mask)

    def decode(self, x: Tensor) -> Tensor:
        """Tokens (N, T), as they are. Raises UserError for ids of another vocabulary."""
        (size,) = self.source.vocab
        if x.numel() and (int(x.min()) < 0 or int(x.max()) >= size):
            raise UserError(f"Tokens must be from 0 to {size - 1}, but are from {int(x.min())} to {int(x.max())}.")
        return x

    def save(self, folder: Path) -> None:
        """Writes records.json into the folder, which is created if necessary."""
        folder.mkdir(parents=True, exist_ok=True)
        s = self.source
        saved = _Saved(shape=(s.shape[0],), vocab=(s.vocab[0],), special=dict(s.special), context=self.context)
        (folder / FILE).write_text(saved.model_dump_json(indent=1), encoding="utf-8")


def load(folder: Path) -> RecordsCodec:
    """Loads a codec that `RecordsCodec.save` wrote. Raises UserError if the file is missing or invalid."""
    try:
        saved = _Saved.model_validate_json((folder / FILE).read_bytes())
        if not all(0 <= i < saved.vocab[0] for i in saved.special.values()) or "end" not in saved.special:
            raise ValueError("the special ids must be in the vocabulary, and `end` among them")
    except (OSError, ValueError, ValidationError) as error:
        raise UserError(f"{folder} does not hold readable records ({error}). Train the model again.") from error
    return RecordsCodec(Space("tokens", saved.shape, saved.vocab, saved.special, stream=True), saved.context)


def fit(examples: Examples, space: Space) -> RecordsCodec:
    """Windows for the longest of the documents, of at most LONGEST tokens. Warns if there are longer ones. Raises
    UserError if there are none, or for another kind of space."""
    if not takes(space) or examples.bounds is None:
        raise UserError(f"Records are made of the documents of a stream, but the data are of kind {space.kind}.")
    lengths = examples.bounds.diff()
    if not len(lengths):
        raise UserError("There are no documents to fit windows to. Give at least one.")
    if long := int((lengths > LONGEST).sum()):
        events.warning(
            f"{counted(long, 'document')} of {len(lengths):,} with more than {LONGEST} tokens are learnt in several "
            "windows. The family transformer is for long texts."
        )
    return RecordsCodec(space, max(8, min(LONGEST, -(-int(lengths.max()) // 8) * 8)))
