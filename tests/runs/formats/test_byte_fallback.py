"""An exported model of characters takes any text: by its bytes where a character did not occur in training."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from afresh.data.text.tokenizer import NIBBLES, Tokenizer
from afresh.runs.formats.base import Base, decoder_of
from afresh.runs.formats.byte_fallback import with_bytes
from afresh.runs.formats.load import load_base
from afresh.runs.formats.readers import Transformers
from afresh.verbs.exporting import export_base
from tests.runs.formats.bases import TEXT, base_of, ids_of, odd_texts

ODD = odd_texts()


@pytest.fixture(scope="module")
def chars() -> Base:
    return base_of(tokenizer="chars")


@pytest.fixture(scope="module")
def exported(chars: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chars") / "out"
    _, proof = export_base(chars, "hf", out, "float32", [ids_of(chars)], "a test")
    assert proof.passed and proof.independent and proof.tokenizer.same + len(proof.tokenizer.expected) == 15
    return out


def unknown(t: Tokenizer, text: str) -> bool:
    return bool(set(t.encode(text)) & set(t.nibbles))


def test_known_characters_keep_their_ids_and_no_text_is_lost(chars: Base) -> None:
    old, new = chars.tokenizer, with_bytes(chars).tokenizer
    assert new.encode(TEXT) == old.encode(TEXT) and {old.special[s] for s in ("end", "pad")} <= {*new.special.values()}
    assert sum(unknown(old, t) for t in ODD) > 150
    for text in ODD:
        ids = new.encode(text)
        assert new.decode(ids) == text
        own = [i for i, c in zip(map(old.encode, text), text, strict=True) if not unknown(old, c)]
        assert [[i] for i in ids if i < old.size] == own, "a character that is known has its own id"


def test_transformers_encodes_200_odd_strings_the_same_and_gives_them_back(chars: Base, exported: Path) -> None:
    reader, t = Transformers(exported), with_bytes(chars).tokenizer
    pad = t.special["pad"]
    for text in ODD:
        ids = reader.encode(text)
        assert ids == t.encode(text) and pad not in ids
        assert reader.tokenizer.decode(ids, skip_special_tokens=True) == text
    again = load_base(exported).tokenizer  # afresh, reading its own export to tune it
    assert [again.encode(text) for text in ODD] == [t.encode(text) for text in ODD]


def test_a_text_of_new_characters_is_scored(exported: Path) -> None:
    reader = Transformers(exported)
    p = reader.log_probabilities([*reader.opening(), *reader.encode("naïve ж and 丁")])
    assert torch.isfinite(p).all()


def test_rows_of_new_tokens(chars: Base) -> None:
    """A new token is the mean of its bytes' nibbles, as likely as its head's row says, and known logits stay."""
    whole = with_bytes(chars)
    t, size = chars.tokenizer, chars.tokenizer.size
    nibble = [t.inner.token_to_id(n) for n in NIBBLES]
    (high, low) = whole.tokenizer.encode("ж")  # D0 B6
    rows = chars.weights["embedding.weight"]
    wanted = rows[[nibble[0xD], nibble[0x0]]].mean(0), rows[[nibble[0xB], nibble[0x6]]].mean(0)
    assert torch.allclose(whole.weights["embedding.weight"][high], wanted[0])
    assert torch.allclose(whole.weights["embedding.weight"][low], wanted[1])
    x = torch.tensor([ids_of(chars)])
    with torch.no_grad():
        before, after = decoder_of(chars)(x, None), decoder_of(whole)(x, None)
    assert (after[..., :size] - before).abs().max() < 1e-5
    assert (after[..., size:] - 2 * before[..., nibble].mean(-1, keepdim=True)).abs().max() < 1e-4


@pytest.mark.parametrize("shape", ["qwen3-tied", "llama-tied"])
def test_a_shared_head_becomes_a_weight_of_its_own(shape: str) -> None:
    base = base_of(shape, "chars")
    whole = with_bytes(base)
    assert not whole.config.tied and whole.weights["head.weight"].shape == whole.weights["embedding.weight"].shape
    x = torch.tensor([ids_of(base)])
    with torch.no_grad():
        before, after = decoder_of(base)(x, None), decoder_of(whole)(x, None)
    assert (after[..., : base.tokenizer.size] - before).abs().max() < 1e-5


def test_other_tokenizers_stay(chars: Base) -> None:
    for kind in ("bytes", "bpe"):
        base = base_of(tokenizer=kind)
        assert with_bytes(base) is base
    assert with_bytes(with_bytes(chars)).tokenizer.size == with_bytes(chars).tokenizer.size


def test_rows_that_only_fill_up_are_used(chars: Base) -> None:
    size = chars.tokenizer.size
    padded = {k: torch.cat([v, v[:5]]) if v.shape[0] == size else v for k, v in chars.weights.items()}
    wide = replace(chars, weights=padded, tokenizer=chars.tokenizer.with_rows(size + 5, "it"))
    assert with_bytes(wide).tokenizer.size == with_bytes(chars).tokenizer.size


def test_the_proof_says_what_was_added_and_what_it_costs(chars: Base, tmp_path: Path) -> None:
    for to in ("hf", "gguf"):
        _, proof = export_base(chars, to, tmp_path / to, "float32", [ids_of(chars)], "a test")
        assert any("tokens were added" in n and "did not occur in training" in n for n in proof.notes)
        assert any(re.search(r"cost [\d.e-]+ nats a token", n) for n in proof.notes)
    _, proof = export_base(chars, "safetensors", tmp_path / "own", "float32", [ids_of(chars)], "a test")
    assert proof.passed and not proof.notes and load_base(tmp_path / "own").tokenizer.kind == "chars"
