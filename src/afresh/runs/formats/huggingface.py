"""Hugging Face folders, read and written: config.json, model.safetensors (one file or shards), tokenizer.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers
import torch
from safetensors.torch import save
from torch import Tensor

from afresh.core import UserError
from afresh.data.text.tokenizer import LARGEST_FILE, Tokenizer, put_before
from afresh.data.text.tokenizer_config import FILE as TOKENIZER_CONFIG
from afresh.data.text.tokenizer_config import read_sidecar, read_template, read_text
from afresh.runs.formats import hf_config
from afresh.runs.formats.base import Base
from afresh.runs.formats.files import check_complete, few, open_tensors, read_json, shards_of, write_json
from afresh.runs.formats.model_card import README
from afresh.runs.formats.parts import DTYPES, Fused, Precision, check, check_finite, name_in, shapes, split

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<end>")  # names of tokens that end a text
DTYPES_READ = {"F64", "F32", "F16", "BF16"}  # as safetensors names them


# --------------------------------------------------------------------------- read


def read(folder: Path, source: str | None = None) -> Base:
    """Read a folder that transformers saved. Raises UserError, naming fields or tensors, if it is inconsistent."""
    file = folder / "config.json"
    if not file.is_file():
        raise UserError(
            f"{folder} has no config.json, so it is not a folder of weights. Give one, a .gguf file, or a run."
        )
    saved = hf_config.parse(read_json(file), file)
    config = hf_config.to_ours(saved, file)
    tokenizer = read_tokenizer(folder, saved.model_dump()).with_rows(saved.vocab_size, str(folder))
    sizes = shapes(config, saved.vocab_size)
    part_of = {name_in("transformers", p): p for p in sizes}
    tensors = read_tensors(folder, {name: sizes[p] for name, p in part_of.items()})
    check_finite(tensors, str(folder))
    weights = Fused({part_of[k]: v for k, v in tensors.items()}, config)
    note = f"{saved.model_type}, {sum(v.numel() for v in tensors.values()):,} parameters"
    return Base(
        config,
        saved.max_position_embeddings,
        weights,
        tokenizer,
        source or str(folder),
        tokenizer.opening,
        (note,),
    )


def read_tensors(folder: Path, wanted: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The tensors of the folder's safetensors files. Raises UserError unless their names and shapes are those of
    `wanted`, which is checked before any tensor is read."""
    files = weight_files(folder)
    stored: dict[str, tuple[int, ...]] = {}
    owner: dict[str, Path] = {}
    tied = "lm_head.weight" not in wanted
    for file in files:
        with open_tensors(file) as f:
            for name in f.keys():  # noqa: SIM118 - not a mapping
                if name in owner:
                    raise UserError(f"{name} is both in {owner[name].name} and in {file.name} of {folder}. Remove one.")
                owner[name] = file
                part = f.get_slice(name)
                if (dtype := part.get_dtype()) not in DTYPES_READ:
                    accepted = few(sorted(DTYPES_READ))
                    raise UserError(f"{name} in {file} has numbers of type {dtype}; supported are {accepted}.")
                if not name.endswith("rotary_emb.inv_freq") and not (tied and name == "lm_head.weight"):
                    stored[name] = tuple(part.get_shape())
    check(stored, wanted, str(folder))
    out: dict[str, Tensor] = {}
    for file in files:
        with open_tensors(file) as f:
            out |= {k: f.get_tensor(k) for k in f.keys() if k in stored}  # noqa: SIM118
            if tied and "lm_head.weight" in f.keys():  # noqa: SIM118
                check_tied(f.get_tensor("lm_head.weight"), out.get("model.embed_tokens.weight"), folder)
    return out


def check_tied(head: Tensor, embedding: Tensor | None, folder: Path) -> None:
    """Raises UserError if a head that should be the embedding differs from it."""
    if embedding is None or head.shape != embedding.shape or not torch.equal(head, embedding):
        raise UserError(
            f"config.json of {folder} sets tie_word_embeddings, but lm_head.weight differs from "
            "model.embed_tokens.weight. Set tie_word_embeddings to false to use lm_head.weight."
        )


