"""Learning from pairs of preferred and other samples: DPO and its variants, KTO, and training on the preferred samples.

Both sides of a pair are scored in one batch, with the same noise if the score depends on noise (flows and VAEs), and
likewise by the reference, so that the changes of their log-probabilities are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from afresh.core import AlignContext, Aligner, AlignTarget, Batch, Cond, Loss, Modules, State, UserError
from afresh.core.rng import Rng
from afresh.engine.alignment.methods.pair_losses import dpo, ipo, kto, robust, simpo


class PairConfig(BaseModel):
    """`beta`: larger values keep the policy nearer to the reference. `keep`: weight of an additional loss, the negative
    log-likelihood per step of the preferred side, which prevents that preferred samples become less likely (Pang et al.
    2024)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    beta: float = Field(0.1, gt=0)
    keep: float = Field(0.0, ge=0)


class NoisyConfig(PairConfig):
    """`flipped`: the assumed share of wrong preferences."""

    flipped: float = Field(0.1, ge=0, lt=0.5)


class MarginConfig(PairConfig):
    """`gamma`: the target margin in the unit of the reward."""

    beta: float = Field(2.0, gt=0)
    gamma: float = Field(1.0, ge=0)


class PairSides(NamedTuple):
    """Scores of both sides by the policy and by its reference, and their numbers of steps; all are (B,)."""

    win: Tensor
    lose: Tensor
    ref_win: Tensor
    ref_lose: Tensor
    win_steps: Tensor
    lose_steps: Tensor


def unpaired(c: Any, s: PairSides) -> tuple[Tensor, Tensor]:
    """KTO with both sides as separate samples. The reference point is their mean log-ratio."""
    logp, ref = torch.cat([s.win, s.lose]), torch.cat([s.ref_win, s.ref_lose])
    wanted = torch.arange(len(logp), device=logp.device) < len(s.win)
    losses, rewards = kto(logp, ref, wanted, (logp - ref).detach().mean(), c.beta)
    a, b = rewards.chunk(2)
    good, bad = losses.chunk(2)
    return good + bad, a - b


def supervised(c: Any, s: PairSides) -> tuple[Tensor, Tensor]:
    """The negative log-likelihood per step of the preferred side."""
    return -s.win / s.win_steps, (s.win - s.ref_win - s.lose + s.ref_lose).detach()


# (config, Sides) -> (losses, margins), (B,) each
LOSSES: dict[str, Callable[[Any, PairSides], tuple[Tensor, Tensor]]] = {
    "dpo": lambda c, s: dpo(*s[:4], c.beta),
    "cdpo": lambda c, s: dpo(*s[:4], c.beta, c.flipped),
    "robust": lambda c, s: robust(*s[:4], c.beta, c.flipped),
    "ipo": lambda c, s: ipo(*s[:4], c.beta),
    "simpo": lambda c, s: simpo(s.win, s.lose, s.win_steps, s.lose_steps, c.beta, c.gamma),
    "kto": unpaired,
    "sft": supervised,
}


