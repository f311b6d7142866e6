"""Seeded tiny models of the architectures of transformers, made by its own classes, and folders of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tests.runs.formats.bases import TEXT, TOKENIZERS

CONTEXT = 64
FIRST = {"pad": 0, "begin": 1, "end": 2}
WIDE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt_neox": {**WIDE, "num_key_value_heads": None},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT},
    "opt": {**WIDE, "ffn_dim": 48, "word_embed_proj_dim": 16},
    "falcon": WIDE,
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "stablelm": WIDE,
    "phi3": {**WIDE, "partial_rotary_factor": 0.5, "sliding_window": 12},
    "gemma3_text": {**WIDE, "num_hidden_layers": 6, "head_dim": 8, "sliding_window": 8},
    "olmo2": WIDE,
    "smollm3": {**WIDE, "num_hidden_layers": 4},
    "cohere": WIDE,
    "granite": {**WIDE, "logits_scaling": 3.0},
    "mistral": {**WIDE, "head_dim": 8, "sliding_window": 8},
    "mixtral": {**WIDE, "num_local_experts": 4},
    "olmoe": {**WIDE, "num_experts": 4, "num_experts_per_tok": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "mamba2": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "state_size": 4,
        "num_heads": 8,
        "head_dim": 8,
        "n_groups": 2,
        "chunk_size": 8,
    },
    "jamba": {
        **WIDE,
        "num_hidden_layers": 4,
        "num_experts": 2,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "expert_layer_period": 2,
        "expert_layer_offset": 1,
    },
}


def model_of(kind: str, vocab: int, special: Mapping[str, int] = FIRST) -> Any:
    """A model with weights so large that every part of it changes the logits. `special`: ids of its tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    ids = {f"{k}_token_id": special[name] for k, name in (("pad", "pad"), ("bos", "begin"), ("eos", "end"))}
    config = AutoConfig.for_model(kind, vocab_size=vocab, **ARCHITECTURES[kind], **ids)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, std=0.15)
            elif "norm" in name or name.endswith("bias"):
                p += 0.1 * torch.randn_like(p)
    return model


def write_folder(folder: Path, kind: str) -> Any:
    """A folder as transformers saves it, with a tokenizer. Returns the model."""
    tokenizer = TOKENIZERS["bpe"]
    model = model_of(kind, tokenizer.size, tokenizer.special)
    model.save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    return model


def ids_of() -> list[int]:
    tokenizer = TOKENIZERS["bpe"]
    return [tokenizer.special["end"], *tokenizer.encode(TEXT)][: CONTEXT - 4]
