"""The grammar of scores as a constraint on sampling: what is drawn is a valid score, and one score alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from afresh.domains.music.score import BAR, HOLD, PITCH, REST, bar_length


@dataclass(frozen=True)
class Words:
    """The words of a form with their ids, and the ids of each kind of word. `voices`: 0 for the form `events`."""

    ids: dict[str, int]
    size: int  # of the vocabulary, special tokens included
    steps: int  # per quarter
    voices: int

    @cached_property
    def kinds(self) -> dict[str, list[int]]:
        """Ids by the first character of the word; those of pitches under "note"."""
        out: dict[str, list[int]] = {}
        for word, i in self.ids.items():
            out.setdefault("note" if word in PITCH else word[0], []).append(i)
        return out

    @cached_property
    def named(self) -> dict[int, str]:
        return {i: word for word, i in self.ids.items()}

    def after(self, prompt: Sequence[int]) -> Notation:
        """The constraint of what follows a prompt, whose first token is the context before it."""
        state = Notation(self, voices=self.voices, upcoming=bar_length((4, 4), self.steps))
        for token in prompt:
            if token in self.named:
                state.accept(token)
        return state


@dataclass
class Notation:
    """A `Constraint`: where in a score the next word stands.

    A score begins with tempo, voices and meter. A note of the form `events` begins within its bar and does not overlap
    its own pitch in its voice; a bar of the form `voices` has a word for every voice and step. The score may end after
    a note or a whole step, and no second one can begin. After a prompt that breaks these rules, what follows keeps them
    as far as possible.
    """

    words: Words
    last: str = ""  # kind of the last word
    voices: int = 0  # of the form `voices`, as the score declares
    started: bool = False  # whether there is a bar
    any: bool = False  # whether there is a note
    upcoming: int = 0  # length in steps of the next bar
    length: int = 0  # of this bar
    at: int = 0  # step of the bar at which the next note begins; words of the form `voices` in this bar
    voice: int = 0  # selected in the form `events`
    pitch: str = ""  # of the note whose duration is next
    # Of the form `events`: spans of notes by voice and pitch, from the beginning of this bar. Of the form `voices`: the
    # voices in which a note sounds.
    sounding: dict[tuple[int, str], list[tuple[int, int]]] = field(default_factory=dict)
    held: frozenset[int] = frozenset()

    def copy(self) -> Notation:
        return replace(self, sounding=dict(self.sounding))

    def accept(self, token: int) -> None:
        word = self.words.named[token]
        self.last = "note" if word in PITCH else word[0]
        if word == BAR:
            passed = self.length
            self.started, self.length, self.voice = True, self.upcoming, 0
            self.at = 0 if self.voices else max(0, self.at - passed)
            moved = {k: [(a - passed, b - passed) for a, b in spans] for k, spans in self.sounding.items()}
            self.sounding = {k: left for k, spans in moved.items() if (left := [s for s in spans if s[1] > 0])}
        elif self.last == "M":
            n, d = map(int, word[1:].split("/"))
            self.upcoming = bar_length((n, d), self.words.steps)
        elif self.last == "V":
            self.voices = int(word[1:])
        elif self.voices and (word in PITCH or word in (HOLD, REST)):
            voice = self.at % self.voices
            self.held = self.held - {voice} if word == REST else self.held | {voice}
            self.any, self.at = self.any or word in PITCH, self.at + 1
        elif word in PITCH:
            self.pitch = word
        elif self.last == "@":
            self.at = int(word[1:])
        elif self.last == "v":
            self.voice = int(word[1:]) - 1
        elif self.last == ":" and self.pitch:
            end = self.at + int(word[1:])
            key = self.voice, self.pitch
            self.sounding[key] = [*self.sounding.get(key, ()), (self.at, end)]
            self.any, self.at, self.pitch = True, end, ""

    def allowed(self) -> Tensor:
        keep, kinds = torch.zeros(self.words.size, dtype=torch.bool), self.words.kinds
        for kind in self.next_kinds():
            keep[kinds[kind]] = True
        if self.pitch:  # up to the next note of the pitch in its voice
            later = [a - self.at for a, _ in self.sounding.get((self.voice, self.pitch), ()) if a > self.at]
            keep[kinds[":"][min(later, default=len(kinds[":"])) :]] = False
        elif not self.words.voices:
            keep[kinds["@"][self.length :]] = False
            spans = ((word, a, b) for (v, word), all_of in self.sounding.items() if v == self.voice for a, b in all_of)
            keep[[self.words.ids[word] for word, a, b in spans if a <= self.at < b]] = False
        return keep

    def next_kinds(self) -> Sequence[str]:
        """Kinds of the words that may follow."""
        if not self.started:
            header = {"": "T", "T": "V" if self.words.voices else "M", "V": "M"}
            return (header.get(self.last, BAR),)
        if self.last == "M":
            return (BAR,)
        if self.words.voices:
            if self.at >= self.length * self.voices:
                return ("M", BAR)
            return ("note", REST, HOLD) if self.at % self.voices in self.held else ("note", REST)
        if self.pitch:
            return (":",)
        note = ("note",) if self.at < self.length else ()
        if self.last == "v":
            return note or (BAR,)
        if self.last == "@":
            return ("v", *note)
        return ("@", *(("v",) if note else ()), *note, "M", BAR)

    def finished(self) -> bool:
        if not self.any or self.pitch or self.last in "M@v":
            return False
        return not self.words.voices or self.at % self.voices == 0

    def closing(self, limit: int) -> list[int] | None:
        state, out = self.copy(), list[int]()
        while not state.finished():
            if len(out) == limit:
                return None
            first = (REST, "note") if state.any else ("note", REST)
            may, allowed = state.next_kinds(), state.allowed()
            kind = next(k for k in (*first, ":", BAR, "M", "V", "T") if k in may)
            out.append(next(i for i in self.words.kinds[kind] if allowed[i]))
            state.accept(out[-1])
        return out

    def opens(self, token: int) -> bool:
        return False
