"""Policy gradients on a policy's own samples: REINFORCE, RLOO, GRPO and PPO, kept near to the reference.

What is maximised is E[r] - beta KL(policy || reference). The divergence is paid in the reward, by each whole sample:
R = r - beta (logp - ref). Its gradient is that of the objective without bias, and at the optimum, reference
exp(r / beta) / Z, R is the same for every sample, so that the advantages vanish and with them the noise of the
gradient. A penalty beside the loss has neither property (k3 in the loss is that of another divergence).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from afresh.alignment.methods.advantages import at_end, gae, grpo, reinforce, rloo, whiten
from afresh.alignment.methods.divergence import adapt
from afresh.alignment.methods.policy_gradient import ppo, value_loss
from afresh.core import AlignContext, Aligner, AlignTarget, Batch, Loss, Modules, State, UserError
from afresh.core.rng import Rng


class PolicyConfig(BaseModel):
    """`beta`: what a nat of divergence from the reference costs, in the reward's unit. `kl`: the divergence of a sample
    that beta is steered to, in nats; 0: beta stays. `group`: samples for each request. `reuse`: steps that learn from
    one rollout. Ratios are clipped to 1 - `clip` ... 1 + `clip_high`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    beta: float = Field(0.1, ge=0)
    kl: float = Field(0.0, ge=0)
    group: int = Field(8, ge=1, le=1024)
    reuse: int = Field(1, ge=1, le=8)
    clip: float = Field(0.2, gt=0, le=1)
    clip_high: float = Field(0.28, gt=0, le=10)


class CriticConfig(PolicyConfig):
    """`lam`: how far generalised advantages look beyond what the critic knows: 1 to the end."""

    group: int = Field(1, ge=1, le=1024)
    reuse: int = Field(4, ge=1, le=8)
    lam: float = Field(0.95, ge=0, le=1)


class PolicyObjective:
    """The clipped surrogate; its weight is the number of samples, and every step weighs the same."""

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
        found = ppo(s.logp, e["old"], e["advantage"], s.mask, self.config.clip, self.config.clip_high)
        length = s.mask.sum(1).clamp_min(1)
        with torch.no_grad():
            gap = ((s.logp - e["old"]).abs() * s.mask).sum(1) / length
            metrics = {
                **{k: e[k].sum() for k in ("reward", "kl", "kl2", "flat", "reward2")},
                "length": length.float().sum(),
                "entropy": (s.entropy.sum(1) / length).sum(),
                "clipped": (found.clipped.sum(1) / length).sum(),
                "gap": gap.sum(),
                "beta": state["beta"].float() * len(batch.x),
            }
        # e["steps"]: the mean length over the whole batch, so that micro-batches add up to the mean over its steps.
        return (found.losses / e["steps"][:, None]).sum(), float(len(batch.x)), metrics

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        """Beta follows the divergence, where it is to."""
        if not self.config.kl:
            return state
        found = metrics["kl"] if "kl" in metrics else metrics["policy/kl"]
        return {**state, "beta": torch.tensor(adapt(float(state["beta"]), found, self.config.kl), dtype=torch.float64)}


Advantages = Callable[[Tensor, State], Tensor]  # penalised rewards (P, N) -> advantages (P, N)


