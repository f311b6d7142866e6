"""Sound files to clips of one rate, number of channels and length, chosen from the data unless they are set.

Memory: every file that is used is held once at the chosen rate, 4 bytes per sample and channel (230 MB per hour at
16 kHz); clips are views of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from afresh.core import Corpus, Item, Omission, Refused, Sound, UserError
from afresh.core.memory import available_memory
from afresh.core.plural import counted
from afresh.data.audio.kind import SOUND
from afresh.data.audio.near_duplicates import Near, handle_near_duplicates
from afresh.data.audio.sound_folder import SOUND_FILES, columns_from_names, map_sounds, open_sounds
from afresh.data.audio.sounds import SILENT, DecodedSound, SoundHeader, Source, decode_sound, header, peak
from afresh.data.audio.waves import fit_length, frame_energies, to_loudness, trim_bounds, windows
from afresh.data.columns import LabelColumn, add_columns
from afresh.data.files import FileError
from afresh.data.media_folder import Attributes, Damaged, MediaCollection, attributes, layout, stop_on_damage

COMMON_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # Hz
HIGHEST = 22_050  # Hz; the highest rate that is chosen automatically
LONGEST = 2.0  # seconds; the longest clip that is chosen automatically
COVERED = 0.97  # share of the sounds that fit into a clip of the chosen length completely
CLIPPED = 0.001  # share of samples at full scale above which a file is reported as clipped
FEW = 10  # recordings; up to this number each is divided in time, because whole ones cannot be held out
HELD = 0.1  # share of a recording that is held out if it is divided
ROUNDED = 0.01  # seconds; tolerance in comparisons with a chosen length, which may have been rounded
SHORTEST = 0.02  # seconds; shorter sounds are not used
PARTIAL = "damaged", "truncated", "shorter than"  # beginnings of notes on files that are not used completely
UNSUITABLE = "silent", "too short"  # beginnings of reasons to leave out a sound that is not damaged
TAIL = 0.1  # a sound that has at most this share of its energy after its first clip is a fading one;
MOSTLY = 0.75  # if this share of the longer sounds are, all of them are cut to their beginning;
ONE_SHOT = 10.0  # seconds; a longer sound is never considered a fading one
FADE = 0.03  # seconds over which a cut sound fades out; at most a quarter of the clip
QUIET = -40.0  # dB relative to the loudest frame of the sound; a quieter clip of it counts as silent
FRAME = 0.02  # seconds
COPIES = 2.5  # of the samples that are held until training begins: files, clips, and what is learnt of them
MUCH = 1 << 28  # bytes of audio from which the use of memory is reported


class ClipOptions(BaseModel):
    """How sound files are divided into clips."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: int | None = Field(
        None, ge=4_000, le=48_000, description="samples per second; None: the most frequent rate, at most 22,050"
    )
    channels: int | None = Field(None, ge=1, le=2, description="1 mixes all channels; None: 1")
    seconds: float | None = Field(
        None, ge=SHORTEST, le=60, description="length of a clip; None: chosen from the data, at most 2"
    )
    overlap: float = Field(
        0.25, ge=0, le=0.9, description="share of a clip that the next clip of the same sound has in common with it"
    )
    long: Literal["slice", "cut"] | None = Field(
        None,
        description="sounds longer than a clip: slice them into several clips, or cut them to their beginning, faded "
        "out; None: chosen from the data",
    )
    trim: bool | None = Field(
        None, description="remove silence at both ends of a sound; None: unless all sounds have one length, as loops do"
    )
    loudness: float | None = Field(
        None, ge=-70, le=0, description="loudness in LKFS that every sound is scaled to; None: unchanged"
    )
    names: str | None = Field(
        None, description="columns from the parts of file names between _: word,speaker,- (- ignores a part)"
    )
    group: str | None = Field(
        None, description="column whose values are never divided by the split, and are not a condition"
    )
    label_column: LabelColumn = None
    near: Near = "keep"
    damaged: Damaged = "skip"


@dataclass
class _Files:
    """The decoded files by name, and the files that are refused, metadata and notes."""

    decoded: dict[str, DecodedSound]
    refused: list[Refused]
    tables: Mapping[str, bytes]
    notes: list[str] = field(default_factory=list)


