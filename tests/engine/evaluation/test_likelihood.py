"""Bits per dimension: closed forms of Gaussians, from the metric and from the likelihood of a run."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from afresh.core import Space, registry
from afresh.engine.evaluation.likelihood import SCORED, bits_per_dim, scored_rows
from afresh.engine.evaluation.study import Study, Unmeasurable
from afresh.verbs.measuring import RunEvidence
from tests.engine.evaluation.evidence import Evidence, digit_evidence
from tests.engine.families.gaussian import gaussian_velocity

DIMS = 64


def gaussian_bits(x: Tensor, mean: Tensor, variance: Tensor) -> float:
    """Mean bits per dimension of x (n, D)."""
    nats = 0.5 * ((x - mean).square() / variance + variance.log() + math.log(2 * math.pi))
    return float(nats.mean() / math.log(2))


def test_the_control_is_an_independent_gaussian_averaged_over_the_noise_of_a_bin() -> None:
    evidence = digit_evidence("real")
    n = min(SCORED, len(evidence.heldout))
    nats = torch.full((n,), 2.0 * DIMS * math.log(2))
    (score,) = bits_per_dim(replace(evidence, nats=(nats, torch.full((n,), DIMS))))
    assert score.value == pytest.approx(2.0) and score.n == n and score.better == "lower"
    train = evidence.train.x.double().flatten(1)
    held = evidence.heldout.x[scored_rows(evidence.heldout)].double().flatten(1)
    mean, variance = train.mean(0), train.var(0, correction=0) + 1 / 12
    torch.manual_seed(0)
    noisy = [gaussian_bits(held + torch.rand_like(held) - 0.5, mean, variance) for _ in range(400)]
    assert score.control == pytest.approx(sum(noisy) / len(noisy), abs=0.02)


def test_a_family_without_likelihood_is_not_measured() -> None:
    with pytest.raises(Unmeasurable, match="no likelihood"):
        bits_per_dim(digit_evidence("real"))


def flow_of_gaussian_data(evidence: Evidence, space: Space) -> RunEvidence:
    """A flow whose density is N(0, std^2 I)."""
    family = registry.family("flow")
    config = family.config(widths=(8,), emb=8)
    modules = {"velocity": gaussian_velocity(space, evidence.conds).eval()}
    run = SimpleNamespace(
        family=family,
        config=config,
        modules=modules,
        space=space,
        encoder=SimpleNamespace(kind=evidence.kind, space=space),
        conds=evidence.conds,
        codec=None,
        train=SimpleNamespace(device="cpu"),
        settings=lambda values: family.sampling.settings(**values),
    )
    return RunEvidence(cast(Any, run), cast(Any, evidence))


def test_a_flow_with_a_gaussian_density_has_the_bits_of_that_gaussian() -> None:
    evidence = digit_evidence("real")
    space = Space("field", (1, 8, 8), std=0.8)
    nats, dims = flow_of_gaussian_data(evidence, space).density
    assert len(nats) == SCORED and dims.unique().tolist() == [DIMS]
    # By hand, in units of x: noise of a bin adds scale^2 / 12, and a byte holds log2(1 / scale) bits less than x.
    scale = evidence.heldout.scale
    x = evidence.heldout.x[scored_rows(evidence.heldout)].double().flatten(1) * scale + evidence.heldout.shift
    square = x.square() + scale**2 / 12
    wanted = 0.5 * (square / 0.64 + math.log(0.64) + math.log(2 * math.pi)) / math.log(2) - math.log2(scale)
    bits = float((nats / DIMS / math.log(2)).mean())
    assert bits == pytest.approx(float(wanted.mean()), abs=0.02)  # one draw of the noise, one of the probe


def test_a_bound_is_noted() -> None:
    evidence = digit_evidence("real")
    study = Study(replace(evidence, nats=(torch.full((SCORED,), 64.0), torch.full((SCORED,), DIMS)), bound=True), 10)
    (score,) = bits_per_dim(study)
    assert score.value == pytest.approx(1 / math.log(2))
    assert any("an upper bound" in note for note in study.notes)
