"""A trained decoder as a base: its condition is added to the embedding; models without a public architecture are
refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from afresh.core import Cond, Part, Space, UserError
from afresh.data.text.chat import PLAIN
from afresh.engine.families.transformer import TransformerConfig, build
from afresh.engine.nets.transformer import Decoder
from afresh.runs.formats.base import decoder_of
from afresh.runs.formats.decoder import base_of
from tests.runs.formats.bases import TOKENIZERS

T = TOKENIZERS["bpe"]
SPACE = Space("tokens", (32,), vocab=(T.size,), special=dict(T.special), stream=True)
SPEC = {"label": Part("label", ("a", "b", "c")), "year": Part("number", mean=1900.0, std=50.0)}
TOKENS = torch.arange(48).view(2, 24)


def trained(tied: bool = False, spec: dict[str, Part] | None = None, space: Space = SPACE) -> tuple[Any, Decoder]:
    config = TransformerConfig(width=32, layers=1, heads=2, kv_heads=1, tied=tied)
    torch.manual_seed(0)
    net = build(config, space, spec or {})["decoder"]
    assert isinstance(net, Decoder)
    for p in net.parameters():
        nn.init.normal_(p, mean=float(p.dim() == 1), std=0.3)
    return config, net


def asked(label: int | None, year: float | None) -> Cond:
    return Cond(
        1,
        {"label": torch.tensor([label or 0]), "year": torch.tensor([year or 0.0])},
        {"label": torch.tensor([label is not None]), "year": torch.tensor([year is not None])},
    )


@torch.no_grad()
def as_trained(net: Decoder, cond: Cond) -> Tensor:
    return net(TOKENS, net.condition(cond.repeat(2)))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("label", "year"), [(None, None), (2, None), (0, -1.5)])
def test_a_folded_condition_is_the_condition(tied: bool, label: int | None, year: float | None) -> None:
    config, net = trained(tied, SPEC)
    base = base_of({"decoder": net}, config, SPACE, T, asked(label, year), "it")
    assert not base.config.tied and not any("conditioning" in k for k in base.weights)
    with torch.no_grad():
        logits = decoder_of(base)(TOKENS, None)
    torch.testing.assert_close(logits, as_trained(net, asked(label, year)), rtol=1e-5, atol=1e-5)
    other = as_trained(net, asked(1, 2.0))
    assert (logits - other).abs().max() > 0.1, "the check could not see another condition"


def test_an_unconditional_model_stays_as_it_is() -> None:
    config, net = trained(tied=True)
    base = base_of({"decoder": net}, config, SPACE, T, Cond.unconditional({}, 1), "it")
    assert base.config.tied and base.config.mlp == net.shape.mlp and base.first == T.special["end"]
    with torch.no_grad():
        assert torch.equal(decoder_of(base)(TOKENS, None), net(TOKENS, None))


def test_conversations_begin_with_nothing_and_end_with_their_mark() -> None:
    config, net = trained()
    space = Space("tokens", (32,), vocab=(T.size,), special={**T.special, "end": 7}, stream=True, records=True)
    base = base_of({"decoder": net}, config, space, T, Cond.unconditional({}, 1), "it")
    assert base.first is None and base.tokenizer.special["end"] == 7 and base.chat_template == PLAIN


@torch.no_grad()
def test_messages_see_one_another_and_documents_do_not() -> None:
    """The token that ends an answer or a document occurs in the middle of the tokens."""
    talk = Space("tokens", (32,), vocab=(T.size,), special={**T.special, "end": 7}, stream=True, records=True)
    for space in (SPACE, talk):
        config, net = trained(space=space)
        base = base_of({"decoder": net}, config, space, T, Cond.unconditional({}, 1), "it")
        assert base.config.apart != space.records and bool(base.notes) != space.records
        tokens = TOKENS.clone()
        tokens[:, 9] = space.special["end"]
        assert torch.equal(decoder_of(base)(tokens, None), net(tokens, None))


def test_what_has_no_public_architecture() -> None:
    config, net = trained()
    nothing = Cond.unconditional({}, 1)
    with pytest.raises(UserError, match="Only models of the family transformer"):
        base_of({"velocity": nn.Linear(1, 1)}, config, SPACE, T, nothing, "it")
    with pytest.raises(UserError, match="Only models of the family transformer"):
        base_of({"decoder": net, "critic": net}, config, SPACE, T, nothing, "it")
    grid = Space("tokens", (16,), vocab=(T.size,), special=dict(T.special), grid=(4, 4))
    with pytest.raises(UserError, match="learned positions or a fixed length"):
        base_of({"decoder": trained(space=grid)[1]}, config, grid, T, nothing, "it")
