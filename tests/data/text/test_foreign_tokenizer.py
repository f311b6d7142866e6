"""Tokenizers of public weights: their own rules, no text reads as a mark, saved and loaded the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from afresh.core import UserError
from afresh.data.text.pieces import byte_names
from afresh.data.text.tokenizer import Tokenizer

HARD = ["", " ", "a cat", "  two  spaces ", "x\r\n\n\ty", "naïve 中文 👩‍👩‍👧‍👦", "<s></s><|im_end|><tool>", "1234 0.5"]
MARKS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def sentencepiece() -> tokenizers.Tokenizer:
    """As Llama 2 has it: ▁ for a space and before the text, bytes for characters without a piece."""
    names = ["<unk>", *MARKS[:2], *(f"<0x{i:02X}>" for i in range(256)), *"▁abcat", "▁c", "▁ca", "▁cat"]
    vocab = {n: i for i, n in enumerate(dict.fromkeys(names))}
    merges = [("▁", "c"), ("▁c", "a"), ("▁ca", "t")]
    inner = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return inner


def byte_level() -> tokenizers.Tokenizer:
    """As Qwen has it: bytes by GPT-2's alphabet, and marks of which one is not called special."""
    vocab = {n: i for i, n in enumerate([*byte_names(), "ca", "cat"])}
    inner = tokenizers.Tokenizer(models.BPE(vocab, [("c", "a"), ("ca", "t")]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return inner


def finished(inner: tokenizers.Tokenizer) -> str:
    """The file, with everything that must not touch what is learnt: truncation, padding, a token before the text."""
    inner.add_special_tokens([AddedToken(n, special=True, normalized=False) for n in MARKS[:3]])
    inner.add_tokens([AddedToken("<|im_end|>", normalized=False), AddedToken("<tool>", normalized=False)])
    inner.enable_truncation(4)
    inner.enable_padding(length=4)
    inner.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", inner.token_to_id("<s>"))])
    return inner.to_str()


FILES = {"sentencepiece": finished(sentencepiece()), "byte_level": finished(byte_level())}
KINDS = sorted(FILES)


def made(kind: str, rows: int = 0) -> Tokenizer:
    return Tokenizer.foreign(FILES[kind], "<s>", "</s>", None, rows, "{{ messages }}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", HARD)
def test_texts_round_trip_and_never_contain_special_tokens(kind: str, text: str) -> None:
    t = made(kind)
    ids = t.encode(text)
    assert t.decode(ids) == text
    assert not set(ids) & set(t.special.values())
    assert [m.tolist() for m in t.encode_many([text, text])] == [ids, ids]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_the_library(kind: str) -> None:
    plain = sentencepiece() if kind == "sentencepiece" else byte_level()
    text = "a cat and 12 naïve cats"
    assert made(kind).encode(text) == plain.encode(text).ids


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_named_without_brackets(kind: str) -> None:
    t = made(kind)
    ids = {n: t.inner.token_to_id(n) for n in MARKS}
    named = {"begin": ids["<s>"], "end": ids["</s>"], "pad": ids["</s>"]}
    assert t.special == named | {"im_start": ids["<|im_start|>"], "im_end": ids["<|im_end|>"]}
    assert t.opening == ids["<s>"]
    assert t.decode([ids["<s>"], *t.encode("a cat"), ids["<|im_end|>"]]) == "a cat"
    only = Tokenizer.foreign(FILES[kind], None, "<|im_end|>", "<s>")
    assert only.special["begin"] == only.special["end"] == ids["<|im_end|>"] and only.special["pad"] == ids["<s>"]
    assert only.opening == ids["<s>"]


@pytest.mark.parametrize("kind", KINDS)
def test_spellings_add_up_to_the_text(kind: str) -> None:
    t = made(kind)
    spelt, text = t.spelling(), "a cat naïve 中 <tool>"
    assert len(spelt) == t.size and not any(spelt[i] for i in t.special.values())
    said = b"".join(spelt[i] for i in t.encode(text)).decode()
    assert said == (" " + text if kind == "sentencepiece" else text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_tokenizer_is_the_same(kind: str, tmp_path: Path) -> None:
    t = made(kind, rows=400)
    t.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (again.kind, again.special, again.rows, again.size) == ("foreign", t.special, 400, 400)
    assert again.chat_template == "{{ messages }}" and again.opening == t.opening
    for text in HARD:
        assert again.encode(text) == t.encode(text)


def test_tokenizers_of_this_package_can_have_a_template(tmp_path: Path) -> None:
    t = Tokenizer.all_bytes(extra=("im_end",))
    t.save(tmp_path / "tokenizer.json")
    assert not (tmp_path / "tokenizer_config.json").exists()
    with_rows = Tokenizer(t.kind, t.inner, t.special, 300, "{{ messages }}")
    with_rows.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (again.kind, again.special, again.size, again.chat_template) == ("bytes", t.special, 300, "{{ messages }}")


def test_rows_of_the_embedding() -> None:
    t = made("byte_level")
    assert t.with_rows(t.size, "it").rows == 0 and t.with_rows(t.size + 7, "it").size == t.size + 7
    assert t.with_rows(t.size + 7, "it").decode([t.size + 3]) == ""
    with pytest.raises(UserError, match=r"tokenizer of it has ids up to .* do not belong together"):
        t.with_rows(t.size - 1, "it")


def test_invalid_tokenizers_are_refused(tmp_path: Path) -> None:
    for text in ("", "{", "[]", "{}", FILES["byte_level"][:-30]):
        with pytest.raises(UserError, match=r"not a tokenizer\.json"):
            Tokenizer.foreign(text, "<s>", "</s>", None)
    with pytest.raises(UserError, match=r"no added token for end \(<end>\)\. It has: </s>, <s>"):
        Tokenizer.foreign(FILES["byte_level"], "<s>", "<end>", "</s>")
    made("byte_level").save(tmp_path / "tokenizer.json")
    beside = tmp_path / "tokenizer_config.json"
    whole = json.loads(beside.read_bytes())
    for change in ({"eos_token": None}, {"afresh": {"kind": "foreign", "rows": "many"}}, {"afresh": 3}):
        beside.write_text(json.dumps({k: v for k, v in (whole | change).items() if v is not None}))
        with pytest.raises(UserError, match=r"tokenizer_config\.json is damaged"):
            Tokenizer.load(tmp_path / "tokenizer.json")
    beside.unlink()
    with pytest.raises(UserError, match="is not a tokenizer"):  # without it nobody knows which token ends a text
        Tokenizer.load(tmp_path / "tokenizer.json")
