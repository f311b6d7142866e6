"""Learning from pairs of which one was preferred: DPO and its variants, KTO, and plain learning of what was preferred.

A pair's two sides are scored in one batch, with the same noise where the score has some (a flow's, a VAE's), and the
reference scores them alike: what is compared is how much likelier than before each has become.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from afresh.alignment.methods.pair_losses import dpo, ipo, kto, robust, simpo
from afresh.core import AlignContext, Aligner, AlignTarget, Batch, Cond, Loss, Modules, State, UserError, Votes
from afresh.core.rng import Rng


class PairConfig(BaseModel):
    """`beta`: the larger, the nearer to the reference. `keep`: weight of the preferred side's own log-likelihood a step
    beside it, against preferred samples becoming less likely (Pang et al. 2024)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    beta: float = Field(0.1, gt=0)
    keep: float = Field(0.0, ge=0)


class NoisyConfig(PairConfig):
    """`flipped`: the share of pairs thought to be the wrong way round."""

    flipped: float = Field(0.1, ge=0, lt=0.5)


class MarginConfig(PairConfig):
    """`gamma`: the margin asked for, in the reward's unit."""

    beta: float = Field(2.0, gt=0)
    gamma: float = Field(1.0, ge=0)


class Sides(NamedTuple):
    """Scores of both sides by the policy and by its reference, and how many steps each has: (B,) all."""

    win: Tensor
    lose: Tensor
    ref_win: Tensor
    ref_lose: Tensor
    win_steps: Tensor
    lose_steps: Tensor


def unpaired(c: Any, s: Sides) -> tuple[Tensor, Tensor]:
    """KTO of both sides as samples of their own; the reference point is their mean log-ratio."""
    logp, ref = torch.cat([s.win, s.lose]), torch.cat([s.ref_win, s.ref_lose])
    wanted = torch.arange(len(logp), device=logp.device) < len(s.win)
    losses, rewards = kto(logp, ref, wanted, (logp - ref).detach().mean(), c.beta)
    a, b = rewards.chunk(2)
    good, bad = losses.chunk(2)
    return good + bad, a - b


def learnt(c: Any, s: Sides) -> tuple[Tensor, Tensor]:
    """The preferred side's negative log-likelihood of a step."""
    return -s.win / s.win_steps, (s.win - s.ref_win - s.lose + s.ref_lose).detach()


# (config, Sides) -> (losses, margins), (B,) each
LOSSES: dict[str, Callable[[Any, Sides], tuple[Tensor, Tensor]]] = {
    "dpo": lambda c, s: dpo(*s[:4], c.beta),
    "cdpo": lambda c, s: dpo(*s[:4], c.beta, c.flipped),
    "robust": lambda c, s: robust(*s[:4], c.beta, c.flipped),
    "ipo": lambda c, s: ipo(*s[:4], c.beta),
    "simpo": lambda c, s: simpo(s.win, s.lose, s.win_steps, s.lose_steps, c.beta, c.gamma),
    "kto": unpaired,
    "sft": learnt,
}


class PairObjective:
    """The mean of a loss over pairs."""

    def __init__(self, kind: str, config: PairConfig, about: AlignTarget) -> None:
        self.kind, self.config, self.about, self.policy = kind, config, about, about.policy
        self.averaged = about.policy.moves
        self.players: Mapping[str, tuple[str, ...]] = {"policy": about.policy.moves}

    def loss(self, modules: Modules, batch: Batch, player: str, step: int, rng: Rng, state: State) -> Loss:
        assert self.policy.score is not None
        e = batch.extras
        win, lose = self.policy.score(modules, self.about.config, self.about.space, both(batch), rng).chunk(2)
        sides = Sides(win, lose, *(e[k] for k in Sides._fields[2:]))
        losses, margins = LOSSES[self.kind](self.config, sides)
        if self.config.keep:
            losses = losses - self.config.keep * win / e["win_steps"]
        gain_win, gain_lose = (win - e["ref_win"]).detach(), (lose - e["ref_lose"]).detach()
        metrics = {"ordered": (margins > 0).float(), "margin": margins, "win_gain": gain_win, "lose_gain": gain_lose}
        return losses.sum(), float(len(losses)), {k: v.sum() for k, v in metrics.items()}

    def update(self, state: State, metrics: Mapping[str, float]) -> State:
        return state


