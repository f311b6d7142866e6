"""Tokenizers in GGUF: byte-level BPE (the model `gpt2` of llama.cpp), out and in.

llama.cpp knows rules of splitting by name alone. Here are those with the rules that they stand for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from afresh.core import UserError
from afresh.data.text.pieces import byte_names
from afresh.data.text.tokenizer import NIBBLES, Tokenizer
from afresh.formats.gguf_file import GGUFFile
from afresh.formats.tokenizer_differences import explain_unseen_characters

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED = 1, 2, 3, 4, 5
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {"llama-bpe": WORDS % r"\p{N}{1,3}", "qwen2": WORDS % r"\p{N}"}
PLAIN = {"gpt-2": False, "smollm": True}  # GPT-2's own rule; whether every digit stands alone
ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2"}
OURS, LIBRARY = "afresh.tokenizer", "tokenizer.huggingface.json"  # fields: the kind, and the library's own file
NO_MERGE = ("<begin>", "<end>")  # llama.cpp wants at least one merge; these two never meet in a text


@dataclass(frozen=True)
class Table:
    """A tokenizer as GGUF has it."""

    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[tuple[str, str]]
    pre: str


def read_table(file: GGUFFile) -> Table:
    """Raises UserError for kinds of tokenizer that are not read, and for tables that do not fit together."""
    f, path = file.fields, file.path
    model = f.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise UserError(
            f"{path} has a tokenizer of kind {model!r}; read from GGUF: 'gpt2' (byte-level BPE). "
            "Give the Hugging Face folder of this model instead."
        )
    tokens, kinds = f.get("tokenizer.ggml.tokens"), f.get("tokenizer.ggml.token_type")
    merges = f.get("tokenizer.ggml.merges")
    if not isinstance(tokens, list) or not isinstance(merges, list) or len(set(tokens)) != len(tokens):
        raise UserError(f"{path} has no sound tokenizer: it needs different tokens and merges.")
    kinds = [NORMAL] * len(tokens) if kinds is None else kinds
    pairs = [tuple(str(m).split(" ")) for m in merges]
    if not isinstance(kinds, list) or len(kinds) != len(tokens) or any(len(p) != 2 for p in pairs):
        raise UserError(f"{path} has no sound tokenizer: token_type or merges do not fit the tokens.")
    return Table(tokens, kinds, [(a, b) for a, b in pairs], str(f.get("tokenizer.ggml.pre")))


def read_tokenizer(file: GGUFFile) -> tuple[Tokenizer, bool]:
    """The tokenizer, and whether its begin is put before every text. Raises UserError like `read_table`."""
    f, table = file.fields, read_table(file)
    tokens = table.tokens
    adds = f.get("tokenizer.ggml.add_bos_token", ALIASES.get(table.pre, table.pre) == "llama-bpe") is True
    begin, end, pad = (_token(file, tokens, k) for k in ("bos", "eos", "padding"))
    if end is None:
        raise UserError(f"{file.path} does not say which token ends a text (tokenizer.ggml.eos_token_id).")
    template = f.get("tokenizer.chat_template")
    template = template if isinstance(template, str) else None
    if (ours := _ours(file, table, template)) is not None:
        return ours, adds
    inner = build(table, {t for t in (begin, end, pad) if t}, str(file.path))
    if adds and begin:
        inner.post_processor = TemplateProcessing(
            single=f"{begin} $A", pair=f"{begin} $A {begin} $B:1", special_tokens=[(begin, tokens.index(begin))]
        )
    return Tokenizer.foreign(inner.to_str(), begin, end, pad, len(tokens), template), adds


def _token(file: GGUFFile, tokens: Sequence[str], name: str) -> str | None:
    i = file.fields.get(f"tokenizer.ggml.{name}_token_id")
    if i is None:
        return None
    if not isinstance(i, int) or not 0 <= i < len(tokens):
        raise UserError(f"{file.path}: tokenizer.ggml.{name}_token_id is {i!r}, but there are {len(tokens):,} tokens.")
    return tokens[i]


def _ours(file: GGUFFile, table: Table, template: str | None) -> Tokenizer | None:
    """A tokenizer of our own, by the library's file within, when that is what the tokens say."""
    kind, text = file.fields.get(OURS), file.fields.get(LIBRARY)
    if kind is None or not isinstance(text, str):
        return None
    made = Tokenizer.read(text, f"{LIBRARY} in {file.path}", rows=len(table.tokens), chat_template=template)
    if (made.kind, list(table_of(made).tokens)) != (kind, list(table.tokens)):
        raise UserError(f"{file.path} holds two tokenizers, of which {LIBRARY} is not the one of its tokens.")
    return made


