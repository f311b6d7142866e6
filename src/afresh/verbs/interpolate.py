"""The verb `blend`: interpolate between two items in the latents of a model, or move along an attribute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from afresh.core import Cond, Examples, Latents, UserError, registry
from afresh.core.cost import check_cost
from afresh.core.space import evenly_spaced
from afresh.engine.sampling.request import Request, labels_by_name, make_cond, words
from afresh.engine.sampling.samples import Samples
from afresh.engine.training.network import precision
from afresh.runs.data import run_data
from afresh.runs.inputs import encoded, ingredient
from afresh.runs.run import Run
from afresh.runs.works import hooks_of, settings_of_works
from afresh.services.provenance.work import Ingredient

MAX_IMAGES = 128  # of a class, from which a direction is computed


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Interpolate on the great circle from a (D,) to b (D,) at t (n,), giving (n, D) (Shoemake 1985).

    The lengths are interpolated linearly. In many dimensions the straight line between two draws of a standard normal
    passes through points of very low probability; the great circle does not.
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
    """Check the options of `blend`.

    Raises UserError unless exactly one of `second` and `toward` is given, and if an option of the other form is given:
    `between` are the options for two images, `along` those for an attribute. Options that are not given are None.
    """
    if (second is None) == (toward is None):
        message = "Give either a second item to go to, or an attribute, `toward=CLASS`."
        raise UserError(message, "second_or_toward", param="second")
    wrong = [f"`{name}`" for name, value in (along if toward is None else between).items() if value is not None]
    if wrong:
        what = "`toward=CLASS`" if toward is None else "a second file"
        raise UserError(f"{', '.join(wrong)}: only with {what}. Leave it out, or give {what}.")


class Blender:
    """Interpolates in the latents of a run: encodes images to codes and decodes codes to images.

    Raises UserError if the run's family has no latents that images can be encoded to.
    """

    def __init__(self, run: Run, settings: Any = None) -> None:
        self.run, self.settings, self.given = run, settings_of_works(run, settings or {}), settings or {}
        run.result_settings(self.given)
        self.latents = latents_of(run)

    @torch.no_grad()
    def codes(self, x: Tensor, cond: Cond) -> Tensor:
        """Encode x (B, *shape), or tokens (B, T), in the space of the modality to codes z (B, D)."""
        run, codec = self.run, self.run.codec
        self.check(len(x))
        if codec is not None:
            coded = codec.encode(Examples(x, Cond(len(x))))
            x = coded.x * coded.scale + coded.shift if coded.x.is_floating_point() else coded.x
        with precision(run.train):
            modules = run.modules_for(self.settings)
            return self.latents.encode(modules, run.config, run.space, x, cond, self.settings).float()

    @torch.no_grad()
    def decode(self, z: Tensor, cond: Cond) -> Tensor:
        """Decode codes z (B, D) to x (B, *shape) in the space of the modality."""
        run, codec = self.run, self.run.codec
        self.check(len(z))
        with precision(run.train):
            modules = run.modules_for(self.settings)
            x = self.latents.decode(modules, run.config, run.space, z, cond, self.settings).cpu()
        x = x.float() if x.is_floating_point() else x
        return x if codec is None else codec.decode(x)

    def between(self, a: Any, b: Any, n: int, first: Request, second: Request) -> Samples:
        """Make n images from a to b in equal steps, with conditions from the first request to the second.

        See `Cond.toward` for conditions in between. Raises UserError if n is less than 2.
        """
        if n < 2:
            raise UserError(f"An interpolation includes both of its ends, so `n` must be at least 2. Given: {n}.")
        self.check(2 + n)
        x = encoded(self.run, [a, b])
        ends = Cond.cat([self.cond(1, first), self.cond(1, second)])
        z = self.codes(x, ends)
        t = torch.linspace(0, 1, n)
        cond = ends.select(torch.zeros(n, dtype=torch.int64))
        if first != second:
            cond = replace(cond, toward=(ends.select(torch.ones(n, dtype=torch.int64)), t))
        x = self.decode(slerp(z[0], z[1], t), cond)
        requests = {"": first} if first == second else {"from_": first, "to_": second}
        record = {f"{prefix}{k}": v for prefix, request in requests.items() for k, v in words(request).items()}
        described = [{"from_first": round(1 - float(v), 4), **record} for v in t]
        return self.samples(x, cond, described, [[a, b]] * n, n)

    def direction(self, train: Examples, label: str, other: str | None = None) -> Tensor:
        """The direction (D,) of a label: the mean code of images with it minus that of images without it.

        If `other` is given, the second mean is that of images with the `other` label. Radford et al. 2016
        ("Unsupervised representation learning with deep convolutional generative adversarial networks", sec. 6.3.2),
        with codes of real images. Raises UserError for an unknown label and if there are too few images of either.
        """
        spec = self.run.conds
        if self.run.encoder.space.kind != "field":
            raise UserError(
                f"`toward` is for images and sounds, and {self.run.path} makes {self.run.encoder.kind.plural}. Give a "
                "second one to go to."
            )
        ((name, value),) = labels_by_name(spec, label).items()
        known = spec[name].classes
        for v in (value, other):
            if v is not None and v not in known:
                raise UserError(f"{name} {v!r} did not occur in training. Known: {', '.join(known[:20])}.")
        present, classes = train.cond.present[name], train.cond.parts[name]
        positive = present & (classes == known.index(value))
        negative = present & (classes != known.index(value) if other is None else classes == known.index(other))
        means = []
        for rows, which in ((positive, label), (negative, other or f"no {label}")):
            indices = rows.nonzero()[:, 0]
            if len(indices) < 8:
                raise UserError(f"Only {len(indices)} training items have {which}; a direction needs 8 of each.")
            subset = indices[evenly_spaced(len(indices), MAX_IMAGES)]
            x = train.x[subset].float() * train.scale + train.shift
            means.append(self.codes(x, Cond.unconditional(spec, len(subset))).mean(0))
        return means[0] - means[1]

    def towards(self, image: Any, n: int, label: str, away: str | None, most: float | None) -> Samples:
        """The image with n amounts of a label, from 0 to `most` (1.5 by default); 1 is as far as the labels' means are
        apart."""
        if n < 1:
            raise UserError(f"`n` is the number of amounts, from 1. Given: {n}.")
        self.check(2 * MAX_IMAGES + n)
        way = self.direction(run_data(self.run).train, label, away)
        return self.along([image], way, torch.linspace(0, 1.5 if most is None else most, n).tolist())

    def along(self, images: Sequence[Any], direction: Tensor, amounts: Sequence[float]) -> Samples:
        """Move every image along a direction by each of the amounts; 0 is the image as the model reconstructs it."""
        run = self.run
        x = encoded(run, images)
        z = self.codes(x, Cond.unconditional(run.conds, len(x)))
        t = torch.tensor(list(amounts), dtype=torch.float32)
        moved = (z[:, None] + t[None, :, None] * direction).flatten(0, 1)
        cond = Cond.unconditional(run.conds, len(moved))
        decoded = self.decode(moved, cond)
        described = [{"picture": i, "amount": float(a)} for i in range(len(x)) for a in amounts]
        inputs = [[image] for image in images for _ in amounts]
        return self.samples(decoded, cond, described, inputs, len(t))

    def samples(
        self,
        x: Tensor,
        cond: Cond,
        described: Sequence[Mapping[str, Any]],
        inputs: Sequence[Sequence[Any]] = (),
        columns: int | None = None,
    ) -> Samples:
        """Samples of x (B, ...). `inputs`: the items that each was made from; the first was changed; empty if
        there are none. `columns` in each row of a grid: a transition is a row."""
        run = self.run
        hooks, used = hooks_of(run), list[list[Ingredient]]()
        if hooks:
            for first, *others in inputs:
                rest = [ingredient(run, v).model_copy(update={"relationship": "inputTo"}) for v in others]
                used.append([ingredient(run, first), *rest])
        values = run.encoder.decode(x)
        arranged = run.result_settings(self.given, columns)
        return Samples(values, x, cond, described, 0, run.encoder, hooks=hooks, ingredients=used, arrangement=arranged)

    def check(self, count: int) -> None:
        """Raises UserError if the codes of so many items cost more than is allowed."""
        each = self.run.family.evaluations.latents(self.run.space, self.settings)
        check_cost(count * each, f"{count:,} codes of {each:,} evaluations each")

    def cond(self, n: int, request: Request) -> Cond:
        return make_cond(self.run.conds, Cond.unconditional(self.run.conds, n), request, self.run.encoder)


def latents_of(run: Run) -> Latents:
    """The latents of the run's family. Raises UserError if items cannot be encoded to them."""
    if run.family.latents is None:
        able = [f.name for f in registry.families() if f.latents is not None]
        raise UserError(
            f"{run.path} ({run.record.family}) has no latents that {run.encoder.kind.plural} can be encoded to. "
            f"Families that have them: {', '.join(able)}."
        )
    return run.family.latents
