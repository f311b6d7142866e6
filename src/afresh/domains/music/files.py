"""Files of symbolic music to scores and back: MIDI, ABC and piano rolls. Everything that does not fit a score is
counted."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from afresh.core import Refused, UserError
from afresh.data.files import FileError, decode_text
from afresh.domains.music.abc2midi import Conversion, convert
from afresh.domains.music.score import (
    LONGEST,
    MOST_VOICES,
    TEMPOS,
    Meter,
    MusicScore,
    Note,
    bar_length,
    meter_of,
    without_overlaps,
)

TICKS = 480  # per quarter, in written files
VELOCITY = 90
NEAR = 1 / 50  # of a quarter; a note closer than this to the grid does not count as moved
ROLL_STEPS = 4  # per quarter, in piano rolls: sixteenths
MIDI = frozenset({".mid", ".midi", ".kar"})
NOTES = MIDI | {".abc"}
READ = NOTES | {".json"}  # a .json also as .json.gz
SPLITS = {"train": "train", "valid": "validation", "validation": "validation", "test": "validation"}


@dataclass(frozen=True)
class RawPiece:
    """A piece as stored in a file: tracks of (onset, duration, pitch), with times in ticks."""

    source: str
    ticks: int  # per quarter
    tracks: tuple[tuple[tuple[int, int, int], ...], ...]
    meters: tuple[tuple[int, Meter], ...] = ()
    tempos: tuple[float, ...] = ()
    upbeat: int = 0  # ticks
    drums: int = 0  # notes of percussion, left out
    split: str | None = None


def suffix_of(name: str) -> str:
    """The suffix in lower case; .json for a .json.gz."""
    lower = name.lower()
    return PurePosixPath(lower.removesuffix(".gz") if lower.endswith(".json.gz") else lower).suffix


@dataclass(frozen=True)
class PieceFile:
    """What was read of a file: its pieces and, of ABC, the tunes that cannot be read, the number of chord symbols that
    were left out, and the errors that abc2midi ignored."""

    pieces: list[RawPiece]
    refused: Sequence[Refused] = ()
    chords: int = 0
    errors: Sequence[str] = ()


def read_pieces(files: Sequence[tuple[str, bytes]]) -> list[PieceFile | FileError]:
    """Read files of the kinds in READ, given as (name, decompressed content). In place of one of which nothing can be
    used stands the FileError. Raises UserError if symusic is not installed."""
    import_symusic()
    abc = iter(read_abc([(name, content) for name, content in files if suffix_of(name) == ".abc"]))
    return [next(abc) if suffix_of(name) == ".abc" else _without_abc(name, content) for name, content in files]


def _without_abc(name: str, content: bytes) -> PieceFile | FileError:
    try:
        return PieceFile([read_midi(name, content)] if suffix_of(name) in MIDI else read_rolls(name, content))
    except FileError as error:
        return error


# --------------------------------------------------------------------------- to scores


def to_score(raw: RawPiece, steps: int, most_bars: int, tally: Counter[str]) -> MusicScore:
    """The score of a piece on a grid of `steps` per quarter. `tally` counts what was changed or left out.

    Raises FileError for a piece without notes, with a meter that does not fit the grid, or with too many bars.
    """
    changes: Counter[str] = Counter({"percussion notes left out": raw.drums})
    tracks = [t for t in raw.tracks if t]
    changes["notes of voices after the 16th left out"] = sum(map(len, tracks[MOST_VOICES:]))
    notes = []
    for voice, track in enumerate(tracks[:MOST_VOICES]):
        notes += [n for t in track if (n := _on_grid(voice, t, raw.ticks, steps, changes)) is not None]
    notes, changes["notes shortened because their pitch begins again"] = without_overlaps(notes)
    if not notes:
        raise FileError("no notes" + (" except percussion" if raw.drums else ""))
    meters = _meters(raw, steps, max(n.end for n in notes), changes)
    tempo = round((raw.tempos or (120.0,))[0] / 10) * 10
    changes["changes of tempo left out"] = max(0, len(set(raw.tempos)) - 1)
    score = MusicScore(tuple(notes), meters, min(max(tempo, TEMPOS[0]), TEMPOS[-1]), steps)
    if sum(-((a - b) // bar_length(m, steps)) for a, b, m in _spans(meters, score.end)) > most_bars:
        raise FileError(f"more than {most_bars:,} bars: divide it, or raise `data.max_bars`")
    tally.update(changes)
    tally["notes"] += len(notes)
    return score


def _on_grid(voice: int, note: tuple[int, int, int], ticks: int, steps: int, changes: Counter[str]) -> Note | None:
    """The note moved to the grid; None if it has no length. Raises FileError for a pitch outside of MIDI."""
    onset, duration, pitch = note
    if duration <= 0:
        changes["notes of no length left out"] += 1
        return None
    if not 0 <= pitch <= 127:
        raise FileError(f"pitch {pitch} is outside of MIDI's range, 0 to 127")
    start, stop = (int(t * steps / ticks + 0.5) for t in (onset, onset + duration))
    length = max(1, stop - start)
    if length > LONGEST * steps:
        changes[f"notes shortened to {LONGEST} quarters"] += 1
        length = LONGEST * steps
    changes[f"notes moved to the grid of {steps} steps per quarter"] += abs(start / steps - onset / ticks) > NEAR
    return Note(start, voice, pitch, length)


def _spans(meters: Sequence[tuple[int, Meter]], end: int) -> list[tuple[int, int, Meter]]:
    """(first step, step after the last, meter) of each part with one meter."""
    ends = [start for start, _ in meters[1:]] + [max(end, meters[-1][0] + 1)]
    return [(start, stop, meter) for (start, meter), stop in zip(meters, ends, strict=True)]


def _meters(raw: RawPiece, steps: int, end: int, changes: Counter[str]) -> tuple[tuple[int, Meter], ...]:
    """Meters and the bar lines from which they apply. A bar that a new meter cuts short, and an upbeat, get a short
    meter of their own.

    Raises FileError for a meter that does not fit the grid.
    """
    declared: dict[int, Meter] = {0: (4, 4)}
    for tick, meter in raw.meters:
        if not bar_length(meter, steps):
            raise FileError(f"a meter of {meter[0]}/{meter[1]} does not fit {steps} steps per quarter")
        declared[int(tick * steps / raw.ticks + 0.5)] = meter
    declared = {step: meter for step, meter in sorted(declared.items()) if step < end}
    upbeat = int(raw.upbeat * steps / raw.ticks + 0.5)
    if 0 < upbeat < bar_length(declared[0], steps) and (short := meter_of(upbeat, steps)) is not None:
        declared = {0: short, upbeat: declared[0], **{k: v for k, v in declared.items() if k > upbeat}}
    out: list[tuple[int, Meter]] = []
    for start, stop, meter in _spans(list(declared.items()), end):
        if not out or out[-1][1] != meter:
            out.append((start, meter))
        rest = (stop - out[-1][0]) % bar_length(meter, steps)
        if stop >= end or rest == 0:
            continue
        if (short := meter_of(rest, steps)) is None:
            raise FileError(f"a meter changes {rest} steps after a bar line, and no meter has that length")
        if stop - rest == out[-1][0]:
            out.pop()
        changes["bars cut short by a new meter"] += 1
        out.append((stop - rest, short))
    return tuple(out)


# --------------------------------------------------------------------------- MIDI


def read_midi(name: str, content: bytes) -> RawPiece:
    """Read a MIDI file. Raises FileError if it is not a usable MIDI file, and UserError if symusic is not installed."""
    symusic = import_symusic()
    try:
        score = symusic.Score.from_midi(content)
    except (RuntimeError, ValueError, MemoryError) as error:
        raise FileError(f"not a MIDI file, or damaged ({_reason(error)}): write it again from its source") from None
    if score.tpq <= 0:
        raise FileError("unsupported MIDI file: its times are frames of film instead of quarters")
    tracks = tuple(tuple((n.time, n.duration, n.pitch) for n in t.notes) for t in score.tracks if not t.is_drum)
    return RawPiece(
        name,
        score.tpq,
        tracks,
        tuple((s.time, (s.numerator, s.denominator)) for s in score.time_signatures),
        tuple(t.qpm for t in score.tempos if math.isfinite(t.qpm) and t.qpm > 0),
        drums=sum(len(t.notes) for t in score.tracks if t.is_drum),
    )


def _reason(error: Exception) -> str:
    """symusic's message without its prefix and exclamation marks."""
    return str(error).removeprefix("MiniMidi: ").replace("Invaild", "invalid").rstrip("! ")


