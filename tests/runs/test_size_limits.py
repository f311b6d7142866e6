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
from afresh.core.rng import Rng
from afresh.engine.training.lora import LoraConfig, attach
from afresh.runs import size_limits
from afresh.runs.formats import hf_config
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


# config.json of public models, where it differs from the defaults of transformers, and how many weights each has.
TIED = {"tie_word_embeddings": True}
SMALL = {"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "vocab_size": 262144}
SHAPES: dict[str, tuple[str, int, dict[str, Any]]] = {
    "gpt2": ("gpt2", 124_439_808, {}),
    "distilgpt2": ("gpt2", 81_912_576, {"n_layer": 6}),
    "pythia-70m": (
        "gpt_neox",
        70_426_624,
        {
            "vocab_size": 50304,
            "hidden_size": 512,
            "num_hidden_layers": 6,
            "num_attention_heads": 8,
            "intermediate_size": 2048,
        },
    ),
    "gpt-neox-20b": ("gpt_neox", 20_554_567_680, {}),
    "opt-125m": ("opt", 125_239_296, {"vocab_size": 50272}),
    "opt-350m": (
        "opt",
        331_196_416,
        {
            "vocab_size": 50272,
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "ffn_dim": 4096,
            "num_attention_heads": 16,
            "word_embed_proj_dim": 512,
            "do_layer_norm_before": False,
        },
    ),
    "falcon-7b": ("falcon", 6_921_720_704, {}),
    "bloom-560m": ("bloom", 559_214_592, {"hidden_size": 1024, "n_layer": 24, "n_head": 16}),
    "stablelm-2-1.6b": (
        "stablelm",
        1_644_515_328,
        {
            "vocab_size": 100352,
            "hidden_size": 2048,
            "intermediate_size": 5632,
            "num_hidden_layers": 24,
            "use_qkv_bias": True,
        },
    ),
    "phi-3-mini": ("phi3", 3_821_079_552, {"vocab_size": 32064}),
    "phi-4-mini": (
        "phi3",
        3_836_021_760,
        {"vocab_size": 200064, "num_attention_heads": 24, "num_key_value_heads": 8, "pad_token_id": 199999, **TIED},
    ),
    "gemma-3-270m": (
        "gemma3_text",
        268_098_176,
        {**SMALL, "hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18},
    ),
    "gemma-3-1b": (
        "gemma3_text",
        999_885_952,
        {**SMALL, "hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26},
    ),
    "olmo-2-1b": (
        "olmo2",
        1_484_916_736,
        {"vocab_size": 100352, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
        | {"num_attention_heads": 16},
    ),
    "smollm3-3b": ("smollm3", 3_075_098_624, TIED),
    "aya-expanse-8b": (
        "cohere",
        8_028_033_024,
        {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
        | {"num_key_value_heads": 8, **TIED},
    ),
    "granite-3.1-2b": (
        "granite",
        2_533_531_648,
        {"vocab_size": 49155, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 40}
        | {"num_key_value_heads": 8, **TIED},
    ),
    "granite-4.0-350m": (
        "granitemoehybrid",
        352_379_904,
        {"vocab_size": 100352, "hidden_size": 1024, "intermediate_size": 2048, "shared_intermediate_size": 2048}
        | {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 4, "num_local_experts": 0}
        | {"num_experts_per_tok": 0, "layer_types": ["attention"] * 28, **TIED},
    ),
    "mistral-7b-v0.1": ("mistral", 7_241_732_096, {}),
    "mixtral-8x7b": ("mixtral", 46_702_792_704, {}),
    "olmoe-1b-7b": ("olmoe", 6_919_161_856, {"intermediate_size": 1024}),
    "mamba-130m": ("mamba", 129_135_360, {"vocab_size": 50280, "num_hidden_layers": 24, **TIED}),
    "mamba2-130m": (
        "mamba2",
        128_989_632,
        {"vocab_size": 50288, "hidden_size": 768, "num_hidden_layers": 24, "num_heads": 24, "n_groups": 1, **TIED},
    ),
    "jamba-v0.1": ("jamba", 51_570_323_328, {}),
}
OWN_SHAPES: dict[str, tuple[int, dict[str, Any]]] = {
    "smollm2-135m": (
        134_515_008,
        {"model_type": "llama", "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536}
        | {"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, **TIED},
    ),
    "mistral-7b-v0.3": (
        7_248_023_552,
        {"model_type": "mistral", "vocab_size": 32768, "hidden_size": 4096, "intermediate_size": 14336}
        | {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "sliding_window": None},
    ),
    "qwen2.5-0.5b": (
        494_032_768,
        {"model_type": "qwen2", "vocab_size": 151936, "hidden_size": 896, "intermediate_size": 4864}
        | {"num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2, **TIED},
    ),
    "qwen3-0.6b": (
        596_049_920,
        {"model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072}
        | {"num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8, **TIED},
    ),
}


def check_fits(family: Any, config: Any, vocab: int, weights: int) -> None:
    """A network of a public model is built within the weights that it has, with an adapter too, and not within half of
    them."""
    space = Space("tokens", (64,), (vocab,), {"end": 0}, stream=True)
    with torch.device("meta"):
        net = bounded(family, weights, Path("run.json")).build(config, space, {})["decoder"]
        assert sum(v.numel() for v in net.state_dict().values()) == weights
        with pytest.raises(UserError, match="describes a larger network"):
            bounded(family, weights // 2 - (1 << 23), Path("run.json")).build(config, space, {})
    if weights < 3e8:
        assert attach(net, LoraConfig(rank=1), Rng(0)) > 0
        assert sum(p.numel() for k, p in net.named_parameters() if ".adapters." not in k) == weights


@pytest.mark.parametrize("name", SHAPES)
def test_public_models_of_real_sizes_are_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", minversion="5.24")
    monkeypatch.setattr(size_limits, "available_memory", lambda: None)
    kind, weights, fields = SHAPES[name]
    family = registry.family("causal_lm")
    from afresh.engine.nets.causal_lm import config_of

    config: Any = family.config(model={"model_type": kind, **fields})  # type: ignore[call-arg]
    check_fits(family, config, config_of(config.model).get_text_config().vocab_size, weights)


@pytest.mark.parametrize("name", OWN_SHAPES)
def test_public_models_of_the_own_decoder_are_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "available_memory", lambda: None)
    weights, fields = OWN_SHAPES[name]
    file = Path("config.json")
    config = hf_config.to_ours(hf_config.parse({"max_position_embeddings": 64, **fields}, file), file)
    check_fits(registry.family("transformer"), config, fields["vocab_size"], weights)
