"""Scores as text: what is played when by which voice on a grid of steps, in words that are also the model's tokens.

Two forms, one of which a whole data set has:

- `events`, for melodies and any polyphony: `T120 M6/8 | B4 :6 D5 :6 @18 v2 G3 :18`. A note is a pitch and a duration in
  steps. It begins where the note before it ends (in its bar at the earliest), or at the step of its bar that `@` names.
  `v2` is the voice of the notes after it; a bar begins in voice 1. This is REMI (Huang and Yang 2020) with positions
  left out where they are known, and without velocities and chords.
- `voices`, for parts of one note at a time: `T100 V2 M4/4 | G4 C3 _ _ z _`. Every step has a word a voice: a pitch that
  begins, `_` that goes on, `z` a rest (Hadjeres et al. 2017, DeepBach, section 2.2). So every voice has its own places,
  and any of them can be a hole.

`T` is the tempo in quarters a minute; `M` the meter from the next bar line `|` on. An upbeat is a short first bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

TEMPOS = range(20, 301, 10)  # quarters a minute
DENOMINATORS = (2, 4, 8, 16, 32)
MOST_BEATS = 16  # of a meter
LONGEST = 8  # quarters of a bar and of a note
MOST_VOICES = 16
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # of a quarter: what divides 480 ticks
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
BAR, HOLD, REST = "|", "_", "z"
PITCHES = tuple(f"{NAMES[p % 12]}{p // 12 - 1}" for p in range(128))  # MIDI's; C4 is 60, A4 is 69 and 440 Hz
PITCH = {name: p for p, name in enumerate(PITCHES)}

Meter = tuple[int, int]


@dataclass(frozen=True, order=True)
class Note:
    """Onset and duration in steps; voices count from 0; MIDI pitch."""

    onset: int
    voice: int
    pitch: int
    duration: int

    @property
    def end(self) -> int:
        return self.onset + self.duration


@dataclass(frozen=True)
class Score:
    """Notes in order; (step of a bar line, meter from there), the first at 0; quarters a minute; steps of a quarter."""

    notes: tuple[Note, ...]
    meters: tuple[tuple[int, Meter], ...] = ((0, (4, 4)),)
    tempo: int = 120
    steps: int = 12

    @property
    def end(self) -> int:
        return max((n.end for n in self.notes), default=0)

    @property
    def voices(self) -> int:
        return max((n.voice + 1 for n in self.notes), default=0)

    def bars(self) -> Iterator[tuple[int, int, Meter]]:
        """(first step, length in steps, meter) of every bar that begins before the last note ends."""
        ends = [start for start, _ in self.meters[1:]] + [self.end]
        for (start, meter), end in zip(self.meters, ends, strict=True):
            length = bar_length(meter, self.steps)
            for bar in range(start, min(end, self.end), length):
                yield bar, length, meter


def bar_length(meter: Meter, steps: int) -> int:
    """Steps of a bar; 0 when the meter is not one that the grid can hold."""
    n, d = meter
    whole = n * 4 * steps
    fits = d in DENOMINATORS and 1 <= n <= MOST_BEATS and whole % d == 0 and whole // d <= LONGEST * steps
    return whole // d if fits else 0


def meter_of(length: int, steps: int) -> Meter | None:
    """The meter of a bar of so many steps, for an upbeat or a bar that was cut; None when none is as long."""
    for d in DENOMINATORS[1:]:
        n, rest = divmod(length * d, 4 * steps)
        if rest == 0 and bar_length((n, d), steps) == length:
            return n, d
    return None


def monophonic(score: Score) -> bool:
    """Whether no voice has two notes at a time."""
    free = [0] * MOST_VOICES
    for note in score.notes:
        if note.onset < free[note.voice]:
            return False
        free[note.voice] = note.end
    return True


@cache
def vocabulary(steps: int, voices: bool) -> tuple[str, ...]:
    """Every word of a form, pitches first, so that a word's place among them is its MIDI pitch."""
    meters = [f"M{n}/{d}" for d in DENOMINATORS for n in range(1, MOST_BEATS + 1) if bar_length((n, d), steps)]
    head = [*PITCHES, BAR, *(f"T{t}" for t in TEMPOS), *meters]
    if voices:
        return (*head, HOLD, REST, *(f"V{v}" for v in range(1, MOST_VOICES + 1)))
    return (
        *head,
        *(f"v{v}" for v in range(1, MOST_VOICES + 1)),
        *(f"@{p}" for p in range(LONGEST * steps)),
        *(f":{d}" for d in range(1, LONGEST * steps + 1)),
    )


