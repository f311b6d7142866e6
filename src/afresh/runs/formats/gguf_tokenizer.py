"""Tokenizers in GGUF, read and written: byte-level BPE (the model `gpt2` of llama.cpp).

A GGUF file names the rule by which text is split into words; the rules that these names stand for are listed here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from afresh.core import UserError
from afresh.data.text.tokenizer import Tokenizer, put_before
from afresh.runs.formats.gguf_file import GGUFFile

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {"llama-bpe": WORDS % r"\p{N}{1,3}", "qwen2": WORDS % r"\p{N}"}
PLAIN = {"gpt-2": False, "smollm": True}  # GPT-2's rule -> whether every digit is split off
ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}
OURS, LIBRARY = "afresh.tokenizer", "tokenizer.huggingface.json"  # fields: the kind, and tokenizer.json
NO_MERGE = ("<begin>", "<end>")  # llama.cpp needs at least one merge; these two are never neighbours in a text


@dataclass(frozen=True)
class TokenTable:
    """A tokenizer as GGUF represents it."""

    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[tuple[str, str]]
    pre: str


def read_table(file: GGUFFile) -> TokenTable:
    """The table of a file. Raises UserError if the kind of tokenizer is not supported or the table is inconsistent."""
    f, path = file.fields, file.path
    model = f.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise UserError(
            f"{path} has a tokenizer of kind {model!r}; supported in GGUF is 'gpt2' (byte-level BPE). "
            "Give the Hugging Face folder of this model instead."
        )
    tokens, kinds = f.get("tokenizer.ggml.tokens"), f.get("tokenizer.ggml.token_type")
    merges = f.get("tokenizer.ggml.merges")
    if not isinstance(tokens, list) or not isinstance(merges, list) or len(set(tokens)) != len(tokens):
        raise UserError(f"{path} has an invalid tokenizer: it needs a list of distinct tokens and a list of merges.")
    kinds = [NORMAL] * len(tokens) if kinds is None else kinds
    pairs = [tuple(str(m).split(" ")) for m in merges]
    if not isinstance(kinds, list) or len(kinds) != len(tokens) or any(len(p) != 2 for p in pairs):
        raise UserError(f"{path} has an invalid tokenizer: token_type or merges do not fit the tokens.")
    return TokenTable(tokens, kinds, [(a, b) for a, b in pairs], str(f.get("tokenizer.ggml.pre")))


def read_tokenizer(file: GGUFFile) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether its begin token comes before every text. Raises UserError as `read_table`."""
    f, table = file.fields, read_table(file)
    tokens = table.tokens
    adds = f.get("tokenizer.ggml.add_bos_token", ALIASES.get(table.pre, table.pre) == "llama-bpe") is True
    begin, end, pad = (_token(file, tokens, k) for k in ("bos", "eos", "padding"))
    if end is None:
        raise UserError(f"{file.path} does not name the token that ends a text (tokenizer.ggml.eos_token_id).")
    template = f.get("tokenizer.chat_template")
    template = template if isinstance(template, str) else None
    if (own := _afresh_tokenizer(file, table, template)) is not None:
        return own, adds
    inner = build(table, {t for t in (begin, end, pad) if t}, str(file.path))
    if adds and begin:
        put_before(inner, tokens.index(begin))
    return Tokenizer.foreign(inner.to_str(), begin, end, pad, len(tokens), template), adds


def _token(file: GGUFFile, tokens: Sequence[str], name: str) -> str | None:
    i = file.fields.get(f"tokenizer.ggml.{name}_token_id")
    if i is None:
        return None
    if not isinstance(i, int) or not 0 <= i < len(tokens):
        raise UserError(f"{file.path}: tokenizer.ggml.{name}_token_id is {i!r}, but there are {len(tokens):,} tokens.")
    return tokens[i]


def _afresh_tokenizer(file: GGUFFile, table: TokenTable, template: str | None) -> Tokenizer | None:
    """A tokenizer of afresh, from the tokenizer.json within the file; None without one.

    Raises UserError if it is not the tokenizer of the file's tokens.
    """
    kind, text = file.fields.get(OURS), file.fields.get(LIBRARY)
    if kind is None or not isinstance(text, str):
        return None
    tokenizer = Tokenizer.read(text, f"{LIBRARY} in {file.path}", rows=len(table.tokens), chat_template=template)
    if (tokenizer.kind, list(table_of(tokenizer).tokens)) != (kind, list(table.tokens)):
        raise UserError(f"{file.path} holds two different tokenizers: {LIBRARY} is not that of its tokens.")
    return tokenizer