def read_clips(path: Path, options: ClipOptions) -> Corpus:
    """The clips of a folder or archive as items.

    Raises UserError without a usable sound, or if a column does not exist.
    """
    collection = open_sounds(path)
    results = dict(map_sounds(header, collection))
    headers = {name: head for name, head in results.items() if isinstance(head, SoundHeader)}
    refused = [Refused(name, reason) for name, reason in results.items() if isinstance(reason, str)]
    SOUND_FILES.require(len(headers), path, [*collection.refused, *refused])
    notes: list[str] = []
    rate, channels = _choose_rate(headers, options, notes), _choose_channels(headers, options, notes)
    room = _room(headers, rate, channels)
    common = None if options.trim else _common_length(headers, rate, options.seconds or LONGEST)
    options = options.model_copy(update={"trim": common is None if options.trim is None else options.trim})
    files = _decode_files(path, collection, options, rate, channels, room)
    notes += files.notes
    table = _metadata(files, options)
    names = list(files.decoded)
    folders = layout(names, SOUND_FILES)
    sounds = [d.sound for d in files.decoded.values()]
    seconds, long = _choose_length(sounds, options, notes, None if common is None else common / rate)
    recordings = [
        Item(
            files.decoded[name].sound,
            name,
            {"label": folders.labels[name]} if name in folders.labels else {},
            split=folders.splits[name],
        )
        for name in names
    ]
    recordings = _with_groups(recordings, table, options, notes)
    columns = {name: values for name, values in table.columns.items() if name != options.group}
    recordings, column_notes = add_columns(recordings, columns, options.label_column)
    recordings, dropped = handle_near_duplicates(recordings, options.near, notes)
    frames = round(seconds * rate)
    if long == "cut":
        items = _beginnings(recordings, frames, notes)
    else:
        items = _sliced(recordings, frames, options, notes)
    settled = {"rate": rate, "channels": channels, "seconds": frames / rate, "long": long, "trim": options.trim}
    corpus = Corpus(
        items, files.refused + table.refused + dropped, notes + folders.notes + column_notes, settled=settled
    )
    return stop_on_damage(corpus, options.damaged)


@dataclass
class _Room:
    """How many bytes of decoded samples there is room for."""

    left: float


def _room(headers: Mapping[str, SoundHeader], rate: int, channels: int) -> _Room:
    """Raises UserError if the sounds need more memory than is free, by the lengths that they declare and may have; of
    the others it is seen while they are decoded."""
    free = available_memory()
    if free is None:
        return _Room(math.inf)
    headers = {name: h for name, h in headers.items() if h.believable}
    seconds = sum(h.seconds or 0 for h in headers.values())
    needed = COPIES * 4 * seconds * rate * channels
    if needed > free:
        name, longest = max(headers.items(), key=lambda pair: pair[1].seconds or 0)
        raise UserError(
            f"By their headers, the sounds last {seconds / 3600:,.1f} hours (the longest, {name}, "
            f"{(longest.seconds or 0) / 3600:,.1f}) and need about {needed / 1e9:,.1f} GB of memory at {rate:,} Hz, "
            f"and {free / 1e9:,.1f} GB are free. Give fewer of them, or set a lower rate (`data.rate`)."
        )
    return _Room(free / COPIES)


# --------------------------------------------------------------------------- what is chosen


def _choose_rate(headers: Mapping[str, SoundHeader], options: ClipOptions, notes: list[str]) -> int:
    """The rate that is set, or the most frequent one up to HIGHEST."""
    count = Counter(h.rate for h in headers.values())
    rates = ", ".join(f"{r:,} Hz ({n:,})" if len(count) > 1 else f"{r:,} Hz" for r, n in count.most_common(4))
    if options.rate is not None:
        if options.rate > max(count):
            notes.append(f"rate {options.rate:,} Hz is above that of all files ({rates}), which gains nothing")
        return options.rate
    rate = min(count.most_common(1)[0][0], HIGHEST)
    if rate not in COMMON_RATES:
        rate = max((r for r in COMMON_RATES if r <= rate), default=COMMON_RATES[0])
    notes.append(f"rate {rate:,} Hz, because the files have {rates} (`data.rate`)")
    return rate


def _choose_channels(headers: Mapping[str, SoundHeader], options: ClipOptions, notes: list[str]) -> int:
    """The number that is set, or one, with a note if files have more."""
    more = sum(h.channels > 1 for h in headers.values())
    if options.channels is None and more:
        notes.append(
            f"mono: the channels of {more:,} of {len(headers):,} files are mixed (`data.channels=2` keeps two)"
        )
    return options.channels or 1