def midi_bytes(score: MusicScore) -> bytes:
    """The content of a MIDI file with one track per voice, all notes at one velocity."""
    symusic = import_symusic()
    out = symusic.Score(TICKS)
    each = TICKS // score.steps
    out.tempos.append(symusic.Tempo(0, qpm=score.tempo))
    for start, (n, d) in score.meters:
        out.time_signatures.append(symusic.TimeSignature(start * each, n, d))
    for voice in range(score.voices):
        track = symusic.Track(f"voice {voice + 1}")
        for note in score.notes:
            if note.voice == voice:
                track.notes.append(symusic.Note(note.onset * each, note.duration * each, note.pitch, VELOCITY))
        out.tracks.append(track)
    content: bytes = out.dumps_midi()
    return content


def import_symusic() -> Any:
    """The module symusic. Raises UserError if it is not installed."""
    try:
        import symusic
    except ImportError:
        raise UserError(
            "Reading and writing music requires symusic, which is not installed: pip install 'afresh[music]'."
        ) from None
    return symusic


# --------------------------------------------------------------------------- piano rolls


def read_rolls(name: str, content: bytes) -> list[RawPiece]:
    """Read piano rolls from JSON: a list of pieces, or {train, valid, test} of such lists. A piece is a list of
    sixteenths, each a list of one MIDI pitch per voice, -1 or null for silence. A repeated pitch is one long note.

    Raises FileError for anything else.
    """
    try:
        parsed = json.loads(decode_text(content))
    except (ValueError, RecursionError) as error:
        raise FileError(f"damaged JSON: {error}") from None
    parts = parsed if isinstance(parsed, dict) else {"": parsed}
    out = []
    for part, pieces in parts.items():
        if not isinstance(pieces, list):
            raise FileError("not a list of pieces, or {train, valid, test} of such lists")
        for i, piece in enumerate(pieces, 1):
            source = f"{name}, {part} {i}" if part else f"{name}, piece {i}"
            out.append(RawPiece(source, ROLL_STEPS, _tracks(source, piece), split=SPLITS.get(part)))
    return out


