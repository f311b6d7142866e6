"""Edits of existing images and sounds: the possible changes, and their translation into the space of the family."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import Codec, Cond, Edit, Examples, UserError, registry
from afresh.core.cost import check_cost
from afresh.core.rng import Rng
from afresh.core.solver_progress import blocks, reporting
from afresh.engine.sampling import energy as e
from afresh.engine.sampling.request import Request, check_negative, make_cond, words
from afresh.engine.sampling.samples import Samples
from afresh.engine.training.network import precision
from afresh.runs.inputs import encoded, ingredient
from afresh.runs.run import Run, join
from afresh.runs.works import hooks_of, settings_of_works

TARGET_DEVIATION = 0.05  # the deviation from a target, in [-1, 1], that a weight of 1 corresponds to
BATCH_SIZE = 64  # images that are edited in one batch
STRENGTH = 0.6  # the default strength of an edit


Wanted = Callable[[Tensor], "e.Energy | None"]  # rows of a batch -> their energy, which is to become small


@dataclass(frozen=True)
class Change:
    """The changes to make to every image or sound. All changes that are set apply together.

    `strength`: how much may change, from 0 to 1. `mask` (H, W): true where the image may change. `upscale`: the factor
    by which to enlarge a smaller image. `palette`: colours as #rrggbb. `edges`: an image whose edges to follow.
    `style`: an image whose texture and colours to follow. `function`: FILE.py:FUNCTION, a differentiable function to
    minimise. `weight`: how closely to follow these targets; 1 means to within about 0.05 of [-1, 1].
    `hole`: the seconds of a sound that may change, START:END.
    """

    strength: float | None = None
    mask: Any = None
    upscale: int = 1
    palette: Sequence[str] = ()
    edges: Any = None
    style: Any = None
    function: str | None = None
    weight: float = 1.0
    hole: str | None = None


def check_modality(run: Run, change: Change) -> None:
    """Raises UserError if the run makes sounds and the change applies to images only."""
    image_only = {"mask": change.mask is not None, "upscale": change.upscale != 1, "palette": bool(change.palette)}
    image_only |= {"edges": change.edges is not None, "style": change.style is not None}
    names = ", ".join(f"`{name}`" for name, is_set in image_only.items() if is_set)
    if names and run.encoder.space.timed:
        raise UserError(
            f"{names}: only for images, and {run.path} makes sounds. Sounds can be edited with `hole`, `extend` and "
            "`loop` in seconds, with `strength`, and with a `function` of your own."
        )


def energies(run: Run, change: Change) -> tuple[list[tuple[float, e.Energy]], float]:
    """The energies of the targets of a change, each with its weight, and a weight for all of them."""
    parts: list[tuple[float, e.Energy]] = []
    check_modality(run, change)
    if change.palette:
        parts.append((1.0, e.palette(colours(change.palette, run.encoder.space.shape[0]))))
    if change.edges is not None:
        parts.append((1.0, e.edges(encoded(run, [change.edges]))))
    if change.style is not None:
        parts.append((1.0, e.style(encoded(run, [change.style]))))
    if change.function is not None:
        parts.append((2 * TARGET_DEVIATION**2, e.by_name(change.function)))  # the user's weight applies unscaled
    if not (math.isfinite(change.weight) and change.weight > 0):
        raise UserError(f"`weight` must be a number above 0. Given: {change.weight}.")
    if change.weight != 1 and not parts and change.upscale == 1:
        raise UserError(
            "`weight` is how closely to follow `palette`, `edges`, `style`, `function` or `upscale`. Give one of them, "
            "or leave `weight` out."
        )
    return parts, change.weight / (2 * TARGET_DEVIATION**2)


def colours(names: Sequence[str], channels: int) -> Tensor:
    """Return colours (K, C) in [-1, 1]. Raises UserError if a colour name is invalid."""
    from PIL import ImageColor

    try:
        rgb = torch.tensor([ImageColor.getrgb(n)[:3] for n in names], dtype=torch.float32)
    except ValueError as error:
        raise UserError(f"`palette` takes colours, as names or #rrggbb: {error}.") from None
    if channels == 1:
        rgb = (rgb @ torch.tensor([0.299, 0.587, 0.114]))[:, None]
    return rgb / 127.5 - 1


@dataclass
class Editor:
    """Edits images or sounds with one run: brings them, masks and targets into the space of the family.

    Raises UserError if the run makes neither images nor sounds, or if its family cannot edit.
    """

    run: Run
    request: Request = field(default_factory=Request)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        run = self.run
        if run.encoder.space.kind != "field" and run.family.latents is None:
            raise UserError(
                f"{run.path} makes neither images nor sounds, and it has no latents of {run.encoder.kind.plural}, so "
                "there is nothing to edit. To fill in parts of a text, use `infill`."
            )
        if run.family.edit is None:
            able = [f.name for f in registry.families() if f.edit is not None]
            raise UserError(f"{run.family.name} cannot edit. Families that can: {', '.join(able)}.")
        run.result_settings(self.settings)
        if self.request.negative is not None:
            check_negative(self.request, run.settings(self.settings))

    def cond(self, n: int) -> Cond:
        """The conditions of n edits; parts that the request does not name are left open."""
        return make_cond(self.run.conds, Cond.unconditional(self.run.conds, n), self.request, self.run.encoder)

    @property
    def requested(self) -> dict[str, Any]:
        """The request and the chosen settings, as they are recorded."""
        chosen = self.run.settings(self.settings).model_dump(exclude_unset=True)
        return words(self.request) | {k: v for k, v in chosen.items() if k in self.settings or k == "part_guidance"}

    def samples(
        self, values: Sequence[Any], x: Tensor, described: Sequence[dict[str, Any]], inputs: Sequence[Any]
    ) -> Samples:
        """Edited values, of which each names its input by the number `picture`. Those of one input are a row of a
        grid, if there are several of each."""
        each = len(x) // len(inputs)
        columns = each if 1 < each < len(x) else None
        hooks = hooks_of(self.run)
        used = [ingredient(self.run, value) for value in inputs] if hooks else []
        return Samples(
            values,
            x,
            self.cond(len(x)),
            described,
            self.seed,
            self.run.encoder,
            hooks=hooks,
            ingredients=[[used[d["picture"]]] for d in described] if used else (),
            arrangement=self.run.result_settings(self.settings, columns),
        )

    def check_windows(self, count: int, keep: bool = True) -> None:
        """Raises UserError if so many windows cost more than is allowed. `keep`: whether parts of them are kept."""
        each = self.run.family.evaluations.edit(self.run.space, self.run.settings(self.settings), keep)
        check_cost(count * each, f"{count:,} {'parts' if keep else 'edits'} of {each:,} evaluations each")

    def apply(self, start: Tensor, strength: float, keep: Tensor | None, wanted: Wanted, weight: float) -> Tensor:
        """Edit `start` (n, *shape), given and returned in the space of the modality, in batches of BATCH_SIZE."""
        run, codec = self.run, self.run.codec
        edit, settings = run.family.edit, settings_of_works(run, self.settings)
        modules = run.modules_for(settings)
        assert edit is not None
        self.check_windows(len(start), keep is not None)
        out = []
        for rows in blocks(torch.arange(len(start)).split(BATCH_SIZE), "editing"):
            task = Edit(start[rows], strength, None if keep is None else keep[rows], wanted(rows), weight)
            if codec is not None:
                task = through(codec, task)
            cond = self.cond(len(rows))
            with precision(run.train), reporting("drawing samples"):
                x = edit(modules, run.config, run.space, task, cond, Rng(self.seed), rows, settings).cpu()
            x = x.float() if x.is_floating_point() else x
            out.append(x if codec is None else codec.decode(x))
        x = join(out, run.encoder.space)
        if keep is None:
            return x
        return torch.where(keep, start, x if codec is None else continued(x, start, keep, codec.factor))


def through(codec: Codec, task: Edit) -> Edit:
    """Translate an edit into the codec's space. A latent is kept if everything that it encodes is kept."""
    start, keep, energy = task.start, task.keep, task.energy
    assert start is not None
    coded = codec.encode(Examples(start, Cond(len(start))))
    z = coded.x * coded.scale + coded.shift if coded.x.is_floating_point() else coded.x.long()
    if keep is not None:
        editable = (~keep.all(1, keepdim=True)).float()
        padding = [-n % codec.factor for n in reversed(keep.shape[2:])]
        editable = nn.functional.pad(editable, [p for n in padding for p in (0, n)])  # nothing changes beyond the edge
        pool = (nn.functional.max_pool1d, nn.functional.max_pool2d, nn.functional.max_pool3d)[len(padding) - 1]
        kept = pool(editable, codec.factor) < 0.5  # (B, 1, *grid)
        each = z[0].numel() // kept[0].numel()
        keep = kept.flatten(1).repeat_interleave(each, 1) if codec.target.grid else kept.expand_as(z)
    latent_energy = None if energy is None else lambda x: energy(codec.decode(x))
    return Edit(z, task.strength, keep, latent_energy, task.weight)


