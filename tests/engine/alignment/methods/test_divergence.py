"""Estimators of KL(policy || reference), in value and in gradient, against the enumeration of every string."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from afresh.core import UserError
from afresh.engine.alignment.methods import divergence as kl
from tests.engine.alignment.methods.strings import (
    LOGP,
    OLD,
    PAST,
    POLICY,
    REF,
    REFERENCE,
    SLOPE,
    TRUE,
    WORLD,
    close,
    expected,
    gradient,
)


def test_the_strings_are_all_there_are() -> None:
    assert WORLD.row.shape == (121, 4) and WORLD.rows == 40
    close(WORLD.logs(POLICY).exp().sum(), torch.ones((), dtype=torch.float64))
    assert float(TRUE.detach()) > 0.5 and float(SLOPE.abs().max()) > 0.05


# --------------------------------------------------------------------------- k1 and k3


def test_values_of_steps() -> None:
    """k1 and k3 are right in the mean."""

    def mean(k: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return expected(torch.where(WORLD.mask, k(LOGP, REF), 0), POLICY)

    close(mean(kl.k1), TRUE)
    close(mean(kl.k3), TRUE)


def test_k3_is_never_negative_and_k1_is() -> None:
    k1, k3 = (k(LOGP, REF).detach() for k in (kl.k1, kl.k3))
    assert float(k3.min()) >= 0 > float(k1.min())


def test_gradients_of_whole_strings() -> None:
    """k1's is nothing, k3's that of KL(reference || policy)."""
    logs, ref = WORLD.logs(POLICY), WORLD.logs(REFERENCE).detach()
    other = (ref.exp() * (ref - logs)).sum()
    close(gradient(expected(kl.k1(logs, ref), POLICY), POLICY), torch.zeros_like(POLICY))
    close(gradient(expected(kl.k3(logs, ref), POLICY), POLICY), gradient(other, POLICY))
    assert float((gradient(other, POLICY) - SLOPE).abs().max()) > 0.05


def test_the_gradient_of_the_exact_divergence_holds_the_prefixes() -> None:
    held = gradient(expected(kl.exact(WORLD.logits(POLICY), WORLD.logits(REFERENCE), WORLD.mask), POLICY), POLICY)
    assert float((held - SLOPE).abs().max()) > 0.02


# --------------------------------------------------------------------------- right in value and gradient


@pytest.mark.parametrize("value", ["k1", "k3"])
@pytest.mark.parametrize(("by", "old"), [(POLICY, None), (OLD, PAST)], ids=["own samples", "older samples"])
def test_weighted_is_right_in_value_and_gradient(value: str, by: Tensor, old: Tensor | None) -> None:
    mean = expected(kl.weighted(LOGP, REF, WORLD.mask, old, value), by)  # type: ignore[arg-type]
    close(mean, TRUE)
    close(gradient(mean, POLICY), SLOPE)


def test_the_exact_divergence_of_steps_varies_least() -> None:
    def variance(terms: Tensor) -> float:
        total = torch.where(WORLD.mask, terms, 0).sum(1)
        return float((expected(total.square(), POLICY) - expected(total, POLICY).square()).detach())

    summed = kl.exact(WORLD.logits(POLICY), WORLD.logits(REFERENCE), WORLD.mask)
    assert variance(summed) < 0.8 * min(variance(kl.k1(LOGP, REF)), variance(kl.k3(LOGP, REF)))


def test_without_the_prefix_a_step_does_not_answer_for_what_follows() -> None:
    """On its own samples the value is right and the gradient is that with the prefixes held."""
    mean = expected(kl.weighted(LOGP, REF, WORLD.mask, prefix=False), POLICY)
    held = gradient(expected(kl.exact(WORLD.logits(POLICY), WORLD.logits(REFERENCE), WORLD.mask), POLICY), POLICY)
    close(mean, TRUE)
    close(gradient(mean, POLICY), held)
    old = expected(kl.weighted(LOGP, REF, WORLD.mask, PAST, prefix=False), OLD)
    assert abs(float((old - TRUE).detach())) > 0.02


def test_nothing_flows_into_the_reference() -> None:
    ref = WORLD.logp(REFERENCE)
    assert ref.requires_grad
    for terms in (
        kl.k3(LOGP, ref),
        kl.weighted(LOGP, ref, WORLD.mask),
        kl.exact(WORLD.logits(POLICY), WORLD.logits(REFERENCE), WORLD.mask),
    ):
        assert torch.autograd.grad(terms.sum(), REFERENCE, allow_unused=True, retain_graph=True)[0] is None


# --------------------------------------------------------------------------- distributions of steps, the coefficient


def test_exact_by_hand_with_a_forbidden_token() -> None:
    """(1/2, 1/2) against (1/4, 3/4): ln 2 - ln 3 / 2. A token forbidden in both changes nothing, nor its gradient."""
    a = torch.tensor([[[0.0, 0.0, -math.inf]]], requires_grad=True)
    b = torch.tensor([[[0.0, math.log(3), -math.inf]]])
    found = kl.exact(a, b, torch.tensor([[True]]))
    assert found.item() == pytest.approx(math.log(2) - math.log(3) / 2, abs=1e-6)
    found.sum().backward()
    assert a.grad is not None and bool(torch.isfinite(a.grad).all()) and float(a.grad.abs().max()) > 0.1


def test_an_infinite_divergence_is_refused() -> None:
    a, b = torch.zeros(1, 1, 2), torch.tensor([[[0.0, -math.inf]]])
    mask = torch.tensor([[True]])
    assert kl.exact(b, a, mask).item() == pytest.approx(math.log(2))
    with pytest.raises(UserError, match="reference forbids"):
        kl.exact(a, b, mask)
    assert kl.exact(a, b, ~mask).item() == 0


def test_bad_input() -> None:
    x, mask = torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(UserError, match="shape"):
        kl.k1(x, x[:, :2])
    with pytest.raises(UserError, match=r"ref.*not finite for 1 of 6"):
        kl.k3(x, torch.tensor([[0.0, math.nan, 0], [0, 0, 0]]))
    with pytest.raises(UserError, match="bool"):
        kl.weighted(x, x, mask.float())
    with pytest.raises(UserError, match="old"):
        kl.weighted(x, x, mask, x[:1])
    with pytest.raises(UserError, match=r"\(B, T, V\)"):
        kl.exact(x, x, mask)
    with pytest.raises(UserError, match="forbid all tokens"):
        kl.exact(torch.full((2, 3, 2), -math.inf), torch.zeros(2, 3, 2), mask)