def build(table: TokenTable, special: set[str], where: str) -> tokenizers.Tokenizer:
    """The tokenizer of a table, for the library tokenizers.

    Raises UserError if the splitting rule is unknown or the merges do not fit.
    """
    vocab = {t: i for i, t in enumerate(table.tokens) if table.kinds[i] != UNUSED}
    pre = ALIASES.get(table.pre, table.pre)
    merges = [m for m in table.merges if m != NO_MERGE]
    try:
        inner = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=pre == "llama-bpe"))
    except Exception as e:  # the library raises plain Exception
        raise UserError(f"{where} has an invalid tokenizer: {e}.") from None
    if pre in PATTERNS:
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERNS[pre]), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    elif pre in PLAIN:
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = pre_tokenizers.Digits(individual_digits=True)
        inner.pre_tokenizer = pre_tokenizers.Sequence([digits, words]) if PLAIN[pre] else words
    else:
        known = ", ".join([*PATTERNS, *PLAIN, *ALIASES])
        raise UserError(f"{where} splits text by the rule {table.pre!r}, which is not supported. Supported: {known}.")
    inner.decoder = decoders.ByteLevel()
    for kind, add in ((CONTROL, inner.add_special_tokens), (USER_DEFINED, inner.add_tokens)):
        names = [t for k, t in zip(table.kinds, table.tokens, strict=True) if (CONTROL if t in special else k) == kind]
        add([AddedToken(t, special=kind == CONTROL, normalized=False) for t in names])
    return inner


# --------------------------------------------------------------------------- write


def explain_difference(t: Tokenizer, text: str) -> str | None:
    """The known reason why llama.cpp gives a text other ids; None if the ids must be the same."""
    if t.inner.normalizer is not None and t.inner.normalizer.normalize_str(text) != text:
        return "llama.cpp does not normalise text"
    return None


def table_of(t: Tokenizer) -> TokenTable:
    """The table of a tokenizer. Raises UserError if llama.cpp has no name for its splitting rule.

    A tokenizer of characters has to be given bytes first (formats/byte_fallback.py).
    """
    added = t.inner.get_added_tokens_decoder()
    names = [""] * t.size
    for name, i in t.inner.get_vocab().items():
        names[i] = name
    kinds = [
        (CONTROL if added[i].special else USER_DEFINED) if i in added else NORMAL if n else UNUSED
        for i, n in enumerate(names)
    ]
    names = [n or f"[PAD{i}]" for i, n in enumerate(names)]
    if t.kind == "bytes":
        return TokenTable(names, kinds, [NO_MERGE], "gpt-2")
    model = json.loads(t.inner.to_str())["model"]
    if model["type"] != "BPE":
        raise UserError(
            f"GGUF files are written with byte-level BPE; this tokenizer is {model['type']}. Use `to='hf'`."
        )
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    return TokenTable(names, kinds, [(a, b) for a, b in merges] or [NO_MERGE], rule_of(t))


def rule_of(t: Tokenizer) -> str:
    """llama.cpp's name for a tokenizer's splitting rule. Raises UserError if none exists."""
    saved = json.loads(t.inner.to_str())
    normal = saved["normalizer"]
    steps = _steps(saved["pre_tokenizer"])
    if (normal is None or normal.get("type") == "NFC") and steps and steps[-1]["type"] == "ByteLevel":
        *before, last = steps
        if not last["add_prefix_space"]:
            if not last["use_regex"] and len(before) == 1 and before[0]["type"] == "Split":
                pattern = before[0]["pattern"].get("Regex")
                for name, known in PATTERNS.items():
                    if pattern == known:
                        return name
            if last["use_regex"] and not before:
                return "gpt-2"
            if last["use_regex"] and before == [{"type": "Digits", "individual_digits": True}]:
                return "smollm"
    raise UserError(
        "afresh knows no name in llama.cpp for the rule by which this tokenizer splits text, so it cannot be written "
        "as "
        "GGUF. Use `to='hf'`, and run llama.cpp's convert_hf_to_gguf.py on that folder."
    )


def _steps(pre: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if pre is None:
        return []
    return list(pre["pretokenizers"]) if pre["type"] == "Sequence" else [dict(pre)]
