"""What the report of a run proposes, from what was measured of each family."""

from __future__ import annotations

from dataclasses import replace

from afresh.engine.evaluation.verdict import KnownFacts
from afresh.engine.training.family_choice import FamilyCurves
from afresh.verbs.report import better_family, minutes_of

REACHED = FamilyCurves(
    "photos", 800.0, {"vae": [(1000, 1000.0), (4000, 500.0)], "flow": [(4000, 1600.0), (16000, 400.0)]}
)
RUN = KnownFacts("images", "flow", "runs/mine", "photos", 1.0, 4_000)


def test_another_family_is_proposed_only_where_it_was_measured_to_be_much_better_with_fewer_examples() -> None:
    found = better_family(RUN, REACHED)
    assert found is not None and found.command == "afresh train photos --family vae --minutes 1 --out runs/mine-2"
    assert better_family(replace(RUN, examples=16_000), REACHED) is None  # the flow is as good by then
    assert better_family(replace(RUN, examples=1_000), REACHED) is None  # too few for the other one as well
    assert better_family(replace(RUN, family="vae"), REACHED) is None
    assert better_family(replace(RUN, family="gan"), REACHED) is None  # of which nothing was measured


def test_the_minutes_of_another_family_follow_from_the_speed_of_the_run() -> None:
    vae = replace(RUN, family="vae")
    assert minutes_of("flow", vae, REACHED) == 4  # 8,000 examples, at half the speed
    assert minutes_of("flow", replace(vae, examples=80_000), REACHED) == 2  # more than the run had
    assert minutes_of("flow", vae, replace(REACHED, points={"flow": [(10, 1600.0)]})) is None
