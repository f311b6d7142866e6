"""Constrained decoding: allowed tokens against all words of a small language, texts of an untrained model against
their constraints, and invalid constraints."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import jsonschema
import pytest
import torch
from torch import Tensor

from afresh.core import Cond, UserError
from afresh.core.rng import Rng
from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.sampling import constraint
from afresh.engine.sampling.constraint import Alphabet, Maker
from afresh.engine.sampling.tokens import Cut, narrow
from tests.engine.sampling.fed import model
from tests.engine.sampling.generation import generate

PROSE = "the cat sat on the mat and the dog ran to the hat, then that cat ate. " * 8
TOKENIZERS = {
    "bytes": Tokenizer.all_bytes(("fim_middle",)),
    "chars": Tokenizer.learn_chars([PROSE]),  # no digit, no brace, no quote: all of JSON is spelled in halves
    "chars+": Tokenizer.learn_chars([PROSE + '{}[]":,0123456789.-é']),
    "bpe": Tokenizer.learn_bpe([PROSE + '{"name": "cat", "age": 12}, ' * 20], 340),
}
every_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)


def alphabet(name: str) -> Alphabet:
    t = TOKENIZERS[name]
    return Alphabet(t.spelling(), t.special["end"], t.nibbles)


def untrained(size: int, sharpness: float = 1.0) -> Any:
    """Logits that are a fixed random function of the last two tokens."""

    def logits(window: list[int]) -> Tensor:
        before, last = window[-2:] if len(window) > 1 else (window[0], window[0])
        return Rng(9).normal("logits", torch.tensor([before * 1000 + last]), (size,))[0] * sharpness

    return model(logits)


def texts(name: str, make: Maker | None, seed: int, n: int = 6, length: int = 400, prompt: str = "the ") -> list[str]:
    t = TOKENIZERS[name]
    prompts = [t.encode(prompt[: i % 3]) or [t.special["end"]] for i in range(n)]
    banned = [i for k, i in t.special.items() if k != "end"]
    musts = None if make is None else [make() for _ in range(n)]
    end = t.special["end"]
    rows = generate(
        untrained(t.size), prompts, Cond(n), Rng(seed), torch.arange(n), length, 64, Cut(), end, banned, musts
    )
    return [t.decode(r) for r in rows]


@every_tokenizer
def test_the_spelling_is_that_of_the_tokens(name: str) -> None:
    """For every text, the bytes of its tokens (two halves for some bytes) are its UTF-8; special tokens have no
    bytes."""
    t, text = TOKENIZERS[name], 'the cat {"age": 12} é€😀\n\x00'
    half = {n: i for i, n in enumerate(t.nibbles)}
    raw, halves = b"", []
    for token in t.encode(text):
        if token in half:
            halves.append(half[token])
            if len(halves) % 2 == 0:
                raw += bytes([16 * halves[-2] + halves[-1]])
        else:
            raw += t.spelling()[token]
    assert raw == text.encode()
    assert len(t.spelling()) == t.size
    assert {i for i, s in enumerate(t.spelling()) if not s} == {*t.special.values(), *t.nibbles}


# --------------------------------------------------------------------------- what may follow


WORDS = ("cat", "cats", "the cat", "to", "Ω", "Ωmega", "é!")


@every_tokenizer
def test_allowed_tokens_continue_some_word(name: str) -> None:
    """In every state of a finite language, compared with all of its words."""
    letters, language = alphabet(name), [w.encode() for w in WORDS]
    spelled = [(i, s) for i, s in enumerate(letters.spelling) if s]
    make = constraint.regex("|".join(map(re.escape, WORDS)), letters)
    seen: set[bytes] = set()

    def walk(path: list[int], text: bytes) -> None:
        state = make()
        for token in path:
            state.accept(token)
        assert state.finished() == (text in language)
        allowed = {int(i) for i in state.allowed().nonzero()}
        expected = {i for i, s in spelled if any(w.startswith(text + s) for w in language)}
        assert allowed - set(letters.nibbles) == expected
        assert allowed or text in language
        if text in seen:
            return
        seen.add(text)
        for token in expected:
            walk([*path, token], text + letters.spelling[token])
        for byte in {w[len(text)] for w in language if w.startswith(text) and len(w) > len(text)} & {*letters.spelled}:
            high, low = letters.nibbles[byte >> 4], letters.nibbles[byte & 15]
            assert high in allowed
            state = make()
            for token in [*path, high]:
                state.accept(token)
            assert not state.finished()
            assert low in {int(i) for i in state.allowed().nonzero()} <= set(letters.nibbles)
            walk([*path, high, low], text + bytes([byte]))

    walk([], b"")
    assert {w for w in seen if w in language} == set(language)


def test_a_constraint_only_renormalises() -> None:
    """p(token | allowed) is proportional to the probability of the model."""
    letters = alphabet("bytes")
    logits = Rng(1).normal("logits", torch.arange(3), (len(letters.spelling),))
    musts = [constraint.regex("[a-f]+", letters)() for _ in range(2)]
    musts[1].accept(ord("a"))
    found = narrow(constraint.restrict(logits, [*musts, None], letters.end), Cut())
    p = logits.double().softmax(-1)
    for row, may in enumerate(("abcdef", "abcdef")):
        keep = [ord(c) for c in may] + [letters.end] * row
        expected = torch.zeros(len(letters.spelling), dtype=torch.float64)
        expected[keep] = p[row, keep] / p[row, keep].sum()
        torch.testing.assert_close(found[row], expected)
    torch.testing.assert_close(found[2], p[2])


class Anything:
    """The trivial constraint."""

    def __init__(self, size: int) -> None:
        self.size = size

    def allowed(self) -> Tensor:
        return torch.ones(self.size, dtype=torch.bool)

    def accept(self, token: int) -> None: ...

    def finished(self) -> bool:
        return True

    def copy(self) -> Anything:
        return self

    def closing(self, limit: int) -> list[int]:
        return []

    def opens(self, token: int) -> bool:
        return False


@every_tokenizer
def test_the_trivial_constraint_changes_no_sample(name: str) -> None:
    size = TOKENIZERS[name].size
    assert texts(name, lambda: Anything(size), 3, length=50) == texts(name, None, 3, length=50)


def test_any_text_is_valid_unicode_and_nothing_less() -> None:
    """`(?s:.*)` only forbids invalid UTF-8."""
    letters = alphabet("bytes")
    state = constraint.regex("(?s:.*)", letters)()
    allowed = state.allowed()[:256].tolist()
    assert [b for b in range(256) if allowed[b]] == [*range(128), *range(0xC2, 0xF5)]
    state.accept(0xC3)
    assert state.allowed().nonzero()[:, 0].tolist() == list(range(0x80, 0xC0))
    assert not state.finished()


# --------------------------------------------------------------------------- whole texts


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "é", "€uro"]}, "maxItems": 3},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
SCHEMAS: list[Any] = [
    PERSON,
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 4},
    {"anyOf": [{"const": None}, {"type": "string", "pattern": "^[a-z]{2,5}$"}, {"type": "number", "multipleOf": 0.5}]},
    {"$defs": {"n": {"enum": [1, 2]}}, "type": "object", "properties": {"x": {"$ref": "#/$defs/n"}}, "required": ["x"]}
    | {"additionalProperties": False},
]


@every_tokenizer
@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
@pytest.mark.parametrize("seed", [0, 1])
def test_all_texts_of_an_untrained_model_are_valid(name: str, schema: Any, seed: int) -> None:
    schema = {"x-guidance": {"whitespace_flexible": False}} | schema if seed else schema
    found = texts(name, constraint.json_schema(json.dumps(schema) if seed else schema, alphabet(name)), seed)
    for text in found:
        jsonschema.validate(json.loads(text), schema)
    assert len(set(found)) > 1


@every_tokenizer
def test_a_regular_expression_matches_as_a_whole(name: str) -> None:
    pattern = r"(19|20)[0-9]{2}-(0[1-9]|1[0-2]) [α-ωä]{1,3}!?"
    found = texts(name, constraint.regex(pattern, alphabet(name)), 5)
    assert all(re.fullmatch(pattern, t) for t in found) and len(set(found)) > 1


@every_tokenizer
@pytest.mark.parametrize(
    "written", ['start: "(" inner ")"\ninner: | start | "x"', 'root ::= "(" inner ")"\ninner ::= "" | root | "x"']
)
def test_a_grammar_keeps_its_brackets(name: str, written: str) -> None:
    for text in texts(name, constraint.grammar(written, alphabet(name)), 2):
        depth = text.count("(")
        assert depth and text in ("(" * depth + ")" * depth, "(" * depth + "x" + ")" * depth)


def test_a_text_is_the_same_alone_and_in_a_batch() -> None:
    make = constraint.json_schema(PERSON, alphabet("bpe"))
    assert texts("bpe", make, 4, n=1) == texts("bpe", make, 4, n=6)[:1]


def test_white_space_is_bounded() -> None:
    make = constraint.json_schema({"type": "array", "items": {"const": 1}, "maxItems": 2}, alphabet("bytes"))
    for text, fine in (("[1, 1]", True), ("[\n  1,\n  1\n]", True), ("[1,1]", True), ("[  1]", False)):
        state = make()
        for byte in text.encode():
            if not (may := bool(state.allowed()[byte])):
                break
            state.accept(byte)
        assert (may and state.finished()) == fine, text


# --------------------------------------------------------------------------- requests that cannot be kept


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 3}, r"minimum \(5\) is greater than maximum \(3\)"),
        (False, "Unsatisfiable schema"),
        ({"const": {1, 2}}, "not JSON serializable"),
        ({"enum": []}, "Unsatisfiable"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "Unsatisfiable"),
        ({"type": "objekt"}, "Invalid type: objekt"),
        ({"not": {"type": "string"}}, r"Unimplemented keys: \[\"not\"\]"),
        ({"$ref": "http://example.com/x.json"}, "not present"),
        ("{", "is not JSON"),
        ("[1]", "an object or true"),
    ],
)
def test_an_invalid_schema_is_refused(schema: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        constraint.json_schema(schema, alphabet("bytes"))


@pytest.mark.parametrize(
    ("make", "text", "said"),
    [
        (constraint.regex, "a(b", "unclosed group.*Rust"),
        (constraint.regex, "(?=a)b", "look-around"),
        (constraint.regex, r"[^\s\S]", "does not match any text|cannot be used"),
        (constraint.grammar, "start: x", "unknown name"),
        (constraint.grammar, "hello world", "Lark .*GBNF"),
    ],
)
def test_an_invalid_pattern_is_refused(make: Any, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make(text, alphabet("bytes"))


def test_a_length_too_short_to_finish_is_an_error() -> None:
    make = constraint.regex("[a-z]{20}", alphabet("bytes"))
    assert all(len(t) == 20 for t in texts("bytes", make, 0, length=20))
    with pytest.raises(UserError, match=r"has 20 tokens, .* may have 19. Choose a greater length, .*length=20"):
        texts("bytes", make, 0, length=19)
    with pytest.raises(UserError, match="a grammar that can end"):
        texts("bytes", constraint.grammar('start: "a" start', alphabet("bytes")), 0, length=30)


OPEN_ENDED: list[Any] = [
    {"type": "integer"},
    {"type": "number"},
    {"type": "number", "minimum": 0.25, "maximum": 0.5},
    {"type": "integer", "minimum": 100},
    {"type": "integer", "multipleOf": 7},
    {"type": "string"},
    {"type": "string", "minLength": 12},
    {"type": "string", "pattern": "^[a-z]+@[a-z]+$"},
    {"type": "array", "items": {"type": "number"}},
    {"type": "array", "items": {"type": "string", "minLength": 2}, "minItems": 3},
    {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    | {"required": ["name", "age"], "additionalProperties": False},
    {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "integer"}}},
    {"$defs": {"tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}, "name": {"type": "string"}}}
    | {"required": ["name"], "additionalProperties": False}}, "$ref": "#/$defs/tree"},
    {"anyOf": [{"type": "string", "minLength": 300}, {"type": "integer"}]},
    {},
]  # fmt: skip


@pytest.mark.parametrize("name", ["bytes", "chars", "bpe"])
@pytest.mark.parametrize("schema", OPEN_ENDED, ids=range(len(OPEN_ENDED)))
def test_texts_of_open_ended_schemas_are_finished_within_the_tokens(name: str, schema: Any) -> None:
    """By a model that is untrained, so that it would neither close a string nor end a number."""
    make = constraint.json_schema(schema, alphabet(name))
    needed = make().closing(60)
    assert needed is not None and len(needed) <= 60
    for length in (len(needed), 60):
        for text in texts(name, make, 0, n=3, length=length):
            jsonschema.validate(json.loads(text), schema)


def test_a_text_is_complete_when_nothing_may_follow() -> None:
    a = alphabet("bytes")
    closed = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    cases = {
        '{"a": 1}': (constraint.json_schema(closed, a), True),
        '{"a": 12': (constraint.json_schema(closed, a), False),
        "12": (constraint.json_schema({"type": "integer"}, a), False),  # 123 would be another one
        "123": (constraint.regex("[0-9]{3}", a), True),
        "1234": (constraint.regex("[0-9]+", a), False),
    }
    for text, (make, complete) in cases.items():
        assert constraint.is_complete(make, a.tokens(text.encode())) == complete, text


def test_numbers_have_digits_that_a_float_keeps() -> None:
    """As many as there are tokens would otherwise be written by a model that does not know when to stop."""
    found = texts("chars+", constraint.json_schema({"type": "integer"}, alphabet("chars+")), 0, n=20, length=256)
    assert max(len(t.lstrip("-").strip()) for t in found) == constraint.DIGITS
    assert all(int(float(t)) == int(t) for t in found) and 10**constraint.DIGITS <= 2**53  # all integers up to there
    assert math.isfinite(float(f"{'9' * constraint.DIGITS}e{'9' * constraint.EXPONENT_DIGITS}"))
    many = {"type": "string", "pattern": "^[0-9]{40}$"}
    assert all(len(json.loads(t)) == 40 for t in texts("bytes", constraint.json_schema(many, alphabet("bytes")), 0))
    big = {"type": "integer", "minimum": 10**17}
    found = texts("bytes", constraint.json_schema(big, alphabet("bytes")), 0)
    assert all(json.loads(t) >= 10**17 for t in found)


def test_an_ending_is_found_for_expressions_and_grammars_that_can_end() -> None:
    for name, make, matches in (
        ("bytes", constraint.regex("[a-z]*x", alphabet("bytes")), "[a-z]*x"),
        ("bpe", constraint.regex("(ab)*END", alphabet("bpe")), "(ab)*END"),
        ("chars", constraint.grammar('start: "(" start ")" | "x"', alphabet("chars")), r"\(*x\)*"),
    ):
        assert all(re.fullmatch(matches, t) for t in texts(name, make, 0, length=40))
    assert constraint.grammar('start: "a" start', alphabet("bytes"))().closing(9) is None


@every_tokenizer
def test_an_ending_can_be_written_from_everywhere(name: str) -> None:
    """After each allowed token and after each half of a byte, whose other half may only be that of a byte that is no
    token of its own: a space is one for `chars`, while \\n and quotes are written in halves."""
    state, depth = constraint.json_schema({"type": "object"}, alphabet(name))(), 0
    while depth < 6:
        for token in state.allowed().nonzero()[:, 0].tolist():
            after = state.copy()
            after.accept(token)
            for closing in after.closing(99) or ():
                assert bool(after.allowed()[closing])
                after.accept(closing)
        may = state.allowed().nonzero()[:, 0].tolist()
        if not may:
            break
        state.accept(may[depth % len(may)])
        depth += 1


def test_a_model_without_the_required_characters_is_refused() -> None:
    letters = alphabet("bytes")
    t = TOKENIZERS["bytes"]
    must = constraint.regex("x", letters)()
    with pytest.raises(UserError, match="no token that may follow"):
        generate(
            untrained(t.size), [[0]], Cond(1), Rng(0), torch.arange(1), 9, 64, Cut(), letters.end, [ord("x")], [must]
        )