def _tracks(source: str, piece: Any) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    is_roll = isinstance(piece, list) and bool(piece) and all(isinstance(step, list) for step in piece)
    if not is_roll or len({len(step) for step in piece}) != 1:
        raise FileError(f"{source} is not a list of steps with one pitch per voice, all of the same number of voices")
    tracks = []
    for cells in zip(*piece, strict=True):
        track: list[tuple[int, int, int]] = []
        for step, cell in enumerate(cells):
            if cell is not None and not (isinstance(cell, int) and -1 <= cell <= 127):
                raise FileError(f"{source}, step {step}: {cell!r} is not a MIDI pitch, -1 or null")
            if cell is None or cell < 0:
                continue
            if track and track[-1][2] == cell and sum(track[-1][:2]) == step:
                track[-1] = (track[-1][0], track[-1][1] + 1, cell)
            else:
                track.append((step, 1, cell))
        tracks.append(tuple(track))
    return tuple(tracks)


# --------------------------------------------------------------------------- ABC


def read_abc(files: Sequence[tuple[str, bytes]]) -> list[PieceFile | FileError]:
    """Read files of ABC. Directives (%%, I:) are left out. In place of a file without a tune stands the FileError."""
    found = [_tunes(content) for _, content in files]
    texts = [part for tunes in found if not isinstance(tunes, FileError) for part in tunes.texts()]
    converted = iter(convert(texts))
    out: list[PieceFile | FileError] = []
    for (name, _), tunes in zip(files, found, strict=True):
        if isinstance(tunes, FileError):
            out.append(tunes)
            continue
        whole, first_bars = next(converted), next(converted)
        out.append(FileError(whole) if isinstance(whole, str) else _abc_file(name, tunes, whole, first_bars))
    return out


