"""Texts while they are drawn: whatever the tokens, the pieces are the text; a stop string cuts it at one place only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from afresh.core import Cond, UserError
from afresh.core.rng import Rng
from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.sampling.text_stream import BROKEN, Detokenizer, Stops, TextRow, Watcher
from afresh.engine.sampling.tokens import Cut
from tests.data.text.test_foreign_tokenizer import made as foreign
from tests.engine.sampling.fed import model
from tests.engine.sampling.generation import generate
from tests.heard import heard, silence

TEXT = "a cat sat on the mat, naïve as a 中文 cat "
TOKENIZERS = {
    "chars": Tokenizer.learn_chars(["the cat sat on a mat, "]),
    "bytes": Tokenizer.all_bytes(),
    "bpe": Tokenizer.learn_bpe([TEXT * 20], 290),
    "sentencepiece": foreign("sentencepiece"),
    "byte_level": foreign("byte_level"),
}
each = pytest.mark.parametrize("kind", TOKENIZERS)


def pieces(tokenizer: Tokenizer, ids: list[int]) -> tuple[list[str], str]:
    reader = Detokenizer(tokenizer.decode)
    return [reader.add(i) for i in ids], reader.rest()


# --------------------------------------------------------------------------- pieces


@each
@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("a cat \n\té中👩\u200d"), max_size=12))
@example(text="  two  spaces ")
@example(text="é")
def test_pieces_are_whole_characters_and_together_the_text(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    found, rest = pieces(tokenizer, tokenizer.encode(text))
    assert "".join(found) == text and rest == ""
    assert not any(BROKEN in p for p in found)


@pytest.mark.parametrize("kind", ["chars", "bytes", "bpe", "byte_level"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_tokens_that_make_no_characters_read_the_same_too(kind: str, data: st.DataObject) -> None:
    """A model may draw any bytes: what is broken only for want of more waits, and what stays broken is shown so."""
    tokenizer = TOKENIZERS[kind]
    marks = set(tokenizer.special.values())
    odd = [i for i, s in enumerate(tokenizer.spelling()) if i not in marks and not s.isascii()]
    some = [*odd[:80], *tokenizer.nibbles, *tokenizer.encode("a "), *tokenizer.encode("é中")]
    ids = data.draw(st.lists(st.sampled_from(some), max_size=12))
    found, rest = pieces(tokenizer, ids)
    assert "".join(found) + rest == tokenizer.decode(ids)


# --------------------------------------------------------------------------- stop strings


def by_definition(text: str, strings: list[str]) -> str:
    """Character by character: the text before the longest stop string that it ends with first."""
    for upto in range(1, len(text) + 1):
        found = [s for s in strings if text[:upto].endswith(s)]
        if found:
            return text[: upto - len(max(found, key=len))]
    return text


LETTERS = st.text(st.sampled_from("ab"), max_size=12)
STRINGS = st.lists(st.text(st.sampled_from("ab"), min_size=1, max_size=4), max_size=3)


def followed(chunks: list[str], strings: list[str]) -> tuple[list[str], str, str]:
    """What a watcher tells, makes and says of tokens that spell `chunks`."""
    told: list[str] = []

    def on_text(index: int, piece: str, row: TextRow) -> None:
        told.append(piece)

    watcher = Watcher(lambda ids: "".join(chunks[i] for i in ids), -1, Stops.of(strings), on_text=on_text)
    for i in range(len(chunks)):
        if watcher(0, i, 0.0):
            break
    return told, (watcher.texts() or [""])[0], (watcher.written() or [None])[0].finish  # type: ignore[union-attr]


@settings(max_examples=300, deadline=None)
@given(text=LETTERS.filter(bool), strings=STRINGS, cuts=st.lists(st.integers(1, 11)))
def test_the_cut_is_at_one_place_whatever_the_tokens(text: str, strings: list[str], cuts: list[int]) -> None:
    places = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    told, found, finish = followed([text[a:b] for a, b in zip(places, places[1:], strict=False)], strings)
    expected = by_definition(text, strings)
    assert found == expected and finish == ("length" if expected == text else "stop")
    assert "".join(told) == expected, "nothing is told that is taken back"


def test_what_may_begin_a_stop_string_waits() -> None:
    told, _, _ = followed(["x", "END", "x", "E", "N", "D.", "y"], ["END."])
    assert told == ["x", "", "ENDx", "", "", ""]
    assert followed(["x", "E", "N"], ["END"])[0] == ["x", "", "", "EN"], "at the end it is text after all"


def test_a_stop_string_over_a_characters_parts() -> None:
    ids = TOKENIZERS["bytes"].encode("naïve")
    watcher = Watcher(TOKENIZERS["bytes"].decode, 300, Stops.of("ïv"))
    assert [watcher(0, i, 0.0) for i in ids[:5]] == [False] * 4 + [True]
    assert watcher.texts() == ["na"]


def test_an_empty_stop_string_and_half_a_character_are_refused() -> None:
    with pytest.raises(UserError, match="lone surrogate"):
        Stops.of("\udcff")
    with pytest.raises(UserError, match="empty"):
        Stops.of("")
    with pytest.raises(UserError, match="empty"):
        Stops.of(["a", ""])


def test_tokens_with_their_texts_and_the_end() -> None:
    """Together the pieces are the text; bytes that no character came of are the last token's."""
    watcher = Watcher(TOKENIZERS["bytes"].decode, 257, Stops(()), tokens=True)
    for token, logprob in ((0x61, -1.0), (0xC3, -2.0), (0xA9, -3.0), (0xE2, -4.0), (257, -5.0)):
        watcher(3, token, logprob)
    (written,) = watcher.written()
    assert written.finish == "end" and written.tokens is not None
    assert [t.text for t in written.tokens] == ["a", "", "é", BROKEN, ""]
    assert [t.logprob for t in written.tokens] == [-1.0, -2.0, -3.0, -4.0, -5.0]


