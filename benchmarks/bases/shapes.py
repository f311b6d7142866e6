"""Seeded language models in the shapes of public ones, as folders of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

VOCAB = 320  # tokens of the tokenizer; the other rows of the embedding are of no token here


@dataclass(frozen=True)
class Shape:
    """`kind`: the architecture in transformers, with the `fields` of its configuration."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)


SHAPES = {
    "SmolLM2-135M": Shape(
        "llama",
        {
            "vocab_size": 49_152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "rope_theta": 100_000.0,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
        },
    ),
    "Pythia-160M": Shape(
        "gpt_neox",
        {
            "vocab_size": 50_304,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 2048,
        },
    ),
}


def write_base(folder: Path, shape: Shape) -> Path:
    """The folder of such a model with random weights and a tokenizer of bytes. The time and the memory of a step depend
    on neither."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from afresh.data.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.all_bytes()
    ids = {f"{k}_token_id": tokenizer.special[name] for k, name in (("bos", "begin"), ("eos", "end"), ("pad", "pad"))}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(shape.kind, **shape.fields, **ids), dtype=torch.float32
    )
    model.save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    return folder
