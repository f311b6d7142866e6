"""Sound files to clips of one rate, number of channels and length: what is chosen from the data, and what was done.

Memory: every file that is used stands in it once, at the rate chosen, as 4 bytes a sample and channel (an hour at
16 kHz is 230 MB); clips are views of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from afresh.core import Corpus, Item, Refused, Sound, UserError
from afresh.data.audio.kind import SOUND
from afresh.data.audio.near_duplicates import Near, handle_near_duplicates
from afresh.data.audio.sound_folder import SOUND_FILES, columns_from_names, map_sounds, open_sounds
from afresh.data.audio.sounds import SILENT, DecodedSound, Header, SoundError, decode_sound, header, peak
from afresh.data.audio.waves import fitted, frame_energies, to_loudness, trim_bounds, windows
from afresh.data.columns import add_columns
from afresh.data.media_folder import Attributes, Damaged, MediaCollection, attributes, layout, stop_on_damage

USUAL = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
HIGHEST = 22_050  # samples a second that are chosen without being asked for
LONGEST = 2.0  # seconds of a clip that are chosen without being asked for
COVERED = 0.97  # of the sounds fit a length that is chosen for them to be whole
CLIPPED = 0.001  # of its samples, from which a file counts as clipped
FEW = 10  # recordings up to which each is divided in time, since whole ones cannot be held out
HELD = 0.1  # of a recording
ROUNDED = 0.01  # seconds by which a chosen length may be given back otherwise than it was
SHORTEST = 0.02  # seconds of a sound that is used
PARTLY = "damaged", "cut short", "shorter than"  # how notes begin on files that are used as far as they go
OF_NO_USE = "silent", "too short"  # how reasons begin for leaving out a sound that is not damaged
TAIL = 0.1  # of a sound's energy that may follow its first clip for this to be a tail,
MOSTLY = 0.75  # the share of the longer sounds for which that must be so, for all to be cut,
ONE_SHOT = 10.0  # and the seconds beyond which a sound is a recording, however loud it begins
FADE = 0.03  # seconds in which a sound that is cut fades out; a quarter of the clip at most
QUIET = -40.0  # dB below its sound's loudest frame up to which a clip of it is silent, as for trimming
FRAME = 0.02  # seconds of a frame
MUCH = 1 << 28  # bytes of sound from which their number is said


@dataclass(frozen=True)
class ClipOptions:
    """How files become clips. None: chosen from the data. `seconds` is the length of a clip, `overlap` the share of it
    that the next clip of a long recording has in common with it. `trim`: silence before and after is cut off.
    `long`: whether a sound longer than a clip gives several, or its beginning alone, faded out. `loudness`: LKFS that
    every sound is brought to; None: as it is. `names`: what the parts of the files' names are
    (columns_from_names). `group`: a column whose values stay on one side of the split, and are no condition: those of
    the held-out side are never learnt. `near`: whether recordings that are nearly an earlier one are kept, on its side
    of the split, or dropped."""

    rate: int | None = None
    channels: int | None = None
    seconds: float | None = None
    overlap: float = 0.25
    long: Literal["slice", "cut"] | None = None
    trim: bool = True
    loudness: float | None = None
    names: str | None = None
    group: str | None = None
    label_column: str | None = None
    damaged: Damaged = "skip"
    near: Near = "keep"


@dataclass
class Files:
    """What was read, by name, with what is said of it."""

    heard: dict[str, DecodedSound]
    refused: list[Refused]
    tables: Mapping[str, bytes]
    notes: list[str] = field(default_factory=list)


def read_clips(path: Path, how: ClipOptions) -> Corpus:
    """The clips of a folder or archive as items.

    Raises UserError when there is no usable sound, or for a column that is not there.
    """
    found = open_sounds(path)
    heads = dict(map_sounds(header, found))
    good = {name: head for name, head in heads.items() if isinstance(head, Header)}
    SOUND_FILES.require(
        len(good), path, [*found.refused, *(Refused(n, w) for n, w in heads.items() if isinstance(w, str))]
    )
    notes: list[str] = []
    rate, channels = rate_of(good, how, notes), channels_of(good, how, notes)
    files = decoded(path, found, how, rate, channels)
    notes += files.notes
    table = described_by(files, how, notes)
    names = list(files.heard)
    folders = layout(names, SOUND_FILES)
    seconds, long = length_of([h.sound for h in files.heard.values()], how, notes)
    whole = [
        Item(
            files.heard[name].sound,
            name,
            {"label": folders.labels[name]} if name in folders.labels else {},
            split=folders.splits[name],
        )
        for name in names
    ]
    grouped = with_groups(whole, table, how, notes)
    columns = {name: values for name, values in table.columns.items() if name != how.group}
    grouped, more = add_columns(grouped, columns, how.label_column)
    grouped, dropped = handle_near_duplicates(grouped, how.near, notes)
    frames = round(seconds * rate)
    if long == "cut":
        items = beginnings(grouped, frames, notes)
    else:
        items = sliced(grouped, frames, how, notes)
    settled = {"rate": rate, "channels": channels, "seconds": frames / rate, "long": long}
    corpus = Corpus(items, files.refused + table.refused + dropped, notes + folders.notes + more, settled=settled)
    return stop_on_damage(corpus, how.damaged)


# --------------------------------------------------------------------------- what is chosen


def rate_of(heads: Mapping[str, Header], how: ClipOptions, notes: list[str]) -> int:
    """The rate asked for, or the most frequent one up to HIGHEST."""
    count = Counter(h.rate for h in heads.values())
    there = ", ".join(f"{r:,} Hz ({n:,})" if len(count) > 1 else f"{r:,} Hz" for r, n in count.most_common(4))
    if how.rate is not None:
        if how.rate > max(count):
            notes.append(f"rate {how.rate:,} Hz is above that of every file ({there}): nothing is gained by it")
        return how.rate
    usual = count.most_common(1)[0][0]
    rate = min(usual, HIGHEST)
    if rate not in USUAL:
        rate = max((r for r in USUAL if r <= rate), default=USUAL[0])
    notes.append(f"rate {rate:,} Hz, because the files have {there}; another: rate")
    return rate


def channels_of(heads: Mapping[str, Header], how: ClipOptions, notes: list[str]) -> int:
    """One unless asked for; said where files have more."""
    more = sum(h.channels > 1 for h in heads.values())
    if how.channels is None and more:
        notes.append(f"mono: {more:,} of {len(heads):,} files have more channels, which are mixed; another: channels=2")
    return how.channels or 1


def length_of(sounds: Sequence[Sound], how: ClipOptions, notes: list[str]) -> tuple[float, str]:
    """The seconds asked for; those of nearly all sounds; or LONGEST where they are longer. And what is done to longer
    ones: where nearly all sounds fit, or what follows is a tail, the beginning is used; else they give several clips.
    """
    every = sorted(s.seconds for s in sounds)
    there = f"{every[0]:.3g} to {every[-1]:.3g} s, median {every[len(every) // 2]:.3g} s"
    nearly = every[min(len(every) - 1, int(COVERED * len(every)))]
    seconds = how.seconds or min(nearly, LONGEST)
    fits = nearly <= seconds + ROUNDED
    fade = not fits and how.long is None and fading(sounds, seconds, notes)
    long = how.long or ("cut" if fits or fade else "slice")
    if how.seconds is not None:
        return seconds, long
    why = "longer sounds give several clips"
    if nearly <= LONGEST:
        why = f"{COVERED:.0%} of the sounds are no longer"
    elif long == "cut":
        why = "of longer sounds the beginning is used"
    notes.append(f"clips of {seconds:.3g} s: {why} (they have {there}); another: seconds")
    return seconds, long


def fading(sounds: Sequence[Sound], seconds: float, notes: list[str]) -> bool:
    """Whether the sounds longer than a clip are single events that fade, such as drums: a clip of the tail alone would
    be taught as one of them. Rain goes on, and so does what is longer than ONE_SHOT."""
    longer = [s for s in sounds if s.seconds > seconds + ROUNDED]
    tails = sum(s.seconds <= ONE_SHOT and after(s, seconds) <= TAIL for s in longer)
    if tails < MOSTLY * len(longer):
        return False
    notes.append(
        f"{tails:,} of {len(longer):,} sounds longer than a clip fade: at least {1 - TAIL:.0%} of their energy is in "
        "its length. What follows makes no clips of its own; or: long=slice"
    )
    return True


def after(sound: Sound, seconds: float) -> float:
    """The share of a sound's energy that comes after so many seconds."""
    square = np.square(sound.samples, dtype=np.float64).sum(1)
    return float(square[round(seconds * sound.rate) :].sum() / square.sum())


