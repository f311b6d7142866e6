"""The verb `edit`: pictures that exist, filled in, varied, enlarged, steered to a palette, edges or a style."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from afresh import catalog
from afresh.control import energy as e
from afresh.core import Codec, Cond, Edit, Examples, Item, UserError
from afresh.data.pictures import PictureError, Pixels, open_picture
from afresh.request import Request, make_cond
from afresh.rng import Rng
from afresh.run import Run
from afresh.samples import Samples
from afresh.training.loop import precision

NEAR = 0.05  # how far, in [-1, 1], what is wanted may be missed: a weight of 1 stands for this
AT_ONCE = 64  # pictures that are edited side by side
STRENGTH = 0.6  # of a change that is only wished for


Wanted = Callable[[Tensor], "e.Energy | None"]  # rows of a batch -> what is wanted of them


@dataclass(frozen=True)
class Change:
    """What is to be done to every picture; all that is given at once.

    `strength`: how much may change, 0 to 1. `mask` (H, W): true where it may. `upscale`: the picture is a smaller one,
    to be drawn again so much larger. `palette`: colours as #rrggbb. `edges`, `style`: pictures whose edges, whose
    texture and colours it should have. `function`: MODULE:FUNCTION, differentiable, to become small. `weight` of the
    wishes: 1 = met to within about 0.05 of [-1, 1]. `hole`: of sounds the seconds that may change, START:END.
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


def picture(given: str | Path | Pixels) -> Pixels:
    """A file's pixels (H, W, C) uint8, or an array as it is. Raises UserError for what is no picture."""
    if isinstance(given, np.ndarray):
        return given if given.ndim == 3 else given[..., None]
    path = Path(given)
    try:
        image = open_picture(path)
        return np.asarray(image.convert("RGB"))
    except (PictureError, OSError) as why:
        raise UserError(f"{path} is no picture that can be read: {why}.") from None


def encoded(run: Run, given: Sequence[Any]) -> Tensor:
    """Pictures or sounds, or files of them, as the run sees them, (B, *shape) float32 in its modality's space.

    Raises UserError for a file that cannot be read.
    """
    values = [Path(g) if isinstance(g, str | Path) else g for g in given]
    values = [v[..., None] if isinstance(v, np.ndarray) and v.ndim == 2 else v for v in values]
    examples = run.encoder.encode([Item(v) for v in values])
    return examples.x.float() * examples.scale + examples.shift


def hole(run: Run, given: str) -> Tensor:
    """(1, ..., T) bool, true in the time that may change: 'START:END' in seconds, either of which may be left out.

    Raises UserError for another form, a time that is not there, and for a run that makes no sounds.
    """
    space = run.encoder.space
    start, found, end = given.partition(":")
    try:
        a, b = float(start or 0), float(end or space.seconds)
    except ValueError:
        found, a, b = "", 0.0, 0.0
    if not space.timed:
        raise UserError(f"--hole is for sounds, and {run.path} makes {run.record.modality}: give a --mask.")
    if not found or not 0 <= a < b or a >= space.seconds or (a == 0 and b >= space.seconds):
        raise UserError(
            f"--hole takes START:END in seconds, within the {space.seconds:.3g} s of this model's sounds and not all "
            f"of them; 0.5: is from there to the end. Given: {given!r}."
        )
    columns = space.shape[-1]
    at = torch.arange(columns).view(*[1] * len(space.shape), columns) / columns * space.seconds
    return (at >= a) & (at < b)


def fitted_mask(run: Run, mask: Any) -> Tensor:
    """(1, 1, H, W) bool, true where values may change: what is bright in a picture of the run's own size.

    Raises UserError for another size: a mask that is stretched would not fit its picture.
    """
    pixels = mask if isinstance(mask, np.ndarray) else picture(mask)
    flat = pixels.mean(-1) if pixels.ndim == 3 else pixels
    height, width = run.encoder.space.shape[1:]
    if flat.shape != (height, width):
        raise UserError(
            f"The mask has {flat.shape[1]}x{flat.shape[0]} pixels; this model's pictures have {width}x{height}. Give a "
            "mask of that size, white where the picture may change."
        )
    change = torch.from_numpy(flat > (0.5 if flat.dtype == bool else 127.5))[None, None]
    if not bool(change.any()) or bool(change.all()):
        what = "black: nothing may change" if not bool(change.any()) else "white: nothing is kept"
        raise UserError(f"The mask is all {what}. White is where the picture may change.")
    return change


