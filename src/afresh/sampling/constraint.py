"""Structured output: what a text must match (a JSON schema, a regular expression, a grammar) as a mask of logits.

The matching is done by llguidance (Microsoft, MIT): an Earley parser over derivatives of regular expressions, which
walks the trie of all tokens. Here it learns our alphabets, also the one whose unseen characters take several tokens.
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

# Between the parts of a JSON text at most one space, or a line end and an indentation: with any amount of white space
# allowed, a model that likes it never comes to an end. A schema may say otherwise under "x-guidance".
WHITE_SPACE = r"(\n {0,20}| )?"
# Else the mask would leave just one spelling of text that must come, and the model's own choice among the others would
# not count.
FREE = '%llguidance {"no_forcing": true}\n'


class Constraint(Protocol):
    """What one text must match, as far as it is written. One object a sequence."""

    def allowed(self) -> Tensor: ...  # (V,) bool: tokens that may come next; marks such as `end` never
    def accept(self, token: int) -> None: ...
    def finished(self) -> bool: ...  # whether the text may end here


Maker = Callable[[], Constraint]


@dataclass(frozen=True)
class Alphabet:
    """The bytes that each id stands for, (V,); none for marks. `end` ends a text.

    `nibbles`: ids of the sixteen halves of a byte, where characters without an id of their own are spelled as the
    bytes of UTF-8, high half first; else none.
    """

    spelling: tuple[bytes, ...]
    end: int
    nibbles: tuple[int, ...] = ()

    @cached_property
    def spelled(self) -> tuple[int, ...]:
        """Bytes that two halves may write: those that no token says alone."""
        own = {s[0] for s in self.spelling if len(s) == 1}
        return tuple(b for b in range(256) if b not in own) if self.nibbles else ()

    @cached_property
    def inner(self) -> Any:
        """llguidance's tokenizer: our ids, then one more for each byte in `spelled`."""
        guide = _guide()
        tokens = [*self.spelling, *(bytes([b]) for b in self.spelled)]
        marks = [i for i, s in enumerate(self.spelling) if not s]
        return guide.LLTokenizer(guide.TokenizerWrapper(_Spelling(tokens, self.end, marks)), n_vocab=len(tokens))


