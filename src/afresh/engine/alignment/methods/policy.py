"""Policy gradients on a policy's own samples: REINFORCE, RLOO, GRPO and PPO, with a penalty of divergence.

The objective is E[r] - beta KL(policy || reference), where beta is controlled so that the divergence becomes the one
that is asked for (distance.py), or is set by hand. The divergence is subtracted from the reward of each whole sample,
R = r - beta (logp - ref). The gradient is then unbiased, and at the optimum, reference exp(r / beta) / Z, R is the same
for all samples, so that the advantages and the variance of the gradient are 0. A penalty that is added to the loss has
neither property (k3 in the loss has the gradient of another divergence).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.core import AlignContext, Aligner, AlignTarget, Batch, Loss, Modules, State, UserError
from afresh.core.rng import Rng
from afresh.engine.alignment.methods.advantages import (
    agreed,
    at_end,
    gae,
    grpo,
    reinforce,
    rloo,
    spread,
    whiten,
    within,
)
from afresh.engine.alignment.methods.distance import allow, constant, controlled, corrected, unit, weight
from afresh.engine.sampling.next_token import causal_net

# Losses of policy gradients. A step is a token or one step of denoising; `mask` (B, T) bool is true for the policy's
# own steps. Losses are returned for each step, (B, T), 0 where masked. Advantages are (B, T), or (B,) for whole
# sequences; log-probabilities are those of the steps. All raise UserError for shapes that disagree, for numbers that
# are not finite and for settings out of range.
MAX_LOG_RATIO = 20.0  # in nats; larger log-ratios have no gradient, instead of an infinite one


@dataclass(frozen=True)
class ClippedSurrogate:
    """Losses (B, T), and where clipping removed the gradient, (B, T) bool."""

    losses: Tensor
    clipped: Tensor


def ppo(
    logp: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, low: float = 0.2, high: float | None = None
) -> ClippedSurrogate:
    """-min(ratio A, clip(ratio, 1 - low, 1 + high) A), ratio = exp(logp - old): Schulman et al. 2017, eq. 7.

    logp, old (B, T) are those of the current policy and of the policy that drew the samples. `high` above `low` lets
    improbable steps become more probable (clip-higher: Yu et al. 2025, DAPO, sec. 3.1); None: equal to `low`. With
    the advantages of `grpo` this is the loss of GRPO at any step, without its penalty; at the first step, where the
    ratio is 1, its gradient is that of -A logp (Ahmadian et al. 2024, RLOO; Shao et al. 2024).
    """
    within("low", low, 0, 1)
    top = low if high is None else high
    within("high", top, 0, 1e6)
    now, then = agreed({"logp": logp, "old": old}, 2, mask)
    a = spread(advantages, mask).to(now)
    ratio = (now - then.detach()).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    bounded = ratio.clamp(1 - low, 1 + top)
    gain = torch.minimum(ratio * a, bounded * a)
    return ClippedSurrogate(-gain, mask & (bounded * a < ratio * a))


def value_loss(
    values: Tensor, returns: Tensor, mask: Tensor, old: Tensor | None = None, clip: float = 0.2
) -> ClippedSurrogate:
    """The loss of a critic for each step, (V - return)^2 / 2, (B, T).

    With `old` values (B, T), it is the larger of that and of the loss of V clipped to within `clip` of `old`, so that
    larger changes are not rewarded (as in the published code of PPO, not in Schulman et al. 2017). `clip` has the unit
    of the returns.
    """
    v, target = agreed({"values": values, "returns": returns}, 2, mask)
    target = target.detach()
    plain = (v - target).square() / 2
    if old is None:
        return ClippedSurrogate(plain, torch.zeros_like(mask))
    within("clip", clip, 0, 1e9)
    before = agreed({"values": values, "old": old}, 2, mask)[1].detach()
    near = (before + (v - before).clamp(-clip, clip) - target).square() / 2
    return ClippedSurrogate(torch.maximum(plain, near), mask & (near > plain))


class PolicyConfig(BaseModel):
    """`distance`: how far samples may go from the reference, in nats of divergence; the penalty is controlled until
    they are that far. `beta`: a constant penalty instead, the cost of one nat in the unit of the reward. `group`:
    samples for each request. `reuse`: steps that use one rollout. Ratios are clipped to 1 - `clip` ... 1 +
    `clip_high`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    distance: float = Field(4.0, gt=0)
    beta: float | None = Field(None, ge=0)
    group: int = Field(8, ge=1, le=1024)
    reuse: int = Field(1, ge=1, le=8)
    clip: float = Field(0.2, gt=0, le=1)
    clip_high: float = Field(0.28, gt=0, le=10)


