"""Sounds of any length, extended, made to loop, varied or with a hole filled: a window of the model's length slides on
over what is there already.

Every new part is drawn beside half a window of what is there, so that no seam is heard where it begins. A sound that is
given counts with its own length: one that is to go on is not followed by silence first, and a longer one is kept whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from afresh.core import Item, Sound, UserError
from afresh.data.audio.mels import splice_sound
from afresh.data.audio.sounds import read_sound
from afresh.runs.inputs import encoded
from afresh.runs.run import Run
from afresh.sampling.samples import Samples
from afresh.tasks.editor import Editor, places

MOST = 600.0  # seconds of a sound that is given, and of one that is drawn

Draw = Callable[[Tensor, "Tensor | None", int], Tensor]  # (window, what is kept of it, its number) -> the same, changed


def columns(run: Run, seconds: float, what: str) -> int:
    """Places of the time axis for `seconds`. Raises UserError for a run that makes no sounds, and for a time that is
    too short or too long."""
    space = run.encoder.space
    if not space.timed:
        raise UserError(f"{what} is for sounds, and {run.path} makes {run.record.modality}. Leave it out.")
    step = space.seconds / space.shape[-1]
    if not (math.isfinite(seconds) and seconds <= MOST and round(seconds / step) >= 1):
        raise UserError(f"{what} takes seconds from {step:.3g} to {MOST:g}. Given: {seconds:g}.")
    return round(seconds / step)


def heard(run: Run, given: Any) -> Sound:
    """A sound or a file of one at the run's own rate and number of channels, which an empty sound of it tells.

    Raises UserError for a file that cannot be read, for another kind of value and for more than MOST seconds.
    """
    own = run.encoder.decode(torch.zeros(1, *run.encoder.space.shape))[0]
    source = Path(given) if isinstance(given, str) else given
    sound = read_sound(source, own.rate, own.samples.shape[1], MOST + 1)
    if sound.seconds > MOST:
        raise UserError(f"{given} is longer than {MOST:g} s: give a part of it.")
    return sound


def whole(run: Run, given: Any) -> Tensor:
    """A sound of any length as the run sees it, (1, ..., places), at most a place shorter.

    A longer one than a window is read in windows that overlap by half, of which the middles are kept: at its edges a
    window knows nothing of what comes before and after.
    """
    space, sound = run.encoder.space, heard(run, given)
    size = space.shape[-1]
    each = samples_of_place(run, sound)
    total = max(1, len(sound.samples) // each)
    step, edge = max(1, size // 2), size // 4
    starts = range(0, max(0, total - size) + step, step)
    x = np.zeros(((starts[-1] + size) * each, sound.samples.shape[1]), np.float32)
    x[: min(len(sound.samples), len(x))] = sound.samples[: len(x)]
    parts = [Item(Sound(x[a * each : (a + size) * each], sound.rate)) for a in starts]
    found = run.encoder.encode(parts)
    windows = found.x.float() * found.scale + found.shift
    last = len(windows) - 1
    kept = [w[..., edge if k else 0 : size if k == last else step + edge] for k, w in enumerate(windows)]
    return torch.cat(kept, -1)[None, ..., :total]


def extended(editor: Editor, sounds: Sequence[Any], seconds: float, n: int) -> Samples:
    """n continuations of each sound by so many seconds, at its end."""
    count = columns(editor.run, seconds, "`extend`")
    starts = [whole(editor.run, s).repeat_interleave(n, 0) for s in sounds]
    return told(editor, [longer(editor, s, count) for s in starts], {"extend": seconds})


def longer(editor: Editor, canvas: Tensor, count: int) -> Tensor:
    """canvas (B, ..., T) with `count` more places at its end: what fits into a window after it, then half a window at a
    time."""
    size, part = editor.run.encoder.space.shape[-1], 0
    while count:
        new = min(count, max(size // 2, size - canvas.shape[-1]))
        before = canvas[..., max(0, canvas.shape[-1] - (size - new)) :]
        made = filled(replace(editor, seed=editor.seed + 7919 * part), before, new, before[..., :0])
        canvas = torch.cat([canvas, made], -1)
        count, part = count - new, part + 1
    return canvas


def filled(editor: Editor, before: Tensor, count: int, after: Tensor) -> Tensor:
    """(B, ..., count) between two parts that are kept; together they are at most a window, whose rest is left to the
    model."""
    size, a = editor.run.encoder.space.shape[-1], before.shape[-1]
    shape, b = before.shape[:-1], a + count + after.shape[-1]
    window = torch.cat([before, before.new_zeros(*shape, count), after, before.new_zeros(*shape, size - b)], -1)
    keep = torch.zeros_like(window, dtype=torch.bool)
    keep[..., :a] = True
    keep[..., a + count : b] = True
    return editor.apply(window, 1.0, keep, lambda rows: None, 1.0)[..., a : a + count]


def looped(editor: Editor, sounds: Sequence[Any], seconds: float, n: int) -> Samples:
    """n loops of each sound: so many new seconds lead from its end back to its beginning. At most half a window."""
    run = editor.run
    count, size = columns(run, seconds, "`loop`"), run.encoder.space.shape[-1]
    if count > size // 2:
        raise UserError(
            f"`loop` takes at most {run.encoder.space.seconds / 2:.3g} s, half of this model's sounds: the rest of a "
            f"window shows what the new part is to lead from and to. Given: {seconds:g}."
        )
    before, after = (size - count + 1) // 2, (size - count) // 2
    out = []
    for start in (whole(run, s).repeat_interleave(n, 0) for s in sounds):
        last = start[..., max(0, start.shape[-1] - before) :]
        out.append(torch.cat([start, filled(editor, last, count, start[..., :after])], -1))
    return told(editor, out, {"loop": seconds})


def told(editor: Editor, found: Sequence[Tensor], asked: dict[str, Any]) -> Samples:
    """Samples of what was made of each sound, (n, ..., T) each; x is followed by zeros where another is longer."""
    run, n = editor.run, len(found[0])
    longest = max(f.shape[-1] for f in found)
    x = torch.cat([torch.nn.functional.pad(f, (0, longest - f.shape[-1])) for f in found])
    values = [v for f in found for v in run.encoder.decode(f)]
    described = [{"picture": i // n, "variation": i % n, **asked, **editor.requested} for i in range(len(x))]
    return Samples(values, x, editor.cond(len(x)), described, editor.seed, run.encoder)


# --------------------------------------------------------------------------- changed in place


def span(given: str) -> tuple[float, float | None]:
    """'START:END' in seconds, either of which may be left out: (start, end; None: to the end of the sound).

    Raises UserError for another form.
    """
    start, found, end = given.partition(":")
    try:
        a, b = float(start or 0), float(end) if end.strip() else None
    except ValueError:
        found, a, b = "", 0.0, None
    if not found or not 0 <= a < (math.inf if b is None else b) or b == math.inf:
        raise UserError(
            f"`hole` takes START:END in seconds, START before END; 0.5: is from there to the end. Given: {given!r}."
        )
    return a, b


def hole_in(run: Run, sound: Sound, given: str, name: object) -> tuple[int, int]:
    """The samples of a hole in a sound, first and after the last. Raises UserError for one that reaches beyond the
    sound by more than a place, is none of it or all of it."""
    start, end = span(given)
    length, count = sound.seconds, len(sound.samples)
    place = run.encoder.space.seconds / run.encoder.space.shape[-1]
    a, b = round(start * sound.rate), count if end is None else round(end * sound.rate)
    if a >= count or (b - count) / sound.rate > place:
        raise UserError(
            f"`hole={given}` reaches beyond {name}, which lasts {length:.3f} s. Give START:END within it, or let it "
            "go on: `extend=SECONDS`."
        )
    b = min(b, count)
    if a >= b or (a == 0 and b == count):
        what = "holds no sample of" if a >= b else "is all of"
        raise UserError(
            f"`hole={given}` {what} {name}, which lasts {length:.3f} s at {sound.rate:,} Hz. Give a part of it, or "
            "`strength=1` to draw it anew."
        )
    return a, b


def around(first: int, stop: int, total: int, size: int) -> tuple[int, int]:
    """The places that a hole is filled beside: a window of them with the hole in its middle, or half a window on either
    side of a hole for which that leaves less than a quarter; what a sound of `total` places has of them."""
    side = (size - (stop - first)) // 2
    side = side if side >= size // 4 else size // 2
    low = max(0, min(first - side, total - size))
    return low, min(total, max(stop + side, low + size))


def refilled(run: Run, given: Any, hole: str, n: int, draw: Draw) -> tuple[Tensor, list[Sound]]:
    """x (n, ..., places) around the hole of a sound, n times filled, and the n whole sounds, which are the given one to
    the sample outside the hole. Raises UserError for a hole that is not in the sound."""
    span(hole)
    sound, size = heard(run, given), run.encoder.space.shape[-1]
    each = samples_of_place(run, sound)
    a, b = hole_in(run, sound, hole, "the sound" if isinstance(given, Sound) else given)
    first, stop = a // each, -(-b // each)
    low, high = around(first, stop, -(-len(sound.samples) // each), size)
    part = replace(sound, samples=sound.samples[low * each : high * each])
    x = fields_of(run, part, high - low).repeat_interleave(n, 0)
    may = torch.zeros(x.shape[-1], dtype=torch.bool)
    may[first - low : stop - low] = True
    x = swept(x, may, size, draw)
    out = []
    for made in run.encoder.decode(x):
        drawn = np.zeros_like(part.samples)
        kept = min(len(made.samples), len(drawn))  # silence at its end was cut off
        drawn[:kept] = made.samples[:kept]
        filled_in = splice_sound(part, replace(made, samples=drawn), a - low * each, b - low * each)
        samples = sound.samples.copy()
        samples[a:b] = filled_in.samples[a - low * each : b - low * each]
        out.append(replace(sound, samples=samples))
    return x, out


def varied(run: Run, given: Any, n: int, draw: Draw) -> tuple[Tensor, list[Sound]]:
    """x (n, ..., places) and the sounds: n variations of a sound of any length, window by window."""
    sound, size = heard(run, given), run.encoder.space.shape[-1]
    count = -(-len(sound.samples) // samples_of_place(run, sound))
    x = fields_of(run, sound, count).repeat_interleave(n, 0)
    x = swept(x, torch.ones(x.shape[-1], dtype=torch.bool), size, draw)
    made = run.encoder.decode(x)
    if count <= size:  # as long as the model makes it
        return x, made
    return x, [replace(m, samples=m.samples[: len(sound.samples)]) for m in made]


def samples_of_place(run: Run, sound: Sound) -> int:
    return round(run.encoder.space.seconds * sound.rate / run.encoder.space.shape[-1])


def fields_of(run: Run, sound: Sound, count: int) -> Tensor:
    """(1, ..., places): a sound of at most a window followed by silence, as in training; `count` places of a longer
    one."""
    size = run.encoder.space.shape[-1]
    if count <= size:
        return encoded(run, [sound])
    missing = count * samples_of_place(run, sound) - len(sound.samples)
    return whole(run, replace(sound, samples=np.pad(sound.samples, ((0, missing), (0, 0)))))


def swept(x: Tensor, may: Tensor, size: int, draw: Draw) -> Tensor:
    """x (B, ..., T) changed where `may` (T,) says so: windows of `size` from the beginning to the end, each over half
    of the one before, which is done and kept."""
    x, left = x.clone(), may.clone()
    for part, at in enumerate(places(x.shape[-1], size)):
        window, free = x[..., at : at + size].clone(), left[at : at + size]
        if free.any():
            keep = None if free.all() else (~free).expand_as(window)
            x[..., at : at + size] = draw(window, keep, part)
            left[at : at + size] = False
    return x