def both(batch: Batch) -> Batch:
    """The preferred sides, then the others, with the same numbers."""
    e = batch.extras
    mask = None if batch.mask is None else torch.cat([batch.mask, e["lose_mask"]])
    return Batch(torch.cat([batch.x, e["lose"]]), Cond.cat([batch.cond] * 2), batch.index.repeat(2), mask)


class Pairs:
    """Batches of votes in an order of their own each epoch, with what the reference thinks of both sides."""

    def __init__(self, config: PairConfig, context: AlignContext) -> None:
        assert context.votes is not None
        self.context, self.votes = context, decided(context.votes)
        # A likelihood of tokens has no noise in it: the reference's is the same each time, and is kept.
        fixed = context.space.kind == "tokens" and context.policy.steps is not None
        self.known: Tensor | None = torch.full((len(self.votes), 2), torch.nan) if fixed else None

    def __call__(self, first: int, size: int) -> Batch:
        draws, n = torch.arange(first, first + size), len(self.votes)
        rows = torch.empty(size, dtype=torch.int64)
        for epoch in torch.unique(draws // n).tolist():
            order = self.context.rng.bits(f"pairs/{epoch}", torch.arange(n)).argsort(stable=True)
            here = draws // n == epoch
            rows[here] = order[draws[here] % n]
        return self.judged(self.at(rows, draws), rows)

    def at(self, rows: Tensor, draws: Tensor) -> Batch:
        win, lose = self.votes.win.select(rows), self.votes.lose.select(rows)
        extras = {"lose": lose.x}
        steps = [torch.ones(len(rows))] * 2
        if win.mask is not None and lose.mask is not None:
            extras["lose_mask"] = lose.mask
            steps = [m.sum(1).float().clamp_min(1) for m in (win.mask, lose.mask)]
        extras |= {"win_steps": steps[0], "lose_steps": steps[1]}
        return Batch(win.x, win.cond, draws, win.mask, extras).to(self.context.device)

    @torch.no_grad()
    def judged(self, batch: Batch, rows: Tensor) -> Batch:
        """With the reference's scores."""
        w, policy = self.context, self.context.policy
        assert policy.score is not None
        if self.known is not None and not bool(self.known[rows].isnan().any()):
            found = self.known[rows].to(batch.x.device)
        else:
            scores = policy.score(w.reference, w.config, w.space, both(batch), w.noise)
            found = torch.stack(scores.chunk(2), 1).float()
            if self.known is not None:
                self.known[rows] = found.cpu()
        extras = {**batch.extras, "ref_win": found[:, 0], "ref_lose": found[:, 1]}
        return Batch(batch.x, batch.cond, batch.index, batch.mask, extras)


def decided(votes: Votes) -> Votes:
    """Votes without ties, which say nothing of which side to prefer. Raises UserError where none are left."""
    rows = (~votes.tied).nonzero()[:, 0]
    if not len(rows):
        raise UserError("All votes are ties: there is no preference to learn.")
    return Votes(votes.win.select(rows), votes.lose.select(rows), votes.tied[rows])


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
    _aligner("dpo", "the implicit reward orders each pair (Rafailov et al. 2023)"),
    _aligner("ipo", "the same with a margin that is not outrun (Azar et al. 2024)"),
    _aligner("cdpo", "dpo that expects some votes to be wrong (Mitchell 2023)", NoisyConfig),
    _aligner("robust", "dpo without bias from wrong votes (Chowdhury et al. 2024)", NoisyConfig),
    _aligner("simpo", "without a reference, by the mean likelihood of a step (Meng et al. 2024)", MarginConfig),
    _aligner("kto", "both sides as samples of their own (Ethayarajh et al. 2024)"),
    _aligner("sft", "what was preferred is learnt as data is"),
)
