"""A decoder trained by afresh as a `Base`, under one condition, if a public architecture computes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from afresh.core import Cond, Space, UserError
from afresh.data.text.chat import PLAIN
from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.families.transformer import TransformerConfig
from afresh.engine.nets.causal_lm import CausalLM
from afresh.engine.nets.transformer import Decoder
from afresh.engine.training.weights import unpacked_state
from afresh.runs.formats.base import Base


@torch.no_grad()
def base_of(
    modules: Mapping[str, nn.Module], config: object, space: Space, tokenizer: Tokenizer, cond: Cond, source: str
) -> Base:
    """The decoder among `modules` under the condition `cond` (one row).

    A condition is a vector c that is added to the embedding of every token (nets/transformer.py), so a fixed condition
    can be added to the table: E' = E + c. A head that shared the table E keeps it and becomes a separate weight. Raises
    UserError if the model is not a causal decoder of text.
    """
    net = modules.get("decoder")
    if isinstance(net, CausalLM):
        raise UserError(
            f"{type(net.head).__name__} is computed by transformers, and such a model is not exported. If an adapter "
            "learnt, export that: `to='peft'`."
        )
    if not isinstance(net, Decoder) or not isinstance(config, TransformerConfig) or set(modules) != {"decoder"}:
        raise UserError("Only models of the family transformer can be exported in a format of language models.")
    if not space.stream or net.position is not None:
        raise UserError(
            "Only models of text and code can be exported: this model has learned positions or a fixed length, which "
            "no "
            "public architecture has."
        )
    if not net.shape.causal:
        raise UserError("Only causal decoders can be exported: this model attends to the text on both sides.")
    weights: dict[str, Tensor] = {k: v.detach().cpu() for k, v in unpacked_state(net).items()}
    separate = net.shape.separator >= 0  # documents do not attend to one another; messages of a conversation do
    sizes = config.model_copy(update={"mlp": net.shape.mlp, "apart": separate})
    if net.conditioning is not None:
        c = net.conditioning(cond.to(net.embedding.weight.device)).cpu()  # (1, width)
        weights = {k: v for k, v in weights.items() if not k.startswith("conditioning.")}
        if sizes.tied:
            weights["head.weight"] = weights["embedding.weight"]
            sizes = sizes.model_copy(update={"tied": False})
        weights["embedding.weight"] = weights["embedding.weight"] + c
    end = space.special["end"]
    if tokenizer.special["end"] != end:  # in conversations, the token that ends an answer
        tokenizer = replace(tokenizer, special={**tokenizer.special, "end": end})
    if space.records and tokenizer.chat_template is None:
        tokenizer = replace(tokenizer, chat_template=PLAIN)  # the format of the training conversations
    first = next(iter(space.lead), None)  # in training `end` stands between documents, and before the first
    notes: tuple[str, ...] = ()
    if tokenizer.kind == "foreign":  # other programs follow the convention of the base
        if first not in (tokenizer.opening, None):
            token = tokenizer.inner.id_to_token(end)
            notes = (f"in tuning, {token} came before each text: feed it for the same effect",)
        first = tokenizer.opening
    if separate:
        notes += ("documents did not attend to one another in training: give other programs one at a time",)
    return Base(sizes, space.shape[0], weights, tokenizer, source, first, notes)