def only_pictures(run: Run, change: Change) -> None:
    """Raises UserError for a run that makes sounds and is asked for what only pictures have."""
    asked = {"mask": change.mask is not None, "upscale": change.upscale > 1, "palette": bool(change.palette)}
    asked |= {"edges": change.edges is not None, "style": change.style is not None}
    given = ", ".join(f"--{name}" for name, wanted in asked.items() if wanted)
    if given and run.encoder.space.timed:
        raise UserError(
            f"{given}: only for pictures, and {run.path} makes sounds. For sounds there are --hole START:END, --extend "
            "and --loop in seconds, --strength, and --function of your own."
        )


def wishes(run: Run, change: Change) -> tuple[list[tuple[float, e.Energy]], float]:
    """Energies with their weights, and the weight of all."""
    parts: list[tuple[float, e.Energy]] = []
    only_pictures(run, change)
    if change.palette:
        parts.append((1.0, e.palette(colours(change.palette, run.encoder.space.shape[0]))))
    if change.edges is not None:
        parts.append((1.0, e.edges(encoded(run, [change.edges]))))
    if change.style is not None:
        parts.append((1.0, e.style(encoded(run, [change.style]))))
    if change.function is not None:
        parts.append((2 * NEAR**2, e.by_name(change.function)))  # a user's own weight is taken as it is
    if not (np.isfinite(change.weight) and change.weight > 0):
        raise UserError(f"--weight is a number above 0. Given: {change.weight}.")
    return parts, change.weight / (2 * NEAR**2)


def colours(names: Sequence[str], channels: int) -> Tensor:
    """(K, C) in [-1, 1]. Raises UserError for what is no colour."""
    from PIL import ImageColor

    try:
        rgb = torch.tensor([ImageColor.getrgb(n)[:3] for n in names], dtype=torch.float32)
    except ValueError as why:
        raise UserError(f"--palette takes colours, as names or #rrggbb: {why}.") from None
    if channels == 1:
        rgb = (rgb @ torch.tensor([0.299, 0.587, 0.114]))[:, None]
    return rgb / 127.5 - 1


