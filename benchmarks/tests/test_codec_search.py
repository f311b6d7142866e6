"""Codes that are searched for: never further from a field than the encoder's own, each field by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import Cond, Examples, Space, registry
from afresh.core.rng import Rng
from afresh.engine.families.autoencoder import importance
from afresh.engine.families.codecs.trained import TrainedCodec, of_modules
from benchmarks.sound.codec import searched

FIELD = Space("field", (1, 16, 24), std=0.5)
KINDS = [{"factor": 4, "levels": [4, 4, 4]}, {"factor": 8, "levels": [3, 3], "residual": 2}]


def untrained(kind: dict[str, Any]) -> TrainedCodec:
    family = registry.family("autoencoder")
    config = family.config(bottleneck="fsq", width=8, **kind)
    torch.manual_seed(0)
    modules = family.build(config, FIELD, {})
    return of_modules(config.model_dump(mode="json"), modules, FIELD, examples(1))


def examples(n: int) -> Examples:
    return Examples(0.5 * Rng(4).normal("x", torch.arange(n), FIELD.shape), Cond(n))


def decoded(codec: TrainedCodec, codes: Tensor) -> Tensor:
    return codec.decode(codes.reshape(len(codes), -1))


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("high", [0.0, 0.9])
def test_what_is_found_is_nearer_than_what_the_encoder_says(kind: dict[str, Any], high: float) -> None:
    codec, x = untrained(kind), examples(6).x

    def far(codes: Tensor) -> Tensor:
        return ((decoded(codec, codes) - x).square() * importance(x, high)).flatten(1).sum(1)

    found = searched(codec, x, high)
    assert found.shape == (6, *codec.grid, codec.net.residual)
    before, after = far(codec.encode(examples(6)).x), far(found)
    assert bool((after <= before * 1.0001).all()) and float(after.mean()) < 0.99 * float(before.mean())


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_sent_is_found_beside_what_is_not(kind: dict[str, Any]) -> None:
    """The receiver has `quiet` behind the first column; what is sent suits that."""
    codec, x = untrained(kind), examples(6).x
    quiet = searched(codec, torch.full((1, *FIELD.shape), -1.0), 0.0)[0]
    sent = (torch.arange(codec.grid[1]) < 1).expand(6, -1)

    def far(codes: Tensor) -> float:
        whole = torch.where(sent[:, None, :, None], codes, quiet)
        return float((decoded(codec, whole) - x).square().sum())

    blind = codec.encode(examples(6)).x.view(6, *codec.grid, -1)
    assert far(searched(codec, x, 0.0, quiet, sent)) < far(blind)


def test_each_field_is_searched_for_by_itself() -> None:
    codec, x = untrained(KINDS[0]), examples(6).x
    together, alone = searched(codec, x, 0.0), searched(codec, x[2:3], 0.0)
    assert float((together[2:3] == alone).float().mean()) > 0.95  # products of other shapes round differently
