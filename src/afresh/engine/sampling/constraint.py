"""Constrained decoding: a JSON schema, a regular expression or a grammar as a mask of logits.

Matching is done by llguidance (Microsoft, MIT), an Earley parser over derivatives of regular expressions, which walks
the trie of all tokens. This module describes the tokenizers of this package to it, including the one that spells
unknown characters with several tokens.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from afresh.core import UserError
from afresh.data.text.tool_calls import CLOSE, OPEN

# White space in JSON: at most one space, or a line end and an indentation. If any amount were allowed, a model could
# write white space without end. A schema may override this by "x-guidance".
WHITE_SPACE = r"(\n {0,20}| )?"
OPENING = b'"{[,:('  # bytes after which something has to follow or to be closed
CLOSERS = (b'}]",', b"}],")  # bytes that end something in JSON, outside strings; the second begins no string
LETTER = ord("x")  # may follow in most strings, but nowhere else in JSON
PLAIN = b":5102346789tfnabcdegh.-"  # taken first among bytes that were taken as often
FEW = 64  # bytes that may follow, of which each is tried whether the text matches after it
DIGITS, EXPONENT_DIGITS = 15, 2  # float64 keeps any number of 15 digits, and exponents up to 308
# Otherwise the mask would allow a single tokenization of forced text, and the model could not choose among the others.
FREE = '%llguidance {"no_forcing": true}\n'


class Constraint(Protocol):
    """The state of the constraint of one text. There is one object for each text."""

    def allowed(self) -> Tensor: ...  # (V,) bool: allowed next tokens; never special ones such as `end`
    def accept(self, token: int) -> None: ...
    def finished(self) -> bool: ...  # whether the text may end here
    def copy(self) -> Constraint: ...
    def closing(self, limit: int) -> list[int] | None: ...  # at most `limit` tokens that finish it; None: none found
    def opens(self, token: int) -> bool: ...  # whether many more tokens may be needed to finish it after this one


Maker = Callable[[], Constraint]


@dataclass(frozen=True)
class Alphabet:
    """The bytes of each token, (V,), empty for special tokens. `end` ends a text.

    `nibbles`: the ids of the sixteen halves of a byte, for tokenizers that spell unknown characters as bytes of UTF-8,
    high half first; otherwise empty.
    """

    spelling: tuple[bytes, ...]
    end: int
    nibbles: tuple[int, ...] = ()

    @cached_property
    def spelled(self) -> tuple[int, ...]:
        """The bytes that are written as two halves: those without a token."""
        own = {s[0] for s in self.spelling if len(s) == 1}
        return tuple(b for b in range(256) if b not in own) if self.nibbles else ()

    @cached_property
    def bytes_of(self) -> tuple[np.ndarray, np.ndarray]:
        """The bytes that can be written alone, and their ids for llguidance."""
        ids = {s[0]: i for i, s in enumerate(self.spelling) if len(s) == 1}
        ids |= {b: len(self.spelling) + i for i, b in enumerate(self.spelled)}
        return np.array([*ids]), np.array([*ids.values()])

    @cached_property
    def digits(self) -> np.ndarray:
        """Which ids for llguidance begin with a digit."""
        return np.array([s[:1].isdigit() for s in (*self.spelling, *(bytes([b]) for b in self.spelled))])

    @cached_property
    def ids(self) -> dict[bytes, int]:
        return {s: i for i, s in enumerate(self.spelling) if s}

    @cached_property
    def longest(self) -> int:
        """The bytes of the longest token."""
        return max(map(len, self.spelling))

    def tokens(self, text: bytes) -> list[int]:
        """Tokens that spell the text, each as long as possible. Every byte has a token, or is spelled in halves."""
        out, i = list[int](), 0
        while i < len(text):
            word = next((w for n in range(self.longest, 0, -1) if (w := text[i : i + n]) in self.ids), None)
            out += [self.nibbles[text[i] >> 4], self.nibbles[text[i] & 15]] if word is None else [self.ids[word]]
            i += 1 if word is None else len(word)
        return out

    @cached_property
    def inner(self) -> Any:
        """The tokenizer for llguidance: the ids of this package, followed by one for each byte of `spelled`."""
        guide = _guide()
        tokens = [*self.spelling, *(bytes([b]) for b in self.spelled)]
        marks = [i for i, s in enumerate(self.spelling) if not s]
        return guide.LLTokenizer(guide.TokenizerWrapper(_Spelling(tokens, self.end, marks)), n_vocab=len(tokens))


class _Spelling:
    """The interface of a tokenizer that llguidance needs."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], end: int, marks: list[int]) -> None:
        self.tokens, self.eos_token_id, self.special_token_ids = tokens, end, marks

    def __call__(self, text: bytes) -> list[int]:
        raise NotImplementedError("only needed for forced text, which FREE disables")


