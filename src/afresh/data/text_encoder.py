"""A frozen text encoder in a folder: texts to vectors, and the hashes of the files that these depend on.

Sentences are encoded as in Reimers and Gurevych 2019. Only safetensors are read, and no code of the
folder is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor

from afresh.core import UserError, events
from afresh.core.device import computing_device
from afresh.core.library_words import in_plain_words
from afresh.engine.nets import pipelines
from afresh.engine.nets.sentence import BertConfig, bert, pooled

NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
POOLING, MODULES, SENTENCE = "1_Pooling/config.json", "modules.json", "sentence_bert_config.json"
OPTIONAL = (POOLING, MODULES, SENTENCE)
LIMIT = 256  # tokens per text, if the model does not define a limit
BATCH = 64
PATIENCE = 60.0  # seconds; a warning is given if encoding will take longer


@dataclass(frozen=True)
class TextModel:
    """A tokenizer, a network that maps ids (B, T) and mask (B, T) bool to states (B, T, E), and how to pool them."""

    tokenizer: Tokenizer
    hidden: Callable[[Tensor, Tensor], Tensor]
    width: int
    limit: int
    pooling: Literal["mean", "cls"]
    normalise: bool
    device: torch.device

    def vectors(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """(N, E) float32 on the CPU, and the indices of texts truncated to `limit` tokens. Warns if it takes long."""
        encodings = self.tokenizer.encode_batch(list(texts))
        order = sorted(range(len(encodings)), key=lambda i: len(encodings[i].ids))
        out = torch.empty(len(encodings), self.width)
        total, done, start = sum(len(e.ids) for e in encodings), 0, time.monotonic()
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(encodings[i].ids) for i in rows], batch_first=True)
            lengths = torch.tensor([len(encodings[i].ids) for i in rows])
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            ids, mask = ids.to(self.device), mask.to(self.device)
            with torch.no_grad():
                out[rows] = pooled(self.hidden(ids, mask), mask, self.pooling, self.normalise).float().cpu()
            done += int(lengths.sum())
            left = (time.monotonic() - start) * (total - done) / done
            if first == 0 and left > PATIENCE:
                events.warning(f"Encoding {len(texts):,} captions takes about {left / 60:.0f} min.")
        return out, [i for i, e in enumerate(encodings) if e.overflowing]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that affects the vectors. Raises UserError if a required file is missing."""
    if pipelines.is_text_to_image(folder):
        return pipelines.digests(folder)
    out = {}
    for name in (*NEEDED, *OPTIONAL):
        file = folder / name
        if file.is_file():
            with file.open("rb") as stream:
                out[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        elif name in NEEDED:
            raise _incomplete(folder, [name])
    return out


def _incomplete(folder: Path, missing: Sequence[str]) -> UserError:
    return UserError(
        f"{folder} is not a text encoder: {', '.join(missing)} missing. Required files: {', '.join(NEEDED)}."
    )


def open_model(folder: Path, device: torch.device | None = None) -> TextModel | pipelines.PipelineText:
    """Load a BERT with this project's own forward pass, another network with transformers, or the text encoders of a
    pipeline of diffusers.

    device: where it computes; by default `computing_device`.

    Raises UserError if a file is missing or damaged, or the model is not a text encoder that can be used.
    """
    device = device or computing_device()
    if pipelines.is_text_to_image(folder):
        return pipelines.text_of(folder, device)
    missing = [n for n in NEEDED if not (folder / n).is_file()]
    if missing:
        raise _incomplete(folder, missing)
    config = _json(folder / "config.json", {})
    if "trust_remote_code" in json.dumps(config):  # which some architectures believe, whatever the caller says
        raise UserError(f"{folder} asks to run code of its own (config.json: trust_remote_code). Use another encoder.")
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if config.get("model_type") == "bert":
            net: Any = bert(BertConfig.model_validate(config), load_file(folder / "model.safetensors")).to(device)
            hidden = net
        else:
            hidden = _load_with_transformers(folder, device)
        width = int(config["hidden_size"])
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {in_plain_words(x['msg'])}" for x in error.errors())
        raise UserError(f"{folder} is a BERT of a kind that is not supported: {problems}.") from None
    except UserError:
        raise
    except Exception as error:  # tokenizers raises Exception itself; damaged weights raise several classes
        raise UserError(f"{folder} cannot be read as a text encoder: {error}") from None
    pooling = _json(folder / POOLING, {"pooling_mode_mean_tokens": True})
    chosen = {k for k, v in pooling.items() if k.startswith("pooling_mode_") and v is True}
    if chosen not in ({"pooling_mode_mean_tokens"}, {"pooling_mode_cls_token"}):
        raise UserError(
            f"{folder} pools by {', '.join(sorted(chosen)) or 'nothing'}; supported are the mean of all tokens and the "
            "first token."
        )
    normalise = any("Normalize" in str(m.get("type")) for m in _json(folder / MODULES, []))
    longest = int(_json(folder / SENTENCE, {}).get("max_seq_length") or LIMIT)
    limit = min(longest, int(config.get("max_position_embeddings", longest)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    mean = "pooling_mode_mean_tokens" in chosen
    return TextModel(tokenizer, hidden, width, limit, "mean" if mean else "cls", normalise, device)


def _json(file: Path, default: Any) -> Any:
    """The content of a JSON file, or `default` if it does not exist. Raises UserError for invalid JSON."""
    if not file.is_file():
        return default
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is not valid JSON: {error}. Download it again.") from None


def _load_with_transformers(folder: Path, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """A network other than BERT (MPNet, RoBERTa, DistilBERT, ...), from safetensors and without running remote code."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{folder} is not a BERT, and other models require transformers: pip install 'afresh[hf]'.")
    from transformers import AutoModel

    net = AutoModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False)
    net = net.float().eval().requires_grad_(False).to(device)

    def hidden(ids: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = net(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return out

    return hidden
