"""Losses of preferences, from log-probabilities of whole samples: which of two was preferred, or which was wanted.

All take and give (B,) tensors and return (losses, margins). Log-probabilities are sums over a sample's steps, in nats,
of the policy (`win`, `lose`) and of its reference (`ref_win`, `ref_lose`), which gets no gradient. The implicit reward
of a sample is beta (logp - ref), its margin the preferred one's minus the other's: above 0 where the policy orders the
pair rightly; margins carry no gradient. Everything raises UserError for shapes that disagree, for numbers that are not
finite and for settings out of range.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from afresh.alignment.methods.advantages import agreed, within
from afresh.core import UserError


def _gap(win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, beta: float) -> Tensor:
    """(logp - ref) of the preferred minus that of the other, (B,)."""
    _positive("beta", beta)
    a, b, c, d = agreed({"win": win, "lose": lose, "ref_win": ref_win, "ref_lose": ref_lose}, 1)
    return (a - c.detach()) - (b - d.detach())


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise UserError(f"{name} is {value:g}. It is to be above 0.")


def dpo(
    win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, beta: float = 0.1, smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """-log sigmoid(margin): Rafailov et al. 2023, eq. 7. On enough preferences its optimum is ref exp(r / beta) / Z.

    With `smoothing` e, the share of pairs thought to be the wrong way round, it is
    -(1 - e) log sigmoid(margin) - e log sigmoid(-margin), whose margin stops at log((1 - e) / e) (cDPO: Mitchell 2023,
    "A note on DPO with noisy preferences", ericmitchell.ai/cdpo.pdf).
    """
    within("smoothing", smoothing, 0, 0.5)
    margin = beta * _gap(win, lose, ref_win, ref_lose, beta)
    losses = -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)
    return losses, margin.detach()


def robust(
    win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, beta: float = 0.1, flipped: float = 0.1
) -> tuple[Tensor, Tensor]:
    """DPO without bias from pairs of which a share `flipped` e is the wrong way round: Chowdhury et al. 2024.

    (-(1 - e) log sigmoid(margin) + e log sigmoid(-margin)) / (1 - 2 e): its mean over the flips is the loss of the
    clean pair. Its losses may be negative. `flipped` below 0.5.
    """
    within("flipped", flipped, 0, 0.499)
    margin = beta * _gap(win, lose, ref_win, ref_lose, beta)
    losses = (-(1 - flipped) * F.logsigmoid(margin) + flipped * F.logsigmoid(-margin)) / (1 - 2 * flipped)
    return losses, margin.detach()


def ipo(win: Tensor, lose: Tensor, ref_win: Tensor, ref_lose: Tensor, beta: float = 0.1) -> tuple[Tensor, Tensor]:
    """(gap - 1 / (2 beta))^2, gap = margin / beta: Azar et al. 2024, eq. 17, whose tau is beta.

    On sums over steps, as in the paper: only then is the optimum ref exp(p / beta) / Z, p being how often a sample is
    preferred to others. TRL uses means over steps; for that, give log-probabilities divided by the lengths.
    """
    gap = _gap(win, lose, ref_win, ref_lose, beta)
    return (gap - 1 / (2 * beta)).square(), beta * gap.detach()


def simpo(
    win: Tensor, lose: Tensor, win_steps: Tensor, lose_steps: Tensor, beta: float = 2.0, gamma: float = 1.0
) -> tuple[Tensor, Tensor]:
    """-log sigmoid(margin - gamma) without a reference: Meng et al. 2024, eq. 6.

    The reward is beta times the mean log-probability of a step, so that length earns nothing; `win_steps`,
    `lose_steps` (B,) are the lengths, at least 1; gamma is the margin asked for, in the reward's unit.
    """
    _positive("beta", beta)
    within("gamma", gamma, 0, 1e6)
    a, b, n, m = agreed({"win": win, "lose": lose, "win_steps": win_steps, "lose_steps": lose_steps}, 1)
    if bool((torch.minimum(n, m) < 1).any()):
        raise UserError("A length is below 1. The mean log-probability of a sample without steps does not exist.")
    margin = beta * (a / n - b / m)
    return -F.logsigmoid(margin - gamma), margin.detach()


def kto(
    logp: Tensor,
    ref: Tensor,
    wanted: Tensor,
    z0: Tensor | float,
    beta: float = 0.1,
    weights: tuple[float, float] = (1.0, 1.0),
) -> tuple[Tensor, Tensor]:
    """Unpaired preferences: weight - value of each sample, and its implicit reward (B,): Ethayarajh et al. 2024.

    `wanted` (B,) bool. The value is weights[0] sigmoid(beta (logp - ref - z0)) of wanted samples and
    weights[1] sigmoid(beta (z0 - logp + ref)) of others. The reference point z0, in nats, is an estimate of
    KL(policy || ref) that the caller makes, one number or (B,); it gets no gradient, and below 0 it is taken as 0, as
    in the paper. With n wanted and m other samples, n weights[0] : m weights[1] should be from 1 : 1 to 4 : 3.
    """
    _positive("beta", beta)
    for name, weight in zip(("weights[0]", "weights[1]"), weights, strict=True):
        within(name, weight, 0, 1e6)
    now, base = agreed({"logp": logp, "ref": ref}, 1)
    point = torch.as_tensor(z0, dtype=now.dtype, device=now.device).detach()
    point = agreed({"logp": now, "z0": point.expand(now.shape) if point.dim() == 0 else point}, 1)[1].clamp(min=0)
    if wanted.dtype != torch.bool or wanted.shape != now.shape:
        raise UserError(f"wanted is {wanted.dtype} {tuple(wanted.shape)}. It is to be bool {tuple(now.shape)}.")
    gap = now - base.detach()
    surprise = beta * (gap - point)
    losses = torch.where(wanted, weights[0] * torch.sigmoid(-surprise), weights[1] * torch.sigmoid(surprise))
    return losses, beta * gap.detach()


def bradley_terry(
    win: Tensor, lose: Tensor, tied: Tensor | None = None, log_nu: Tensor | float | None = None
) -> tuple[Tensor, Tensor]:
    """Minus the log-likelihood of comparisons under rewards win, lose (B,) of a reward model; margins win - lose.

    Without ties -log sigmoid(win - lose): Bradley and Terry 1952. With ties Davidson 1970: `tied` (B,) bool is
    true where neither was preferred (which is then called win does not matter), and the chances of win, lose and tie
    are softmax((win - lose) / 2, (lose - win) / 2, log_nu). `log_nu` may be learnt: a number or a scalar tensor; at
    equal rewards a tie has nu times the chance of a win.

    Davidson's model and not one with a threshold on the margin: the odds of win to lose stay exp(win - lose) whatever
    nu is, so that rewards mean the same as without ties and as DPO's margins; and any log_nu is a valid model, whereas
    a threshold of 0 gives ties no chance and an infinite loss.
    """
    a, b = agreed({"win": win, "lose": lose}, 1)
    margin = a - b
    if (tied is None) != (log_nu is None):
        raise UserError("Ties need both: tied (B,) bool, and log_nu, how common they are (start at 0). One is missing.")
    if tied is None or log_nu is None:
        return -F.logsigmoid(margin), margin.detach()
    if tied.dtype != torch.bool or tied.shape != margin.shape:
        raise UserError(f"tied is {tied.dtype} {tuple(tied.shape)}. It is to be bool {tuple(margin.shape)}.")
    common = torch.as_tensor(log_nu, dtype=margin.dtype, device=margin.device)
    if common.dim() or not bool(torch.isfinite(common)):
        raise UserError("log_nu is to be one finite number.")
    logs = torch.stack([margin / 2, -margin / 2, common.expand_as(margin)]).log_softmax(0)
    return -torch.where(tied, logs[2], logs[0]), margin.detach()