# --------------------------------------------------------------------------- reading


def decoded(path: Path, found: MediaCollection, how: ClipOptions, rate: int, channels: int) -> Files:
    """Every usable file, trimmed and at its loudness. Raises UserError when none is left."""
    results = dict(map_sounds(lambda source: prepared(decode_sound(source, rate, channels), how), found))
    reasons = ((n, why) for n, why in results.items() if isinstance(why, str))
    refused = [*found.refused, *(Refused(n, why, damaged=not why.startswith(OF_NO_USE)) for n, why in reasons)]
    heard = {name: h for name, h in results.items() if isinstance(h, DecodedSound)}
    SOUND_FILES.require(len(heard), path, refused)
    if how.damaged == "stop":  # a file that is used as far as it goes is damaged, too
        told = ((name, note) for name, h in heard.items() for note in h.notes if note.startswith(PARTLY))
        refused += [Refused(name, note, damaged=True) for name, note in told]
    return Files(heard, refused, found.tables, said(heard))


def prepared(heard: DecodedSound, how: ClipOptions) -> DecodedSound:
    """Without the silence around it, at the loudness asked for. Raises SoundError for what is silent or too short."""
    if heard.silent:
        raise SoundError(f"{OF_NO_USE[0]}: no sample is above {heard.peak:.2g} of full scale")
    if peak(heard.sound.samples) < SILENT:
        raise SoundError(
            f"{OF_NO_USE[0]} once its {heard.header.channels} channels are mixed: they cancel (one is the other turned "
            "over). Keep one of them alone, or read both: channels=2"
        )
    x, rate = heard.sound.samples, heard.sound.rate
    if how.trim:
        a, b = trim_bounds(x, rate)
        x = x[a:b]
    if len(x) < SHORTEST * rate:
        raise SoundError(f"{OF_NO_USE[1]}: {len(x) / rate:.3g} s; at least {SHORTEST:g} s are needed")
    if how.loudness is not None:
        x = to_loudness(x, rate, how.loudness)
    return replace(heard, sound=Sound(x, rate))