class Numbers:
    """Follows JSON, to know when a number has enough digits: a model that is unsure of them could write digits without
    end. DIGITS stand before a point and behind it, and an exponent has EXPONENT_DIGITS."""

    def __init__(self) -> None:
        self.string = self.escaped = self.exponent = False
        self.count = 0

    def read(self, text: bytes) -> None:
        for byte in text:
            if self.string:
                self.string = self.escaped or byte != ord('"')
                self.escaped = byte == ord("\\") and not self.escaped
            elif byte in b"0123456789":
                self.count += 1
            else:
                self.string = byte == ord('"')
                self.exponent = byte in b"eE" or (self.exponent and byte in b"+-")
                self.count = 0

    def full(self) -> bool:
        return self.count >= (EXPONENT_DIGITS if self.exponent else DIGITS)


class Guided:
    """A `Constraint` by llguidance for the tokens of `alphabet`; `numbers` follows a text in JSON."""

    def __init__(
        self, alphabet: Alphabet, matcher: Any, numbers: Numbers | None = None, high: int | None = None
    ) -> None:
        self.alphabet, self.matcher, self.numbers = alphabet, matcher, numbers
        self.high = high  # the first half of a byte whose second half is still to come
        self.half = {n: i for i, n in enumerate(alphabet.nibbles)}
        self._update()

    def copy(self) -> Guided:
        return Guided(self.alphabet, self.matcher.deep_copy(), copy(self.numbers), self.high)

    def _update(self) -> None:
        """Update the mask of allowed ids, of this package's tokens and of `spelled`."""
        self.may = _mask(self.matcher, self.alphabet)
        if self.numbers is not None and self.numbers.full():
            others = self.may & ~self.alphabet.digits
            if self.matcher.is_accepting() or bool(others.any()):  # a longer number may be required
                self.may = others

    def allowed(self) -> Tensor:
        size = len(self.alphabet.spelling)
        own = self.may[:size].copy()
        own[self.alphabet.end] = False
        if self.alphabet.nibbles:
            byte = np.zeros(256, dtype=bool)
            byte[list(self.alphabet.spelled)] = self.may[size:]
            halves = byte.reshape(16, 16)
            if self.high is not None:
                own[:] = False
            own[list(self.alphabet.nibbles)] = halves.any(1) if self.high is None else halves[self.high]
        return torch.from_numpy(own)

    def accept(self, token: int) -> None:
        half = self.half.get(token)
        if half is not None and self.high is None:
            self.high = half
            return
        if half is not None and self.high is not None:
            text = bytes([16 * self.high + half])
            token = len(self.alphabet.spelling) + self.alphabet.spelled.index(text[0])
            self.high = None
        else:
            text = self.alphabet.spelling[token]
        self.matcher.consume_token(token)
        assert not self.matcher.is_error(), f"token {token} was not allowed"
        if self.numbers is not None:
            self.numbers.read(text)
        self._update()

    def finished(self) -> bool:
        return self.high is None and bool(self.matcher.is_accepting())

    def closing(self, limit: int) -> list[int] | None:
        if self.finished():
            return []
        for closers in CLOSERS:
            state = _Bytes(self.alphabet, self.matcher.deep_copy(), self.high)
            text = ending(state, closers, limit * self.alphabet.longest)
            if text is None:
                continue
            first = [] if self.high is None else [self.alphabet.nibbles[text[0] & 15]]
            tokens = [*first, *self.alphabet.tokens(text[len(first) :])]
            if len(tokens) <= limit:
                return tokens
        return None

    def opens(self, token: int) -> bool:
        return token in self.half or bool({*self.alphabet.spelling[token]} & {*OPENING})


def _mask(matcher: Any, alphabet: Alphabet) -> np.ndarray:
    """The allowed ids of llguidance, bool. Raises UserError if the grammar has become too complex."""
    packed = np.frombuffer(matcher.compute_bitmask(), np.uint8)
    if matcher.is_error() and not matcher.get_error().startswith("NoExtension"):  # no token may follow
        raise UserError(f"The constraint became too complex: {_short(matcher.get_error())}.")
    size = len(alphabet.spelling) + len(alphabet.spelled)
    return np.unpackbits(packed, count=size, bitorder="little").astype(bool)


