"""Guidance of sampling by the gradient of a reward: samples of p(x) exp(weight reward) without training."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from afresh.core import Edit, Modules, Space, UserError, registry
from afresh.engine.alignment.rewards.reward import Reward
from afresh.engine.alignment.rewards.reward_expression import builtins
from afresh.runs.run import Run

Sampler = Callable[..., Tensor]  # with the signature of Family.sample
MIN_PROBABILITY = 1e-30  # of a class; lower probabilities have no gradient


def check_family(run: Run) -> None:
    """Raises UserError, with an alternative, if the samples of a run cannot be guided by a gradient."""
    instead = "Every model can choose the best of several samples instead: `best_of=8` and `reward=REWARD`."
    space = run.encoder.space
    if space.kind != "field":
        raise UserError(
            f"{run.path} makes {run.record.modality}, whose tokens have no gradient: `reward_guidance` is for images "
            f"and sounds. {instead}"
        )
    if run.codec is not None:
        raise UserError(
            f"{run.path} uses a codec ({run.record.codec}), which `reward_guidance` does not support: it is for models "
            f"of pixels or spectra. {instead}"
        )
    if run.family.edit is None:
        able = [f.name for f in registry.families() if f.edit is not None and f.accepts(space) is None]
        raise UserError(f"{run.family.name} cannot be guided. Families that can: {', '.join(able)}. {instead}")


def energy_of(reward: Reward) -> Callable[[Tensor], Tensor]:
    """The negative reward as a differentiable function of x (B, *shape) in [-1, 1] -> (B,).

    For a class it is the negative logarithm of its probability, so that weight 1 is Bayes' rule: classifier guidance
    (Dhariwal and Nichol 2021, algorithm 2), with the gradient at the predicted clean image, on which the classifier was
    trained. Raises UserError, naming those with a gradient, if a reward has none.
    """
    from afresh.engine.alignment.rewards.classifier_reward import CLASS_PREFIX

    parts = reward.parts or ((1.0, reward),)
    without = [part.name for _, part in parts if part.on_field is None]
    if without:
        kind = parts[0][1].kind
        named = [] if kind is None else [name for name, b in builtins(kind).items() if b.gradient]
        able = [*named, "class:LABEL", *(["the folder of a reward model"] if named else [])]
        raise UserError(
            f"{', '.join(without)}: a reward without a gradient cannot guide sampling. Rewards with one: "
            f"{', '.join(able)}, and sums of these. Any reward can choose the best of several samples: `best_of=8` and "
            "`reward=REWARD`."
        )

    def one(part: Reward, x: Tensor) -> Tensor:
        assert part.on_field is not None
        value = part.on_field(x)
        return value.clamp_min(MIN_PROBABILITY).log() if part.name.startswith(CLASS_PREFIX) else value

    def energy(x: Tensor) -> Tensor:
        here = x.float().cpu()  # the device of rewards that are models
        return -sum((w * one(part, here) for w, part in parts), here.new_zeros(len(x))).to(x.device)

    return energy


def steered(run: Run, reward: Reward, weight: float) -> Sampler:
    """A replacement for the family's `sample`, which is returned unchanged for weight 0.

    A flow follows the velocity of p(x) exp(weight reward) (sampling.edit.tilted), which is also the limit of alignment
    with beta = 1 / weight. VAEs and GANs search, from the latent of each sample, for the most probable latent under
    that density (sampling.search), so that samples of one request become nearly equal at any weight above 0. Raises
    UserError like `energy_of` and `check_family`.
    """
    if not (math.isfinite(weight) and weight >= 0):
        raise UserError(
            "`weight` is the strength of `reward_guidance`, in units of one over the reward's: a number from 0 (no "
            f"guidance). Given: {weight}."
        )
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
