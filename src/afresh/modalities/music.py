"""Music in notes: .mid, .abc and lists of pitches, to a stream of events or of parallel voices, and back to .mid.

A score's value is its text (afresh.data.music.score), whose words are the tokens. So `--prompt` goes on from the
beginning of a score, and `--infill`, or afresh.tasks.compose, fills holes in one.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from afresh.core import Corpus, Item, Refused, Sniff, UserError
from afresh.data.files import MB, DataFile, FileError, ZipLimits, read_bytes, read_zip, walk, zip_names
from afresh.data.music.encoder import ScoreEncoder, load_scores
from afresh.data.music.files import NOTES, READ, RawPiece, read_pieces, suffix_of, to_score
from afresh.data.music.score import STEPS, Note, Score, monophonic, to_text
from afresh.data.split import FEW, share
from afresh.data.text.kind import TEXT

EVENT_STEPS, VOICE_STEPS = 12, 4  # of a quarter: sixteenths and triplets; sixteenths
# Where each window is seen about twenty times, transposing lowers the held-out loss by a tenth; where fewer than ten
# times, it raises it by a hundredth or two (docs/development/log.md). Five minutes on two cores see about 3,000,000
# words.
SEMITONES, FEW_WORDS = 5, 200_000
ROLL = re.compile(rb"\[\s*\[\s*\[\s*(-?\d+|null)")


class MusicOptions(BaseModel):
    """`form`: `voices` (a word a voice and step) where every piece has the same number of voices of one note at a time,
    else `events`. `steps` of a quarter. `transpose`: most semitones up or down in training, 0: none; None: by how much
    music there is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["auto", "events", "voices"] = "auto"
    steps: int | None = None  # 12 for events, 4 for voices
    context: int = Field(512, ge=2, le=1 << 20)  # tokens of a window
    transpose: int | None = Field(None, ge=0, le=11)
    max_bars: int = Field(2_000, ge=1, le=100_000)  # of a piece
    max_file_mb: int = Field(64, ge=1)  # of one file

    @field_validator("steps")
    @classmethod
    def _divides(cls, value: int | None) -> int | None:
        if value is not None and value not in STEPS:
            raise ValueError(f"steps is one of {', '.join(map(str, STEPS))}")
        return value


