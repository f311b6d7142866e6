"""Rewards for flows without likelihoods: good samples attract the velocity and bad ones repel it (DiffusionNFT).

Zheng et al. 2025, eq. 8. For a sample with optimality r in [0, 1], the velocity v of the policy and the velocity v_old
of the policy that drew the sample, the loss is

    r |(1 - b) v_old + b v - u|^2 + (1 - r) |(1 + b) v_old - b v - u|^2,    u = x - noise.

Its minimum is v_old plus 2 / b times the difference between the velocity of good samples and that of all samples. Any
sampler may be used, and each sample can be used at any number of times. The term `near` |v - v_ref|^2 limits the
distance from the reference: it is the divergence between the paths of the two velocities, up to a weight over times.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import AlignContext, Aligner, AlignTarget, Batch, Cond, Loss, Modules, State
from afresh.core.rng import Rng


class DenoiseConfig(BaseModel):
    """`mix`: b above. `near`: weight of the distance from the reference; below `mix`, bad samples repel less. `group`:
    samples of each request, which are compared. `reuse`: steps that use one set of samples. `spread`: deviations from
    the mean reward at which a sample has optimality 0 or 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mix: float = Field(1.0, gt=0)
    near: float = Field(0.4, gt=0)
    group: int = Field(8, ge=2, le=1024)
    reuse: int = Field(8, ge=1, le=8)
    spread: float = Field(2.0, gt=0)


class DenoiseObjective:
    """Zheng et al. 2025, eq. 8, the mean over the samples."""

    def __init__(self, config: DenoiseConfig, about: AlignTarget) -> None:
        self.config, self.about, self.policy = config, about, about.policy
        self.averaged = about.policy.moves
        self.players: Mapping[str, tuple[str, ...]] = {"policy": about.policy.moves}

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        assert self.policy.denoise is not None
        e, b = batch.extras, self.config.mix
        v, target = self.policy.denoise(modules, self.about.config, self.about.space, batch, rng)
        good = ((1 - b) * e["old"] + b * v - target).square().flatten(1).mean(1)
        bad = ((1 + b) * e["old"] - b * v - target).square().flatten(1).mean(1)
        away = (v - e["ref"]).square().flatten(1).mean(1)
        losses = e["optimal"] * good + (1 - e["optimal"]) * bad + self.config.near * away
        metrics = {
            "reward": e["reward"],
            "reward2": e["reward"].square(),
            "flat": e["flat"],
            "velocity_away": away.detach(),
        }
        return losses.sum(), float(len(losses)), {k: m.sum() for k, m in metrics.items()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


class DenoiseBatches:
    """Batches of samples, each used at several times, with the velocities of the sampling policy and the reference."""

    def __init__(self, config: DenoiseConfig, context: AlignContext) -> None:
        self.config, self.context = config, context
        self.held: tuple[int, Tensor, Cond, dict[str, Tensor]] | None = None
        self.old: dict[str, dict[str, Tensor]] = {}

    def __call__(self, first: int, size: int) -> Batch:
        number = first // size // self.config.reuse
        if self.held is None or self.held[0] != number:
            self.held = (number, *self.drawn(number, size))
        _, x, cond, extras = self.held
        batch = Batch(x, cond, torch.arange(first, first + size, device=x.device), None, extras)
        return self.with_velocities(batch)

    @property
    def worst(self) -> float:
        """The largest weight of a bad sample, at most 1.

        The stationary point is (near + b (2 E[r | x_t] - 1)) v = b E[(2 r - 1) u | x_t] + near v_ref. It is a minimum
        only if the factor on the left is positive, and training diverges otherwise, so 2 r - 1 is at least -near / b.
        """
        return min(1.0, self.config.near / self.config.mix)

    @torch.no_grad()
    def drawn(self, number: int, size: int) -> tuple[Tensor, Cond, dict[str, Tensor]]:
        w, group = self.context, self.config.group
        assert w.reward is not None
        device = w.device
        cond = w.requests(number * size // group, size // group).repeat(group).to(device)
        index = torch.arange(number * size, (number + 1) * size, device=device)
        x = w.family.sampling.sample(w.modules, w.config, w.space, cond, w.rng, index, w.settings)
        reward = w.reward(x, cond).float().to(device)
        groups = reward.view(-1, group)
        centred = groups - groups.mean(1, keepdim=True)
        deviation = centred.square().mean().sqrt() + 1e-6  # over all groups, as some have little variance
        # Shifted to mean 0: with another mean, all samples would be learnt whatever their reward, including the errors
        # of the sampler.
        cut = (centred / (self.config.spread * deviation)).clamp(-self.worst, 1)
        cut = cut - cut.mean()
        optimal = 0.5 + 0.5 * (cut * (self.worst / (-cut.min()).clamp_min(self.worst)))
        flat = (groups == groups[:, :1]).all(1).float()
        self.old = {k: {n: t.detach().clone() for n, t in m.state_dict().items()} for k, m in w.modules.items()}
        extras = {"reward": reward, "optimal": optimal.flatten(), "flat": flat.repeat_interleave(group)}
        return x, cond, extras

    @torch.no_grad()
    def with_velocities(self, batch: Batch) -> Batch:
        """The batch with both velocities at its times and noises."""
        w, policy = self.context, self.context.policy
        assert policy.denoise is not None
        ref, _ = policy.denoise(w.reference, w.config, w.space, batch, w.noise)
        with Weights(w.modules, self.old):
            old, _ = policy.denoise(w.modules, w.config, w.space, batch, w.noise)
        return Batch(batch.x, batch.cond, batch.index, None, {**batch.extras, "ref": ref, "old": old})


class Weights:
    """A context in which modules have other weights."""

    def __init__(self, modules: Modules, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        self.modules, self.states = modules, states

    def __enter__(self) -> None:
        self.now = {k: {n: t.detach().clone() for n, t in m.state_dict().items()} for k, m in self.modules.items()}
        self.put(self.states)

    def __exit__(self, *error: object) -> None:
        self.put(self.now)

    def put(self, states: Mapping[str, Mapping[str, Tensor]]) -> None:
        for k, module in self.modules.items():
            assert isinstance(module, nn.Module)
            module.load_state_dict(states[k])


ALIGNERS = (
    Aligner(
        name="nft",
        about="good samples attract the velocity, bad ones repel it (DiffusionNFT: Zheng et al. 2025)",
        config=DenoiseConfig,
        needs=("denoise",),
        feeds="reward",
        objective=DenoiseObjective,
        batches=DenoiseBatches,
        reuse=lambda config: config.reuse,
        group=lambda config: config.group,
        # At 3e-4 and near 0.1, a flow of clothes diverged after twelve sets of samples (docs/development/log.md).
        recipe={"lr": 1e-4, "ema_half_life": 1500.0},
    ),
)
