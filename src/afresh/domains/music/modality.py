"""Symbolic music: MIDI, ABC and piano rolls, to a stream of events or of parallel voices, and back to MIDI.

An item's value is the text of a score (afresh.domains.music.score), whose words are the tokens. A model can therefore
continue the beginning of a score, and fill holes in one (also with afresh.domains.music.compose).
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from afresh.core import Corpus, Item, Omission, Refused, Sniff, UserError
from afresh.data.encoder_file import load_encoder
from afresh.data.files import (
    MB,
    NESTED_ARCHIVE,
    DataFile,
    FileError,
    Given,
    ZipLimits,
    named,
    open_plain,
    read_usable,
    read_zip,
    walk,
    zip_names,
)
from afresh.data.refusals import refusal_lines
from afresh.data.split import FEW, share, split_of_name
from afresh.data.text.kind import TEXT
from afresh.domains.music.encoder import ScoreEncoder, Steps
from afresh.domains.music.files import NOTES, READ, PieceFile, RawPiece, read_pieces, suffix_of, to_score
from afresh.domains.music.score import MusicScore, Note, monophonic, to_text

EVENT_STEPS, VOICE_STEPS = 12, 4  # per quarter: sixteenths and triplets; sixteenths
# If each window is seen about twenty times in training, transposing reduces the held-out loss by 10%; if fewer than ten
# times, it increases the loss by 1 or 2% (docs/development/log.md). Five minutes on two cores see about 3,000,000
# words.
SEMITONES, FEW_WORDS = 5, 200_000
BATCH, BATCH_BYTES = 100, 16 * MB  # of files that are read together
ROLL = re.compile(rb"\[\s*\[\s*\[\s*(-?\d+|null)")


class MusicOptions(BaseModel):
    """How music is read and represented."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["auto", "events", "voices"] = Field(
        "auto",
        description="representation: voices, with one word per voice and step, or events; auto: voices if all pieces "
        "have the same number of voices, each with one note at a time",
    )
    steps: Steps | None = Field(None, description="steps per quarter; None: 12 for events, 4 for voices")
    context: int = Field(512, ge=2, le=1 << 20, description="tokens of a window")
    transpose: int | None = Field(
        None, ge=0, le=11, description="largest transposition in training in semitones; None: by the amount of music"
    )
    max_bars: int = Field(2_000, ge=1, le=100_000, description="longer pieces are refused")
    max_file_mb: int = Field(64, ge=1, description="larger files are refused")


class MusicModality:
    """.mid, .abc (any number of tunes) and .json(.gz) piano rolls, as single files, in a folder, in a .zip, or in a
    folder that contains several .zip files and no music."""

    name = "music"
    kind = TEXT
    options = MusicOptions

    def sniff(self, path: Path) -> Sniff:
        """Judges by the names of the files, and by the beginning of .json files."""
        if path.is_file() and path.suffix.lower() == ".zip":
            names = zip_names(path)
        elif path.is_file():
            if suffix_of(path.name) == ".json":
                rolls = _holds_rolls(named(path))
                return Sniff(0.95 * rolls, "piano rolls" if rolls else "a .json that does not contain piano rolls")
            return Sniff(float(suffix_of(path.name) in NOTES), f"the suffix is {path.suffix or 'missing'}")
        else:
            files = walk(path)[0]
            names = [f.name for f in files if suffix_of(f.name) != ".json" or _holds_rolls(f)]
            if inside := _archives(files):
                names = [n for n in names if not n.lower().endswith(".zip")]
                names += [n for f in inside for n in zip_names(f)]
        names = [n for n in names if PurePosixPath(n).suffix.lower() not in (".md", ".txt", "")] or names
        ours = sum(suffix_of(n) in READ for n in names)
        return Sniff(ours / len(names) if names else 0.0, f"{ours:,} of {len(names):,} files are symbolic music")

    def read(self, path: Path, options: MusicOptions) -> Corpus:
        """One Item per piece. If there are fewer than 20, a tenth of them, at least one, is held out; a single piece is
        divided at a bar line. Raises UserError if no piece can be used.
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
                    raise FileError("a voice has two notes at a time, which requires `data.form=events`")
                scores.append((raw, score))
            except FileError as error:
                corpus.refused.append(Refused(raw.source, str(error)))
        if not scores:
            raise UserError(
                f"No usable symbolic music in {path} ({', '.join(sorted(READ))}, also .zip).",
                lines=refusal_lines(corpus.refused),
            )
        corpus.notes += _changes(tally, form, steps)
        corpus.counts = {k: v for k, v in tally.items() if v and k != "notes"}
        corpus.items = _held_out(
            [Item(_text(s, form), raw.source, split=raw.split or split_of_name(raw.source)) for raw, s in scores],
            scores,
            form,
        )
        return corpus

    def fit(self, items: Sequence[Item], options: MusicOptions) -> ScoreEncoder:
        """Fit the number of voices, and whether to transpose, to the training pieces. The vocabulary depends only on
        the form. Raises UserError if there are no pieces."""
        if not items:
            raise UserError("No music to train on: the training split is empty.")
        counts = [_voices(i.value) for i in items]
        voices = Counter(counts).most_common(1)[0][0]
        steps = options.steps or (VOICE_STEPS if voices else EVENT_STEPS)
        words = sum(len(i.value.split()) for i in items)
        default = SEMITONES if words < FEW_WORDS else 0
        transpose = default if options.transpose is None else options.transpose
        encoder = ScoreEncoder(steps=steps, voices=voices, context=options.context, transpose=transpose)
        form = f"voices, {voices} in {counts.count(voices):,} of {len(items):,} pieces" if voices else "events"
        notes = [f"form {form}; {steps} steps per quarter, {len(encoder.words):,} words"]
        if transpose:
            notes.append(f"half of the windows in training are transposed by up to {transpose} semitones")
        if options.transpose is None:
            notes.append(
                f"transpose {transpose}, because there are {words:,} words: transposing helps if each is seen often"
            )
        return replace(encoder, notes=tuple(notes))

    def load(self, folder: Path) -> ScoreEncoder:
        return load_encoder(folder, ScoreEncoder, "music")


MODALITY = MusicModality()


def _holds_rolls(file: DataFile) -> bool:
    """Whether a .json(.gz) begins like a list of piano rolls."""
    try:
        with open_plain(file) as stream:
            return ROLL.search(stream.read(4096)) is not None
    except (FileError, OSError, EOFError, zlib.error):
        return False


def _voices(text: str) -> int:
    """The number of voices that a text declares; 0 in the form `events`."""
    match = re.match(r"T\d+ V(\d+)\b", text)
    return int(match.group(1)) if match else 0


# --------------------------------------------------------------------------- reading


def _archives(files: Sequence[DataFile]) -> list[DataFile]:
    """The .zip files of a folder, if it contains no music itself."""
    return [] if any(suffix_of(f.name) in NOTES for f in files) else [f for f in files if f.suffix == ".zip"]


def _unpacked(file: Given, options: MusicOptions, corpus: Corpus, within: str = "") -> Iterator[tuple[str, bytes]]:
    members, refused = read_zip(file, READ, ZipLimits(member_bytes=options.max_file_mb * MB))
    yield from ((within + name, content) for name, content in members)
    corpus.refused += [replace(r, source=within + r.source) for r in refused]


def _contents(path: Path, options: MusicOptions, corpus: Corpus) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file that may contain music. Other files are added to `corpus.refused`."""
    if path.is_file() and path.suffix.lower() == ".zip":
        yield from _unpacked(path, options, corpus)
        return
    files, refused = walk(path)
    corpus.refused += refused
    archives = _archives(files)
    if len(archives) > 1:
        names = ", ".join(f.name for f in archives)
        corpus.notes.append(f"{len(archives)} archives are read: {names}. Give one if they contain the same pieces")

    def refusal(file: DataFile) -> str | None:
        if file.suffix == ".zip":
            return NESTED_ARCHIVE
        return None if suffix_of(file.name) in READ else f"not symbolic music ({file.suffix or 'no suffix'})"

    for file in files:
        if file in archives:
            yield from _unpacked(file, options, corpus, file.name.removesuffix(".zip") + "/")
        else:
            usable = read_usable([file], refusal, options.max_file_mb, corpus.refused)
            yield from ((f.name, content) for f, content in usable)


