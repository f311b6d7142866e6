"""Scores as text: the notes of each voice on a grid of steps, in words that are also the tokens of a model.

There are two forms. A data set uses one of them.

- `events`, for melodies and any polyphony: `T120 M6/8 | B4 :6 D5 :6 @18 v2 G3 :18`. A note is a pitch and a duration in
  steps. It begins where the previous note ends (but not before its bar), or at the step of its bar that `@` names.
  `v2` selects the voice of the following notes; every bar begins in voice 1. This is REMI (Huang and Yang 2020)
  without positions that are known already, velocities and chords.
- `voices`, for voices with one note at a time: `T100 V2 M4/4 | G4 C3 _ _ z _`. Every step has one word per voice: a
  pitch that begins, `_` if the note continues, `z` for a rest (Hadjeres et al. 2017, DeepBach, section 2.2). Every
  voice thereby has fixed positions, any of which can be a hole to fill.

`T` is the tempo in quarters per minute, `M` the meter from the next bar line `|`. An upbeat is a short first bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

TEMPOS = range(20, 301, 10)  # quarters per minute
DENOMINATORS = (2, 4, 8, 16, 32)
MOST_BEATS = 16  # of a meter
LONGEST = 8  # quarters; limit of bars and notes
MOST_VOICES = 16
STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # per quarter; divisors of 480 ticks
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
BAR, HOLD, REST = "|", "_", "z"
PITCHES = tuple(f"{NAMES[p % 12]}{p // 12 - 1}" for p in range(128))  # MIDI's; C4 is 60, A4 is 69 and 440 Hz
PITCH = {name: p for p, name in enumerate(PITCHES)}

Meter = tuple[int, int]


@dataclass(frozen=True, order=True)
class Note:
    """A note: onset and duration in steps, voice from 0, MIDI pitch."""

    onset: int
    voice: int
    pitch: int
    duration: int

    @property
    def end(self) -> int:
        return self.onset + self.duration


@dataclass(frozen=True)
class MusicScore:
    """Sorted notes; meters as (step of the bar line from which it applies, meter), the first at step 0."""

    notes: tuple[Note, ...]
    meters: tuple[tuple[int, Meter], ...] = ((0, (4, 4)),)
    tempo: int = 120  # quarters per minute
    steps: int = 12  # per quarter

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
    """Steps of a bar; 0 if the meter does not fit the grid."""
    n, d = meter
    total = n * 4 * steps
    fits = d in DENOMINATORS and 1 <= n <= MOST_BEATS and total % d == 0 and total // d <= LONGEST * steps
    return total // d if fits else 0


def meter_of(length: int, steps: int) -> Meter | None:
    """A meter whose bar has `length` steps, for an upbeat or a bar that is cut short; None if there is none."""
    for d in DENOMINATORS[1:]:
        n, rest = divmod(length * d, 4 * steps)
        if rest == 0 and bar_length((n, d), steps) == length:
            return n, d
    return None


def monophonic(score: MusicScore) -> bool:
    """Whether no voice has two notes at a time."""
    free = [0] * MOST_VOICES
    for note in score.notes:
        if note.onset < free[note.voice]:
            return False
        free[note.voice] = note.end
    return True


@cache
def vocabulary(steps: int, voices: bool) -> tuple[str, ...]:
    """All words of a form. The pitches come first, so that the index of a pitch is its MIDI number."""
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
    """Words as text with one line per bar, which `str.split` takes apart. Every word except an initial tempo follows
    its separator, so that a continuation can be appended to a text."""
    text = "".join(("\n" if word == BAR else " ") + word for word in words)
    return text[1:] if text[1:2] == "T" else text


# --------------------------------------------------------------------------- to text


def to_text(score: MusicScore, voices: int = 0) -> str:
    """The text of a score, in the form `voices` with that number of voices, or in the form `events` if it is 0.

    Raises ValueError in the form `voices` if a voice has two notes at a time, or if there are more voices.
    """
    words = [f"T{score.tempo}", *([f"V{voices}"] if voices else [])]
    cells = grid(score, voices) if voices else []
    notes, cursor, previous = list(score.notes), 0, None
    for start, length, meter in score.bars():
        words += [BAR] if meter == previous else [f"M{meter[0]}/{meter[1]}", BAR]
        previous = meter
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


def grid(score: MusicScore, voices: int) -> list[list[str]]:
    """The words of every step, one per voice. Raises ValueError if a voice has two notes at a time, or there are more
    voices."""
    if score.voices > voices or not monophonic(score):
        raise ValueError(f"the score does not consist of {voices} voices with one note at a time")
    cells = [[REST] * voices for _ in range(score.end)]
    for note in score.notes:
        for step in range(note.onset, note.end):
            cells[step][note.voice] = HOLD if step > note.onset else PITCHES[note.pitch]
    return cells


# --------------------------------------------------------------------------- from text


@dataclass
class WordReader:
    """Builds a score from words. Errors are reported in `problems` and otherwise ignored."""

    steps: int
    voices: int  # 0: the form `events`
    problems: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    meters: list[tuple[int, Meter]] = field(default_factory=list)
    meter: Meter = (4, 4)  # of the next bar
    tempo: int = 120
    bar: int = -1  # first step of the bar; -1 before the first bar
    length: int = 0  # of the bar in steps
    cursor: int = 0  # step at which the next note of the form `events` begins
    voice: int = 0
    pitch: int | None = None  # of a note whose duration has not been read yet
    count: int = 0  # words of the form `voices` since the bar began
    open: dict[int, Note] = field(default_factory=dict)  # the sounding note of each voice

    def add(self, word: str) -> None:
        kind, number = word[0], int(word[1:]) if word[1:].isdecimal() and len(word) < 6 else -1
        if word == BAR:
            self.begin_bar()
        elif kind == "M":
            n, _, d = word[1:].partition("/")
            meter = (int(n), int(d)) if n.isdecimal() and d.isdecimal() and len(word) < 8 else (0, 1)
            self.expect(bar_length(meter, self.steps) > 0, f"{word} is not a meter of this grid")
            self.meter = meter if bar_length(meter, self.steps) else self.meter
        elif kind in "TV" and self.bar < 0 and number in (TEMPOS if kind == "T" else range(1, MOST_VOICES + 1)):
            self.tempo = number if kind == "T" else self.tempo
            self.expect(kind == "T" or self.voices > 0, f"{word} does not belong to the form events")
            self.voices = number if kind == "V" and self.voices else self.voices
        elif not (word in PITCH or word in (HOLD, REST) if self.voices else word in PITCH or kind in "@v:"):
            self.problems.append(f"{word!r} is not allowed here")
        else:
            if self.bar < 0:
                self.problems.append(f"{word} before the first bar")
                self.begin_bar()
            if self.voices:
                self.add_cell(word)
            else:
                self.add_event(word, kind, number)

    def expect(self, condition: bool, problem: str) -> None:
        if not condition:
            self.problems.append(problem)

    def begin_bar(self) -> None:
        self.expect(self.pitch is None, "a note without a duration")
        complete = self.bar < 0 or not self.voices or self.count == self.length * self.voices
        self.expect(complete, f"a bar has {self.count} words, not {self.length * self.voices}")
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
            self.expect(self.pitch is not None, f"{word!r} is not allowed here")

    def add_cell(self, word: str) -> None:
        step, voice = divmod(self.count, self.voices)
        self.count += 1
        if step >= self.length:
            # Reported only once per bar.
            self.expect(self.count > self.length * self.voices + 1, "more words than the bar has steps")
            return
        at = self.bar + step
        if word == HOLD:
            sounding = self.open.get(voice)
            self.expect(sounding is not None, "there is no note that could continue")
            if sounding is not None:
                self.open[voice] = Note(sounding.onset, voice, sounding.pitch, at + 1 - sounding.onset)
            return
        if voice in self.open:
            self.notes.append(self.open.pop(voice))
        if word in PITCH:
            self.open[voice] = Note(at, voice, PITCH[word], 1)

    def done(self) -> MusicScore:
        """The score. Reports as further problems an incomplete end, overlapping notes, and a score without notes."""
        self.expect(self.pitch is None, "the last note has no duration")
        self.expect(not self.voices or self.count % self.voices == 0, "the last step is not complete")
        notes, overlaps = without_overlaps([*self.notes, *self.open.values()])
        self.expect(not overlaps, f"{overlaps} notes overlap themselves")
        self.expect(bool(notes), "there is no note")
        return MusicScore(tuple(notes), tuple(self.meters) or ((0, self.meter),), self.tempo, self.steps)


def from_text(text: str, steps: int, voices: int = 0) -> tuple[MusicScore, list[str]]:
    """The score of a text, and the errors in the text; texts by `to_text` have none.

    `voices` is 0 for the form `events`, otherwise the number of voices if the text does not declare one (because it is
    a continuation).
    """
    reader = WordReader(steps, voices)
    for word in text.split():
        reader.add(word)
    return reader.done(), reader.problems


def without_overlaps(notes: Sequence[Note]) -> tuple[list[Note], int]:
    """Sorted notes, each shortened to end where the same pitch begins again in its voice, and the number of notes that
    were changed."""
    out: list[Note] = []
    last: dict[tuple[int, int], int] = {}  # (voice, pitch) -> index in out
    changed = 0
    for note in sorted(notes):
        index = last.get((note.voice, note.pitch))
        if index is not None and out[index].end > note.onset:
            changed += 1
            previous = out[index]
            if previous.onset == note.onset:  # because of the order, this note is at least as long
                out[index] = note
                continue
            out[index] = Note(previous.onset, previous.voice, previous.pitch, note.onset - previous.onset)
        last[note.voice, note.pitch] = len(out)
        out.append(note)
    return out, changed