class CriticConfig(PolicyConfig):
    """`lam`: the decay of generalised advantages; 1 uses the whole return, smaller values rely more on the critic."""

    group: int = Field(1, ge=1, le=1024)
    reuse: int = Field(4, ge=1, le=8)
    lam: float = Field(0.95, ge=0, le=1)


class PolicyObjective:
    """The clipped surrogate. Its weight is the number of samples, and all steps have the same weight."""

    def __init__(self, config: PolicyConfig, about: AlignTarget) -> None:
        self.config, self.about, self.policy = config, about, about.policy
        self.averaged = about.policy.moves
        critic = {"critic": ("critic",)} if isinstance(config, CriticConfig) else {}
        self.players: Mapping[str, tuple[str, ...]] = {"policy": about.policy.moves, **critic}

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        e = batch.extras
        if player == "critic":
            values = modules["critic"](e["features"])[:, :, 0]
            fit = value_loss(values, e["returns"], e["counts"], e["values"], 1.0)
            return (fit.losses / e["steps"][:, None]).sum(), float(len(batch.x)), {}
        assert self.policy.steps is not None
        s = self.policy.steps(modules, self.about.config, self.about.space, batch)
        surrogate = ppo(s.logp, e["old"], e["advantage"], s.mask, self.config.clip, self.config.clip_high)
        length = s.mask.sum(1).clamp_min(1)
        with torch.no_grad():
            gap = ((s.logp - e["old"]).abs() * s.mask).sum(1) / length
            metrics = {
                **{k: e[k].sum() for k in ("reward", "kl", "kl2", "flat", "reward2")},
                "length": length.float().sum(),
                "entropy": (s.entropy.sum(1) / length).sum(),
                "clipped": (surrogate.clipped.sum(1) / length).sum(),
                "gap": gap.sum(),
                "beta": (state["beta"] * state["unit"]).float() * len(batch.x),  # of one nat, in the reward's unit
            }
        # e["steps"] is the mean length of the whole batch, so that micro-batches add up to the mean over its steps.
        return (surrogate.losses / e["steps"][:, None]).sum(), float(len(batch.x)), metrics

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        """Correct the penalty by the divergence of the samples, unless it was set by hand."""
        if self.config.beta is not None:
            return state
        kl = metrics["kl"] if "kl" in metrics else metrics["policy/kl"]
        return corrected(state, self.config.distance, kl)


