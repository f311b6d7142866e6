"""A run.json that describes a network of any size is refused before much of it is built."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ValidationError
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from afresh.core import Space, UserError, registry
from afresh.runs import size_limits
from afresh.runs.size_limits import MOST_TENSORS, bounded

FIELD, TOKENS = Space("field", (1, 8, 8)), Space("tokens", (16,), (50,), {"end": 49}, stream=True)
SPACES = {"autoencoder": FIELD, "flow": FIELD, "gan": FIELD, "vae": FIELD, "masked": TOKENS, "transformer": TOKENS}


def integers(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The places of all whole numbers in a configuration, and of its lists."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from integers(getattr(value, name), (*path, name))
    elif isinstance(value, tuple):
        yield path
        for i, item in enumerate(value):
            yield from integers(item, (*path, i))
    elif isinstance(value, int) and not isinstance(value, bool):
        yield path


def changed(config: BaseModel, path: tuple[str | int, ...], number: int) -> dict[str, Any]:
    """The fields of a configuration with a number in one place; a list gets so many of its first item."""
    fields: Any = json.loads(config.model_dump_json())
    inner = fields
    for key in path[:-1]:
        inner = inner[key]
    old = inner[path[-1]]
    inner[path[-1]] = old[:1] * number if isinstance(old, list) else number
    return dict(fields)


@pytest.mark.slow
@pytest.mark.parametrize("name", SPACES)
def test_no_number_of_a_configuration_makes_a_network_without_end(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "available_memory", lambda: None)
    family, space = registry.family(name), SPACES[name]
    config: Any = family.config()  # type: ignore[call-arg]
    true = sum(p.numel() for m in family.build(config, space, {}).values() for p in m.parameters())
    made = 0

    def count(module: nn.Module, name: str, value: torch.Tensor) -> None:
        nonlocal made
        made += 1

    for path in integers(config):
        for number in (1000, 10**5, 10**9):
            if number == 10**9 and isinstance(value_at(config, path), tuple):
                continue
            try:
                large = family.config.model_validate(changed(config, path, number))  # type: ignore[attr-defined]
            except ValidationError:
                continue
            made, hook = 0, register_module_parameter_registration_hook(count)
            try:
                with torch.device("meta"):
                    bounded(family, true, Path("run.json")).build(large, space, {})
            except UserError:
                pass
            finally:
                hook.remove()
            assert made <= 2000, (path, number)


def value_at(config: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        config = config[key] if isinstance(key, int) else getattr(config, key)
    return config


@pytest.mark.parametrize("name", SPACES)
def test_the_depth_of_a_network_is_bounded_before_it_is_built(name: str) -> None:
    family = registry.family(name)
    field = "layers" if SPACES[name] is TOKENS else "blocks"
    with pytest.raises(ValidationError, match="less than or equal to 1024"):
        family.config.model_validate({field: 10**9})  # type: ignore[attr-defined]
    assert MOST_TENSORS < 1 << 16