def _pieces(path: Path, options: MusicOptions, corpus: Corpus) -> list[RawPiece]:
    """Every piece of every file. Notes and refused inputs are added to `corpus`."""
    raws: list[RawPiece] = []
    files: list[PieceFile] = []
    for batch in _batches(_contents(path, options, corpus)):
        for (name, _), found in zip(batch, read_pieces(batch), strict=True):
            if isinstance(found, FileError):
                corpus.refused.append(Refused(name, str(found)))
            else:
                files.append(found)
                raws += found.pieces
                corpus.refused += found.refused
    chords, errors = sum(f.chords for f in files), [e for f in files for e in f.errors]
    if chords:
        corpus.notes.append(Omission(f"{chords:,} chord symbols of ABC left out"))
    if errors:
        corpus.notes.append(Omission(f"abc2midi ignored {len(errors):,} errors in ABC, the first: {errors[0]}"))
    return raws


def _batches(contents: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """The files in groups of up to BATCH and about BATCH_BYTES, since abc2midi converts many at once."""
    batch: list[tuple[str, bytes]] = []
    for file in contents:
        batch.append(file)
        if len(batch) == BATCH or sum(len(content) for _, content in batch) > BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


def _form(raws: Sequence[RawPiece], options: MusicOptions) -> str:
    """`voices` if all pieces have the same number of voices, at least two, each with one note at a time; otherwise
    `events`."""
    counts = set()
    for raw in raws:
        try:
            score = to_score(raw, options.steps or VOICE_STEPS, options.max_bars, Counter())
        except FileError:
            continue
        counts.add(score.voices if monophonic(score) else 0)
    return "voices" if len(counts) == 1 and min(counts) > 1 else "events"


def _text(score: MusicScore, form: str) -> str:
    return to_text(score, score.voices if form == "voices" else 0)


def _changes(tally: Counter[str], form: str, steps: int) -> list[str]:
    """A note on what was changed or left out in converting the pieces."""
    changes = [f"{n:,} {change}" for change, n in tally.items() if n and change != "notes"]
    always = "velocities, instruments and pedals are left out"
    return [Omission(f"{tally['notes']:,} notes as {form}, {steps} steps per quarter; {'; '.join([*changes, always])}")]


def _held_out(items: list[Item], scores: Sequence[tuple[RawPiece, MusicScore]], form: str) -> list[Item]:
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


def cut(score: MusicScore, step: int) -> tuple[MusicScore, MusicScore]:
    """What begins before a bar line, ended there, and what begins after it, which begins at 0."""
    before = tuple(replace(n, duration=min(n.duration, step - n.onset)) for n in score.notes if n.onset < step)
    after = tuple(Note(n.onset - step, n.voice, n.pitch, n.duration) for n in score.notes if n.onset >= step)
    meter = [m for start, m in score.meters if start <= step][-1]
    later = tuple((start - step, m) for start, m in score.meters if start > step)
    return replace(score, notes=before), replace(score, notes=after, meters=((0, meter), *later))
