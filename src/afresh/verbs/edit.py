"""The verb `edit`: fill in, vary and enlarge existing images and sounds, or guide them to a palette, edges or a
style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from afresh.core import UserError
from afresh.engine.sampling import energy as e
from afresh.engine.sampling.samples import Samples
from afresh.runs.inputs import at_full_size, encoded, enlarged, fitted_mask
from afresh.verbs.editor import STRENGTH, Change, Editor, change_record, energies
from afresh.verbs.extend_audio import extended, load_given, looped, refilled, samples_of, span, varied, windows
from afresh.verbs.outpaint import outpainted


def changed(
    editor: Editor,
    inputs: Sequence[Any],
    change: Change,
    each: int = 1,
    extend: float | None = None,
    loop: float | None = None,
    outpaint: Mapping[str, int] | None = None,
) -> Samples:
    """Make `each` edits of every image or sound.

    `extend` and `loop` are seconds to add to a sound, and `outpaint` the pixels to add at the sides of an image. Each
    of the three excludes the others; `extend` and `loop` also exclude any other change. Raises UserError for excluded
    combinations and if the model does not support the edit.
    """
    alone = [name for name, value in (("outpaint", outpaint), ("extend", extend), ("loop", loop)) if value is not None]
    if len(alone) > 1 or (alone and alone != ["outpaint"] and change != Change(weight=change.weight)):
        raise UserError(
            "`outpaint`, `extend` and `loop` cannot be combined with each other or with other changes.",
            "edit_alone",
            given=alone,
        )
    if extend is not None:
        return extended(editor, inputs, extend, each)
    if loop is not None:
        return looped(editor, inputs, loop, each)
    if outpaint is not None:
        return outpainted(editor, inputs, outpaint, change, each)
    return edit(editor, inputs, change, each)


def edit(editor: Editor, inputs: Sequence[Any], change: Change, each: int = 1) -> Samples:
    """Make `each` edits of every image or sound in turn. Raises UserError if no change is requested or possible."""
    run = editor.run
    if run.encoder.space.kind == "tokens" and change != Change(strength=change.strength):
        raise UserError(
            f"{run.encoder.kind.plural.capitalize()} are varied by `strength` alone. Leave the other changes out."
        )
    if change.hole is not None and not run.encoder.space.timed:
        raise UserError(f"`hole` is for sounds, and {run.path} makes {run.record.modality}. Give a `mask` instead.")
    parts, weight = energies(run, change)
    extent = change.mask, change.strength, change.hole
    if all(value is None for value in extent) and not parts and change.upscale == 1:
        raise UserError(
            "No change is requested. Say how much may change (`strength=0.5`), where (`mask=FILE`, or `hole=0.2:0.5` "
            "for sounds), or what to follow (`palette`, `edges`, `style`, `function`, `upscale`)."
        )
    full_size = getattr(run.result_settings(editor.settings), "full_size", False)
    if full_size and change.upscale != 1:
        raise UserError(
            "`full_size` pastes an edit back at the size of its picture, which `upscale` changes. Leave one out."
        )
    if run.encoder.space.timed:
        return edit_sounds(editor, inputs, change, each, e.total(parts), weight)
    low: Tensor | None = None
    if change.upscale != 1:
        low, start = enlarged(run, inputs, change.upscale)
        low = low.repeat_interleave(each, 0)
    else:
        start = encoded(run, inputs)
    start = start.repeat_interleave(each, 0)

    def wanted(rows: Tensor) -> e.Energy | None:
        low_resolution = [] if low is None else [(1.0, e.agrees(low[rows], change.upscale))]
        return e.total([*parts, *low_resolution])

    keep = None if change.mask is None else (~fitted_mask(run, change.mask, inputs)).expand_as(start)
    default = STRENGTH if keep is None and low is None else 1.0
    x = editor.apply(start, default if change.strength is None else change.strength, keep, wanted, weight)
    if low is not None:  # the solver leaves a small difference, which is spread evenly
        rest = low - e.blocks(x, change.upscale)
        x = x + nn.functional.interpolate(rest, scale_factor=change.upscale)
    described = [
        {"picture": i // each, "variation": i % each, **change_record(change), **editor.requested}
        for i in range(len(start))
    ]
    values = run.encoder.decode(x)
    if full_size:
        values = at_full_size(run, inputs, run.encoder.decode(start), values, change.mask)
    return editor.samples(values, x, described, inputs)


def edit_sounds(
    editor: Editor, sounds: Sequence[Any], change: Change, each: int, wanted: e.Energy | None, weight: float
) -> Samples:
    """Make `each` edits of every sound in turn; sounds may have any length."""
    default = STRENGTH if change.hole is None else 1.0
    strength = default if change.strength is None else change.strength

    def draw(window: Tensor, keep: Tensor | None, part: int) -> Tensor:
        return replace(editor, seed=editor.seed + 7919 * part).apply(window, strength, keep, lambda _: wanted, weight)

    run, hole = editor.run, change.hole
    if hole is not None:
        span(hole)
    given = [load_given(run, s) for s in sounds]
    editor.check_windows(each * sum(windows(run, g, hole) for g in given), hole is not None)
    edited = [varied(run, g, each, draw) if hole is None else refilled(run, g, hole, each, draw) for g in given]
    return samples_of(editor, edited, change_record(change), sounds)