class _Bytes:
    """A matcher that reads bytes. After the half `high`, only those that begin with it may come first, of the bytes
    that are written in halves: others are tokens."""

    def __init__(self, alphabet: Alphabet, matcher: Any, high: int | None) -> None:
        self.alphabet, self.matcher, self.high = alphabet, matcher, high
        self.halved = [b for b in alphabet.spelled if b >> 4 == high]
        self.ids = dict(zip(*(a.tolist() for a in alphabet.bytes_of), strict=True))

    def may(self) -> list[int]:
        names, ids = self.alphabet.bytes_of
        may: list[int] = names[_mask(self.matcher, self.alphabet)[ids]].tolist()
        return may if self.high is None else [b for b in may if b in self.halved]

    def read(self, byte: int) -> None:
        self.matcher.consume_token(self.ids[byte])
        self.high = None

    def matches_after(self, byte: int) -> bool:
        self.matcher.consume_token(self.ids[byte])
        accepting = bool(self.matcher.is_accepting())
        self.matcher.rollback(1)
        return accepting

    def matches(self) -> bool:
        return self.high is None and bool(self.matcher.is_accepting())


def json_schema(schema: Mapping[str, Any] | bool | str, alphabet: Alphabet) -> Maker:
    """Constrain texts to JSON that is valid under `schema` (an object, a boolean, or JSON text of either).

    White space is as in WHITE_SPACE unless the schema has "x-guidance" (options of llguidance), and numbers have at
    most DIGITS digits unless the schema requires more. Raises UserError if the schema is invalid, uses an unsupported
    keyword, or cannot be satisfied.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise UserError(f"The JSON schema is not JSON: {error}.") from None
    if not isinstance(schema, Mapping | bool):
        raise UserError(f"A JSON schema must be an object or true, not {json.dumps(schema)[:80]}.")
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    try:
        options = {"x-guidance": {"whitespace_pattern": WHITE_SPACE}}
        lark = f"start: %json {json.dumps(options | dict(schema))}"
    except TypeError as error:
        raise UserError(f"The JSON schema cannot be used: {error}.") from None
    hint = "Leave out keywords that are not supported (not, uniqueItems, ...)."
    return _maker("JSON schema", lark, alphabet, hint, Numbers)


def regex(pattern: str, alphabet: Alphabet) -> Maker:
    """Constrain texts to match `pattern`, in the syntax of Rust's regex. Raises UserError if it is invalid."""
    parsed = json.loads(_guide().LLMatcher.grammar_from_regex(pattern))
    hint = "The syntax is that of Rust's regex: no look-around, word boundaries or references."
    return _maker("regular expression", parsed["grammars"][0]["lark_grammar"], alphabet, hint)


def grammar(text: str, alphabet: Alphabet) -> Maker:
    """Constrain texts to a context-free grammar, in Lark's syntax (`start: ...`) or llama.cpp's GBNF (`root ::= ...`).

    Raises UserError if the grammar is invalid.
    """
    _guide()
    from llguidance.gbnf_to_lark import any_to_lark

    hint = "Write Lark (start: ...) or GBNF (root ::= ...)."
    try:
        lark = any_to_lark(text)
    except Exception as error:  # the converter raises plain Exception
        raise UserError(f"The grammar cannot be read: {error}. {hint}") from None
    return _maker("grammar", lark, alphabet, hint)


def tool_calls(tools: Mapping[str, Mapping[str, Any]], several: bool, alphabet: Alphabet) -> Maker:
    """Constrain texts to a call of one of the tools, or to `several` calls of them (afresh.data.text.tool_calls).

    `tools` are the JSON schemas of their arguments by name. Raises UserError for a schema as `json_schema` does.
    """
    options = {"x-guidance": {"whitespace_pattern": WHITE_SPACE}}
    bodies = []
    for name, schema in tools.items():
        head = json.dumps(json.dumps({"name": name})[:-1] + ', "arguments": ')
        bodies.append(f'{head} %json {json.dumps(options | dict(schema))} "}}"')
    lines = [
        'start: call ("\\n" call)*' if several else "start: call",
        f'call: "{OPEN}\\n" body "\\n{CLOSE}"',
        "body: " + "\n    | ".join(bodies),
    ]
    hint = "Leave out keywords that are not supported (not, uniqueItems, ...)."
    return _maker("schema of a tool", "\n".join(lines), alphabet, hint, Numbers)


