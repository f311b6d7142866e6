"""A language model as files hold it: sizes, weights, tokenizer. All formats of language models read and write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from afresh.core import Space
from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.families.transformer import TransformerConfig, build
from afresh.engine.nets.transformer import Decoder, rope_table


@dataclass(frozen=True)
class Base:
    """A language model that is not loaded for computing.

    `weights` are named as in the state of `afresh.engine.nets.transformer.Decoder`, in the precision of the file.
    `context` is the longest input in tokens. `first` is the id to feed before a text (None: no id). `source` is the
    path or name that it was read from, `notes` are remarks for the user.
    """

    config: TransformerConfig
    context: int
    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer
    source: str
    first: int | None = None
    notes: tuple[str, ...] = ()
    family: ClassVar[str] = "transformer"

    @property
    def chat_template(self) -> str | None:
        """The chat template in Jinja, as in transformers."""
        return self.tokenizer.chat_template

    @property
    def space(self) -> Space:
        """The space of streams of its tokens, in windows of its context."""
        t = self.tokenizer
        return Space("tokens", (self.context,), vocab=(t.size,), special=dict(t.special), stream=True)


def decoder_of(base: Base, context: int | None = None) -> Decoder:
    """A network with a copy of the base's weights in float32, for windows of `context` tokens (default: the base's)."""
    space = replace(base.space, shape=(context or base.context,))
    with torch.device("meta"):  # saves the time of drawing random weights that are replaced at once
        net = build(base.config, space, {})["decoder"]
    assert isinstance(net, Decoder)
    net.load_state_dict({k: v.to(torch.float32, copy=True) for k, v in base.weights.items()}, assign=True)
    cos, sin = rope_table(space.shape[0] + 1, net.shape.dim, net.shape.rope_theta, net.shape.rope_scaling)
    net.register_buffer("cos", cos, persistent=False)
    net.register_buffer("sin", sin, persistent=False)
    return net
