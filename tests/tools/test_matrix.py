"""The support table: its toys are what they say, its verdicts are the families' own flags."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tools.matrix import CONTROLS, SUBJECTS, Row, Subject, toys
from tools.matrix import align as steering
from tools.matrix.toys import CHAINS, FIELDS, PATTERNS, TOKENS

from afresh.core import UserError, registry
from tools import matrix

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def saved() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(matrix.JSON.read_text(encoding="utf-8"))
    return found


# --------------------------------------------------------------------------- the toys


def test_patterns_are_orthogonal() -> None:
    flat = PATTERNS.flatten(1)
    torch.testing.assert_close(flat @ flat.T / toys.SIDE**2, torch.eye(4), rtol=0, atol=1e-5)


def test_labels_of_fields_are_right_as_often_as_theory_says() -> None:
    """Two coordinates with unit variance and centres at +-d: right with probability Phi(d)^2."""
    x, label = FIELDS.fresh
    phi = 0.5 * (1 + math.erf(toys.APART / math.sqrt(2)))
    found = float((FIELDS.logp(x).argmax(0) == label).double().mean())
    assert found == pytest.approx(phi**2, abs=4 * math.sqrt(0.16 / len(x)))
    assert float(x.std()) == pytest.approx(toys.STD, rel=0.01)


def test_probabilities_of_sequences_sum_to_one() -> None:
    every = torch.cartesian_prod(*[torch.arange(4)] * toys.LENGTH)
    total = TOKENS.logp(every).exp().sum(1) / 4  # the first token is any of four
    torch.testing.assert_close(total, torch.ones(4), rtol=1e-4, atol=0)


def test_sequences_follow_their_chains() -> None:
    x, label = TOKENS.fresh
    for c in range(toys.CLASSES):
        rows = x[label == c]
        steps = torch.bincount((rows[:, :-1] * 4 + rows[:, 1:]).flatten(), minlength=16).view(4, 4).float()
        torch.testing.assert_close(steps / steps.sum(1, keepdim=True), CHAINS[c], rtol=0, atol=0.02)


def test_real_data_is_plausible_and_noise_is_not() -> None:
    for toy in (FIELDS, TOKENS):
        assert float(toy.plausible(toy.fresh[0]).double().mean()) >= 0.99
    x, label = FIELDS.fresh
    assert FIELDS.right(3 * x, label) < 0.05
    assert FIELDS.right(x, label.roll(1)) < 0.3


# --------------------------------------------------------------------------- the table


def test_a_gain_must_be_more_than_two_standard_errors() -> None:
    def row(gain: float, se: float | None) -> bool:
        return Row("flow", "guidance", "right", "", 0.0, gain, gain, se, 1.0, 3).supported

    assert row(0.2, 0.09) and row(0.1, None)
    assert not row(0.2, 0.11) and not row(-0.1, None) and not row(0.0, 0.0)


CONDITIONAL = [f for f in registry.FAMILIES if registry.family(f).plan.cond_dropout]  # the others leave conditions out


def test_every_family_and_control_was_measured(saved: dict[str, Any]) -> None:
    assert {s.family for s in SUBJECTS} == set(CONDITIONAL)
    found = [(r["family"], r["control"], r["gains"]) for r in saved["rows"]]
    assert sorted(found) == sorted((f, c.name, c.gains) for c in CONTROLS for f in c.families)
    assert all(r["n"] >= 3 and r["se"] is not None for r in saved["rows"])


def test_verdicts_follow_from_the_numbers(saved: dict[str, Any]) -> None:
    for r in saved["rows"]:
        assert r["supported"] == (r["gain"] - 2 * r["se"] > 0), r
        assert r["gain"] == pytest.approx(r["using"] - r["without"], abs=2e-4)


@pytest.mark.parametrize("family", CONDITIONAL)
def test_guidance_is_offered_where_it_was_measured_to_gain(family: str, saved: dict[str, Any]) -> None:
    """Run `make matrix`, then set `guided` in the family's file to what it found."""
    (row,) = [r for r in saved["rows"] if r["family"] == family and r["control"] == "guidance"]
    assert registry.family(family).sampling.guided == row["supported"]


# --------------------------------------------------------------------------- steering

CAN = {(f, m) for f in registry.FAMILIES for m in registry.aligners() if steering.fitting(m, f)}
# A search is of items, which the toys do not have: tests/engine/alignment/test_search.py.
TRIED = [m for m, a in registry.aligners().items() if not a.searches]


