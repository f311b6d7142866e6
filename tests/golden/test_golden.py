"""A change that is not meant to change what is learnt does not."""

from __future__ import annotations

import pytest
import torch

from afresh.core import registry
from tests.golden import ROWS, losses, stored


def test_every_family_has_golden_losses() -> None:
    assert set(registry.FAMILIES) <= set(ROWS) <= {*registry.FAMILIES, *registry.FOREIGN}


@pytest.mark.parametrize("family", ROWS)
def test_losses_are_those_of_the_last_version(family: str) -> None:
    threads = torch.get_num_threads()
    try:
        found = losses(family)
    finally:
        torch.set_num_threads(threads)
    expected = stored(family)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=ROWS[family].tolerance), name