# --------------------------------------------------------------------------- while generating

NAMES = "abcd."
END = 5


def letters(window: list[int]) -> Tensor:
    key = sum(token * (2 * place + 1) for place, token in enumerate(window, 1))
    return torch.sin(key * torch.arange(1.0, len(NAMES) + 2) * 0.7) * 2


def spelled(ids: list[int]) -> str:
    return "".join(NAMES[i] for i in ids if i < END)


def run(watcher: Any = None, sizes: list[int] | None = None, **more: Any) -> list[list[int]]:
    inner = model(letters)

    def predict(x: Tensor, t: Any, cond: Cond, state: Any) -> tuple[Tensor, Any]:
        if sizes is not None:
            sizes.append(len(x))
        return inner(x, t, cond, state)

    prompts = [[i % 5, i % 3] for i in range(8)]
    return generate(predict, prompts, Cond(8), Rng(2), torch.arange(8), 20, 64, Cut(), END, watch=watcher, **more)


def test_texts_that_met_no_stop_string_are_counted_once() -> None:
    """One was stopped, one ended, two are only as long as was asked for."""
    watcher = Watcher(spelled, END, Stops.of("b"))
    for index, token in ((0, 0), (1, 1), (2, 0), (2, END), (3, 2)):
        watcher(index, token, -1.0)
    with heard("2 of 4 texts did not reach a stop string"):
        assert [w.finish for w in watcher.written()] == ["length", "stop", "end", "length"]
    with silence():
        assert watcher.texts() == ["a", "", "a", "c"]


def test_stopped_rows_leave_at_once_and_the_others_are_as_they_were() -> None:
    free = run()
    sizes: list[int] = []
    watcher = Watcher(spelled, END, Stops.of(["ab", "c."]))
    stopped = run(watcher, sizes)
    whole = [spelled(r) for r in free]
    assert watcher.texts() == [by_definition(t, ["ab", "c."]) for t in whole]
    assert all(f[: len(s)] == s for f, s in zip(free, stopped, strict=True))
    finish = [w.finish for w in watcher.written()]
    assert {"stop", "end"} <= set(finish)
    drawn = [len(s) + (why == "end") for s, why in zip(stopped, finish, strict=True)]
    assert sizes == [sum(d > step for d in drawn) for step in range(max(drawn))]


def test_a_watcher_changes_nothing_where_nothing_stops() -> None:
    watcher = Watcher(spelled, END, Stops.of("never"), tokens=True)
    rows = run(watcher)
    assert rows == run() and watcher.texts() == [spelled(r) for r in rows]
    assert all(w.finish == ("end" if len(r) < 20 else "length") for w, r in zip(watcher.written(), rows, strict=True))


def test_log_probabilities_are_before_every_cut() -> None:
    seen: dict[int, list[float]] = {i: [] for i in range(8)}

    def watch(index: int, token: int, logprob: float, top: object) -> bool:
        seen[index].append(logprob)
        return False

    rows = run(watch, banned=[0])
    for i, row in enumerate(rows):
        fed = [i % 5, i % 3]
        for token, logprob in zip(row, seen[i], strict=False):
            assert logprob == pytest.approx(float(letters(fed).log_softmax(-1)[token]), abs=1e-6)
            fed.append(token)


def test_log_probabilities_may_be_those_of_what_is_drawn() -> None:
    seen: dict[int, list[float]] = {i: [] for i in range(8)}

    def watch(index: int, token: int, logprob: float, top: object) -> bool:
        seen[index].append(logprob)
        return False

    rows = run(watch, banned=[0], among_drawn=True)
    for i, row in enumerate(rows):
        fed = [i % 5, i % 3]
        for token, logprob in zip(row, seen[i], strict=False):
            drawable = letters(fed).index_fill(0, torch.tensor([0]), -torch.inf)
            assert logprob == pytest.approx(float(drawable.log_softmax(-1)[token]), abs=1e-6)
            fed.append(token)


class Words:
    """A `Constraint`: text must be `abc` over and over."""

    def __init__(self) -> None:
        self.at = 0

    def allowed(self) -> Tensor:
        return torch.arange(6) == self.at % 3

    def closing(self, length: int) -> None:
        """No ending is known."""

    def accept(self, token: int) -> None:
        assert token == self.at % 3
        self.at += 1

    def finished(self) -> bool:
        return False


def test_a_stop_string_also_ends_a_text_of_a_structure() -> None:
    watcher = Watcher(spelled, END, Stops.of("ca"))
    run(watcher, constraints=[Words() for _ in range(8)])
    assert watcher.texts() == ["ab"] * 8
    with pytest.raises(UserError, match="8 of 8 texts did not match the constraint"):
        run(constraints=[Words() for _ in range(8)])