def weight_files(folder: Path) -> list[Path]:
    """One file, or the shards that the index names. Raises UserError if there are none."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        hint = f" {others[0]} is a pickle file, which is never opened: save it as safetensors." if others else ""
        raise UserError(f"{folder} has neither {WEIGHTS} nor {INDEX}.{hint}")
    names = shards_of(folder / INDEX)
    check_complete(folder, names)
    return [folder / n for n in names]


def read_tokenizer(folder: Path, config: Mapping[str, Any] | None = None) -> Tokenizer:
    """tokenizer.json with the chat template and the tokens that begin, end and pad a text, whose ids may be in the
    content of config.json. Without a `config` of weights, a token that ends texts is known by its usual names, too.
    Raises UserError."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise UserError(
            f"{folder} has no tokenizer.json. Make one with transformers: "
            "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    if read_sidecar(file) is not None:
        return Tokenizer.load(file)
    text = read_text(file, LARGEST_FILE)
    beside = read_json(folder / TOKENIZER_CONFIG) if (folder / TOKENIZER_CONFIG).is_file() else {}
    by_id = dict(added_tokens(file, text))
    begin, end, pad = (
        token_of(beside.get(f"{k}_token"), (config or {}).get(f"{k}_token_id"), by_id) for k in ("bos", "eos", "pad")
    )
    if end is None and config is None:
        end = next((name for name in ENDS if name in by_id.values()), None)
    if end is None:
        raise UserError(
            f"{folder} does not name the token that ends a text: eos_token in {TOKENIZER_CONFIG}, or eos_token_id in "
            f"config.json, must name one of: {few(list(by_id.values()))}."
        )
    try:
        return Tokenizer.foreign(text, begin, end, pad, chat_template=read_template(folder, beside))
    except UserError as e:
        raise UserError(f"{file}: {e}") from None


def added_tokens(file: Path, text: str) -> Iterator[tuple[int, str]]:
    """(id, token) of the added tokens. Raises UserError if the file is not a tokenizer.json."""
    try:
        for token in json.loads(text).get("added_tokens") or ():
            yield int(token["id"]), str(token["content"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise UserError(f"{file} is not a tokenizer.json of `tokenizers` ({type(e).__name__}: {e}).") from None


def token_of(named: Any, number: int | list[int] | None, by_id: Mapping[int, str]) -> str | None:
    """A token by its name in tokenizer_config.json, or else by its id (the first of several) in config.json."""
    if isinstance(named, dict):
        named = named.get("content")
    if isinstance(named, str) and named:
        return named
    first = number[0] if isinstance(number, list) and number else number
    return by_id.get(first) if isinstance(first, int) else None


# --------------------------------------------------------------------------- write


def explain_difference(t: Tokenizer, text: str) -> str | None:
    """The known reason why transformers gives a text other ids; None if the ids must be the same."""
    if any(a.content in text for a in t.inner.get_added_tokens_decoder().values() if a.special):
        return "transformers reads a special token written in a text as that token, unless split_special_tokens=True"
    return None


def write(base: Base, folder: Path, precision: Precision) -> list[str]:
    """Write all that AutoModelForCausalLM and AutoTokenizer need, and README.md, into an empty folder; returns notes
    (none)."""
    vocab, t = base.tokenizer.size, base.tokenizer
    bos = t.special["begin"] if base.first is None or t.kind == "foreign" else base.first
    ids = {"bos": bos, "eos": t.special["end"], "pad": t.special["pad"]}
    parts = split(base.weights, base.config, vocab)
    dtype = DTYPES[precision]
    tensors = {name_in("transformers", k): v.to(dtype).contiguous() for k, v in parts.items()}
    (folder / WEIGHTS).write_bytes(save(tensors, {"format": "pt"}))
    write_json(folder / "config.json", hf_config.from_ours(base.config, vocab, base.context, ids, precision))
    write_json(folder / "generation_config.json", {**{f"{k}_token_id": v for k, v in ids.items()}, "do_sample": True})
    write_tokenizer(t, folder, base.context, base.first)
    (folder / README).write_text(guide(base), encoding="utf-8")
    return []


def guide(base: Base) -> str:
    """README.md: how to write with the model in transformers."""
    chat = base.chat_template is not None
    prompt = '[{"role": "user", "content": "Hello!"}]' if chat else '"The"'
    answer = '[-1]["content"]' if chat else ""
    return f"""# {Path(base.source).name}

A language model for transformers (`AutoModelForCausalLM`, `PreTrainedTokenizerFast`) and programs that read its
folders, such as vLLM. `proof.json` states how the files were compared with the model. To write with it:

```python
from transformers import PreTrainedTokenizerFast, pipeline

folder = "."  # this folder
generate = pipeline("text-generation", model=folder, tokenizer=PreTrainedTokenizerFast.from_pretrained(folder))
print(generate({prompt}, max_new_tokens=100)[0]["generated_text"]{answer})
```
"""


def write_tokenizer(t: Tokenizer, folder: Path, context: int, first: int | None) -> None:
    """Write tokenizer.json and tokenizer_config.json. A tokenizer of afresh puts `first` before every text; others keep
    their own post-processor."""
    inner = tokenizers.Tokenizer.from_str(t.inner.to_str())
    side = t.sidecar.json() | {"model_max_length": context}
    if t.kind != "foreign" and first is not None:
        put_before(inner, first)
        side["bos_token"] = inner.id_to_token(first)
    (folder / "tokenizer.json").write_text(inner.to_str(), encoding="utf-8")
    write_json(folder / TOKENIZER_CONFIG, side)
