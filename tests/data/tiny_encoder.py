"""A text encoder of a few words with random weights, in a folder or in the cache of the Hugging Face hub."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from afresh.engine.nets.sentence import INNER, OUTER, Bert, BertConfig

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "red", "blue", "big", "small", "cat", "dog", "ball")
CONFIG = {
    "model_type": "bert",
    "vocab_size": len(WORDS),
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
CAPTIONS = [f"{size} {colour} {thing}" for size in WORDS[6:8] for colour in WORDS[4:6] for thing in WORDS[8:]]


def hf_name(ours: str) -> str:
    """A parameter's name in transformers' BertModel."""
    start, end = ours.rsplit(".", 1)
    if start.startswith("layers."):
        _, layer, name = start.split(".")
        return f"encoder.layer.{layer}.{next(k for k, v in INNER.items() if v == name)}.{end}"
    return f"embeddings.{next(k for k, v in {**OUTER, 'LayerNorm': 'norm'}.items() if v == start)}.{end}"


def tiny(folder: Path, seed: int = 0, prefix: str = "") -> Path:
    """A text encoder of a few words, in the files of a folder from the hub."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    net = Bert(BertConfig.model_validate(CONFIG))
    save_file({prefix + hf_name(k): v for k, v in net.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**CONFIG, "hidden_dropout_prob": 0.1}))
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def in_hub(cache: Path, repository: str, commit: str, seed: int = 0) -> Path:
    """A text encoder as the hub's library leaves it in its cache: blobs, a snapshot of links, and the branch main."""
    model = cache / f"models--{repository.replace('/', '--')}"
    blobs, snapshot = model / "blobs", model / "snapshots" / commit
    for file in tiny(model / "made", seed).iterdir():
        blobs.mkdir(exist_ok=True)
        snapshot.mkdir(parents=True, exist_ok=True)
        blob = file.rename(blobs / f"{commit[:8]}-{file.name}")
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    (model / "made").rmdir()
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / "main").write_text(commit)
    return snapshot
