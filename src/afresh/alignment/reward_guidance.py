"""A reward's gradient in sampling: samples of p(x) exp(weight reward), nothing being trained."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from afresh.alignment.rewards.build import builtins
from afresh.alignment.rewards.reward import Reward
from afresh.core import Edit, Modules, Space, UserError, registry
from afresh.runs.run import Run

Sampler = Callable[..., Tensor]  # of the signature of Family.sample
FAINTEST = 1e-30  # a probability below which a class has no gradient: 69 nats


def check_weight(weight: float) -> None:
    """Raises UserError for a weight that is none."""
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(
            "`weight` is how hard `reward_guidance` pulls, in units of one over the reward's: a number from 0 (not at "
            f"all). Given: {weight}."
        )


def check_family(run: Run) -> None:
    """Raises UserError where a run's samples cannot be steered by a gradient, saying what can be done instead."""
    instead = "Choose among several samples, which every model can: `best_of=8` and `reward=REWARD`."
    space = run.encoder.space
    if space.kind != "field":
        raise UserError(
            f"{run.path} makes {run.record.modality}, and tokens have no gradient: `reward_guidance` is for images and "
            f"sounds. {instead}"
        )
    if run.codec is not None:
        raise UserError(
            f"{run.path} draws through a codec ({run.record.codec}), which no gradient goes through here: "
            f"`reward_guidance` is for models of the pixels, or the spectra, themselves. {instead}"
        )
    if run.family.edit is None:
        able = [f.name for f in registry.families() if f.edit is not None and f.accepts(space) is None]
        raise UserError(f"{run.family.name} cannot be steered. Families that can: {', '.join(able)}. {instead}")


def energy_of(reward: Reward) -> Callable[[Tensor], Tensor]:
    """Minus the reward in its own unit, x (B, *shape) in [-1, 1] -> (B,), differentiable. A class counts by the
    logarithm of its probability, so that weight 1 is Bayes' rule: classifier guidance (Dhariwal and Nichol 2021,
    algorithm 2), its gradient taken at the picture that is predicted, where the classifier was trained.

    Raises UserError naming the rewards without a gradient, and those that have one.
    """
    from afresh.alignment.rewards.classifier_reward import CLASS_PREFIX

    parts = reward.parts or ((1.0, reward),)
    without = [part.name for _, part in parts if part.on_field is None]
    if without:
        kind = parts[0][1].kind
        named = [] if kind is None else [name for name, b in builtins(kind).items() if b.gradient]
        able = [*named, "class:LABEL", *(["the folder of a reward model"] if named else [])]
        raise UserError(
            f"{', '.join(without)}: a reward without a gradient cannot steer. With one: {', '.join(able)}, and sums of "
            "these. Any reward can choose among several samples: `best_of=8` and `reward=REWARD`."
        )

    def one(part: Reward, x: Tensor) -> Tensor:
        assert part.on_field is not None
        value = part.on_field(x)
        return value.clamp_min(FAINTEST).log() if part.name.startswith(CLASS_PREFIX) else value

    def energy(x: Tensor) -> Tensor:
        here = x.float().cpu()  # where the rewards that are models lie
        return -sum((w * one(part, here) for w, part in parts), here.new_zeros(len(x))).to(x.device)

    return energy


def steered(run: Run, reward: Reward, weight: float) -> Sampler:
    """What takes the place of the family's `sample`; with weight 0 it is that itself, bit for bit.

    A flow follows the velocity of p(x) exp(weight reward) (sampling.edit.tilted), which is also what steering by
    training tends to with beta = 1 / weight. A VAE and a GAN search from each sample's own latent for the most probable
    one under that density (sampling.search), so that samples of one request become nearly the same at any weight above
    0. Raises UserError as `energy_of`, `check_family` do.
    """
    check_weight(weight)
    check_family(run)
    energy, edit = energy_of(reward), run.family.edit
    assert edit is not None
    if weight == 0:
        return run.family.sampling.sample

    def sample(
        modules: Modules, config: Any, space: Space, cond: Any, rng: Any, index: Tensor, settings: Any
    ) -> Tensor:
        task = Edit(energy=energy, weight=weight)
        return edit(modules, config, space, task, cond, rng, index, settings).float()

    return sample