def _maker(
    what: str, lark: str, alphabet: Alphabet, hint: str, numbers: Callable[[], Numbers | None] = lambda: None
) -> Maker:
    """A maker of constraints by a grammar in Lark's syntax. Raises UserError, with `hint`, if it is invalid."""
    guide = _guide()
    first = guide.LLMatcher(alphabet.inner, guide.LLMatcher.grammar_from_lark(FREE + lark), log_level=0)
    if first.is_error():
        raise UserError(f"The {what} cannot be used: {_short(first.get_error())}. {hint}")
    start = Guided(alphabet, first.deep_copy())
    if not start.finished() and not bool(start.allowed().any()):
        raise UserError(f"The {what} does not match any text. {hint}")
    return lambda: Guided(alphabet, first.deep_copy(), numbers())


def _short(message: str) -> str:
    """A message of llguidance on one line, without the grammar and the state of the parser."""
    plain = re.split(r"\n<state>|\n +\d+ \|", message)[0]
    lines = [line.strip() for line in re.sub(r"^at \d+\(\d+\): ", "", plain).splitlines() if line.strip()]
    return " ".join(lines)[:300].rstrip(". ")


def _guide() -> Any:
    try:
        import llguidance
    except ImportError:
        raise UserError(
            "Constrained decoding needs the package llguidance. Install it with: pip install 'afresh[structured]'"
        ) from None
    return llguidance


# --------------------------------------------------------------------------- for samplers


def restrict(logits: Tensor, constraints: Sequence[Constraint | None], end: int) -> Tensor:
    """Set logits (B, V) to -inf for tokens that the row's constraint forbids, and for `end` if the text may not end.

    Rows without a constraint (None) are unchanged. Raises UserError if a row has no allowed token.
    """
    keep = torch.ones(logits.shape, dtype=torch.bool)
    for i, constraint in enumerate(constraints):
        if constraint is None:
            continue
        row = constraint.allowed()
        row[end] = constraint.finished()
        if not bool((row.to(logits.device) & (logits[i] > -torch.inf)).any()):
            raise UserError(
                "The constraint requires characters that this model cannot write: it has no token that may follow the "
                "text so far."
            )
        keep[i] = row
    return logits.masked_fill(~keep.to(logits.device), -torch.inf)


def is_complete(make: Maker, tokens: Sequence[int]) -> bool:
    """Whether a text of these tokens matches its constraint, and no token may follow it."""
    state = make()
    for token in tokens:
        state.accept(token)
    return state.finished() and not bool(state.allowed().any())


def check_finished(finished: Sequence[bool], length: int) -> None:
    """Raises UserError if a text reached the maximum length before it matched its constraint."""
    short = len(finished) - sum(finished)
    if short:
        raise UserError(
            f"{short:,} of {len(finished):,} texts did not match the constraint within {length:,} tokens. Choose a "
            "greater length, or bound the text: maxLength of strings, maxItems of arrays, {0,9} instead of * in a "
            "regular expression, a grammar that can end."
        )


# --------------------------------------------------------------------------- endings


class Matching(Protocol):
    """The state of a matcher that reads bytes."""

    def may(self) -> Sequence[int]: ...  # bytes that may follow
    def read(self, byte: int) -> None: ...
    def matches(self) -> bool: ...
    def matches_after(self, byte: int) -> bool: ...


def ending(state: Matching, closers: bytes, limit: int) -> bytes | None:
    """Bytes after which the text matches, at most `limit` of them; None if none were found. `state` is advanced.

    A grammar does not say how many tokens are needed to satisfy it. The ending is therefore searched byte by byte: of
    the bytes that may follow, one that closes something is taken, or one after which the text matches, and otherwise
    the one that was taken least often, so that no loop is followed for ever. It is short, but it need not be the
    shortest.
    """
    used = Counter(dict.fromkeys(range(128, 256), 4))  # bytes of longer characters come late
    out = bytearray()

    def order(byte: int) -> tuple[int, int, int]:
        first = closing.find(byte)
        if first >= 0:
            return -1, first, byte
        return used[byte], PLAIN.index(byte) if byte in PLAIN else len(PLAIN), byte

    while not state.matches():
        may = state.may()
        if not may or len(out) == limit:
            return None
        closing = b'"' if LETTER in may else closers
        byte = min(may, key=order)
        if byte not in closing and len(may) <= FEW:
            byte = next((b for b in may if state.matches_after(b)), byte)
        used[byte] += 1
        out.append(byte)
        state.read(byte)
    return bytes(out)
