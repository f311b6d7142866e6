"""Tokenizers: lossless for every string, no text reads as a special id, only valid JSON loads."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afresh.core import UserError
from afresh.data.text import pieces
from afresh.data.text.tokenizer import SMALLEST_BPE, Tokenizer, choose

TEXT = "def f(x):\n    return x + 12345  # naïve\r\n" * 50 + "the cat sat on the mat, and the dog on the cat.\n" * 50
MADE = {
    "chars": Tokenizer.learn_chars([TEXT]),
    "bytes": Tokenizer.all_bytes(),
    "bpe": Tokenizer.learn_bpe([TEXT], 400),
}
KINDS = sorted(MADE)
HARD = [
    "",
    " ",
    "\r\n\r\r\n",
    "\x00\x01\x7f\x85\u2028\ufeff",
    "<end><begin><pad><0xA><0xFF>",
    "👩‍👩‍👧‍👦 flag 🇫🇷",
    "é é 中文 العربية İı",
    "\U0010ffff\ufffd",
    "   leading and trailing   ",
    "12345 0.5e-3",
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", HARD)
def test_difficult_strings_round_trip(kind: str, text: str) -> None:
    made = MADE[kind]
    ids = made.encode(text)
    assert made.decode(ids) == text
    assert not set(ids) & set(made.special.values())
    assert all(0 <= i < made.size for i in ids)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=200))
def test_any_string_round_trips(kind: str, text: str) -> None:
    assert MADE[kind].decode(MADE[kind].encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_many_equals_encoding_one_by_one(kind: str) -> None:
    made = MADE[kind]
    many = made.encode_many([*HARD, TEXT])
    assert [m.tolist() for m in many] == [made.encode(t) for t in [*HARD, TEXT]]
    assert all(m.dtype == np.int32 for m in many)


@pytest.mark.parametrize("kind", KINDS)
def test_special_ids_are_the_last_three_and_decode_to_nothing(kind: str) -> None:
    made = MADE[kind]
    assert sorted(made.special.values()) == [made.size - 3, made.size - 2, made.size - 1]
    b, e, p = (made.special[s] for s in ("begin", "end", "pad"))
    assert made.decode([b, *made.encode("cat"), p, *made.encode("s"), e]) == "cats"


def test_characters_are_those_that_occur_in_order() -> None:
    made = Tokenizer.learn_chars(["ba", "cab\n"])
    assert made.encode("\nabc") == [0, 1, 2, 3]
    assert made.size == 4 + 16 + 3


def test_unknown_characters_are_their_bytes_in_nibbles() -> None:
    made = Tokenizer.learn_chars(["ab"])
    first = made.encode("a")[0] + 2  # the nibbles follow the two characters
    assert made.encode("aéb") == [0, *(first + n for n in (0xC, 0x3, 0xA, 0x9)), 1]
    assert made.decode([0, first + 0xC, 1]) == "a\ufffdb"  # half a byte is not text, and says so


def test_bytes_are_their_own_ids() -> None:
    assert MADE["bytes"].encode("Aé\n") == [65, 0xC3, 0xA9, 10]
    assert MADE["bytes"].decode([0xC3, 65]) == "\ufffdA"


@pytest.mark.parametrize("kind", ["chars", "bytes"])
def test_ids_are_those_of_the_library(kind: str) -> None:
    assert MADE[kind].inner.encode(TEXT).ids == MADE[kind].encode(TEXT)


def test_bpe_keeps_digits_apart_and_shortens() -> None:
    made = MADE["bpe"]
    assert len(made.encode("7654321")) == 7
    assert len(made.encode(TEXT)) < len(TEXT) / 2


def test_bpe_is_learnt_the_same_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Tokenizer.learn_bpe([TEXT, TEXT.upper()], 500).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_long_texts_in_pieces_encode_like_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = MADE["bpe"].encode(TEXT)
    monkeypatch.setattr(pieces, "PIECE", 64)
    assert len(list(pieces.cut(TEXT))) > 10
    assert MADE["bpe"].encode(TEXT) == whole
    endless = "x " * 500  # no line end to cut at
    assert MADE["bpe"].decode(MADE["bpe"].encode(endless)) == endless


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_tokenizer_is_the_same(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    MADE[kind].save(file)
    again = Tokenizer.load(file)
    assert (again.kind, again.size, again.special) == (kind, MADE[kind].size, MADE[kind].special)
    for text in [*HARD, TEXT]:
        assert again.encode(text) == MADE[kind].encode(text)
        assert again.decode(again.encode(text)) == text


def test_invalid_tokenizers_are_refused(tmp_path: Path) -> None:
    good = json.loads(MADE["chars"].inner.to_str())
    gap = json.loads(MADE["bytes"].inner.to_str())
    gap["model"]["vocab"]["extra"] = 900
    lacking = json.loads(MADE["chars"].inner.to_str())
    lacking["added_tokens"] = []
    del lacking["model"]["vocab"]["<end>"]
    bad = {
        "pickle": pickle.dumps({"model": 1}),
        "garbage": b"\xff\xfe\x00",
        "empty": b"",
        "cut": json.dumps(good).encode()[:-40],
        "list": b"[]",
        "other": b'{"model": {"type": "Unigram"}}',
        "gap": json.dumps(gap).encode(),
        "lacking": json.dumps(lacking).encode(),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match="is not a tokenizer"):
            Tokenizer.load(tmp_path / name)
    with pytest.raises(UserError, match="Cannot read"):
        Tokenizer.load(tmp_path / "missing")


@pytest.mark.parametrize("kind", KINDS)
def test_lone_surrogates_are_refused_with_their_position(kind: str) -> None:
    with pytest.raises(UserError, match=r"U\+D800.*character 2"):
        MADE[kind].encode("ab\ud800c")


def test_vocabulary_size_out_of_range() -> None:
    with pytest.raises(UserError, match=f"{SMALLEST_BPE} to"):
        Tokenizer.learn_bpe([TEXT], 100)


def test_choice_by_size() -> None:
    assert choose(1_100_000, 65)[:2] == ("chars", None)
    assert choose(500_000, 3_000)[:2] == ("bytes", None)
    assert choose(1_500_000, 3_000)[:2] == ("bpe", 1024)
    assert choose(2_000_001, 65)[:2] == ("bpe", 1024)
    assert choose(20_000_000, 200)[:2] == ("bpe", 4096)
    assert choose(10**12, 200)[:2] == ("bpe", 16384)


def test_characters_in_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = TEXT + "😀Ж"
    whole = MADE["chars"].encode(text)
    monkeypatch.setattr(pieces, "GROUP", 7)
    assert MADE["chars"].encode(text) == whole
    assert Tokenizer.learn_chars([TEXT]).encode(text) == whole
    with pytest.raises(UserError, match="character 10"):
        MADE["chars"].encode("0123456789\udfff")
