"""Folders of seeded tiny public models with the kinds of tokenizers that they have, with a token of beginning and
without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from afresh.runs.formats.gguf_tokenizer import PATTERNS
from tests.runs.formats.bases import TEXT
from tests.runs.formats.causal_models import CONTEXT, WIDE

CHAT = (
    "{{ bos_token }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# name: model_type, what its config.json has beyond WIDE, the kind of its tokenizer, what tokenizer_config.json adds
PUBLIC: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "llama-2": ("llama", {}, "pieces", {"tokenizer_class": "LlamaTokenizer"}),
    "llama-3": ("llama", {}, "bytes", {}),
    "gemma-3": ("gemma3_text", {"head_dim": 8, "num_hidden_layers": 6, "sliding_window": 8}, "gemma", {}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 8}, "bare", {"add_bos_token": True}),
    "mistral-window": ("mistral", {"sliding_window": 8, "head_dim": 8}, "pieces", {"add_bos_token": True}),
    "llama-ignored": ("llama", {}, "bytes", {"add_bos_token": False}),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}, "gpt2", {}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}, "qwen", {}),
}


def tokenizer_of(kind: str) -> tokenizers.Tokenizer:
    """A tokenizer that is learnt from TEXT, whose ids 1 and 2 begin and end a text."""
    special = [
        AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>")
    ]
    by_byte = kind not in ("pieces", "gemma")
    inner = tokenizers.Tokenizer(
        models.BPE(byte_fallback=not by_byte, fuse_unk=not by_byte, unk_token=None if by_byte else "<unk>")
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet() if by_byte else []
    if kind == "pieces":
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif kind == "gemma":
        inner.normalizer = normalizers.Replace(" ", "▁")
        inner.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    elif kind in ("bytes", "qwen", "qwen-plain"):
        words = pre_tokenizers.Split(Regex(PATTERNS["llama-bpe" if kind == "bytes" else "qwen2"]), "isolated")
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        inner.normalizer = normalizers.NFC() if kind == "qwen" else None
    else:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fallback = [] if by_byte else [AddedToken(f"<0x{b:02X}>", special=False, normalized=False) for b in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=560, initial_alphabet=alphabet, special_tokens=[*special, *fallback], show_progress=False
    )
    inner.train_from_iterator([TEXT], trainer)
    saved = json.loads(inner.to_str())
    saved["added_tokens"] = [t for t in saved["added_tokens"] if not t["content"].startswith("<0x")]
    inner = tokenizers.Tokenizer.from_str(json.dumps(saved))
    begin = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)])
    if by_byte:
        inner.decoder = decoders.ByteLevel()
        if kind == "bytes":
            inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), begin])
        elif kind != "bare":
            inner.post_processor = processors.ByteLevel(trim_offsets=False)
    else:
        strip = [decoders.Strip(" ", 1, 0)] if kind == "pieces" else []
        inner.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
        inner.post_processor = begin
    return inner


def write_public(folder: Path, name: str, chat: bool = False) -> Any:
    """A folder as it stands on the hub. Returns the model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    kind, fields, tokens, beside = PUBLIC[name]
    inner = tokenizer_of(tokens)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes = fields if kind == "gpt2" else {**WIDE, **fields}
    config = AutoConfig.for_model(kind, vocab_size=inner.get_vocab_size(), **sizes, **ids)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 2:
                torch.nn.init.normal_(p, std=0.15)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(inner.to_str())
    side = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "PreTrainedTokenizerFast"}
    side |= {"chat_template": CHAT} if chat else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(side | beside))
    return model