@dataclass
class Editor:
    """Draws edits of one run: brings pictures and sounds, masks and wishes into the family's own space."""

    run: Run
    request: Request = field(default_factory=Request)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        run = self.run
        if run.encoder.space.kind != "field":
            raise UserError(
                f"{run.path} makes neither pictures nor sounds: there is none to edit. Texts are filled with --infill."
            )
        if run.family.edit is None:
            able = [f for f in catalog.FAMILIES if catalog.family(f).edit is not None]
            raise UserError(f"{run.family.name} cannot edit. Families that can: {', '.join(able)}.")

    def cond(self, n: int) -> Cond:
        """What is asked for; a part that is not named is left open."""
        return make_cond(self.run.conds, Cond.nothing(self.run.conds, n), self.request, self.run.encoder)

    def apply(self, start: Tensor, strength: float, keep: Tensor | None, wanted: Wanted, weight: float) -> Tensor:
        """x (n, *shape) in the modality's space: what the family makes of `start` (n, *shape), a few at a time."""
        run, codec = self.run, self.run.codec
        edit, settings = run.family.edit, run.settings(self.settings)
        assert edit is not None
        out = []
        for rows in torch.arange(len(start)).split(AT_ONCE):
            task = Edit(start[rows], strength, None if keep is None else keep[rows], wanted(rows), weight)
            if codec is not None:
                task = through(codec, task)
            cond = self.cond(len(rows))
            with precision(run.train):
                x = edit(run.modules, run.config, run.space, task, cond, Rng(self.seed), rows, settings).float().cpu()
            out.append(x if codec is None else codec.decode(x))
        x = torch.cat(out)
        return x if keep is None else torch.where(keep, start, x)

    def edit(self, pictures: Sequence[Any], change: Change, each: int = 1) -> Samples:
        """`each` edits of every picture in turn. Raises UserError for what cannot be done."""
        run = self.run
        parts, weight = wishes(run, change)
        places = change.mask, change.strength, change.hole
        if all(given is None for given in places) and not parts and change.upscale == 1:
            raise UserError(
                "Nothing is asked for. Say how much may change (--strength 0.5), where (--mask FILE, of sounds --hole "
                "0.2:0.5), or what is wanted (--palette, --edges, --style, --function, --upscale)."
            )
        low: Tensor | None = None
        if change.upscale > 1:
            low, start = enlarged(run, pictures, change.upscale)
            low = low.repeat_interleave(each, 0)
        else:
            start = encoded(run, pictures)
        start = start.repeat_interleave(each, 0)

        def wanted(rows: Tensor) -> e.Energy | None:
            more = [] if low is None else [(1.0, e.agrees(low[rows], change.upscale))]
            return e.total([*parts, *more])

        keep = kept(run, change, start)
        default = STRENGTH if keep is None and low is None else 1.0
        x = self.apply(start, default if change.strength is None else change.strength, keep, wanted, weight)
        if low is not None:  # the steps of the solver leave a little; what is left is spread evenly
            rest = low - e.blocks(x, change.upscale)
            x = x + nn.functional.interpolate(rest, scale_factor=change.upscale)
        described = [{"picture": i // each, "variation": i % each, **asked(change)} for i in range(len(start))]
        return Samples(run.encoder.decode(x), x, self.cond(len(start)), described, self.seed, run.encoder)


def kept(run: Run, change: Change, start: Tensor) -> Tensor | None:
    """Where values must stay, like start; None where nothing is said of places. Raises UserError for what does not
    fit."""
    given = [fitted_mask(run, change.mask)] if change.mask is not None else []
    given += [hole(run, change.hole)] if change.hole is not None else []
    if not given:
        return None
    may = given[0] if len(given) == 1 else given[0] & given[1]
    return (~may).expand_as(start)


def through(codec: Codec, task: Edit) -> Edit:
    """An edit in the codec's own space: a value is kept where all that it stands for is kept."""
    start, keep, energy = task.start, task.keep, task.energy
    assert start is not None
    coded = codec.encode(Examples(start, Cond(len(start))))
    z = coded.x * coded.scale + coded.shift if coded.x.is_floating_point() else coded.x.long()
    if keep is not None:
        grid = (codec.target.grid or codec.target.shape[1:])[: keep.dim() - 2]  # codes of a place may be one more axis
        factor = [a // b for a, b in zip(keep.shape[2:], grid, strict=True)]
        pool = (nn.functional.max_pool1d, nn.functional.max_pool2d, nn.functional.max_pool3d)[len(factor) - 1]
        whole = -pool(-keep.all(1, keepdim=True).float(), factor) > 0.5  # (B, 1, *grid)
        each = z[0].numel() // whole[0].numel()
        keep = whole.flatten(1).repeat_interleave(each, 1) if codec.target.grid else whole.expand_as(z)
    wanted = None if energy is None else lambda x: energy(codec.decode(x))
    return Edit(z, task.strength, keep, wanted, task.weight)


def enlarged(run: Run, pictures: Sequence[Any], factor: int) -> tuple[Tensor, Tensor]:
    """(low (B, C, h, w), low at the run's size): pictures that are `factor` times as small as the run's.

    Raises UserError for another size, naming the one that is needed.
    """
    height, width = run.encoder.space.shape[1:]
    if height % factor or width % factor:
        raise UserError(f"--upscale {factor} does not divide this model's size, {width}x{height}.")
    values = [picture(p) for p in pictures]
    for v, name in zip(values, pictures, strict=True):
        if v.shape[:2] != (height // factor, width // factor):
            shown = f"{name}: " if isinstance(name, str | Path) else ""
            raise UserError(
                f"{shown}--upscale {factor} makes {width}x{height} of {width // factor}x{height // factor} pixels. "
                f"Given: {v.shape[1]}x{v.shape[0]}."
            )
    blown = [np.repeat(np.repeat(v, factor, 0), factor, 1) for v in values]
    start = encoded(run, blown)
    return e.blocks(start, factor), start


def asked(change: Change) -> dict[str, Any]:
    """What was asked for, in words."""
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
