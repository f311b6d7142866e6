"""Sequences of tokens as the latents of a trained autoencoder: `afresh train DATA --codec RUN`.

A record becomes a field (channels, slots) of unit variance, and is written again from it token by token, always the
likeliest one. The codec has its own copy of the networks, so that the run of the autoencoder may be deleted. Documents
of a stream become records first (families/codecs/records.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import Codec, Cond, Examples, Space, UserError
from afresh.core.rng import Rng
from afresh.core.safe_json import MOST_LAYERS, MOST_TOKENS
from afresh.core.solver_progress import blocks
from afresh.core.space import evenly_spaced
from afresh.data.load import numbered
from afresh.engine.families.codecs import stored
from afresh.engine.families.codecs.records import RecordsCodec
from afresh.engine.families.codecs.trained import STANDARDISED, on_device
from afresh.engine.nets.sequences import SequenceDecoder, Sequences, SequenceShape, sequence_networks, sequential
from afresh.engine.sampling.sequences import write

SOURCE = "tokens"  # the kind of space that this codec encodes
FAMILY = "autoencoder"  # the family whose runs become codecs
WITHIN = ("records",)  # codecs that such a run may have
CHUNK = 256  # sequences at a time
PAIR = ("encoder", "decoder")


class _Saved(BaseModel):
    """codec.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    codec: Literal["trained_sequences"] = "trained_sequences"
    version: Literal[1] = 1
    context: int = Field(ge=2, le=MOST_TOKENS)  # of the source
    vocab: int = Field(ge=1)
    special: dict[str, int]
    records: int = Field(ge=0, le=MOST_TOKENS)  # tokens of a window of documents; 0: the source consists of records
    channels: int = Field(ge=1)
    slots: int = Field(ge=1)
    width: int = Field(ge=1)
    blocks: int = Field(ge=1, le=MOST_LAYERS)


@dataclass(frozen=True)
class SequenceCodec:
    """`modules`: encoder and decoder; mean and std (channels, slots) standardise the latents. The networks are moved to
    the device of their input."""

    source: Space
    records: RecordsCodec | None
    net: SequenceShape
    modules: Mapping[str, nn.Module]
    mean: Tensor
    std: Tensor

    @property
    def inner(self) -> Space:
        """The space of records that the networks work in."""
        return self.source if self.records is None else self.records.target

    @property
    def target(self) -> Space:
        return Space("field", (self.net.channels, self.net.slots))

    @property
    def factor(self) -> int:
        """Latents have no place in the sequence."""
        return 1

    @torch.no_grad()
    def encode(self, examples: Examples) -> Examples:
        """Records, or rows of tokens (N, T) up to their `end`, as latents (N, channels, slots), float32. Records that
        are longer than a window are several."""
        return self._encoded(examples, None)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        """Latents (N, channels, slots) to tokens (N, T) int64, padded with `end`. Raises UserError for another
        shape."""
        if tuple(x.shape[1:]) != self.target.shape:
            raise UserError(
                f"This codec needs latents of shape (n, {self.net.channels}, {self.net.slots}), not {tuple(x.shape)}."
            )
        decoder = on_device(self.modules, x.device)["decoder"]
        assert isinstance(decoder, SequenceDecoder)
        parts = []
        for block in x.split(CHUNK):
            z = (block.float() * self.std.to(x.device) + self.mean.to(x.device)).flatten(1)
            rows = torch.arange(len(block), device=x.device)
            parts.append(write(decoder, z, None, self.inner, Cond(len(block)), Rng(0), rows))
        longest = max((p.shape[1] for p in parts), default=1)
        end = self.inner.special["end"]
        rows_of = [F.pad(p, (0, longest - p.shape[1]), value=end) for p in parts]
        return torch.cat(rows_of) if parts else torch.zeros(0, 1, dtype=torch.int64)

    def save(self, folder: Path) -> None:
        """Writes codec.json and codec.safetensors into the folder, which is created if necessary."""
        s, records = self.source, 0 if self.records is None else self.records.context
        saved = _Saved(
            context=s.shape[0], vocab=s.vocab[0], special=dict(s.special), records=records, **asdict(self.net)
        )
        stored.save(folder, saved, self.modules, self.mean, self.std)

    def _encoded(self, examples: Examples, most: int | None) -> Examples:
        """`encode` of all records, or of as many as `most` that are evenly spaced."""
        if examples.bounds is None:
            rows = evenly_spaced(len(examples), most or len(examples))
            parts = [self._one(Sequences.whole(x, self.inner.special["end"])) for x in examples.x[rows].split(CHUNK)]
            return Examples(self._joined(parts), examples.cond.select(rows), bytes=examples.bytes)
        there = examples if self.records is None else self.records.encode(examples)
        n, batch_of = numbered(there, self.inner)
        parts, conds = [], []
        for rows in blocks(evenly_spaced(n, most or n).split(CHUNK), "encoding"):
            batch = batch_of(rows)
            parts.append(self._one(Sequences.of(batch)))
            conds.append(batch.cond)
        return Examples(self._joined(parts), Cond.cat(conds) if conds else examples.cond, bytes=examples.bytes)

    def _one(self, x: Sequences) -> Tensor:
        """Encodes one block of sequences."""
        mean, _ = on_device(self.modules, x.tokens.device)["encoder"](x)
        z: Tensor = mean.view(-1, *self.target.shape)
        return (z - self.mean.to(z.device)) / self.std.to(z.device)

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts) if parts else torch.zeros(0, *self.target.shape)