def joined(words: Sequence[str]) -> str:
    """Words as text, a line a bar. `str.split` takes it apart again. What parts a word from the one before is its own,
    so that what goes on from other words fits behind them; only the tempo stands first."""
    text = "".join(("\n" if word == BAR else " ") + word for word in words)
    return text[1:] if text[1:2] == "T" else text


# --------------------------------------------------------------------------- to text


def to_text(score: Score, voices: int = 0) -> str:
    """In the form `voices` with so many of them, or in the form `events`.

    Raises ValueError where a voice of the form `voices` has two notes at a time, or there are more voices.
    """
    words = [f"T{score.tempo}", *([f"V{voices}"] if voices else [])]
    cells = grid(score, voices) if voices else []
    notes, cursor, meter = list(score.notes), 0, None
    for start, length, now in score.bars():
        words += [BAR] if now == meter else [f"M{now[0]}/{now[1]}", BAR]
        meter = now
        if voices:
            words += [w for step in cells[start : start + length] for w in step]
            continue
        cursor, voice = max(cursor, start), 0
        while notes and notes[0].onset < start + length:
            note = notes.pop(0)
            words += [f"@{note.onset - start}"] * (note.onset != cursor)
            words += [f"v{note.voice + 1}"] * (note.voice != voice)
            words += [PITCHES[note.pitch], f":{note.duration}"]
            cursor, voice = note.end, note.voice
    return joined(words)


def grid(score: Score, voices: int) -> list[list[str]]:
    """The words of every step, one a voice."""
    if score.voices > voices or not monophonic(score):
        raise ValueError(f"not {voices} voices of one note at a time")
    cells = [[REST] * voices for _ in range(score.end)]
    for note in score.notes:
        for step in range(note.onset, note.end):
            cells[step][note.voice] = HOLD if step > note.onset else PITCHES[note.pitch]
    return cells


# --------------------------------------------------------------------------- from text