@dataclass(frozen=True)
class _Tunes:
    """The tunes of a file, each from its line X: on, and the number of chord symbols that were left out."""

    tunes: list[str]
    chords: int

    def texts(self) -> tuple[str, str]:
        """What abc2midi is given: the tunes, numbered from 1, and their first bars."""
        return _numbered(self.tunes), _numbered([_first_bar(t) for t in self.tunes])


def _tunes(content: bytes) -> _Tunes | FileError:
    try:
        text = decode_text(content).replace("\r\n", "\n").replace("\r", "\n")
    except FileError as error:
        return error
    chords = len(re.findall(r'"[A-G][^"\n]*"', text))
    text = re.sub(r'"[^"\n]*"', "", re.sub(r"(?m)^(%%|I:).*\n?", "", text))
    tunes = [t for t in re.split(r"(?m)^(?=X:)", text) if t.startswith("X:")]
    return _Tunes(tunes, chords) if tunes else FileError("no tune (a tune begins with a line X:)")


def _numbered(tunes: Sequence[str]) -> str:
    return "\n\n".join(re.sub(r"^X:.*", f"X:{i}", t.rstrip()) for i, t in enumerate(tunes, 1)) + "\n"


def _abc_file(name: str, tunes: _Tunes, whole: Conversion, first_bars: Conversion | str) -> PieceFile:
    titles = [m.group(1).strip() if (m := re.search(r"(?m)^T:(.*)$", t)) else "" for t in tunes.tunes]
    names = [f"{name}, tune {i}{f' ({title})' if title else ''}" for i, title in enumerate(titles, 1)]
    upbeats = {} if isinstance(first_bars, str) else first_bars.midi
    out, refused = [], []
    for i, source in enumerate(names, 1):
        try:
            if i not in whole.midi:
                raise FileError("abc2midi could not read this tune")
            raw, first = read_midi(source, whole.midi[i]), upbeats.get(i)
            upbeat = _end(read_midi(source, first)) if first is not None else 0
        except FileError as error:
            refused.append(Refused(source, str(error)))
            continue
        out.append(RawPiece(source, raw.ticks, raw.tracks, raw.meters, raw.tempos, upbeat))
    return PieceFile(out, refused, tunes.chords, [f"{name}: {e}" for e in whole.errors])


def _end(raw: RawPiece) -> int:
    """The tick at which the last note ends. abc2midi ends notes one tick early."""
    return max((a + b for t in raw.tracks for a, b, _ in t), default=0)


def _first_bar(tune: str) -> str:
    """A tune up to the first bar line after a note: its upbeat, or its first bar."""
    out: list[str] = []
    body = False
    for line in tune.split("\n"):  # other ends of lines are none to abc2midi
        if (
            body
            and not re.match(r"[A-Za-z]:(?![|:])", line)
            and (m := re.search(r"[A-Ga-gz][^|]*?(?=[|:\[]*\|)", line))
        ):
            return "\n".join([*out, line[: m.end()]]) + "\n"
        out.append(line)
        body = body or line.startswith("K:")
    return "\n".join(out) + "\n"
