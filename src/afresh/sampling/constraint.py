"""Constrained decoding: a JSON schema, a regular expression or a grammar as a mask of logits.

Matching is done by llguidance (Microsoft, MIT), an Earley parser over derivatives of regular expressions, which walks
the trie of all tokens. This module describes the tokenizers of this package to it, including the one that spells
unknown characters with several tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from afresh.core import UserError

# White space in JSON: at most one space, or a line end and an indentation. If any amount were allowed, a model could
# write white space without end. A schema may override this by "x-guidance".
WHITE_SPACE = r"(\n {0,20}| )?"
# Otherwise the mask would allow a single tokenization of forced text, and the model could not choose among the others.
FREE = '%llguidance {"no_forcing": true}\n'


class Constraint(Protocol):
    """The state of the constraint of one text. There is one object for each text."""

    def allowed(self) -> Tensor: ...  # (V,) bool: allowed next tokens; never special ones such as `end`
    def accept(self, token: int) -> None: ...
    def finished(self) -> bool: ...  # whether the text may end here


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


class Guided:
    """A `Constraint` by llguidance for the tokens of `alphabet`."""

    def __init__(self, alphabet: Alphabet, matcher: Any) -> None:
        self.alphabet, self.matcher = alphabet, matcher
        self.high: int | None = None  # the first half of a byte whose second half is still to come
        self.half = {n: i for i, n in enumerate(alphabet.nibbles)}
        self._update()

    def _update(self) -> None:
        """Update the mask of allowed ids, of this package's tokens and of `spelled`."""
        size = len(self.alphabet.spelling) + len(self.alphabet.spelled)
        packed = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        if self.matcher.is_error() and not self.matcher.get_error().startswith("NoExtension"):  # no token may follow
            raise UserError(f"The constraint became too complex: {_short(self.matcher.get_error())}.")
        self.may = np.unpackbits(packed, count=size, bitorder="little").astype(bool)

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
            token = len(self.alphabet.spelling) + self.alphabet.spelled.index(16 * self.high + half)
            self.high = None
        assert self.may[token], f"token {token} was not allowed"
        self.matcher.consume_token(token)
        self._update()

    def finished(self) -> bool:
        return self.high is None and bool(self.matcher.is_accepting())


def json_schema(schema: Mapping[str, Any] | bool | str, alphabet: Alphabet) -> Maker:
    """Constrain texts to JSON that is valid under `schema` (an object, a boolean, or JSON text of either).

    White space is as in WHITE_SPACE unless the schema has "x-guidance" (options of llguidance). Raises UserError if the
    schema is invalid, uses an unsupported keyword, or cannot be satisfied.
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
    return _maker("JSON schema", lark, alphabet, hint)


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


def _maker(what: str, lark: str, alphabet: Alphabet, hint: str) -> Maker:
    """A maker of constraints by a grammar in Lark's syntax. Raises UserError, with `hint`, if it is invalid."""
    guide = _guide()
    first = guide.LLMatcher(alphabet.inner, guide.LLMatcher.grammar_from_lark(FREE + lark), log_level=0)
    if first.is_error():
        raise UserError(f"The {what} cannot be used: {_short(first.get_error())}. {hint}")
    start = Guided(alphabet, first.deep_copy())
    if not start.finished() and not bool(start.allowed().any()):
        raise UserError(f"The {what} does not match any text. {hint}")
    return lambda: Guided(alphabet, first.deep_copy())


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


def check_finished(finished: Sequence[bool], length: int) -> None:
    """Raises UserError if a text reached the maximum length before it matched its constraint."""
    short = len(finished) - sum(finished)
    if short:
        raise UserError(
            f"{short:,} of {len(finished):,} texts did not match the constraint within {length:,} tokens. Choose a "
            "greater length, or bound the text: maxLength of strings, maxItems of arrays, {0,9} instead of * in a "
            "regular expression, a grammar that can end."
        )