class Rollouts:
    """Batches of a policy's own samples, each of which is used `reuse` times."""

    def __init__(self, config: PolicyConfig, context: AlignContext, advantages: str) -> None:
        self.config, self.context, self.kind = config, context, advantages
        self.held: tuple[int, Batch] | None = None

    def __call__(self, first: int, size: int) -> Batch:
        if size % self.config.group:
            raise UserError(
                f"A batch of {size} is not a multiple of the groups of {self.config.group}. Choose a multiple: "
                f"`train.batch={max(1, size // self.config.group) * self.config.group}`, or another `align.group`."
            )
        number = first // size // self.config.reuse
        if self.held is None or self.held[0] != number:
            self.held = (number, self.drawn(number, size))
        return self.held[1]

    @torch.no_grad()
    def drawn(self, number: int, size: int) -> Batch:
        w, c = self.context, self.config
        policy = w.policy
        assert policy.rollout is not None and policy.steps is not None and w.reward is not None
        device = w.device
        cond = w.requests(number * size // c.group, size // c.group).repeat(c.group).to(device)
        index = torch.arange(number * size, (number + 1) * size, device=device)
        rollout = policy.rollout(w.modules, w.config, w.space, cond, w.rng, index, w.settings)
        reward = w.reward(rollout.x, cond).float().to(device)
        mask = rollout.batch.mask
        assert mask is not None
        ref = policy.steps(w.reference, w.config, w.space, rollout.batch).logp.float()
        gap = (rollout.logp - ref).masked_fill(~mask, 0)
        kl = gap.sum(1)
        state = w.state()
        if c.beta is None:
            allow(state, c.distance, w.share((number + 1) * c.reuse), reward)
        beta, scaled = weight(state), reward / unit(state)
        extras = {
            "reward": reward,
            "reward2": reward.square(),
            "kl": kl,
            "kl2": kl.square(),
            "old": rollout.logp,
            "steps": mask.sum().float().div(len(mask)).expand(len(mask)),
        }
        if self.kind == "gae":
            extras |= self.with_critic(rollout.batch, scaled, gap, beta)
        else:
            advantage = self.without_critic(scaled - beta * kl)
            extras |= {"advantage": advantage[:, None].expand(mask.shape)}
        groups = reward.view(-1, c.group)
        flat = (groups == groups[:, :1]).all(1) & (c.group > 1)
        extras["flat"] = flat.float().repeat_interleave(c.group)
        b = rollout.batch
        return Batch(b.x, b.cond, b.index, mask, {**b.extras, **extras})

    def without_critic(self, penalised: Tensor) -> Tensor:
        """Advantages (B,) of whole samples, given their penalised rewards (B,)."""
        groups = penalised.view(-1, self.config.group)
        if self.kind == "mean":
            state = self.context.state()
            advantages, state["seen"] = reinforce(penalised, state["seen"])
            return advantages
        if self.kind == "grpo":
            return grpo(groups).advantages.flatten()
        return rloo(groups).advantages.flatten()

    def with_critic(self, batch: Batch, reward: Tensor, gap: Tensor, beta: float) -> dict[str, Tensor]:
        """Generalised advantages (B, T), and the inputs and targets of the critic."""
        assert isinstance(self.config, CriticConfig) and batch.mask is not None
        w, policy = self.context, self.context.policy
        assert policy.steps is not None
        s = policy.steps(w.modules, w.config, w.space, batch)
        values = w.modules["critic"](s.features)[:, :, 0].masked_fill(~batch.mask, 0)
        rewards = at_end(reward, batch.mask) - beta * gap
        advantages, returns = gae(rewards, values, batch.mask, lam=self.config.lam)
        return {
            "advantage": whiten(advantages, batch.mask),
            "returns": returns,
            "values": values,
            "counts": batch.mask,
            "features": s.features,
        }


def critic(config: Any, modules: Modules) -> Mapping[str, nn.Module]:
    """A network that predicts a value for every step from the policy's last features. Its output is 0 at first, and it
    has a norm of its own."""
    width = causal_net(modules).width
    head = nn.Linear(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return {"critic": nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), head)}


def initial_state(config: PolicyConfig) -> State:
    return {**(controlled() if config.beta is None else constant(config.beta)), "seen": torch.zeros(2)}


def _aligner(
    name: str, about: str, advantages: str, config: type, modules: Any = lambda config, modules: {}
) -> Aligner:
    return Aligner(
        name=name,
        about=about,
        config=config,
        needs=("rollout", "steps"),
        feeds="reward",
        objective=PolicyObjective,
        batches=lambda config, context: Rollouts(config, context, advantages),
        reuse=lambda config: config.reuse,
        group=lambda config: config.group,
        modules=modules,
        first=initial_state,
    )


ALIGNERS = (
    _aligner(
        "grpo", "policy gradient with standardised rewards in each group (Shao et al. 2024)", "grpo", PolicyConfig
    ),
    _aligner("rloo", "policy gradient with the other samples as baseline (Ahmadian et al. 2024)", "rloo", PolicyConfig),
    _aligner("reinforce", "policy gradient with a running mean as baseline (Williams 1992)", "mean", PolicyConfig),
    _aligner("ppo", "policy gradient with a critic (Schulman et al. 2017)", "gae", CriticConfig, critic),
)