def _common_length(headers: Mapping[str, SoundHeader], rate: int, seconds: float) -> int | None:
    """The length in samples at `rate` that nearly all sounds have by their headers, such as loops of a number of bars;
    None if their lengths differ by more than ROUNDED, or exceed a clip of at most `seconds`."""
    lengths = [math.floor(h.seconds * rate + 0.5) for h in headers.values() if h.seconds is not None and h.believable]
    if not lengths:
        return None
    ((length, _),) = Counter(lengths).most_common(1)
    alike = sum(abs(n - length) <= ROUNDED * rate for n in lengths)
    if alike < COVERED * len(headers) or length > (seconds + ROUNDED) * rate:
        return None
    return min(length + (length + 1 in lengths), round(seconds * rate))  # files of other rates are rounded otherwise


def _choose_length(
    sounds: Sequence[Sound], options: ClipOptions, notes: list[str], common: float | None = None
) -> tuple[float, str]:
    """The seconds of a clip: as set, or as nearly all sounds have (`common`, if it is one length), or LONGEST if these
    are longer. And the treatment of longer sounds: if nearly all sounds fit, or what follows is a tail, they are cut;
    otherwise they are sliced.
    """
    lengths = sorted(s.seconds for s in sounds)
    summary = f"{lengths[0]:.3g} to {lengths[-1]:.3g} s, median {lengths[len(lengths) // 2]:.3g} s"
    nearly_all = lengths[min(len(lengths) - 1, int(COVERED * len(lengths)))]
    seconds = options.seconds or common or min(nearly_all, LONGEST)
    fits = nearly_all <= seconds + ROUNDED
    fade = not fits and options.long is None and _fade(sounds, seconds, notes)
    long = options.long or ("cut" if fits or fade else "slice")
    if options.seconds is not None:
        return seconds, long
    why = "longer sounds are sliced into several clips"
    if common is not None:
        notes.append(
            f"clips of {seconds:.4g} s with the silence in them: all sounds, or nearly all, have this length, and "
            "what the model makes will have it to the sample (`data.trim=true` cuts silence off; `data.seconds`)"
        )
        return seconds, long
    if nearly_all <= LONGEST:
        why = f"{COVERED:.0%} of the sounds are no longer"
    elif long == "cut":
        why = "longer sounds are cut to their beginning"
    notes.append(f"clips of {seconds:.3g} s: {why} (the sounds have {summary}; `data.seconds`)")
    return seconds, long


def _fade(sounds: Sequence[Sound], seconds: float, notes: list[str]) -> bool:
    """Whether the sounds longer than a clip are single events that fade, such as drums: a clip of only the tail would
    be learnt as one of them. Continuous sounds such as rain, and sounds longer than ONE_SHOT, are not."""
    longer = [s for s in sounds if s.seconds > seconds + ROUNDED]
    fading = sum(s.seconds <= ONE_SHOT and _energy_after(s, seconds) <= TAIL for s in longer)
    if fading < MOSTLY * len(longer):
        return False
    notes.append(
        Omission(
            f"{fading:,} of {len(longer):,} sounds longer than a clip fade: at least {1 - TAIL:.0%} of their energy is "
            "within its length. What follows is not used (`data.long=slice` makes clips of it)"
        )
    )
    return True


def _energy_after(sound: Sound, seconds: float) -> float:
    """The share of a sound's energy that comes after `seconds`."""
    square = np.square(sound.samples, dtype=np.float64).sum(1)
    return float(square[round(seconds * sound.rate) :].sum() / square.sum())


# --------------------------------------------------------------------------- reading


def _decode_files(
    path: Path, collection: MediaCollection, options: ClipOptions, rate: int, channels: int, room: _Room
) -> _Files:
    """All usable files, trimmed and scaled to the loudness, as far as there is `room`. Raises UserError if there are
    none."""

    def decode(source: Source) -> DecodedSound:
        # Headers may declare less than there is.
        found = _prepared(decode_sound(source, rate, channels, most_bytes=room.left), options)
        room.left -= found.sound.samples.nbytes
        return found

    results = dict(map_sounds(decode, collection))
    reasons = ((n, why) for n, why in results.items() if isinstance(why, str))
    refused = [*collection.refused, *(Refused(n, why, damaged=not why.startswith(UNSUITABLE)) for n, why in reasons)]
    decoded = {name: d for name, d in results.items() if isinstance(d, DecodedSound)}
    SOUND_FILES.require(len(decoded), path, refused)
    if options.damaged == "stop":  # files that are used only in part are damaged, too
        partial = ((name, note) for name, d in decoded.items() for note in d.notes if note.startswith(PARTIAL))
        refused += [Refused(name, note, damaged=True) for name, note in partial]
    return _Files(decoded, refused, collection.tables, [*_decoding_notes(decoded), *_trimming_notes(decoded)])