@dataclass
class Reader:
    """Words to a score. What cannot be is a line in `problems`, and is passed over."""

    steps: int
    voices: int  # 0: the form `events`
    problems: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    meters: list[tuple[int, Meter]] = field(default_factory=list)
    meter: Meter = (4, 4)  # of the next bar
    tempo: int = 120
    bar: int = -1  # where the bar began; -1 before the first
    length: int = 0  # of the bar
    cursor: int = 0
    voice: int = 0
    pitch: int | None = None  # of an event whose duration is still to come
    count: int = 0  # words of the form `voices` since the bar began
    open: dict[int, Note] = field(default_factory=dict)  # what sounds, by voice

    def add(self, word: str) -> None:
        kind, number = word[0], int(word[1:]) if word[1:].isdecimal() and len(word) < 6 else -1
        if word == BAR:
            self.begin_bar()
        elif kind == "M":
            n, _, d = word[1:].partition("/")
            meter = (int(n), int(d)) if n.isdecimal() and d.isdecimal() and len(word) < 8 else (0, 1)
            self.expect(bar_length(meter, self.steps) > 0, f"{word} is no meter of this grid")
            self.meter = meter if bar_length(meter, self.steps) else self.meter
        elif kind in "TV" and self.bar < 0 and number in (TEMPOS if kind == "T" else range(1, MOST_VOICES + 1)):
            self.tempo = number if kind == "T" else self.tempo
            self.expect(kind == "T" or self.voices > 0, f"{word} is not of the form events")
            self.voices = number if kind == "V" and self.voices else self.voices
        elif not (word in PITCH or word in (HOLD, REST) if self.voices else word in PITCH or kind in "@v:"):
            self.problems.append(f"{word!r} has no meaning here")
        else:
            if self.bar < 0:
                self.problems.append(f"{word} before the first bar")
                self.begin_bar()
            if self.voices:
                self.add_cell(word)
            else:
                self.add_event(word, kind, number)

    def expect(self, right: bool, otherwise: str) -> None:
        if not right:
            self.problems.append(otherwise)

    def begin_bar(self) -> None:
        self.expect(self.pitch is None, "a note without a duration")
        whole = self.bar < 0 or not self.voices or self.count == self.length * self.voices
        self.expect(whole, f"a bar of {self.count} words, not {self.length * self.voices}")
        self.bar = 0 if self.bar < 0 else self.bar + self.length
        self.length = bar_length(self.meter, self.steps)
        if not self.meters or self.meters[-1][1] != self.meter:
            self.meters.append((self.bar, self.meter))
        self.cursor, self.voice, self.count, self.pitch = max(self.cursor, self.bar), 0, 0, None

    def add_event(self, word: str, kind: str, number: int) -> None:
        if kind == ":" and self.pitch is not None and 1 <= number <= LONGEST * self.steps:
            self.expect(self.cursor < self.bar + self.length, "a note begins after the end of its bar")
            self.notes.append(Note(self.cursor, self.voice, self.pitch, number))
            self.cursor, self.pitch = self.cursor + number, None
            return
        self.expect(self.pitch is None, "a note without a duration")
        self.pitch = PITCH.get(word)
        if kind == "@" and 0 <= number < self.length:
            self.cursor = self.bar + number
        elif kind == "v" and 1 <= number <= MOST_VOICES:
            self.voice = number - 1
        else:
            self.expect(self.pitch is not None, f"{word!r} has no meaning here")

    def add_cell(self, word: str) -> None:
        step, voice = divmod(self.count, self.voices)
        self.count += 1
        if step >= self.length:
            self.expect(self.count > self.length * self.voices + 1, "more words than the bar has steps")  # said once
            return
        now = self.bar + step
        if word == HOLD:
            before = self.open.get(voice)
            self.expect(before is not None, "nothing sounds that could go on")
            if before is not None:
                self.open[voice] = Note(before.onset, voice, before.pitch, now + 1 - before.onset)
            return
        if voice in self.open:
            self.notes.append(self.open.pop(voice))
        if word in PITCH:
            self.open[voice] = Note(now, voice, PITCH[word], 1)

    def done(self) -> Score:
        """The score; further problems: an unfinished end, notes that sound twice, none at all."""
        self.expect(self.pitch is None, "the last note has no duration")
        self.expect(not self.voices or self.count % self.voices == 0, "the last step is not whole")
        kept, overlaps = without_overlaps([*self.notes, *self.open.values()])
        self.expect(not overlaps, f"{overlaps} notes overlap themselves")
        self.expect(bool(kept), "there is no note")
        return Score(tuple(kept), tuple(self.meters) or ((0, self.meter),), self.tempo, self.steps)


def from_text(text: str, steps: int, voices: int = 0) -> tuple[Score, list[str]]:
    """The score and what is wrong with the text: nothing, for what `to_text` made.

    `voices` is 0 for the form `events`; else how many there are where the text does not say (a continuation).
    """
    reader = Reader(steps, voices)
    for word in text.split():
        reader.add(word)
    return reader.done(), reader.problems


def without_overlaps(notes: Sequence[Note]) -> tuple[list[Note], int]:
    """Notes in order, each ended where its voice strikes its pitch again, and how many that concerned."""
    out: list[Note] = []
    last: dict[tuple[int, int], int] = {}  # (voice, pitch) -> place in out
    changed = 0
    for note in sorted(notes):
        place = last.get((note.voice, note.pitch))
        if place is not None and out[place].end > note.onset:
            changed += 1
            before = out[place]
            if before.onset == note.onset:  # sorted: this one is as long or longer
                out[place] = note
                continue
            out[place] = Note(before.onset, before.voice, before.pitch, note.onset - before.onset)
        last[note.voice, note.pitch] = len(out)
        out.append(note)
    return out, changed