class MusicModality:
    """.mid, .abc (any number of tunes) and .json(.gz) lists of pitches, alone, in a folder, in a .zip, or in several of
    these in a folder that holds no music beside them."""

    name = "music"
    kind = TEXT
    options = MusicOptions

    def sniff(self, path: Path) -> Sniff:
        """By the names of the files; a .json by how it begins."""
        if not path.exists():
            return Sniff(0.0, f"{path} does not exist")
        if path.is_file() and path.suffix.lower() == ".zip":
            names = zip_names(path)
        elif path.is_file():
            if suffix_of(path.name) == ".json":
                rolls = _holds_rolls(path)
                return Sniff(
                    0.95 * rolls, "lists of steps of pitches" if rolls else "a .json that is no list of pieces"
                )
            return Sniff(float(suffix_of(path.name) in NOTES), f"{path.suffix or 'no suffix'} is {path.name}'s suffix")
        else:
            files = walk(path)[0]
            names = [f.name for f in files if suffix_of(f.name) != ".json" or _holds_rolls(f.path)]
            if inside := _archives(files):
                names = [n for n in names if not n.lower().endswith(".zip")]
                names += [n for f in inside for n in zip_names(f.path)]
        names = [n for n in names if PurePosixPath(n).suffix.lower() not in (".md", ".txt", "")] or names
        ours = sum(suffix_of(n) in READ for n in names)
        return Sniff(ours / len(names) if names else 0.0, f"{ours:,} of {len(names):,} files are music in notes")

    def read(self, path: Path, options: MusicOptions) -> Corpus:
        """One Item a piece. Fewer than 20 pieces: a tenth of them, at least one, is held out; a single one is cut at a
        bar line. Raises UserError where no piece can be used, or the form does not fit one.
        """
        corpus = Corpus([])
        raws = _pieces(path, options, corpus)
        form = options.form if options.form != "auto" else _form(raws, options)
        steps = options.steps or (VOICE_STEPS if form == "voices" else EVENT_STEPS)
        tally: Counter[str] = Counter()
        scores = []
        for raw in raws:
            try:
                score = to_score(raw, steps, options.max_bars, tally)
                if form == "voices" and not monophonic(score):
                    raise FileError("a voice has two notes at a time: give the option form=events")
                scores.append((raw, score))
            except FileError as error:
                corpus.refused.append(Refused(raw.source, str(error)))
        if not scores:
            why = "".join(f"\n  {r.source}: {r.reason}" for r in corpus.refused[:5])
            raise UserError(f"There is no music in notes in {path} ({', '.join(sorted(READ))}, also .zip).{why}")
        corpus.notes += _said(tally, form, steps)
        corpus.counts = {k: v for k, v in tally.items() if v and k != "notes"}
        corpus.items = _held_out([Item(_text(s, form), raw.source, split=raw.split) for raw, s in scores], scores, form)
        return corpus

    def fit(self, items: Sequence[Item], options: MusicOptions) -> ScoreEncoder:
        """Nothing is learnt but how many voices and words there are: every form has its whole vocabulary."""
        if not items:
            raise UserError("There is no music to train on: the training split is empty.")
        found = [_voices(i.value) for i in items]
        voices = Counter(found).most_common(1)[0][0]
        steps = options.steps or (VOICE_STEPS if voices else EVENT_STEPS)
        words = sum(len(i.value.split()) for i in items)
        chosen = SEMITONES if words < FEW_WORDS else 0
        transpose = chosen if options.transpose is None else options.transpose
        encoder = ScoreEncoder(steps, voices, options.context, transpose)
        what = f"voices, {voices} in {found.count(voices):,} of {len(items):,} pieces" if voices else "events"
        notes = [f"form {what}; {steps} steps a quarter, {len(encoder.words):,} words"]
        if transpose:
            notes.append(f"half of the windows in training are transposed by up to {transpose} semitones")
        if options.transpose is None:
            notes.append(f"transpose {transpose}, as there are {words:,} words: it pays where each is seen often")
        return replace(encoder, notes=tuple(notes))

    def load(self, folder: Path) -> ScoreEncoder:
        return load_scores(folder)


MODALITY = MusicModality()


def _holds_rolls(path: Path) -> bool:
    """Whether a .json(.gz) begins as a list of pieces of steps of pitches."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            return ROLL.search(stream.read(4096)) is not None
    except (OSError, EOFError, zlib.error):
        return False


def _voices(text: str) -> int:
    """How many a text says that it has; 0 in the form `events`."""
    found = re.match(r"T\d+ V(\d+)\b", text)
    return int(found.group(1)) if found else 0


# --------------------------------------------------------------------------- reading


def _archives(files: Sequence[DataFile]) -> list[DataFile]:
    """The .zip files of a folder that holds no music beside them."""
    return [] if any(suffix_of(f.name) in NOTES for f in files) else [f for f in files if f.suffix == ".zip"]


def _unpacked(path: Path, options: MusicOptions, corpus: Corpus, within: str = "") -> Iterator[tuple[str, bytes]]:
    members, refused = read_zip(path, READ, ZipLimits(member_bytes=options.max_file_mb * MB))
    yield from ((within + name, content) for name, content in members)
    corpus.refused += [replace(r, source=within + r.source) for r in refused]


def _contents(path: Path, options: MusicOptions, corpus: Corpus) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file that may hold music; the others go to `corpus.refused`."""
    if path.is_file() and path.suffix.lower() == ".zip":
        yield from _unpacked(path, options, corpus)
        return
    files, refused = walk(path)
    corpus.refused += refused
    archives = _archives(files)
    if len(archives) > 1:
        names = ", ".join(f.name for f in archives)
        corpus.notes.append(
            f"{len(archives)} archives are read: {names}. Give one of them if they hold the same pieces"
        )
    for file in files:
        if file in archives:
            yield from _unpacked(file.path, options, corpus, file.name.removesuffix(".zip") + "/")
            continue
        reason = None if suffix_of(file.name) in READ else f"no music in notes ({file.suffix or 'no suffix'})"
        if file.suffix == ".zip":
            reason = "an archive within a folder: give its own path, or unpack it"
        try:
            content = b"" if reason else read_bytes(file, options.max_file_mb)
        except FileError as error:
            reason = str(error)
        if reason:
            corpus.refused.append(Refused(file.name, reason))
        else:
            yield file.name, content


