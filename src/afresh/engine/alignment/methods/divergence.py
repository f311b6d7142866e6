"""Estimators of the divergence KL(policy || reference), in nats, from samples or from distributions.

An estimator has two properties: whether its mean over the policy's samples is the divergence, and whether the mean of
its gradient, if it is a term of a loss, is the gradient of the divergence. With d = logp - ref (Schulman 2020,
"Approximating KL divergence", joschu.net/blog/kl-approx.html; for the gradients Tang and Munos 2025, arXiv:2506.09477):

    estimator             value                      gradient in a loss, on the policy's own samples
    k1 = d                unbiased, may be negative  0 in the mean, so no penalty
    k3 = e^-d - 1 + d     unbiased, never negative   that of KL(reference || policy), another divergence
    weighted              unbiased                   correct, also for samples of an older policy
    exact                 unbiased, least variance   without the effect of a step on later steps

If k3 is computed for single steps, its gradient also ignores that a step changes the following prefixes; that of
`weighted` does not. k3 is unbiased only if the policy can draw whatever the reference can, which excludes top-k. All
functions raise UserError for shapes that disagree and for numbers that are not finite.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from afresh.core import UserError
from afresh.engine.alignment.methods.advantages import agreed

# --------------------------------------------------------------------------- values


def k1(logp: Tensor, ref: Tensor) -> Tensor:
    """logp - ref, both of the same shape: of steps, or of sequences (their sums)."""
    if logp.shape != ref.shape:
        raise UserError(f"ref has the shape {tuple(ref.shape)}, logp {tuple(logp.shape)}. They must be the same.")
    now, base = agreed({"logp": logp.flatten(), "ref": ref.flatten()}, 1)
    return (now - base.detach()).view(logp.shape)


def k3(logp: Tensor, ref: Tensor) -> Tensor:
    """exp(ref - logp) - 1 + logp - ref: k1 with a control variate of mean 0; never negative."""
    d = k1(logp, ref)
    return torch.expm1(-d) + d


# --------------------------------------------------------------------------- value and gradient


def weighted(
    logp: Tensor,
    ref: Tensor,
    mask: Tensor,
    old: Tensor | None = None,
    value: Literal["k1", "k3"] = "k3",
    prefix: bool = True,
) -> Tensor:
    """Terms (B, T) whose sum over t estimates the divergence of sequences without bias, in value and in gradient.

    logp, ref, old (B, T) are log-probabilities of the steps under the policy, the reference and the policy that drew
    the samples (None: the current policy). Each term is W_t k_t, where W_t = exp(sum over s <= t of logp_s - old_s) has
    a gradient: the mean over samples of the old policy is then the divergence as a function of the policy, so that its
    derivative is correct as well. On the policy's own samples W is 1, and its gradient is the score function.

    W_t is a product of up to T ratios, and its variance grows with T. Without `prefix` it is the ratio of the step
    alone, which has a small variance, but the prefixes are those of the old policy and the effect of a step on later
    steps is ignored.
    """
    now, base = agreed({"logp": logp, "ref": ref}, 2, mask)
    k = {"k1": k1, "k3": k3}[value](now, base)
    then = now if old is None else agreed({"logp": now, "old": old}, 2, mask)[1]
    return (_ratio(now, then.detach(), prefix) * k).masked_fill(~mask, 0)


def _ratio(now: Tensor, old: Tensor, prefix: bool) -> Tensor:
    """exp(logp - old) of each step (B, T), or with `prefix` of all steps up to it. Masked steps have the ratio 1."""
    gap = now - old
    return (gap.cumsum(1) if prefix else gap).exp()


def exact(logits: Tensor, ref_logits: Tensor, mask: Tensor) -> Tensor:
    """KL(policy || reference) of the distribution of each step, (B, T), 0 where masked; from logits (B, T, V).

    Only the prefixes are sampled: the sum over a sampled sequence is the Rao-Blackwellised estimate of Amini et al.
    2025 (arXiv:2504.10637). A logit of minus infinity forbids a token. Raises UserError if the policy allows tokens
    that the reference forbids, because the divergence is then infinite.
    """
    a, b = log_shares(logits, mask), log_shares(ref_logits, mask).detach()
    if a.shape != b.shape:
        raise UserError(f"logits have the shape {tuple(a.shape)}, ref_logits {tuple(b.shape)}. They must be the same.")
    possible = a > -torch.inf
    if bool((possible & (b == -torch.inf)).any()):
        raise UserError(
            "The policy allows tokens that the reference forbids (a logit of minus infinity): their divergence is "
            "infinite. Forbid the same tokens in both."
        )
    gap = torch.where(possible, a, 0) - torch.where(possible, b, 0)
    return (a.exp() * gap).sum(2)


def log_shares(logits: Tensor, mask: Tensor) -> Tensor:
    """Log-probabilities (B, T, V), at least float32, of logits that may be minus infinity; uniform where masked."""
    if logits.dim() != 3 or mask.dtype != torch.bool or logits.shape[:2] != mask.shape:
        raise UserError(
            f"Logits must be (B, T, V) and the mask (B, T) bool. Given: logits {tuple(logits.shape)}, mask "
            f"{tuple(mask.shape)} {mask.dtype}."
        )
    kept = (logits if logits.dtype == torch.float64 else logits.float()).masked_fill(~mask[:, :, None], 0)
    if bool((torch.isnan(kept) | (kept == torch.inf)).any()) or bool((kept == -torch.inf).all(2).any()):
        raise UserError("Some logits are NaN or infinite, or forbid all tokens of a step. Mask such steps.")
    return kept.log_softmax(2)
