"""Edits of sounds of any length, by sliding a window of the model's length: extend, loop, vary and fill a hole.

Every new part is sampled next to up to half a window of existing sound, so that no seam is audible where it begins. An
input sound has its own length: it is not padded with silence before it is extended, and a sound that is longer than a
window is kept whole. Its rate, its channels and every sample that may not change stay: only the new part is the run's,
at the rate and with the channels of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afresh.core import Item, Sound, UserError, events
from afresh.data.audio.kind import SOUND
from afresh.data.audio.mels import splice_sound
from afresh.data.audio.sounds import mix, read_sound
from afresh.data.audio.waves import Samples as Wave
from afresh.data.audio.waves import join, resampled
from afresh.engine.sampling.samples import Samples
from afresh.runs.inputs import encoded
from afresh.runs.run import Run
from afresh.verbs.editor import Editor, window_starts

MOST = 600.0  # the most seconds of an input sound, and of an addition to it
JOINED = 0.005  # seconds over which a new part takes on what the run's rate and channels lack of the sound beside it

Draw = Callable[[Tensor, "Tensor | None", int], Tensor]  # (window, what to keep of it, its number) -> the edited window


def columns(run: Run, seconds: float, what: str) -> int:
    """The number of columns on the time axis for `seconds`.

    Raises UserError if the run does not make sounds, or if the time is too short or too long.
    """
    space = run.encoder.space
    if not space.timed:
        raise UserError(f"{what} is for sounds, and {run.path} makes {run.record.modality}. Leave it out.")
    step = space.seconds / space.shape[-1]
    if not (math.isfinite(seconds) and seconds <= MOST and round(seconds / step) >= 1):
        raise UserError(f"{what} takes from {step:.3g} to {MOST:g} seconds. Given: {seconds:g}.")
    return round(seconds / step)


@dataclass(frozen=True)
class Given:
    """A sound as it was given, `own`, and as the run reads it, at its rate and with its channels."""

    own: Sound
    read: Sound
    name: str

    def with_part(self, drawn: Wave, start: int, stop: int, loop: bool = False) -> Sound:
        """The given sound with its own samples `start` to `stop` from `drawn` (T, C), a sound of the run.

        Rate, channels and all other samples are those of the given sound. It becomes longer if `stop` is beyond its
        end; with `loop`, the new part leads to its beginning.
        """
        own, fade = self.own.samples, round(JOINED * self.own.rate)
        whole = of_length(own, max(len(own), stop))
        around = np.concatenate([whole, own[:fade]]) if loop else whole
        at_own_rate = mix(resampled(drawn, self.read.rate, self.own.rate), own.shape[1])
        joined = join(around, of_length(at_own_rate, len(around)), start, stop, min(fade, stop - start))
        return replace(self.own, samples=joined[: len(whole)])


def load_given(run: Run, source: Any) -> Given:
    """Read a sound or a sound file, as it is and at the sample rate and number of channels of the run.

    Raises UserError for a file that cannot be read, for another type of value and for more than MOST seconds.
    """
    blank = longest_sound(run)
    file = Path(source) if isinstance(source, str) else source
    own = read_sound(file, max_seconds=MOST + 1)
    if own.seconds > MOST:
        raise UserError(f"{source} is longer than {MOST:g} s. Give a part of it.")
    read = read_sound(file, blank.rate, blank.samples.shape[1], MOST + 1)
    return Given(own, read, "the sound" if isinstance(source, Sound) else str(source))


def longest_sound(run: Run) -> Sound:
    """A sound as long as the longest that the run has learnt, with its rate and channels."""
    blank: Sound = run.encoder.decode(torch.zeros(1, *run.encoder.space.shape))[0]
    return blank


def learnt_columns(run: Run) -> int:
    """How many columns of a window hold sound; after them, training clips were padded with silence."""
    blank = longest_sound(run)
    return max(1, len(blank.samples) // samples_per_column(run, blank))


def of_length(x: Wave, length: int) -> Wave:
    """x (T, C) cut, or with silence after it, to `length` samples."""
    return np.concatenate([x[:length], np.zeros((max(0, length - len(x)), x.shape[1]), np.float32)])


def encode_long(run: Run, sound: Sound) -> Tensor:
    """Encode a sound of any length as (1, ..., columns); less than one column at its end may be dropped.

    A sound that is longer than a window is encoded in windows that overlap by half, and the middle of each is used,
    because at its edges a window lacks the context before and after it.
    """
    size = run.encoder.space.shape[-1]
    each = samples_per_column(run, sound)
    total = max(1, len(sound.samples) // each)
    step, edge = max(1, size // 2), size // 4
    starts = range(0, max(0, total - size) + step, step)
    x = np.zeros(((starts[-1] + size) * each, sound.samples.shape[1]), np.float32)
    x[: min(len(sound.samples), len(x))] = sound.samples[: len(x)]
    examples = run.encoder.encode([Item(Sound(x[a * each : (a + size) * each], sound.rate)) for a in starts])
    windows = examples.x.float() * examples.scale + examples.shift
    last = len(windows) - 1
    middles = [w[..., edge if k else 0 : size if k == last else step + edge] for k, w in enumerate(windows)]
    return torch.cat(middles, -1)[None, ..., :total]


def extended(editor: Editor, sounds: Sequence[Any], seconds: float, n: int) -> Samples:
    """Extend each sound by `seconds` at its end, in n versions. What is given stays as it is."""
    run = editor.run
    count, half = columns(run, seconds, "`extend`"), max(1, learnt_columns(run) // 2)
    editor.check_windows(len(sounds) * n * -(-count // half))
    edited = [extend_sound(editor, load_given(run, s), seconds, n) for s in sounds]
    return samples_of(editor, edited, {"extend": seconds}, sounds)


def extend_sound(editor: Editor, given: Given, seconds: float, n: int) -> tuple[Tensor, list[Sound]]:
    """A sound with `seconds` added at its end, in n versions: x (n, ..., columns), and the sounds."""
    run, read = editor.run, given.read
    each, added = samples_per_column(run, read), round(seconds * read.rate)
    start, offset = encode_to_end(run, read)
    end, kept = len(read.samples) + added, start.shape[-1]
    x = extend_canvas(editor, start.repeat_interleave(n, 0), -(-(end - offset) // each) - kept)
    first = max(0, kept - run.encoder.space.shape[-1])
    whole = replace(read, samples=of_length(read.samples, end))
    drawn = spliced(run, whole, x[..., first:], offset + first * each, len(read.samples), end)
    total = len(given.own.samples)
    return x, [given.with_part(d, total, total + round(seconds * given.own.rate)) for d in drawn]


def encode_to_end(run: Run, sound: Sound) -> tuple[Tensor, int]:
    """Columns (1, ..., columns) of which the last one ends with the sound, and the sample at which the first begins."""
    each = samples_per_column(run, sound)
    offset = len(sound.samples) % each if len(sound.samples) > each else 0
    return encode_long(run, replace(sound, samples=sound.samples[offset:])), offset


def spliced(run: Run, whole: Sound, x: Tensor, low: int, start: int, stop: int) -> list[Wave]:
    """The samples of `whole` (T, C), those from `start` to `stop` from each row of x (n, ..., columns), decoded.

    The columns begin at the sample `low`.
    """
    part = replace(whole, samples=whole.samples[low : low + x.shape[-1] * samples_per_column(run, whole)])
    wider = torch.cat([x, x[..., -1:]], -1)  # is not a clip of the run, which would be cut to the length it has learnt
    out = []
    for decoded in run.encoder.decode(wider):
        drawn = replace(part, samples=of_length(decoded.samples, len(part.samples)))
        filled_in = splice_sound(part, drawn, start - low, stop - low)
        samples = whole.samples.copy()
        samples[start:stop] = filled_in.samples[start - low : stop - low]
        out.append(samples)
    return out


def extend_canvas(editor: Editor, canvas: Tensor, count: int) -> Tensor:
    """Extend canvas (B, ..., T) by `count` columns: first up to the size of a window, then half a window at a time."""
    size, part = learnt_columns(editor.run), 0
    while count:
        new = min(count, max(1, size // 2, size - canvas.shape[-1]))
        before = canvas[..., max(0, canvas.shape[-1] - (size - new)) :]
        added = filled(replace(editor, seed=editor.seed + 7919 * part), before, new, before[..., :0])
        canvas = torch.cat([canvas, added], -1)
        count, part = count - new, part + 1
    return canvas


def filled(editor: Editor, before: Tensor, count: int, after: Tensor) -> Tensor:
    """Sample (B, ..., count) between two parts that are kept.

    The three together are at most a window long; the model is free to fill the rest of the window.
    """
    size, a = editor.run.encoder.space.shape[-1], before.shape[-1]
    shape, b = before.shape[:-1], a + count + after.shape[-1]
    window = torch.cat([before, before.new_zeros(*shape, count), after, before.new_zeros(*shape, size - b)], -1)
    keep = torch.zeros_like(window, dtype=torch.bool)
    keep[..., :a] = True
    keep[..., a + count : b] = True
    return editor.apply(window, 1.0, keep, lambda rows: None, 1.0)[..., a : a + count]


def looped(editor: Editor, sounds: Sequence[Any], seconds: float, n: int) -> Samples:
    """Make each sound loop, in n versions: `seconds` of new sound lead from its end back to its beginning.

    Raises UserError if this is more than half of the longest sound that the run has learnt.
    """
    run = editor.run
    columns(run, seconds, "`loop`")
    longest = run.encoder.space.longest
    if seconds > longest / 2 + 1e-6:
        raise UserError(
            f"`loop` takes at most {longest / 2:g} s, half the length of this model's sounds, "
            f"because the other half holds the end and the beginning that the new part connects. Given: {seconds:g}."
        )
    edited = [loop_sound(editor, load_given(run, s), seconds, n) for s in sounds]
    return samples_of(editor, edited, {"loop": seconds}, sounds)


def loop_sound(editor: Editor, given: Given, seconds: float, n: int) -> tuple[Tensor, list[Sound]]:
    """A sound with `seconds` added that lead from its end to its beginning, in n versions, as `extend_sound`."""
    run, read = editor.run, given.read
    each, added, total = samples_per_column(run, read), round(seconds * read.rate), len(given.own.samples)
    count, size = -(-added // each), learnt_columns(run)
    before, after = (size - count + 1) // 2, (size - count) // 2
    start, offset = encode_to_end(run, read)
    rest = read.samples[count * each - added :]  # the last new column may hold the beginning of the sound already
    end = encode_long(run, replace(read, samples=rest))[..., :after] if len(rest) >= each else start[..., :0]
    first = max(0, start.shape[-1] - before)
    start, end = start.repeat_interleave(n, 0), end.repeat_interleave(n, 0)
    new = filled(editor, start[..., first:], count, end)
    silent = of_length(read.samples, len(read.samples) + added)
    whole = replace(read, samples=np.concatenate([silent, read.samples[: after * each]]))
    seen = torch.cat([start[..., first:], new, end], -1)
    drawn = spliced(run, whole, seen, offset + first * each, len(read.samples), len(read.samples) + added)
    sounds = [given.with_part(d, total, total + round(seconds * given.own.rate), loop=True) for d in drawn]
    return torch.cat([start, new], -1), sounds


def samples_of(
    editor: Editor, edited: Sequence[tuple[Tensor, list[Sound]]], record: dict[str, Any], inputs: Sequence[Any]
) -> Samples:
    """The samples of the n versions of each sound, (n, ..., T) and decoded; in `x`, shorter ones are padded with
    zeros."""
    n, longest = len(edited[0][0]), max(x.shape[-1] for x, _ in edited)
    x = torch.cat([torch.nn.functional.pad(x, (0, longest - x.shape[-1])) for x, _ in edited])
    values = [sound for _, versions in edited for sound in versions]
    described = [{"picture": i // n, "variation": i % n, **record, **editor.requested} for i in range(len(x))]
    return editor.samples(values, x, described, inputs)


# --------------------------------------------------------------------------- changed in place


def span(text: str) -> tuple[float, float | None]:
    """Parse 'START:END' in seconds into (start, end); both are optional, and an end of None is the end of the sound.

    Raises UserError for any other form.
    """
    start, colon, end = text.partition(":")
    try:
        a, b = float(start or 0), float(end) if end.strip() else None
    except ValueError:
        colon, a, b = "", 0.0, None
    if not colon or not 0 <= a < (math.inf if b is None else b) or b == math.inf:
        raise UserError(
            f"`hole` takes START:END in seconds, with START before END; 0.5: is from 0.5 s to the end. Given: {text!r}."
        )
    return a, b


def hole_in(run: Run, sound: Sound, hole: str, name: object) -> tuple[int, int]:
    """The first sample of a hole in a sound and the one after its last.

    Raises UserError if the hole extends beyond the sound by more than a column, is empty, or is the whole sound.
    """
    start, end = span(hole)
    length, count = sound.seconds, len(sound.samples)
    column = run.encoder.space.seconds / run.encoder.space.shape[-1]
    a, b = round(start * sound.rate), count if end is None else round(end * sound.rate)
    if a >= count or (b - count) / sound.rate > column:
        raise UserError(
            f"`hole={hole}` extends beyond {name}, which lasts {length:.3f} s. Give START:END within the sound, or "
            "extend the sound with `extend=SECONDS`."
        )
    b = min(b, count)
    if a >= b or (a == 0 and b == count):
        what = "contains no sample of" if a >= b else "is all of"
        raise UserError(
            f"`hole={hole}` {what} {name}, which lasts {length:.3f} s at {sound.rate:,} Hz. Give a part of it, or "
            "`strength=1` to replace the sound entirely."
        )
    return a, b


def around(first: int, stop: int, total: int, size: int) -> tuple[int, int]:
    """The range of columns to encode around a hole, within a sound of `total` columns.

    It is a window with the hole in its middle. If that leaves less than a quarter of a window on either side of the
    hole, it is the hole with half a window on either side.
    """
    side = (size - (stop - first)) // 2
    side = side if side >= size // 4 else size // 2
    low = max(0, min(first - side, total - size))
    return low, min(total, max(stop + side, low + size))


def refilled(run: Run, given: Given, hole: str, n: int, draw: Draw) -> tuple[Tensor, list[Sound]]:
    """Fill the hole of a sound in n ways: x (n, ..., columns) around the hole, and the n complete sounds.

    Outside the hole, the samples of the sounds equal those of the input. Raises UserError if the hole is not within the
    sound.
    """
    sound, size = given.read, run.encoder.space.shape[-1]
    each = samples_per_column(run, sound)
    own = hole_in(run, given.own, hole, given.name)
    a = own[0] * sound.rate // given.own.rate
    b = min(len(sound.samples), -(-own[1] * sound.rate // given.own.rate))
    first, stop = a // each, -(-b // each)
    low, high = around(first, stop, -(-len(sound.samples) // each), size)
    part = replace(sound, samples=sound.samples[low * each : high * each])
    x = fields_of(run, part, high - low).repeat_interleave(n, 0)
    may = torch.zeros(x.shape[-1], dtype=torch.bool)
    may[first - low : stop - low] = True
    x = swept(x, may, size, draw)
    return x, [given.with_part(drawn, *own) for drawn in spliced(run, sound, x, low * each, a, b)]


def varied(run: Run, given: Given, n: int, draw: Draw) -> tuple[Tensor, list[Sound]]:
    """Make n variations of a sound of any length, window by window: x (n, ..., columns) and the decoded sounds."""
    sound, size = given.read, run.encoder.space.shape[-1]
    if (own := SOUND.describe(given.own)) != (made := SOUND.describe(sound)):
        events.note(f"note: {given.name} is {own}; its variations are drawn from {made}, as this model makes them")
    count = -(-len(sound.samples) // samples_per_column(run, sound))
    x = fields_of(run, sound, count).repeat_interleave(n, 0)
    x = swept(x, torch.ones(x.shape[-1], dtype=torch.bool), size, draw)
    decoded = run.encoder.decode(x)
    if count <= size:  # the model determines the length
        return x, decoded
    return x, [replace(d, samples=of_length(d.samples, len(sound.samples))) for d in decoded]


def windows(run: Run, given: Given, hole: str | None) -> int:
    """How many windows of a sound are edited, by `varied` or, if there is a hole, about how many by `refilled`. Raises
    UserError as they do."""
    sound, size = given.read, run.encoder.space.shape[-1]
    if hole is None:
        return len(window_starts(-(-len(sound.samples) // samples_per_column(run, sound)), size))
    a, b = hole_in(run, given.own, hole, given.name)
    return len(window_starts((b - a) * sound.rate // given.own.rate // samples_per_column(run, sound) + size, size))


def samples_per_column(run: Run, sound: Sound) -> int:
    return round(run.encoder.space.seconds * sound.rate / run.encoder.space.shape[-1])


def fields_of(run: Run, sound: Sound, count: int) -> Tensor:
    """Encode a sound as (1, ..., columns).

    A sound of at most a window is padded with silence, as in training; a longer one has `count` columns.
    """
    if count <= run.encoder.space.shape[-1]:
        return encoded(run, [sound])
    missing = count * samples_per_column(run, sound) - len(sound.samples)
    return encode_long(run, replace(sound, samples=np.pad(sound.samples, ((0, missing), (0, 0)))))


def swept(x: Tensor, may: Tensor, size: int, draw: Draw) -> Tensor:
    """Edit x (B, ..., T) where `may` (T,) is true, in windows of `size` from the beginning to the end.

    Each window overlaps half of the one before, and keeps what that one has already edited.
    """
    x, left = x.clone(), may.clone()
    for part, at in enumerate(window_starts(x.shape[-1], size)):
        window, free = x[..., at : at + size].clone(), left[at : at + size]
        if free.any():
            keep = None if free.all() else (~free).expand_as(window)
            x[..., at : at + size] = draw(window, keep, part)
            left[at : at + size] = False
    return x