def _pieces(path: Path, options: MusicOptions, corpus: Corpus) -> list[RawPiece]:
    """Every piece of every file; what cannot be used goes to `corpus`."""
    raws: list[RawPiece] = []
    chords, errors = 0, list[str]()
    for name, content in _contents(path, options, corpus):
        try:
            found, refused, symbols, wrong = read_pieces(name, content)
            raws += found
            corpus.refused += refused
            chords, errors = chords + symbols, errors + wrong
        except FileError as error:
            corpus.refused.append(Refused(name, str(error)))
    if chords:
        corpus.notes.append(f"{chords:,} chord symbols of ABC left out")
    if errors:
        corpus.notes.append(f"abc2midi read past {len(errors):,} errors in ABC, the first: {errors[0]}")
    return raws


def _form(raws: Sequence[RawPiece], options: MusicOptions) -> str:
    """`voices` where every piece has the same number of voices, two or more, of one note at a time."""
    found = set()
    for raw in raws:
        try:
            score = to_score(raw, options.steps or VOICE_STEPS, options.max_bars, Counter())
        except FileError:
            continue
        found.add(score.voices if monophonic(score) else 0)
    return "voices" if len(found) == 1 and min(found) > 1 else "events"


def _text(score: Score, form: str) -> str:
    return to_text(score, score.voices if form == "voices" else 0)


def _said(tally: Counter[str], form: str, steps: int) -> list[str]:
    """What the text does not hold, for the user."""
    lost = [f"{n:,} {what}" for what, n in tally.items() if n and what != "notes"]
    always = "velocities, instruments and pedals are left out"
    return [f"{tally['notes']:,} notes as {form}, {steps} steps a quarter; {'; '.join([*lost, always])}"]


def _held_out(items: list[Item], scores: Sequence[tuple[RawPiece, Score]], form: str) -> list[Item]:
    """Items with a split of their own where they are few: a score cannot be cut between two characters."""
    if len(items) >= FEW or any(i.split for i in items):
        return items
    if len(items) == 1:
        bars = list(scores[0][1].bars())
        if len(bars) < 2:
            return items
        first, last = cut(scores[0][1], bars[-max(1, len(bars) // 10)][0])
        texts = [(first, "train", "first part"), (last, "validation", "last part")]
        return [Item(_text(s, form), f"{items[0].source} ({n})", split=split) for s, split, n in texts if s.notes]
    order = sorted(items, key=lambda i: share(TEXT.digest(i.value), "split"))
    held = {TEXT.digest(i.value) for i in order[: max(1, len(items) // 10)]}
    return [replace(i, split="validation" if TEXT.digest(i.value) in held else "train") for i in items]


def cut(score: Score, step: int) -> tuple[Score, Score]:
    """What begins before a bar line, ended there, and what begins after it, which begins at 0."""
    before = tuple(replace(n, duration=min(n.duration, step - n.onset)) for n in score.notes if n.onset < step)
    after = tuple(Note(n.onset - step, n.voice, n.pitch, n.duration) for n in score.notes if n.onset >= step)
    meter = [m for start, m in score.meters if start <= step][-1]
    later = tuple((start - step, m) for start, m in score.meters if start > step)
    return replace(score, notes=before), replace(score, notes=after, meters=((0, meter), *later))
