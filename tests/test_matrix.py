"""The support table: its toys are what they say, its verdicts are the families' own flags, its texts are fresh."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from afresh import catalog
from tests import matrix
from tests import matrix_toys as toys
from tests.matrix import CONTROLS, SUBJECTS, Row, Subject
from tests.matrix_toys import CHAINS, FIELDS, PATTERNS, TOKENS


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


CONDITIONAL = [f for f in catalog.FAMILIES if catalog.family(f).null_rate]  # the others leave conditions out


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
    assert catalog.family(family).guided == row["supported"]


def test_the_page_and_the_readme_show_these_numbers(saved: dict[str, Any]) -> None:
    assert matrix.PAGE.read_text(encoding="utf-8") == matrix.page(saved)
    readme = matrix.README.read_text(encoding="utf-8")
    assert readme == matrix.update_readme(readme, matrix.table(saved["rows"])), "run make matrix"


def test_the_readme_keeps_what_stands_around_the_table() -> None:
    text = f"before\n{matrix.START}\nold\n{matrix.END}\nafter\n"
    assert matrix.update_readme(text, "new\n") == f"before\n{matrix.START}\nnew\n{matrix.END}\nafter\n"
    assert matrix.update_readme("no markers", "new\n") == "no markers"


# --------------------------------------------------------------------------- one seed of it, measured now


@pytest.mark.slow
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: s.family)
def test_a_condition_and_guidance_still_gain(subject: Subject, saved: dict[str, Any]) -> None:
    """A seed that the table did not use, at a part of the steps."""
    model = replace(matrix.train(subject, seed=100, share=0.4), drawn=400)
    supported = {r["control"] for r in saved["rows"] if r["family"] == subject.family and r["supported"]}
    controls = [c for c in CONTROLS if c.name in supported and c.name in ("condition", "guidance")]
    assert "condition" in {c.name for c in controls}
    for row in matrix.measure({subject.family: [model]}, controls):
        assert row.gain > (0.2 if row.control == "condition" else 0.0), row