def _prepared(decoded: DecodedSound, options: ClipOptions) -> DecodedSound:
    """Without silence at its ends and at the loudness that is set. Raises FileError if it is silent or too short."""
    if decoded.silent:
        raise FileError(f"{UNSUITABLE[0]}: no sample exceeds {decoded.peak:.2g} of full scale")
    if peak(decoded.sound.samples) < SILENT:
        raise FileError(
            f"{UNSUITABLE[0]} when its {decoded.header.channels} channels are mixed: they cancel, because one is the "
            "other inverted. Keep only one of them, or read both: `data.channels=2`"
        )
    x, rate = decoded.sound.samples, decoded.sound.rate
    total = len(x)
    if options.trim:
        start, stop = trim_bounds(x, rate)
        x = x[start:stop]
    if len(x) < SHORTEST * rate:
        raise FileError(f"{UNSUITABLE[1]}: {len(x) / rate:.3g} s; at least {SHORTEST:g} s are needed")
    if options.loudness is not None:
        x = to_loudness(x, rate, options.loudness)
    return replace(decoded, sound=Sound(x, rate), trimmed=(total - len(x)) / rate)


def _trimming_notes(decoded: Mapping[str, DecodedSound]) -> list[str]:
    """A note on the silence that was cut off, if any was."""
    cut = {name: d.trimmed for name, d in decoded.items() if d.trimmed}
    if not cut:
        return []
    most = max(cut, key=cut.__getitem__)
    return [
        f"silence cut off both ends of {len(cut):,} of {counted(len(decoded), 'sound')}: {sum(cut.values()):.3g} s in "
        f"all, at most {cut[most]:.3g} s ({most}); what is {-QUIET:g} dB below the loudest part counts as silence "
        "(`data.trim=false` keeps it, and with it the length of every sound)"
    ]


def _decoding_notes(decoded: Mapping[str, DecodedSound]) -> list[str]:
    """Notes on the files, each with the number of files and an example, and on the memory that hours of audio take."""
    sources: dict[str, list[str]] = {}
    for name, d in decoded.items():
        for note in d.notes:
            sources.setdefault(note, []).append(name)
    notes = [
        f"{note}: {names[0]}" + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")
        for note, names in sources.items()
    ]
    damaged = [n for n, d in decoded.items() if any(note.startswith("damaged") for note in d.notes)]
    if len(damaged) > 1:
        notes.append(
            Omission(f"{len(damaged):,} of {len(decoded):,} files are damaged, and used as far as they can be read")
        )
    clipped = [n for n, d in decoded.items() if d.clipped > CLIPPED]
    if clipped:
        notes.append(
            f"clipped (more than {CLIPPED:.1%} of the samples at full scale): {len(clipped):,}, such as {clipped[0]}"
        )
    size = sum(d.sound.samples.nbytes for d in decoded.values())
    if size >= MUCH:
        hours = sum(d.sound.seconds for d in decoded.values()) / 3600
        notes.append(f"{hours:.2g} hours of sound use {size / 2**30:.2g} GiB of memory; a lower rate needs less")
    return notes


def _metadata(files: _Files, options: ClipOptions) -> Attributes:
    """Columns of the metadata files, and of the file names if a pattern is set."""
    names = list(files.decoded)
    table = attributes(files.tables, names, SOUND_FILES)
    if options.names is None:
        return table
    columns = dict(table.columns)
    for column, values in columns_from_names(names, options.names).items():
        columns[column] = [values[n] for n in names]
    return replace(table, columns=columns)


