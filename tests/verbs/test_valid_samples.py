"""Samples that are drawn again until they are valid."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from afresh.core import Cond, Space, UserError
from afresh.engine.alignment.best_of_n import CANDIDATE_STRIDE, Rows
from afresh.verbs.valid_samples import valid_line, valid_samples

SPACE = Space("tokens", (4,), (9,), {"end": 0}, stream=True)


def draw(cond: Cond, numbers: Tensor) -> Rows:
    """Sample i is valid from attempt i on."""
    attempts = numbers // CANDIDATE_STRIDE
    names = [f"{i}:{k}" for i, k in zip((numbers % CANDIDATE_STRIDE).tolist(), attempts.tolist(), strict=True)]
    return Rows(names, torch.stack([numbers % CANDIDATE_STRIDE, attempts], 1))


def test_each_sample_is_the_first_valid_one_of_its_own() -> None:
    found, kept, records = valid_samples(draw, Cond(4), lambda v: int(v[2:]) >= int(v[0]), SPACE)
    assert found.values == ["0:0", "1:1", "2:2", "3:3"] and found.x.tolist() == [[i, i] for i in range(4)]
    assert kept.tolist() == [0, 1, 2, 3] and [r["attempts"] for r in records] == [1, 2, 3, 4]
    assert valid_line([1, 2, 3, 4]) == "4 valid samples of 10 drawn: 40.0% are valid"


def test_what_is_valid_is_kept_where_not_all_is(capsys: pytest.CaptureFixture[str]) -> None:
    found, kept, records = valid_samples(draw, Cond(4), lambda v: v[0] in "13" and v[2:] == "2", SPACE)
    assert found.values == ["1:2", "3:2"] and kept.tolist() == [1, 3] and records == [{"attempts": 3}] * 2
    assert "2 of 4 samples were not valid in 50 attempts each, and are left out; the other 2 are kept" in (
        capsys.readouterr().err
    )


def test_a_model_without_valid_samples_is_said() -> None:
    with pytest.raises(UserError, match="4 of 4 samples were not valid in 50 attempts"):
        valid_samples(draw, Cond(4), lambda v: False, SPACE)