def said(heard: Mapping[str, DecodedSound]) -> list[str]:
    """What was found in the files, counted, with an example each; and the memory that hours of sound take."""
    sources: dict[str, list[str]] = {}
    for name, h in heard.items():
        for note in h.notes:
            sources.setdefault(note, []).append(name)
    notes = [
        f"{note}: {names[0]}" + (f" and {len(names) - 1:,} more" if len(names) > 1 else "")
        for note, names in sources.items()
    ]
    damaged = [n for n, h in heard.items() if any(note.startswith("damaged") for note in h.notes)]
    if len(damaged) > 1:
        notes.append(f"{len(damaged):,} of {len(heard):,} files are damaged, and used as far as they can be read")
    clipped = [n for n, h in heard.items() if h.clipped > CLIPPED]
    if clipped:
        notes.append(
            f"clipped (over {CLIPPED:.1%} of the samples at full scale): {len(clipped):,}, such as {clipped[0]}"
        )
    taken = sum(h.sound.samples.nbytes for h in heard.values())
    if taken >= MUCH:
        hours = sum(h.sound.seconds for h in heard.values()) / 3600
        notes.append(
            f"{hours:.2g} hours of sound are {taken / 2**30:.2g} GiB in memory (files are read piece by piece; what "
            "was read stays); less: a lower rate"
        )
    return notes


def described_by(files: Files, how: ClipOptions, notes: list[str]) -> Attributes:
    """Columns of the metadata, and of the names where a pattern is given."""
    names = list(files.heard)
    table = attributes(files.tables, names, SOUND_FILES)
    if how.names is None:
        return table
    columns = dict(table.columns)
    for column, values in columns_from_names(names, how.names).items():
        columns[column] = [values[n] for n in names]
    return replace(table, columns=columns)