class PairObjective:
    """The mean of a loss over pairs, each counted by its weight."""

    def __init__(self, kind: str, config: PairConfig, about: AlignTarget) -> None:
        self.kind, self.config, self.about, self.policy = kind, config, about, about.policy
        self.averaged = about.policy.moves
        self.players: Mapping[str, tuple[str, ...]] = {"policy": about.policy.moves}

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        assert self.policy.score is not None
        e = batch.extras
        win, lose = self.policy.score(modules, self.about.config, self.about.space, both_sides(batch), rng).chunk(2)
        sides = PairSides(win, lose, *(e[k] for k in PairSides._fields[2:]))
        losses, margins = LOSSES[self.kind](self.config, sides)
        if self.config.keep:
            losses = losses - self.config.keep * win / e["win_steps"]
        gain_win, gain_lose = (win - e["ref_win"]).detach(), (lose - e["ref_lose"]).detach()
        metrics = {"ordered": (margins > 0).float(), "margin": margins, "win_gain": gain_win, "lose_gain": gain_lose}
        return (e["weight"] * losses).sum(), float(len(losses)), {k: v.sum() for k, v in metrics.items()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def both_sides(batch: Batch) -> Batch:
    """The preferred sides followed by the others, with the same indices."""
    e = batch.extras
    mask = None if batch.mask is None else torch.cat([batch.mask, e["lose_mask"]])
    return Batch(torch.cat([batch.x, e["lose"]]), Cond.cat([batch.cond] * 2), batch.index.repeat(2), mask)


class Pairs:
    """Batches of votes, in another order in each epoch, with the reference's scores of both sides."""

    def __init__(self, config: PairConfig, context: AlignContext) -> None:
        assert context.votes is not None
        rows = (~context.votes.tied).nonzero()[:, 0]
        if not len(rows):
            raise UserError("All votes are ties, so there is no preference to learn. Collect votes that are not ties.")
        self.context, self.votes = context, context.votes.select(rows)
        # Log-likelihoods of tokens do not depend on noise, so those of the reference are computed once.
        fixed = context.space.kind == "tokens" and context.policy.steps is not None
        self.known: Tensor | None = torch.full((len(self.votes), 2), torch.nan) if fixed else None
        self.ordered: tuple[int, Tensor] | None = None

    def __call__(self, first: int, size: int) -> Batch:
        draws, n = torch.arange(first, first + size), len(self.votes)
        rows = torch.empty(size, dtype=torch.int64)
        for epoch in torch.unique(draws // n).tolist():
            here = draws // n == epoch
            rows[here] = self.order(epoch)[draws[here] % n]
        return self.with_reference(self.at(rows, draws), rows)

    def order(self, epoch: int) -> Tensor:
        """The order of the votes in an epoch, kept until that of another is asked for."""
        if self.ordered is None or self.ordered[0] != epoch:
            bits = self.context.rng.bits(f"pairs/{epoch}", torch.arange(len(self.votes)))
            self.ordered = (epoch, bits.argsort(stable=True))
        return self.ordered[1]

    def at(self, rows: Tensor, draws: Tensor) -> Batch:
        win, lose = self.votes.win.select(rows), self.votes.lose.select(rows)
        extras = {"lose": lose.x, "weight": self.votes.weight[rows]}
        steps = [torch.ones(len(rows))] * 2
        if win.mask is not None and lose.mask is not None:
            extras["lose_mask"] = lose.mask
            steps = [m.sum(1).float().clamp_min(1) for m in (win.mask, lose.mask)]
        extras |= {"win_steps": steps[0], "lose_steps": steps[1]}
        return Batch(win.x, win.cond, draws, win.mask, extras).to(self.context.device)

    @torch.no_grad()
    def with_reference(self, batch: Batch, rows: Tensor) -> Batch:
        """The batch with the reference's scores."""
        w, policy = self.context, self.context.policy
        assert policy.score is not None
        if self.known is not None and not bool(self.known[rows].isnan().any()):
            scores = self.known[rows].to(batch.x.device)
        else:
            sides = policy.score(w.reference, w.config, w.space, both_sides(batch), w.noise).chunk(2)
            scores = torch.stack(sides, 1).float()
            if self.known is not None:
                self.known[rows] = scores.cpu()
        extras = {**batch.extras, "ref_win": scores[:, 0], "ref_lose": scores[:, 1]}
        return Batch(batch.x, batch.cond, batch.index, batch.mask, extras)


def _aligner(name: str, about: str, config: type = PairConfig) -> Aligner:
    return Aligner(
        name=name,
        about=about,
        config=config,
        needs=("score",),
        feeds="preferences",
        objective=partial(PairObjective, name),
        batches=Pairs,
    )


ALIGNERS = (
    _aligner("dpo", "classification of pairs by the implicit reward (Rafailov et al. 2023)"),
    _aligner("ipo", "dpo with a target for the margin (Azar et al. 2024)"),
    _aligner("cdpo", "dpo with a share of wrong votes (Mitchell 2023)", NoisyConfig),
    _aligner("robust", "dpo without bias by wrong votes (Chowdhury et al. 2024)", NoisyConfig),
    _aligner("simpo", "mean log-likelihood of a step, without a reference (Meng et al. 2024)", MarginConfig),
    _aligner("kto", "both sides as separate samples (Ethayarajh et al. 2024)"),
    _aligner("sft", "training on the preferred samples as on data"),
)
