"""Edits of existing images and sounds: what may be asked for, and how it is brought into the family's own space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from afresh.core import Codec, Cond, Edit, Examples, UserError, registry
from afresh.core.rng import Rng
from afresh.runs.inputs import encoded
from afresh.runs.run import Run
from afresh.sampling import energy as e
from afresh.sampling.request import Request, make_cond, words
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
    texture and colours it should have. `function`: FILE.py:FUNCTION, differentiable, to become small. `weight` of the
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


def only_pictures(run: Run, change: Change) -> None:
    """Raises UserError for a run that makes sounds and is asked for what only pictures have."""
    asked = {"mask": change.mask is not None, "upscale": change.upscale != 1, "palette": bool(change.palette)}
    asked |= {"edges": change.edges is not None, "style": change.style is not None}
    given = ", ".join(f"`{name}`" for name, wanted in asked.items() if wanted)
    if given and run.encoder.space.timed:
        raise UserError(
            f"{given}: only for pictures, and {run.path} makes sounds. For sounds there are `hole`, `extend` "
            "and `loop` in seconds, `strength`, and `function` of your own."
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
    if not (math.isfinite(change.weight) and change.weight > 0):
        raise UserError(f"`weight` is a number above 0. Given: {change.weight}.")
    if change.weight != 1 and not parts and change.upscale == 1:
        raise UserError(
            "`weight` is how hard to pull to what is wished for: `palette`, `edges`, `style`, `function`, `upscale`. "
            "Give one of them, or leave it out."
        )
    return parts, change.weight / (2 * NEAR**2)


def colours(names: Sequence[str], channels: int) -> Tensor:
    """(K, C) in [-1, 1]. Raises UserError for what is no colour."""
    from PIL import ImageColor

    try:
        rgb = torch.tensor([ImageColor.getrgb(n)[:3] for n in names], dtype=torch.float32)
    except ValueError as why:
        raise UserError(f"`palette` takes colours, as names or #rrggbb: {why}.") from None
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
                f"{run.path} makes neither pictures nor sounds: there is none to edit. Texts are filled with `infill`."
            )
        if run.family.edit is None:
            able = [f for f in registry.FAMILIES if registry.family(f).edit is not None]
            raise UserError(f"{run.family.name} cannot edit. Families that can: {', '.join(able)}.")

    def cond(self, n: int) -> Cond:
        """What is asked for; a part that is not named is left open."""
        return make_cond(self.run.conds, Cond.unconditional(self.run.conds, n), self.request, self.run.encoder)

    @property
    def requested(self) -> dict[str, Any]:
        """What is asked for and the settings, in words."""
        found = self.run.settings(self.settings).model_dump(exclude_unset=True)
        return words(self.request) | {k: v for k, v in found.items() if k in self.settings or k == "part_guidance"}

    def apply(self, start: Tensor, strength: float, keep: Tensor | None, wanted: Wanted, weight: float) -> Tensor:
        """x (n, *shape) in the modality's space: what the family makes of `start` (n, *shape), a few at a time."""
        run, codec = self.run, self.run.codec
        edit, settings = run.family.edit, run.settings(self.settings)
        modules = run.modules_for(settings)
        assert edit is not None
        out = []
        for rows in torch.arange(len(start)).split(AT_ONCE):
            task = Edit(start[rows], strength, None if keep is None else keep[rows], wanted(rows), weight)
            if codec is not None:
                task = through(codec, task)
            cond = self.cond(len(rows))
            with precision(run.train):
                x = edit(modules, run.config, run.space, task, cond, Rng(self.seed), rows, settings).float().cpu()
            out.append(x if codec is None else codec.decode(x))
        x = torch.cat(out)
        return x if keep is None else torch.where(keep, start, x)


def through(codec: Codec, task: Edit) -> Edit:
    """An edit in the codec's own space: a value is kept where all that it stands for is kept."""
    start, keep, energy = task.start, task.keep, task.energy
    assert start is not None
    coded = codec.encode(Examples(start, Cond(len(start))))
    z = coded.x * coded.scale + coded.shift if coded.x.is_floating_point() else coded.x.long()
    if keep is not None:
        may, beyond = (~keep.all(1, keepdim=True)).float(), [-n % codec.factor for n in reversed(keep.shape[2:])]
        may = nn.functional.pad(may, [p for n in beyond for p in (0, n)])  # beyond the edge there is nothing to change
        pool = (nn.functional.max_pool1d, nn.functional.max_pool2d, nn.functional.max_pool3d)[len(beyond) - 1]
        whole = pool(may, codec.factor) < 0.5  # (B, 1, *grid)
        each = z[0].numel() // whole[0].numel()
        keep = whole.flatten(1).repeat_interleave(each, 1) if codec.target.grid else whole.expand_as(z)
    wanted = None if energy is None else lambda x: energy(codec.decode(x))
    return Edit(z, task.strength, keep, wanted, task.weight)


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


def places(length: int, size: int) -> list[int]:
    """Where windows of a size begin that cover a length, each over half of the one before."""
    if length <= size:
        return [0]
    stops = list(range(0, length - size, max(1, size // 2)))
    return [*stops, length - size]