def build(table: Table, special: set[str], where: str, steps: bool = False) -> tokenizers.Tokenizer:
    """The library's tokenizer of a table; `steps`: merges may join what is no token, which gets ids beyond the table.

    Raises UserError for an unknown rule, and for merges that do not fit.
    """
    vocab = {t: i for i, t in enumerate(table.tokens) if table.kinds[i] != UNUSED}
    pre = ALIASES.get(table.pre, table.pre)
    merges = [m for m in table.merges if m != NO_MERGE]
    if steps:
        for name in (n for a, b in merges for n in (a, b, a + b)):
            vocab.setdefault(name, len(table.tokens) + len(vocab))
    try:
        inner = tokenizers.Tokenizer(models.BPE(vocab, merges, ignore_merges=pre == "llama-bpe"))
    except Exception as e:  # the library raises plain Exception
        raise UserError(f"{where} has no sound tokenizer: {e}.") from None
    if pre in PATTERNS:
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(PATTERNS[pre]), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    elif pre in PLAIN:
        whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
        digits = pre_tokenizers.Digits(individual_digits=True)
        inner.pre_tokenizer = pre_tokenizers.Sequence([digits, whole]) if PLAIN[pre] else whole
    else:
        known = ", ".join([*PATTERNS, *PLAIN, *ALIASES])
        raise UserError(f"{where} splits text by the rule {table.pre!r}, which is not known here. Known: {known}.")
    inner.decoder = decoders.ByteLevel()
    for kind, add in ((CONTROL, inner.add_special_tokens), (USER_DEFINED, inner.add_tokens)):
        names = [t for i, t in enumerate(table.tokens) if _kind(table.kinds[i], t in special) == kind]
        add([AddedToken(t, special=kind == CONTROL, normalized=False) for t in names])
    return inner


def _kind(kind: int, special: bool) -> int:
    return CONTROL if special else kind


# --------------------------------------------------------------------------- out


def explain_difference(t: Tokenizer, text: str) -> str | None:
    """Why llama.cpp cannot give a text the ids that it has here; None when it must."""
    if t.inner.normalizer is not None and t.inner.normalizer.normalize_str(text) != text:
        return "llama.cpp does not normalise text"
    return explain_unseen_characters(t, text)


def table_of(t: Tokenizer) -> Table:
    """A tokenizer as GGUF has it. Raises UserError where llama.cpp has no name for its rule of splitting.

    Characters become pieces of GPT-2's alphabet of bytes, joined by merges that never reach into the next character.
    llama.cpp drops a character that has no piece; here it is spelt in nibbles, which no table of pieces can say.
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
        return Table(names, kinds, [NO_MERGE], "gpt-2")
    if t.kind == "chars":
        return _characters(names, kinds)
    model = json.loads(t.inner.to_str())["model"]
    if model["type"] != "BPE":
        raise UserError(f"GGUF files are written with byte-level BPE; this tokenizer is {model['type']}. Use --to hf.")
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    return Table(names, kinds, [(a, b) for a, b in merges] or [NO_MERGE], rule_of(t))


def _characters(names: Sequence[str], kinds: Sequence[int]) -> Table:
    alphabet = byte_names()
    tokens, sorts = list(names), list(kinds)
    merges: dict[tuple[str, str], None] = {}
    for i, name in enumerate(names):
        if len(name) == 1:
            spelt = [alphabet[b] for b in name.encode()]
            tokens[i] = "".join(spelt)
            merges |= {("".join(spelt[:k]), spelt[k]): None for k in range(1, len(spelt))}
        elif name in NIBBLES:
            sorts[i] = CONTROL
    return Table(tokens, sorts, list(merges) or [NO_MERGE], "gpt-2")


def rule_of(t: Tokenizer) -> str:
    """llama.cpp's name for how a tokenizer splits. Raises UserError where there is none."""
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
        "llama.cpp has no name that is known here for how this tokenizer splits text, so it cannot be written as GGUF. "
        "Use --to hf, and llama.cpp's own convert_hf_to_gguf.py on that folder."
    )


def _steps(pre: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    if pre is None:
        return []
    return list(pre["pretokenizers"]) if pre["type"] == "Sequence" else [dict(pre)]
