"""Losses of preferences, from log-probabilities of whole samples: paired preferences, or single desirable samples.

All functions take tensors (B,) and return (losses, margins), each (B,). Log-probabilities are sums over the steps of a
sample, in nats, of the policy (`win`, `lose`) and of its reference (`ref_win`, `ref_lose`), which gets no gradient. The
implicit reward of a sample is beta (logp - ref). The margin is that of the preferred sample minus that of the other,
above 0 if the policy orders the pair correctly; margins carry no gradient. All functions raise UserError for shapes
that disagree, for numbers that are not finite and for settings out of range.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.core import UserError
from afresh.engine.alignment.methods.advantages import agreed, within


def _gap(win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, beta: float) -> Tensor:
    """(logp - ref) of the preferred minus that of the other, (B,)."""
    _positive("beta", beta)
    a, b, c, d = agreed({"win": win, "lose": lose, "ref_win": ref_win, "ref_lose": ref_lose}, 1)
    return (a - c.detach()) - (b - d.detach())


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UserError(f"{name} must be above 0. Given: {value:g}.")


def dpo(
    win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, beta: float = 0.1, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """-log sigmoid(margin): Rafailov et al. 2023, eq. 7. With enough preferences its optimum is ref exp(r / beta) / Z.

    With `smoothing` e, the assumed share of wrong preferences, the loss is -(1 - e) log sigmoid(margin) - e log
    sigmoid(-margin), whose optimal margin is log((1 - e) / e) (cDPO: Mitchell 2023, "A note on DPO with noisy
    preferences", ericmitchell.ai/cdpo.pdf).
    """
    within("smoothing", smoothing, 0, 0.5)
    margin = beta * _gap(win, lose, ref_win, ref_lose, beta)
    losses = -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)
    return losses, margin.detach()


def robust(
    win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, beta: float = 0.1, flipped: float = 0.1
) -> tuple[Tensor, Tensor]:
    """DPO without bias if a share `flipped` e of the preferences is wrong: Chowdhury et al. 2024.

    (-(1 - e) log sigmoid(margin) + e log sigmoid(-margin)) / (1 - 2 e), whose mean over wrong and correct preferences
    is the loss of the correct one. Losses may be negative. `flipped` must be below 0.5.
    """
    within("flipped", flipped, 0, 0.499)
    margin = beta * _gap(win, lose, ref_win, ref_lose, beta)
    losses = (-(1 - flipped) * F.logsigmoid(margin) + flipped * F.logsigmoid(-margin)) / (1 - 2 * flipped)
    return losses, margin.detach()


def ipo(win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, beta: float = 0.1) -> tuple[Tensor, Tensor]:
    """(gap - 1 / (2 beta))^2, gap = margin / beta: Azar et al. 2024, eq. 17, whose tau is beta.

    Log-probabilities are sums over steps, as in the paper: only then is the optimum ref exp(p / beta) / Z, where p is
    how often a sample is preferred to others. TRL uses means over steps; for these, divide by the lengths.
    """
    gap = _gap(win, lose, ref_win, ref_lose, beta)
    return (gap - 1 / (2 * beta)).square(), beta * gap.detach()


def simpo(
    win: Tensor, lose: Tensor, win_steps: Tensor, lose_steps: Tensor, beta: float = 2.0, gamma: float = 1.0
) -> tuple[Tensor, Tensor]:
    """-log sigmoid(margin - gamma) without a reference: Meng et al. 2024, eq. 6.

    The reward is beta times the mean log-probability of a step, so that it does not depend on length. `win_steps` and
    `lose_steps` (B,) are the lengths, at least 1; gamma is the target margin in the unit of the reward.
    """
    _positive("beta", beta)
    within("gamma", gamma, 0, 1e6)
    a, b, n, m = agreed({"win": win, "lose": lose, "win_steps": win_steps, "lose_steps": lose_steps}, 1)
    if bool((torch.minimum(n, m) < 1).any()):
        raise UserError("Some lengths are below 1. The mean log-probability of a sample without steps is not defined.")
    margin = beta * (a / n - b / m)
    return -F.logsigmoid(margin - gamma), margin.detach()


def kto(logp: Tensor, ref: Tensor, wanted: Tensor, z0: Tensor | float, beta: float = 0.1) -> tuple[Tensor, Tensor]:
    """Unpaired preferences: 1 - value of each sample, and its implicit reward (B,): Ethayarajh et al. 2024.

    `wanted` (B,) bool is true for desirable samples. The value is sigmoid(beta (logp - ref - z0)) for these and
    sigmoid(beta (z0 - logp + ref)) for others. The reference point z0, in nats, is the caller's estimate
    of KL(policy || ref), one number or (B,); it gets no gradient, and is set to 0 if it is below 0, as in the paper.
    """
    _positive("beta", beta)
    now, base = agreed({"logp": logp, "ref": ref}, 1)
    point = torch.as_tensor(z0, dtype=now.dtype, device=now.device).detach()
    point = agreed({"logp": now, "z0": point.expand(now.shape) if point.dim() == 0 else point}, 1)[1].clamp(min=0)
    if wanted.dtype != torch.bool or wanted.shape != now.shape:
        raise UserError(f"wanted must be bool {tuple(now.shape)}. Given: {wanted.dtype} {tuple(wanted.shape)}.")
    gap = now - base.detach()
    surprise = beta * (gap - point)
    losses = torch.where(wanted, torch.sigmoid(-surprise), torch.sigmoid(surprise))
    return losses, beta * gap.detach()


def bradley_terry(
    win: Tensor, lose: Tensor, tied: Tensor | None = None, log_nu: Tensor | float | None = None
) -> tuple[Tensor, Tensor]:
    """The negative log-likelihood of comparisons under rewards win, lose (B,) of a reward model; margins win - lose.

    Without ties it is -log sigmoid(win - lose): Bradley and Terry 1952. With ties, Davidson 1970: `tied` (B,) bool is
    true if neither was preferred (the order of the two then does not matter), and the probabilities of win, lose and
    tie are softmax((win - lose) / 2, (lose - win) / 2, log_nu). `log_nu`, a number or a scalar tensor, may be learnt;
    at equal rewards a tie is nu times as probable as a win.

    Davidson's model has two advantages over a threshold on the margin. The odds of win to lose are exp(win - lose) for
    any nu, so that rewards mean the same as without ties and as the margins of DPO. And any log_nu is valid, while a
    threshold of 0 gives ties the probability 0 and an infinite loss.
    """
    a, b = agreed({"win": win, "lose": lose}, 1)
    margin = a - b
    if (tied is None) != (log_nu is None):
        raise UserError("Ties need both `tied` (B,) bool and `log_nu` (0 to begin with). One of them is missing.")
    if tied is None or log_nu is None:
        return -F.logsigmoid(margin), margin.detach()
    if tied.dtype != torch.bool or tied.shape != margin.shape:
        raise UserError(f"tied must be bool {tuple(margin.shape)}. Given: {tied.dtype} {tuple(tied.shape)}.")
    common = torch.as_tensor(log_nu, dtype=margin.dtype, device=margin.device)
    if common.dim() or not bool(torch.isfinite(common)):
        raise UserError("log_nu must be one finite number.")
    logs = torch.stack([margin / 2, -margin / 2, common.expand_as(margin)]).log_softmax(0)
    return -torch.where(tied, logs[2], logs[0]), margin.detach()
