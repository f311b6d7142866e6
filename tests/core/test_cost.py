"""What a task costs is bounded only where somebody said so."""

from __future__ import annotations

import pytest

from afresh.core import UserError
from afresh.core.cost import at_most, check_cost


def test_only_what_is_over_the_limit_of_its_context_is_refused() -> None:
    check_cost(10**12, "All samples")
    with at_most(100):
        check_cost(100, "These samples")
        with at_most(200):
            check_cost(101, "These samples")
        with pytest.raises(
            UserError, match=r"50 samples take about 101 evaluations .* may take 100.*evaluations="
        ) as e:
            check_cost(101, "50 samples")
    assert e.value.code == "too_costly" and e.value.fields == {"evaluations": 101, "most": 100}
    check_cost(101, "50 samples")
