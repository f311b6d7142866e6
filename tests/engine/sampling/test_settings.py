"""Settings of a sampler, against what the family and the model support."""

from __future__ import annotations

from typing import Any

import pytest

from afresh.core import UserError, registry
from afresh.engine.sampling.settings import of_sampling

FLOW, GAN = (
    registry.family("flow"),
    registry.family("gan"),
)  # a family that is guided, by parts too, and one that is not


@pytest.mark.parametrize("chosen", [{}, {"steps": 3}, {"guidance": 1.0}, {"part_guidance": {}}])
@pytest.mark.parametrize("guidable", [True, False])
def test_what_is_not_guided_needs_no_conditions(chosen: dict[str, Any], guidable: bool) -> None:
    assert of_sampling(FLOW, chosen, guidable) == FLOW.sampling.settings(**chosen)


@pytest.mark.parametrize("chosen", [{"guidance": 2.0}, {"guidance": 0.0}, {"part_guidance": {"label": 2.0}}])
def test_guidance_needs_conditions_and_a_family_that_is_guided(chosen: dict[str, Any]) -> None:
    assert of_sampling(FLOW, chosen, True) == FLOW.sampling.settings(**chosen)
    with pytest.raises(UserError, match="unconditional, so there is nothing to guide towards"):
        of_sampling(FLOW, chosen, False)
    if "guidance" in chosen:
        with pytest.raises(UserError, match="not supported for gan"):
            of_sampling(GAN, chosen, True)


def test_what_a_family_does_not_know_is_named_with_what_it_knows() -> None:
    with pytest.raises(UserError, match=r"gan does not know part_guidance, steps.*accepts: .*truncation"):
        of_sampling(GAN, {"steps": 3, "part_guidance": {"label": 2.0}}, True)
    with pytest.raises(UserError, match=r"settings of flow: steps: .*at least 1"):
        of_sampling(FLOW, {"steps": 0}, True)