def of_modules(
    config: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    space: Space,
    examples: Examples,
    within: Codec | None = None,
) -> SequenceCodec:
    """The codec of a trained autoencoder over sequences, from its configuration, its networks, the space of its data,
    and its own codec of documents as records, if it has one.

    The latents are standardised by some of `examples`, a training split of that space. Raises UserError if there are
    none, and for another kind of space.
    """
    records = within if isinstance(within, RecordsCodec) else None
    if not sequential(space if records is None else records.target):
        raise UserError(
            f"A codec of sequences encodes records of tokens, but the data are of kind {space.kind} and shape "
            f"{space.shape}. Choose a family that needs no codec for this data."
        )
    if not len(examples):
        raise UserError("The latents cannot be standardised without examples. Give at least one.")
    net = SequenceShape(config["channels"], config["slots"], config["width"], config["blocks"])
    own = copied(space if records is None else records.target, net, {k: modules[k].state_dict() for k in PAIR})
    shape = (net.channels, net.slots)
    plain = SequenceCodec(space, records, net, own, torch.zeros(shape), torch.ones(shape))
    z = plain._encoded(examples, STANDARDISED).x.double()
    std = z.std(0, unbiased=False).clamp_min(1e-6)  # for constant latents
    return SequenceCodec(space, records, net, own, z.mean(0).float(), std.float())


def copied(space: Space, net: SequenceShape, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, nn.Module]:
    """New networks with copies of these weights. Raises RuntimeError if the weights do not fit."""
    return stored.fixed(lambda: sequence_networks(space, net), states)


def load(folder: Path) -> SequenceCodec:
    """Loads a codec that `SequenceCodec.save` wrote. Raises UserError if a file is missing, damaged or invalid."""
    with stored.readable(folder):
        saved, states = stored.read(folder, _Saved, PAIR)
        whole = saved.records == 0
        source = Space("tokens", (saved.context,), (saved.vocab,), saved.special, stream=True, records=whole)
        records = None if whole else RecordsCodec(source, saved.records)
        inner = source if records is None else records.target
        if not sequential(inner) or not all(0 <= i < saved.vocab for i in saved.special.values()):
            raise ValueError("the special ids must be those of records in the vocabulary")
        net = SequenceShape(saved.channels, saved.slots, saved.width, saved.blocks)
        modules, latent = copied(inner, net, states), states[stored.LATENTS]
        return SequenceCodec(source, records, net, modules, latent["mean"], latent["std"])


def described(codec: SequenceCodec, encoded: Examples) -> str:
    """Describes the latents of an example."""
    return f"{codec.net.channels} numbers at each of {codec.net.slots} slots"
