"""The tools of the support table: what an edit, and latents, are worth on a toy whose right answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from afresh.core import Cond, Edit, Space, registry
from afresh.core.rng import Rng

TOOLS = ("hole", "strength", "wish", "latents")
AIM = 1.0  # what a wish wants the weight of the last pattern to be
PLACE = -1  # of that pattern


class Toy(Protocol):
    space: Any

    def make(self, label: Tensor, rng: Rng) -> Tensor: ...


class Model(Protocol):
    """What of tools.matrix.Model is used here."""

    @property
    def subject(self) -> Any: ...
    @property
    def modules(self) -> Mapping[str, Any]: ...
    @property
    def seed(self) -> int: ...
    @property
    def drawn(self) -> int: ...
    def draw(self, given: bool, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]: ...


def real(model: Model, label: Tensor) -> Tensor:
    """Examples with these labels that no model was trained on."""
    made: Tensor = model.subject.toy.make(label, Rng(10**7 + model.seed))
    return made


def half(space: Space, n: int) -> Tensor:
    """True in the first half of the last axis of n examples: what an edit has to keep."""
    keep = torch.zeros(n, *space.shape, dtype=torch.bool)
    keep[..., : space.shape[-1] // 2] = True
    return keep


def worked(model: Model, settings: Mapping[str, Any], last: Tensor) -> tuple[Tensor, Tensor]:
    """What a tool makes of real examples, and their labels. `last` is the pattern (side, side) of a wish, scaled so
    that its product with a field is the pattern's weight.

    hole: the second half "pasted" from a sample, or "filled"; strength: how much of an example may change; wish: the
    weight of the wish that the last pattern has the weight AIM; latents: a "sample", or the example "there and back".
    """
    family, toy = registry.family(model.subject.family), model.subject.toy
    rows = torch.arange(model.drawn)
    sample, label = model.draw(True, {})
    cond = Cond(len(rows), {"label": label}, {"label": torch.ones(len(rows), dtype=torch.bool)})
    config, plain = family.config(**model.subject.config), family.sampling.settings()
    start, keep = real(model, label), half(toy.space, len(rows))

    def edited(task: Edit) -> Tensor:
        assert family.edit is not None
        with torch.no_grad():
            return family.edit(model.modules, config, toy.space, task, cond, Rng(model.seed), rows, plain)

    if "hole" in settings:
        if settings["hole"] == "pasted":
            return torch.where(keep, start, sample), label
        return edited(Edit(start=start, keep=keep)), label
    if "strength" in settings:
        return edited(Edit(start=start, strength=settings["strength"])), label
    if "wish" in settings:
        if not settings["wish"]:
            return sample, label
        energy = lambda x: ((x[:, 0] * last).sum((1, 2)) - AIM).square()  # noqa: E731
        return edited(Edit(energy=energy, weight=settings["wish"])), label
    if settings["latents"] == "sample":
        return sample, label
    assert family.latents is not None
    with torch.no_grad():
        z = family.latents.encode(model.modules, config, toy.space, start, cond, plain)
        return family.latents.decode(model.modules, config, toy.space, z, cond, plain), label


def likeness(x: Tensor, start: Tensor, std: float) -> float:
    """Minus the root mean square distance in standard deviations; of tokens, minus the share that differs."""
    if not x.is_floating_point():
        return -float((x != start).double().mean())
    return -float((x - start).square().mean().sqrt()) / std