def continued(x: Tensor, start: Tensor, keep: Tensor, reach: int) -> Tensor:
    """x (B, C, *grid) with the mean difference of `start` to it where values are kept, which fades within about `reach`
    cells beyond them. A codec decodes what is kept a little differently, which would show as a seam."""
    if not x.is_floating_point() or reach == 1:
        return x
    pool = (nn.functional.avg_pool1d, nn.functional.avg_pool2d, nn.functional.avg_pool3d)[x.dim() - 3]

    def blurred(v: Tensor) -> Tensor:
        for _ in range(2):
            v = pool(v, 2 * reach + 1, 1, reach, count_include_pad=False)
        return v

    kept = keep.to(x.dtype)
    share = blurred(kept)
    return x + blurred((start - x) * kept) / share.clamp_min(1e-6) * (2 * share).clamp_max(1)


def change_record(change: Change) -> dict[str, Any]:
    """The change as it is recorded with its samples."""
    out: dict[str, Any] = {}
    for name in ("strength", "function", "hole"):
        if getattr(change, name) is not None:
            out[name] = getattr(change, name)
    for name in ("mask", "edges", "style"):
        value = getattr(change, name)
        if value is not None:
            out[name] = str(value) if isinstance(value, str | Path) else True
    if change.upscale > 1:
        out["upscale"] = change.upscale
    if change.palette:
        out["palette"] = list(change.palette)
    return out


def window_starts(length: int, size: int) -> list[int]:
    """The starts of windows of `size` that cover `length`, each overlapping half of the one before."""
    if length <= size:
        return [0]
    return [*list(range(0, length - size, max(1, size // 2))), length - size]
