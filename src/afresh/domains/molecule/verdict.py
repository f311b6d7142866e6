"""The verdict on molecules: by their validity, their fragments and the Frechet ChemNet distance (FCD)."""

from __future__ import annotations

from collections.abc import Mapping

from afresh.core import Judgement, Score
from afresh.engine.evaluation.verdict import ALIKE, SHAPED, beside, place, share_of_floor

# Places on MOSES, with 500 samples: molecules of two generations of crossing are at .77 of FCD and .98 of fragments,
# those of one at .89 and .99, and those of random SELFIES at 0.
MOSTLY_VALID = 0.8  # good: of the share of the data that is valid, at least this; noise: less than SHAPED of it
HALF_VALID = 0.5  # noise: of that share, less than this, where too few are valid to be compared with real ones
REPEATED = 0.3  # collapsed: the share of different molecules is below this share of its floor
KNOWN = 0.5  # memorised: fewer of the different molecules are new
CLOSE = {"fcd": 0.95, "frag": 0.97}  # good: the places are above these


def judge_molecules(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on molecules; None without their validity."""
    if "valid_molecules" not in scores:
        return None
    valid = scores["valid_molecules"]
    places = {name: p for name in CLOSE if (p := place(scores.get(name))) is not None}
    if share_of_floor(valid) < (SHAPED if places else HALF_VALID):
        return "noise", f"Bad: {valid.value:.0%} of the samples are {plural}. The others break the rules of chemistry."
    different = next((s for name, s in scores.items() if name.startswith("unique_at_")), None)
    if share_of_floor(different) < REPEATED or share_of_floor(scores.get("int_div")) < ALIKE:
        return "collapsed", (
            f"The same {plural} come again and again: {different.value:.0%} of the valid ones are different."
            if different is not None
            else f"The {plural} are nearly all alike: their diversity is {beside(scores.get('int_div'))}."
        )
    new = scores.get("novel")
    if new is not None and new.value < KNOWN:
        return "memorised", f"{1 - new.value:.0%} of the {plural} are training {plural}."
    if not places:
        return "cannot tell", (
            f"{valid.value:.0%} of the {valid.n:,} samples are {plural}, too few to compare with real ones."
        )
    described = ", ".join(
        part
        for part in (
            f"{valid.value:.0%} are valid",
            f"FCD {scores['fcd'].value:.3g} where real ones have {scores['fcd'].floor:.3g}" if "fcd" in scores else "",
        )
        if part
    )
    if min(places.values()) < SHAPED:
        return "noise", f"The {plural} are like ones of random parts ({described})."
    if share_of_floor(valid) >= MOSTLY_VALID and all(p > CLOSE[name] for name, p in places.items()):
        return "good", f"The {plural} are close to real ones that the model has not seen, and as varied ({described})."
    if share_of_floor(valid) < MOSTLY_VALID:
        others = f"the other {1 - valid.value:.0%} of the samples break the rules of chemistry"
        return "recognisable", f"The valid {plural} resemble real ones, and {others} ({described})."
    return "recognisable", f"The {plural} resemble real ones, and can be told from them ({described})."
