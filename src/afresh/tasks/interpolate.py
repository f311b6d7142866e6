"""The verb `blend`: from one picture to another through a model's latents, and along directions of attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Examples, Latents, UserError, registry
from afresh.runs.inputs import encoded
from afresh.runs.run import Run
from afresh.sampling.request import Request, labels_by_name, make_cond, words
from afresh.sampling.samples import Samples
from afresh.training.loop import precision

ENOUGH = 128  # pictures of a class that a direction is taken from


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """(n, D) on the great circle from a (D,) to b (D,) at t (n,), lengths interpolated beside (Shoemake 1985).

    Between two draws of a standard normal in many dimensions the straight line passes through points that are hardly
    ever drawn; the circle does not.
    """
    la, lb = a.norm(), b.norm()
    cosine = ((a @ b) / (la * lb).clamp_min(1e-12)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    t = t[:, None].to(a)
    if float(angle) < 1e-4:
        return (1 - t) * a + t * b
    unit = (torch.sin((1 - t) * angle) * a / la + torch.sin(t * angle) * b / lb) / torch.sin(angle)
    return unit * ((1 - t) * la + t * lb)


def check_given(second: Any, toward: str | None, between: Mapping[str, Any], along: Mapping[str, Any]) -> None:
    """Raises UserError unless there is either a second picture or a label to go toward, and for what belongs to the way
    `between` pictures or `along` a label beside the other one. None in them: not given."""
    if (second is None) == (toward is None):
        raise UserError("Give a second file to go to, or `toward=CLASS`, an attribute: one of them.")
    wrong = [f"`{name}`" for name, value in (along if toward is None else between).items() if value is not None]
    if wrong:
        what = "`toward=CLASS`" if toward is None else "the way to a second file"
        raise UserError(f"{', '.join(wrong)}: only with {what}. Leave it out, or ask for that.")


class Blender:
    """The way through a run's latents: codes of pictures, and pictures of codes."""

    def __init__(self, run: Run, settings: Any = None) -> None:
        self.run, self.settings = run, run.settings(settings or {})
        self.latents = latents_of(run)

    @torch.no_grad()
    def codes(self, x: Tensor, cond: Cond) -> Tensor:
        """x (B, *shape) in the modality's space -> z (B, D)."""
        run, codec = self.run, self.run.codec
        if codec is not None:
            coded = codec.encode(Examples(x, Cond(len(x))))
            x = coded.x * coded.scale + coded.shift
        with precision(run.train):
            modules = run.modules_for(self.settings)
            return self.latents.encode(modules, run.config, run.space, x, cond, self.settings).float()

    @torch.no_grad()
    def pictures(self, z: Tensor, cond: Cond) -> Tensor:
        run, codec = self.run, self.run.codec
        with precision(run.train):
            modules = run.modules_for(self.settings)
            x = self.latents.decode(modules, run.config, run.space, z, cond, self.settings).float().cpu()
        return x if codec is None else codec.decode(x)

    def between(self, a: Any, b: Any, n: int, first: Request, second: Request) -> Samples:
        """n pictures from a to b, asked from the first request to the second by steps as even (`Cond.toward`)."""
        if n < 2:
            raise UserError(f"A way between two has at least both ends, -n 2. Given: {n}.")
        run = self.run
        x = encoded(run, [a, b])
        ends = Cond.cat([self.cond(1, first), self.cond(1, second)])
        z = self.codes(x, ends)
        t = torch.linspace(0, 1, n)
        asked = ends.select(torch.zeros(n, dtype=torch.int64))
        if first != second:
            asked = replace(asked, toward=(ends.select(torch.ones(n, dtype=torch.int64)), t))
        made = self.pictures(slerp(z[0], z[1], t), asked)
        ways = {"": first} if first == second else {"from_": first, "to_": second}
        said = {f"{way}{k}": v for way, request in ways.items() for k, v in words(request).items()}
        described = [{"from_first": round(1 - float(v), 4), **said} for v in t]
        return Samples(run.encoder.decode(made), made, asked, described, 0, run.encoder)

    def direction(self, train: Examples, label: str, other: str | None = None) -> Tensor:
        """(D,): mean code of pictures with a label less that of pictures without it, or with the `other` label.

        Radford et al. 2016 ("Unsupervised representation learning with deep convolutional generative adversarial
        networks", sec. 6.3.2), with codes of real pictures. Raises UserError when there are too few of either.
        """
        spec = self.run.conds
        ((name, value),) = labels_by_name(spec, label).items()
        known = spec[name].classes
        for v in (value, other):
            if v is not None and v not in known:
                raise UserError(f"{name} {v!r} was never seen in training. Known: {', '.join(known[:20])}.")
        there, what = train.cond.present[name], train.cond.parts[name]
        has = there & (what == known.index(value))
        hasnot = there & ((what != known.index(value)) if other is None else (what == known.index(other)))
        means = []
        for rows, which in ((has, label), (hasnot, other or f"no {label}")):
            found = rows.nonzero()[:, 0]
            if len(found) < 8:
                raise UserError(f"Only {len(found)} training items have {which}; a direction needs 8 of each.")
            few = found[torch.linspace(0, len(found) - 1, min(ENOUGH, len(found))).long()]
            x = train.x[few].float() * train.scale + train.shift
            means.append(self.codes(x, Cond.unconditional(spec, len(few))).mean(0))
        return means[0] - means[1]

    def along(self, pictures: Sequence[Any], direction: Tensor, amounts: Sequence[float]) -> Samples:
        """Every picture moved by each amount of a direction: 0 is the picture as the model sees it."""
        run = self.run
        x = encoded(run, pictures)
        z = self.codes(x, Cond.unconditional(run.conds, len(x)))
        t = torch.tensor(list(amounts), dtype=torch.float32)
        moved = (z[:, None] + t[None, :, None] * direction).flatten(0, 1)
        cond = Cond.unconditional(run.conds, len(moved))
        made = self.pictures(moved, cond)
        described = [{"picture": i, "amount": float(a)} for i in range(len(x)) for a in amounts]
        return Samples(run.encoder.decode(made), made, cond, described, 0, run.encoder)

    def cond(self, n: int, request: Request) -> Cond:
        return make_cond(self.run.conds, Cond.unconditional(self.run.conds, n), request, self.run.encoder)


def latents_of(run: Run) -> Latents:
    """Raises UserError for a run whose family has no way back from pictures."""
    if run.encoder.space.kind != "field" or run.family.latents is None:
        able = [f for f in registry.FAMILIES if registry.family(f).latents is not None]
        raise UserError(
            f"{run.path} ({run.record.family}) has no latents that pictures or sounds could be brought to. Families "
            f"that have: {', '.join(able)}."
        )
    return run.family.latents
