"""Seeded tiny models of each public architecture, built and saved by transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from afresh.data.text.tokenizer import Tokenizer
from afresh.runs.formats.huggingface import write_tokenizer

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

TEXT = "The cat sat on the mat, and 12 dogs ran.\n" * 20
BPE = Tokenizer.learn_bpe([TEXT], 280)
VOCAB = BPE.size + 5  # public weights have rows that no token uses
CONTEXT = 128
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": BPE.special["begin"],
    "eos_token_id": BPE.special["end"],
    "pad_token_id": BPE.special["pad"],
}
OF: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"rope_theta": 500.0}),
    "llama-tied": ("LlamaConfig", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama-scaled": ("LlamaConfig", {"rope_scaling": LLAMA3, "rms_norm_eps": 1e-5}),
    "llama-wide": ("LlamaConfig", {"head_dim": 20}),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "qwen3-tied": ("Qwen3Config", {"head_dim": 12, "tie_word_embeddings": True, "num_key_value_heads": 1}),
}


def build(name: str) -> Any:
    """A model with weights so large that every part of the network changes the logits."""
    kind, more = OF[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**(COMMON | more)))
    for p in model.parameters():
        torch.nn.init.normal_(p, mean=float(p.dim() == 1), std=0.3)
    return model.float().eval()


def saved(name: str, folder: Path, **how: Any) -> Any:
    model = build(name)
    model.save_pretrained(folder, **how)
    write_tokenizer(BPE, folder, CONTEXT, BPE.special["end"])
    return model


def tokens(rows: int = 2, length: int = CONTEXT) -> Tensor:
    return torch.randint(0, VOCAB, (rows, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def log_probabilities(model: Any, x: Tensor) -> Tensor:
    return model(x).logits.float().log_softmax(-1)