def test_every_method_was_tried_on_every_family_that_has_what_it_takes(saved: dict[str, Any]) -> None:
    assert {m.name for m in steering.METHODS} == set(TRIED)
    assert {s.family for s in matrix.STEERED} == set(registry.FAMILIES)
    found = [(r["family"], r["method"]) for r in saved["steering"]]
    assert sorted(found) == sorted((f, m) for f, m in CAN if m in TRIED)
    assert all(r["n"] >= 3 for r in saved["steering"])


def test_verdicts_on_steering_follow_from_the_numbers(saved: dict[str, Any]) -> None:
    for r in saved["steering"]:
        kept = min(r["right"], r["plausible"]) >= steering.QUALITY and r["variety"] >= steering.VARIETY
        assert r["supported"] == (kept and r["gain"] >= steering.LEAST and r["gain"] - 2 * r["se"] > 0), r


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_a_method_that_cannot_work_is_refused_and_shown_so(family: str, saved: dict[str, Any]) -> None:
    """The error names what works for the family, and the families that the method works for; the table has a dash."""
    shown = steering.grid(saved["steering"]).splitlines()
    lines = {line.split(" | ")[0].strip("| "): line for line in shown if line.startswith("| ")}
    heads = lines["Steering"].strip("| ").split(" | ")  # a family that nothing steers has no column
    works = [m for m in registry.aligners() if (family, m) in CAN]
    for method in TRIED:
        cells = dict(zip(heads, lines[method].strip("| ").split(" | "), strict=True))
        assert (cells.get(family, "-") == "-") == (method not in works)
        if method not in works:
            others = [f for f in registry.FAMILIES if (f, method) in CAN]
            with pytest.raises(UserError) as told:
                registry.aligner(method, registry.family(family))
            assert f"Methods that do: {', '.join(works) or 'none'}." in str(told.value)
            assert f"Families that {method} works for: {', '.join(others)}" in str(told.value)


def test_the_reward_of_the_toys_says_nothing_of_the_class() -> None:
    for toy in (FIELDS, TOKENS):
        x, label = toy.fresh
        means = torch.stack([steering.reward(toy, x[label == c]).mean() for c in range(toys.CLASSES)])
        assert float(means.max() - means.min()) < 0.03
    x, _ = FIELDS.fresh
    expected = math.exp(-(steering.AIM**2) / 4) / math.sqrt(2)  # E exp(-(w - a)^2 / 2), w ~ N(0, 1)
    assert float(steering.reward(FIELDS, x).mean()) == pytest.approx(expected, abs=0.01)
    assert float(steering.reward(TOKENS, TOKENS.fresh[0]).mean()) == pytest.approx(0.25, abs=0.01)


def test_variety_falls_where_samples_become_alike() -> None:
    for toy in (FIELDS, TOKENS):
        x, label = toy.fresh
        assert steering.variety(toy, x[:1].expand_as(x), label) == pytest.approx(0, abs=1e-6)
        first = x[torch.arange(len(x)) % 8 // 4 * 4 + label]  # two samples a class
        assert 0 < steering.variety(toy, first, label) < 0.75 * steering.variety(toy, x, label)
    x, label = FIELDS.fresh
    expected = math.sqrt(2 * (4 * toys.SCALE**2 + toys.NOISE**2))  # four weights of variance 1, and noise
    assert steering.variety(FIELDS, x, label) == pytest.approx(expected, rel=0.02)


# --------------------------------------------------------------------------- one seed of it, measured now


def test_a_model_is_still_steered() -> None:
    """A seed that the table did not use, half trained."""
    subject = next(s for s in SUBJECTS if s.family == "transformer")
    model = matrix.train(subject, seed=100, share=0.5)
    methods = [m for m in steering.METHODS if m.name in ("rloo", "dpo")]
    for row in steering.measure([model], methods):
        assert row.gain > 0.05 and row.variety > steering.VARIETY, row


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.family)
def test_a_condition_and_guidance_still_gain(subject: Subject, saved: dict[str, Any]) -> None:
    """A seed that the table did not use, at a part of the steps."""
    model = replace(matrix.train(subject, seed=100, share=0.4), drawn=400)
    supported = {r["control"] for r in saved["rows"] if r["family"] == subject.family and r["supported"]}
    controls = [c for c in CONTROLS if c.name in supported and c.name in ("condition", "guidance")]
    assert "condition" in {c.name for c in controls}
    for row in matrix.measure({subject.family: [model]}, controls):
        assert row.gain > (0.2 if row.control == "condition" else 0.0), row