def with_groups(items: Sequence[Item], table: Attributes, how: ClipOptions, notes: list[str]) -> list[Item]:
    """Every item in the group of its column's value, or of its file. UserError where the column is not there, or is to
    be the label as well: no label that is held out may be missing from training."""
    column = how.group
    if column is None:
        return [replace(i, group=SOUND.digest(i.value)) for i in items]
    if column not in table.columns:
        raise UserError(
            f"There is no column {column!r} to group by. Columns found: {', '.join(table.columns) or 'none'}. Give one "
            "of these as group, or leave it out: then every file is a group of its own."
        )
    if column == how.label_column:
        raise UserError(
            f"{column!r} is given as group and as label_column, but labels that are held out must be learnt and groups "
            "that are held out must not. Leave one of the two out."
        )
    values = table.columns[column]
    groups = len({v for v in values if v is not None})
    notes.append(f"{column}: {groups:,} groups, each on one side of the split, and therefore no condition")
    return [
        replace(i, group=SOUND.digest(i.value) if v is None else f"{column}={v}")
        for i, v in zip(items, values, strict=True)
    ]


# --------------------------------------------------------------------------- cutting


def beginnings(items: Sequence[Item], frames: int, notes: list[str]) -> list[Item]:
    """At most the first `frames` samples of every sound; what is cut fades out."""
    long = sum(len(i.value.samples) > frames for i in items)
    if long:
        notes.append(
            f"{long:,} of {len(items):,} sounds are longer than a clip: their beginning is used; or: long=slice"
        )

    def begun(sound: Sound) -> Sound:
        return Sound(fitted(sound.samples, frames, min(round(FADE * sound.rate), frames // 4)), sound.rate)

    return [replace(i, value=begun(i.value)) if len(i.value.samples) > frames else i for i in items]


def sliced(items: Sequence[Item], frames: int, how: ClipOptions, notes: list[str]) -> list[Item]:
    """Clips of at most `frames` samples; silent ones of long sounds are left out. Few long recordings are each divided
    in time, as whole ones cannot be held out: the last part, which shares no sample with the rest. Not where groups
    were asked for: the same voice would be on both sides."""
    hop = max(1, round(frames * (1 - how.overlap)))
    long = [i for i in items if len(i.value.samples) > frames]
    divided = how.group is None and len(items) <= FEW and len(long) == len(items) and not any(i.split for i in items)
    out: list[Item] = []
    silent: list[Item] = []
    for item in items:
        total = len(item.value.samples)
        border = total - max(frames, round(HELD * total)) if divided else 0
        if border >= frames:
            every = parts(item, 0, border, frames, hop, "train")
            every += parts(item, border, total, frames, hop, "validation")
        else:
            every = parts(item, 0, total, frames, hop, item.split)
        least = loudest(item.value) * 10 ** (QUIET / 10) if how.trim else 0.0
        for clip in every:
            (out if loudest(clip.value) > least else silent).append(clip)
    if silent:
        notes.append(
            f"{len(silent):,} clips of long sounds are silent and left out, such as {silent[0].source}"
            + (f" ({-QUIET:g} dB below the loudest there; or: trim=false)" if how.trim else "")
        )
    if long:
        notes.append(
            f"{len(long):,} sounds are longer than a clip: {len(out):,} clips of {len(items):,} sounds; or: long=cut"
        )
    if divided and any(i.split == "validation" for i in out):
        notes.append(f"few recordings: the last tenth of each is held out ({len(items):,})")
    return out


def loudest(sound: Sound) -> float:
    """The energy of its loudest frame of 20 ms."""
    size = max(1, round(FRAME * sound.rate))
    return float(frame_energies(sound.samples, size, size).max())


def parts(item: Item, start: int, stop: int, frames: int, hop: int, split: str | None) -> list[Item]:
    """The clips of samples `start` to `stop` of one sound; of what is left at its end up to ROUNDED none is made, which
    would be the one before once more."""
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


def padded(sound: Sound, frames: int) -> Any:
    """Its samples (frames, C): cut, or followed by silence."""
    return fitted(sound.samples, frames)