class _Spelling:
    """What llguidance asks of a tokenizer."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], end: int, marks: list[int]) -> None:
        self.tokens, self.eos_token_id, self.special_token_ids = tokens, end, marks

    def __call__(self, text: bytes) -> list[int]:
        raise NotImplementedError("asked for when text is forced, which FREE turns off")


class Guided:
    """A `Constraint` by llguidance, over `alphabet`: the mask forbids what does not match and changes nothing else."""

    def __init__(self, alphabet: Alphabet, matcher: Any) -> None:
        self.alphabet, self.matcher = alphabet, matcher
        self.high: int | None = None  # the first half of a byte, once it is there
        self.half = {n: i for i, n in enumerate(alphabet.nibbles)}
        self._look()

    def _look(self) -> None:
        """The ids that may follow as things stand, ours and those of `spelled`."""
        size = len(self.alphabet.spelling) + len(self.alphabet.spelled)
        packed = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        if self.matcher.is_error() and not self.matcher.get_error().startswith("NoExtension"):  # nothing may follow
            raise UserError(f"The structure became too complex to follow: {_short(self.matcher.get_error())}.")
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
        self._look()

    def finished(self) -> bool:
        return self.high is None and bool(self.matcher.is_accepting())


def json_schema(schema: Mapping[str, Any] | bool | str, alphabet: Alphabet) -> Maker:
    """Texts that are JSON and valid under `schema` (an object, a truth value, or JSON text of either).

    White space as in WHITE_SPACE unless the schema has "x-guidance" (llguidance's options). Raises UserError for
    what is no schema, uses a keyword that is not supported, or cannot be satisfied.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except ValueError as error:
            raise UserError(f"The JSON schema is not JSON: {error}.") from None
    if not isinstance(schema, Mapping | bool):
        raise UserError(f"A JSON schema is an object or true. Given: {json.dumps(schema)[:80]}.")
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    try:
        told = {"x-guidance": {"whitespace_pattern": WHITE_SPACE}} | dict(schema)
        written = f"start: %json {json.dumps(told)}"
    except TypeError as error:
        raise UserError(f"The JSON schema cannot be used: {error}.") from None
    hint = "Leave out keywords that are not supported (not, uniqueItems, ...)."
    return _maker("JSON schema", written, alphabet, hint)


def regex(pattern: str, alphabet: Alphabet) -> Maker:
    """Texts that match the whole of `pattern`, in the syntax of Rust's regex. Raises UserError for an invalid one."""
    made = json.loads(_guide().LLMatcher.grammar_from_regex(pattern))
    hint = "The syntax is that of Rust's regex: no look-around, no word boundaries, no references."
    return _maker("regular expression", made["grammars"][0]["lark_grammar"], alphabet, hint)


def grammar(text: str, alphabet: Alphabet) -> Maker:
    """Texts of a context-free grammar, in Lark's syntax (`start: ...`) or as EBNF in the form of llama.cpp
    (`root ::= ...`). Raises UserError for an invalid one."""
    _guide()
    from llguidance.gbnf_to_lark import any_to_lark

    hint = "Write Lark (start: ...) or GBNF (root ::= ...)."
    try:
        written = any_to_lark(text)
    except Exception as error:  # the converter raises plain Exception
        raise UserError(f"The grammar cannot be read: {error}. {hint}") from None
    return _maker("grammar", written, alphabet, hint)


def _maker(what: str, lark: str, alphabet: Alphabet, hint: str) -> Maker:
    guide = _guide()
    first = guide.LLMatcher(alphabet.inner, guide.LLMatcher.grammar_from_lark(FREE + lark), log_level=0)
    if first.is_error():
        raise UserError(f"The {what} cannot be used: {_short(first.get_error())}. {hint}")
    start = Guided(alphabet, first.deep_copy())
    if not start.finished() and not bool(start.allowed().any()):
        raise UserError(f"The {what} matches no text at all. {hint}")
    return lambda: Guided(alphabet, first.deep_copy())


def _short(message: str) -> str:
    """A message on one line, without the grammar around it and the parser's state."""
    plain = re.split(r"\n<state>|\n +\d+ \|", message)[0]
    lines = [line.strip() for line in re.sub(r"^at \d+\(\d+\): ", "", plain).splitlines() if line.strip()]
    return " ".join(lines)[:300].rstrip(". ")


def _guide() -> Any:
    try:
        import llguidance
    except ImportError:
        raise UserError(
            "Structured output needs the package llguidance. Get it with: pip install 'afresh[structured]'"
        ) from None
    return llguidance


# --------------------------------------------------------------------------- for samplers


def restrict(logits: Tensor, constraints: Sequence[Constraint | None], end: int) -> Tensor:
    """Logits (B, V) with -inf where a row's constraint forbids the token; `end` where the text may not end.

    A row without a constraint (None) stays as it is. Raises UserError where nothing may follow and nothing end.
    """
    keep = torch.ones(logits.shape, dtype=torch.bool)
    for i, constraint in enumerate(constraints):
        if constraint is None:
            continue
        row = constraint.allowed()
        row[end] = constraint.finished()
        if not bool((row.to(logits.device) & (logits[i] > -torch.inf)).any()):
            raise UserError(
                "The structure asked for came to a place where this model has no token that may follow. "
                "It needs characters that the model cannot write."
            )
        keep[i] = row
    return logits.masked_fill(~keep.to(logits.device), -torch.inf)


def check_finished(whole: Sequence[bool], length: int) -> None:
    """Raises UserError when a text that must match had to stop before it did."""
    short = len(whole) - sum(whole)
    if short:
        raise UserError(
            f"{short:,} of {len(whole):,} texts did not come to an end that matches the structure within {length:,} "
            "tokens. Ask for a greater length (--length), or bound what has no bound: maxLength of strings, maxItems "
            "of arrays, {0,9} in place of * in a regular expression, a grammar that can stop."
        )