class Rollouts:
    """Batches of a policy's own samples, each learnt from `reuse` times: draw numbers to batches."""

    def __init__(self, config: PolicyConfig, context: AlignContext, advantages: str) -> None:
        self.config, self.context, self.kind = config, context, advantages
        self.held: tuple[int, Batch] | None = None

    def __call__(self, first: int, size: int) -> Batch:
        if size % self.config.group:
            raise UserError(
                f"A batch of {size} does not hold whole groups of {self.config.group}. Choose a multiple: "
                f"`train.batch={max(1, size // self.config.group) * self.config.group}`, or another `align.group`."
            )
        number = first // size // self.config.reuse
        if self.held is None or self.held[0] != number:
            self.held = (number, self.made(number, size))
        return self.held[1]

    @torch.no_grad()
    def made(self, number: int, size: int) -> Batch:
        w, c = self.context, self.config
        policy = w.policy
        assert policy.rollout is not None and policy.steps is not None and w.reward is not None
        device = w.device
        cond = w.requests(number * size // c.group, size // c.group).repeat(c.group).to(device)
        index = torch.arange(number * size, (number + 1) * size, device=device)
        drawn = policy.rollout(w.modules, w.config, w.space, cond, w.rng, index, w.settings)
        reward = w.reward(drawn.x, cond).float().to(device)
        mask = drawn.batch.mask
        assert mask is not None
        ref = policy.steps(w.reference, w.config, w.space, drawn.batch).logp.float()
        gap = (drawn.logp - ref).masked_fill(~mask, 0)
        kl = gap.sum(1)
        beta = float(w.state()["beta"])
        extras = {
            "reward": reward,
            "reward2": reward.square(),
            "kl": kl,
            "kl2": kl.square(),
            "old": drawn.logp,
            "steps": mask.sum().float().div(len(mask)).expand(len(mask)),
        }
        if self.kind == "gae":
            extras |= self.judged(drawn.batch, reward, gap, beta)
        else:
            found = self.compared(reward - beta * kl)
            extras |= {"advantage": found[:, None].expand(mask.shape)}
        groups = reward.view(-1, c.group)
        flat = (groups == groups[:, :1]).all(1) & (c.group > 1)
        extras["flat"] = flat.float().repeat_interleave(c.group)
        b = drawn.batch
        return Batch(b.x, b.cond, b.index, mask, {**b.extras, **extras})

    def compared(self, penalised: Tensor) -> Tensor:
        """Advantages (B,) of whole samples."""
        groups = penalised.view(-1, self.config.group)
        if self.kind == "mean":
            state = self.context.state()
            found, state["seen"] = reinforce(penalised, state["seen"])
            return found
        if self.kind == "grpo":
            return grpo(groups).advantages.flatten()
        return rloo(groups).advantages.flatten()

    def judged(self, batch: Batch, reward: Tensor, gap: Tensor, beta: float) -> dict[str, Tensor]:
        """Generalised advantages (B, T) by the critic, and what it is to learn."""
        assert isinstance(self.config, CriticConfig) and batch.mask is not None
        w, policy = self.context, self.context.policy
        assert policy.steps is not None
        s = policy.steps(w.modules, w.config, w.space, batch)
        values = w.modules["critic"](s.features)[:, :, 0].masked_fill(~batch.mask, 0)
        rewards = at_end(reward, batch.mask) - beta * gap
        found, returns = gae(rewards, values, batch.mask, lam=self.config.lam)
        return {
            "advantage": whiten(found, batch.mask),
            "returns": returns,
            "values": values,
            "counts": batch.mask,
            "features": s.features,
        }


def critic(config: Any, modules: Modules) -> Mapping[str, nn.Module]:
    """A value for every step, from what the policy's last layer knows there; nought at first. Its norm is its own."""
    width = next(p for k, p in modules["decoder"].named_parameters() if k == "embedding.weight").shape[1]
    head = nn.Linear(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return {"critic": nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), head)}


def first(config: PolicyConfig) -> State:
    return {"beta": torch.tensor(config.beta, dtype=torch.float64), "seen": torch.zeros(2)}


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
        first=first,
    )


ALIGNERS = (
    _aligner(
        "grpo", "policy gradient, samples of a request compared and scaled (Shao et al. 2024)", "grpo", PolicyConfig
    ),
    _aligner("rloo", "policy gradient, each sample against the others (Ahmadian et al. 2024)", "rloo", PolicyConfig),
    _aligner("reinforce", "policy gradient against a running mean (Williams 1992)", "mean", PolicyConfig),
    _aligner("ppo", "policy gradient with a critic (Schulman et al. 2017)", "gae", CriticConfig, critic),
)