def _with_groups(items: Sequence[Item], table: Attributes, options: ClipOptions, notes: list[str]) -> list[Item]:
    """The items, each in the group of its value in the group column, or of its own file.

    Raises UserError if the column does not exist, or is the label column as well: a label that is held out must occur
    in training, a group that is held out must not.
    """
    column = options.group
    if column is None:
        return [replace(i, group=SOUND.digest(i.value)) for i in items]
    if column not in table.columns:
        raise UserError(
            f"No column {column!r} to group by. Columns found: {', '.join(table.columns) or 'none'}. Set "
            "`data.group` to one of these, or omit it: then every file is a group of its own."
        )
    if column == options.label_column:
        raise UserError(
            f"{column!r} is set as group and as label_column, but labels that are held out must occur in training and "
            "groups that are held out must not. Omit one of the two."
        )
    values = table.columns[column]
    groups = len({v for v in values if v is not None})
    notes.append(f"{column}: {groups:,} groups, each on one side of the split, and therefore not a condition")
    return [
        replace(i, group=SOUND.digest(i.value) if v is None else f"{column}={v}")
        for i, v in zip(items, values, strict=True)
    ]


# --------------------------------------------------------------------------- cutting


def _beginnings(items: Sequence[Item], frames: int, notes: list[str]) -> list[Item]:
    """The first `frames` samples of every sound, faded out if it is longer."""
    long = sum(len(i.value.samples) > frames for i in items)
    if long:
        notes.append(
            Omission(
                f"{long:,} of {len(items):,} sounds are longer than a clip: only their beginning is used "
                "(`data.long=slice` makes several clips)"
            )
        )

    def beginning(sound: Sound) -> Sound:
        return Sound(fit_length(sound.samples, frames, min(round(FADE * sound.rate), frames // 4)), sound.rate)

    return [replace(i, value=beginning(i.value)) if len(i.value.samples) > frames else i for i in items]


def _sliced(items: Sequence[Item], frames: int, options: ClipOptions, notes: list[str]) -> list[Item]:
    """Clips of at most `frames` samples, without silent clips of long sounds.

    If there are only few recordings, all of them long, whole ones cannot be held out. Then the last part of each is
    held out, which shares no sample with the rest; but not if groups are set, since the same voice would be on both
    sides.
    """
    hop = max(1, round(frames * (1 - options.overlap)))
    long = [i for i in items if len(i.value.samples) > frames]
    declared = any(i.split for i in items)
    divided = options.group is None and len(items) <= FEW and len(long) == len(items) and not declared
    out: list[Item] = []
    silent: list[Item] = []
    for item in items:
        total = len(item.value.samples)
        border = total - max(frames, round(HELD * total)) if divided else 0
        if border >= frames:
            clips = _cut(item, 0, border, frames, hop, "train")
            clips += _cut(item, border, total, frames, hop, "validation")
        else:
            clips = _cut(item, 0, total, frames, hop, item.split)
        threshold = _loudest_frame(item.value) * 10 ** (QUIET / 10) if options.trim else 0.0
        for clip in clips:
            (out if _loudest_frame(clip.value) > threshold else silent).append(clip)
    if silent:
        notes.append(
            Omission(
                f"{counted(len(silent), 'silent clip')} of long sounds left out, such as {silent[0].source}"
                + (f" ({-QUIET:g} dB below the loudest part; `data.trim=false` keeps them)" if options.trim else "")
            )
        )
    if long:
        notes.append(
            f"{counted(len(long), 'sound')} longer than a clip: {counted(len(out), 'clip')} of "
            f"{counted(len(items), 'sound')} (`data.long=cut` uses only the beginnings)"
        )
    if divided and any(i.split == "validation" for i in out):
        notes.append(f"few recordings: the last tenth of each of the {len(items):,} is held out")
    return out


def _loudest_frame(sound: Sound) -> float:
    """The energy of the loudest FRAME."""
    size = max(1, round(FRAME * sound.rate))
    return float(frame_energies(sound.samples, size, size).max())


def _cut(item: Item, start: int, stop: int, frames: int, hop: int, split: str | None) -> list[Item]:
    """The clips of samples `start` to `stop` of one sound. A remainder of at most ROUNDED at its end is ignored: its
    clip would nearly equal the one before."""
    x, rate = item.value.samples, item.value.rate
    rest = (stop - start - frames) % hop
    if stop - start > frames and rest <= ROUNDED * rate:
        stop -= rest
    if start == 0 and stop == len(x) <= frames:
        return [item]
    return [
        replace(
            item,
            value=Sound(x[start + a : start + b], rate),
            source=f"{item.source} ({(start + a) / rate:.2f} s)",
            split=split,
        )
        for a, b in windows(stop - start, frames, hop)
    ]
