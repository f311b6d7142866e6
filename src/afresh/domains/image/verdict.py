"""The verdict on images and on spectra of sounds."""

from __future__ import annotations

from collections.abc import Mapping

from afresh.core import Judgement, Score
from afresh.domains.image.appearance import SEEN, faults_of
from afresh.engine.evaluation.verdict import ALIKE, COPIED, NEAR, SHAPED, beside, place, share_of_floor

# Collapsed: distances between samples, in values and in features, as shares of those between held-out items, are below
# ALIKE and this. Blurred images come near in values, and noise does in features. Without features, the second share is
# that of distances in values between blurred held-out items.
ALIKE_BESIDE = 0.5
# Collapsed as well: samples are precise, above PRECISE, and recall is below MISSED, or recall and coverage are below
# COVERED; all as shares of their floors.
MISSED, PRECISE, COVERED = 0.15, 0.65, 0.6
SOFT = 1 / 3  # blurred: the place of fine detail between that of blurred real images, 0, and of real ones, 1, is below
DENSE, SPARSE = 0.6, 0.35  # good: density and coverage are above this share of their floors; noise: below
HALF = 0.6  # noise: so are both, and the place of likeness is below this
LIKE = 0.7  # good: the place of likeness is above this, so that few samples are noise


def judge_images(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on images and spectra of sounds; None without their likeness."""
    if "likeness" not in scores:
        return None
    few = "kid" not in scores  # so few images that only values were compared
    values, features = scores.get("variety/pixels"), scores.get("variety")
    spread = share_of_floor(values)
    other = values.value / values.control if few and values and values.control else share_of_floor(features)
    if spread < ALIKE and other < ALIKE_BESIDE:
        return "collapsed", f"The {plural} are nearly all alike: they differ {spread:.0%} as much as real ones."
    sharp, detail = place(scores["appearance/detail"]), scores["appearance/detail"].value
    soft, noisy = sharp is not None and sharp < SOFT, detail >= SEEN
    # Blur and noise move all samples to a place where few real ones are, as a model of a few sorts does.
    precise, recalled, covered = (share_of_floor(scores.get(name)) for name in ("precision", "recall", "coverage"))
    few_sorts = recalled < MISSED or max(recalled, covered) < COVERED
    if not soft and not noisy and precise > PRECISE and few_sorts:
        return "collapsed", f"The {plural} are of a few sorts only: they cover {covered:.0%} of what real ones cover."
    shaped, dense = place(scores["likeness"]), max(share_of_floor(scores.get(name)) for name in ("density", "coverage"))
    if shaped is not None and (shaped < SHAPED or (shaped < HALF and dense < SPARSE)):
        return "noise", (
            f"Nothing real is recognised in the {plural}: their large shapes match those of training {plural} by "
            f"{beside(scores['likeness'], 'noise')}."
        )
    copied = copied_share(scores)
    if copied is not None:
        return "memorised", f"{copied:.0%} of the {plural} are near copies of training {plural}."
    if soft:
        return "blurred", f"Fine detail is {-detail:.1f} standard deviations below that of real {plural}."
    if few:
        return "recognisable", (
            f"One recognises what the {plural} show: their large shapes match those of training {plural} by "
            f"{beside(scores['likeness'], 'noise')}. With so few real ones, no score tells whether they are good."
        )
    distance, trivial = scores["kid"].value, scores["kid/pixel_gaussian"].value
    numbers = f"(KID {distance:.3g}, of a trivial model {trivial:.3g})"
    near = distance <= NEAR * max(1.0, trivial) and distance < trivial
    dense = min(share_of_floor(scores[name]) for name in ("density", "coverage"))
    seen = faults_of(scores)
    if near and not seen and dense >= DENSE and (shaped is None or shaped > LIKE):
        return "good", f"The {plural} are close to real ones that the model has not seen, and as varied {numbers}."
    if not seen and distance > trivial:
        return "cannot tell", (
            f"Edges, tones and detail are those of real {plural}, and yet features differ more than those of a trivial "
            f"model {numbers}: look whether the {plural} show anything."
        )
    why = f": {' and '.join(seen[:2])}" if seen else ""
    return "recognisable", f"One recognises what the {plural} show, and sees that they are not real{why} {numbers}."


def copied_share(scores: Mapping[str, Score]) -> float | None:
    """The share of images that are copies, if it is above what real or blurred images have; else None."""
    close = scores.get("close_copies")
    if close is not None:
        floor = close.floor or 0.0  # near duplicates in the data
        if close.value > floor + COPIED * (1 - floor):
            return close.value
    copies, blurred = scores.get("near_copies"), scores.get("near_copies/blurred")
    by_blur = 0.0 if blurred is None else blurred.value
    if copies is not None and copies.value > COPIED and copies.value > 2 * by_blur:
        return copies.value
    return None
