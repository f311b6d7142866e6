"""Metrics of molecules, on the protocol of MOSES.

Polykovskiy et al. 2020, "Molecular Sets (MOSES): a benchmarking platform for molecular generation models", section 3.
The functions agree with those of its package, molsets, to four digits. Distances
are to held-out molecules; their floor is what training molecules score, as many as there are samples.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, get_args

import numpy as np
import torch
from scipy.stats import wasserstein_distance

from afresh.core import CondSpec, Evidence, ItemKind, Judgement, Metric, Question, Score, ScoreWords, Space, UserError
from afresh.domains.molecule.chem import MoleculeError, canonical, chem
from afresh.domains.molecule.filters import passes
from afresh.domains.molecule.kind import MOLECULE, features
from afresh.domains.molecule.properties import Property, properties
from afresh.domains.molecule.writing import from_selfies, split_selfies, to_selfies
from afresh.engine.evaluation.distribution import frechet
from afresh.engine.evaluation.estimate import Z95, Array, Estimate, jackknife, leave_out, mean, share
from afresh.engine.evaluation.study import LATE, Study, Unmeasurable, study_of
from afresh.engine.evaluation.verdict import ALIKE, SHAPED, beside, place, share_of_floor

PROPERTIES = {  # in words
    "logP": "logP",
    "SA": "synthetic accessibility",
    "QED": "drug-likeness (QED)",
    "weight": "weight, in g/mol",
}
UNIQUE = (1_000, 10_000)  # samples of which the share of different ones is reported
MIN_RINGS = 2  # of a scaffold, as in MOSES
CHUNK = 4_000  # molecules whose similarities are in memory at once
MOST = 5_000  # molecules of a reference: ChemNet and BRICS take milliseconds for each
FEWEST = 40  # valid samples and held-out molecules that distances need
BRIEF = 1_000  # molecules of a reference with a limit of seconds, if there are no more samples
CHEMNET, FEWEST_ACTIVE, TRIED = 0.25, 200, 32  # share of the seconds for ChemNet; molecules of a set that it needs, and
# on which its speed is measured
PARTED = 1_000  # training molecules whose parts are drawn independently


def of_molecules(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for molecules, else the reason why not."""
    return None if kind is MOLECULE else f"measures molecules, not {kind.plural}"


# --------------------------------------------------------------------------- functions of sets


def tanimoto(x: Array, y: Array) -> Array:
    """Similarities (N, M) of fingerprints (N, D) and (M, D). Two fingerprints without bits are equal."""
    a, b = torch.from_numpy(x).float(), torch.from_numpy(y).float()
    both = a @ b.T
    either = a.sum(1, keepdim=True) + b.sum(1) - both
    return torch.where(either > 0, both / either.clamp_min(1), 1.0).double().numpy()


def nearest(x: Array, reference: Array) -> Array:
    """The similarity (N,) of each row of x to the most similar row of the reference (SNN before the mean)."""
    out = np.zeros(len(x))
    for i in range(0, len(x), CHUNK):
        for j in range(0, len(reference), CHUNK):
            part = tanimoto(x[i : i + CHUNK], reference[j : j + CHUNK]).max(1)
            out[i : i + CHUNK] = np.maximum(out[i : i + CHUNK], part)
    return out


def mean_similarity(x: Array, power: int = 1) -> Array:
    """The mean similarity (N,) of each row of x to all rows, itself included; `power`: of the similarities."""
    out = np.zeros(len(x))
    for i in range(0, len(x), CHUNK):
        for j in range(0, len(x), CHUNK):
            out[i : i + CHUNK] += (tanimoto(x[i : i + CHUNK], x[j : j + CHUNK]) ** power).sum(1)
    return out / len(x)


def internal_diversity(x: Array, power: int = 1) -> Estimate:
    """1 - mean_i (mean_j T_ij^p)^(1/p). Interval: that of a U-statistic, by its projection (Hoeffding 1948)."""
    rows = mean_similarity(x, power) ** (1 / power)
    half = Z95 * 2 * float(np.std(rows, ddof=1)) / len(rows) ** 0.5
    value = 1 - float(rows.mean())
    return Estimate(value, value - half, value + half, len(rows))


def fragments_of(found: Any) -> list[str]:
    """The BRICS fragments of a molecule."""
    text: str = chem().MolToSmiles(chem().FragmentOnBRICSBonds(found))
    return text.split(".")


def scaffolds_of(found: Any) -> list[str]:
    """The Bemis-Murcko scaffold of a molecule if it has at least two rings."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    scaffold = MurckoScaffold.GetScaffoldForMol(found)
    return [chem().MolToSmiles(scaffold)] if scaffold.GetRingInfo().NumRings() >= MIN_RINGS else []


def cosine(x: Counter[str], y: Counter[str]) -> float:
    """The cosine of two vectors of counts; NaN if one is empty."""
    if not x or not y:
        return float("nan")
    dot = sum(n * y[k] for k, n in x.items())
    return float(dot / (sum(n * n for n in x.values()) * sum(n * n for n in y.values())) ** 0.5)


def count_similarity(parts: Sequence[Sequence[str]], reference: Counter[str]) -> Estimate:
    """The cosine of the counts of the parts of each sample with those of a reference. Interval: grouped jackknife."""
    value = cosine(Counter(p for row in parts for p in row), reference)
    without = [
        cosine(Counter(p for row, m in zip(parts, mask, strict=True) if m for p in row), reference)
        for mask in leave_out(len(parts))
    ]
    if len(parts) < FEWEST or np.isnan(without).any():
        return Estimate(value, None, None, len(parts))
    low, high = jackknife(value, without)
    return Estimate(value, max(0.0, low), min(1.0, high), len(parts))


def distance(x: Array, y: Array) -> Estimate:
    """The Wasserstein distance of two samples of numbers, (N,) and (M,). Interval: grouped jackknife over x."""
    value = float(wasserstein_distance(x, y))
    if len(x) < FEWEST:
        return Estimate(value, None, None, len(x))
    low, high = jackknife(value, [float(wasserstein_distance(x[mask], y)) for mask in leave_out(len(x))])
    return Estimate(value, max(0.0, low), high, len(x))


def activations(molecules: Sequence[str]) -> Array:
    """Activations (N, 512) of ChemNet (Preuer et al. 2018, "Frechet ChemNet distance"), of canonical SMILES."""
    try:
        from fcd_torch import FCD
        from fcd_torch.utils import get_one_hot
    except ImportError:
        raise Unmeasurable("the Frechet ChemNet distance needs fcd-torch: pip install 'afresh[chem]'") from None
    net, out = FCD().model.eval(), []
    with torch.no_grad():
        for i in range(0, len(molecules), 256):
            rows = np.stack([get_one_hot(s, 350) for s in molecules[i : i + 256]])
            x = torch.from_numpy(rows / rows.shape[2]).float()
            out.append(net(x.transpose(1, 2)).double().numpy())
    return np.concatenate(out)


# --------------------------------------------------------------------------- the sets of a study


class Molecules:
    """A set of valid molecules, and what is computed of them once."""

    def __init__(self, smiles: Sequence[str]) -> None:
        self.smiles = list(smiles)

    @cached_property
    def found(self) -> list[Any]:
        return [chem().MolFromSmiles(s) for s in self.smiles]

    @cached_property
    def fingerprints(self) -> Array:
        return features(self.smiles)

    @cached_property
    def activations(self) -> Array:
        return activations(self.smiles)

    @cached_property
    def fragments(self) -> list[list[str]]:
        return [fragments_of(m) for m in self.found]

    @cached_property
    def scaffolds(self) -> list[list[str]]:
        return [scaffolds_of(m) for m in self.found]

    def numbers(self, name: str) -> Array:
        return np.array([properties()[name](m) for m in self.found])


class MoleculeSets:
    """The valid samples, held-out molecules, and as many training molecules as there are samples (`real`).

    `random`: molecules of SELFIES (Krenn et al. 2020) whose tokens were drawn independently, which every text of them
    is; the control of distances.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.valid = [c for v in study.drawn.values if (c := canonical(str(v))) is not None]
        if len(self.valid) < FEWEST or len(study.heldout_items) < FEWEST:
            raise Unmeasurable(
                f"needs at least {FEWEST} valid samples and held-out molecules; there are {len(self.valid):,} and "
                f"{len(study.heldout_items):,}"
            )
        self.samples = Molecules(self.valid)
        most = max(BRIEF, len(self.valid)) if study.limited else MOST
        self.heldout = Molecules(self._some([str(i.value) for i in study.heldout_items], min(MOST, most)))
        self.real = Molecules(self._some([str(i.value) for i in study.train_items], len(self.valid)))
        study.reference_size = len(self.heldout.smiles)

    @cached_property
    def random(self) -> Molecules | None:
        """None where SELFIES cannot express the training molecules, or its package is missing."""
        texts = []
        with suppress(UserError):
            for smiles in self.real.smiles[:PARTED]:
                with suppress(MoleculeError):
                    texts.append(split_selfies(to_selfies(smiles)))
        if not texts:
            return None
        tokens = [t for text in texts for t in text]
        ends = np.cumsum([len(t) for t in texts])
        drawn = self.study.rng.uniform("molecules/random", torch.arange(len(tokens))) * len(tokens)
        chosen = [tokens[int(i)] for i in drawn]
        made = [from_selfies("".join(chosen[e - len(t) : e])) for t, e in zip(texts, ends.tolist(), strict=True)]
        return Molecules([c for s in made if (c := canonical(s)) is not None])

    def _some(self, molecules: Sequence[str], most: int) -> list[str]:
        order = torch.argsort(self.study.rng.bits("molecules", torch.arange(len(molecules))))
        return [molecules[i] for i in order[:most].tolist()]


def sets_of(study: Study) -> MoleculeSets:
    """The sets of a study, made once."""
    return study.once("molecules", lambda: MoleculeSets(study))


# --------------------------------------------------------------------------- metrics


def validity(evidence: Evidence) -> list[Score]:
    """Share of samples that RDKit reads and sanitises."""
    study = study_of(evidence)
    values = study.drawn.values
    return [share(sum(map(study.valid, values)), len(values)).score("valid_molecules", "higher", 1.0)]


def uniqueness(evidence: Evidence) -> list[Score]:
    """Share of different molecules among the first 1,000 and 10,000 valid samples, or among all if there are fewer.
    Floor: of as many training molecules, drawn independently."""
    study = study_of(evidence)
    valid = [c for v in study.drawn.values if (c := canonical(str(v))) is not None]
    if not valid:
        raise Unmeasurable("no sample is valid")
    sizes = [k for k in UNIQUE if k <= len(valid)] or [len(valid)]
    size = len(study.train_items)
    return [
        share(len(set(valid[:k])), k).score(f"unique_at_{k}", "higher", size / k * -math.expm1(-k / size))
        for k in sizes
    ]


def novelty(evidence: Evidence) -> list[Score]:
    """Share of the different valid samples that are no training molecules. Control: training molecules."""
    study = study_of(evidence)
    different = {c for v in study.drawn.values if (c := canonical(str(v))) is not None}
    if not different:
        raise Unmeasurable("no sample is valid")
    new = len(different - {str(i.value) for i in study.train_items})
    return [share(new, len(different)).score("novel", "higher", 1.0, 0.0)]


def fcd(evidence: Evidence) -> list[Score]:
    """Frechet distance between the activations of ChemNet on samples and on held-out molecules. Control: that of
    molecules of random parts.

    With a limit of seconds, ChemNet sees as many of each set as fit, and there is no interval.
    """
    study = study_of(evidence)
    sets = sets_of(study)
    compared = [sets.samples, sets.heldout, sets.real, *([sets.random] if sets.random is not None else [])]
    if study.effort.over:
        raise Unmeasurable(LATE)
    if study.limited:
        few = sets.heldout.smiles[:TRIED]
        wanted = max(len(s.smiles) for s in compared)
        each = TRIED / len(compared)  # molecules of each set in one trial
        trials = study.effort.affordable(math.ceil(wanted / each), 1, CHEMNET, lambda: activations(few))
        size = int(trials * each)
        if size < min(FEWEST_ACTIVE, wanted):
            raise Unmeasurable(LATE)
        compared = [Molecules(s.smiles[:size]) for s in compared]
        if size < wanted:
            study.note(f"fcd: ChemNet compares {size:,} molecules of each set")
    own, *beside = (
        frechet(s.activations, compared[1].activations, interval=not study.limited and s is compared[0])
        for s in (compared[0], *compared[2:])
    )
    study.note(own.note and f"fcd: {own.note}")
    return [own.score("fcd", "lower", *(e.value for e in beside))]


def similarity(evidence: Evidence) -> list[Score]:
    """Mean similarity of a sample to the most similar held-out molecule (SNN), and the cosines of the counts of BRICS
    fragments (Frag) and of scaffolds (Scaf) in samples and in held-out molecules. Controls: of molecules of random
    parts."""
    sets = sets_of(study_of(evidence))
    own, real = (nearest(s.fingerprints, sets.heldout.fingerprints) for s in (sets.samples, sets.real))
    random = sets.random
    trivial = None if random is None else float(nearest(random.fingerprints, sets.heldout.fingerprints).mean())
    out = [mean(own).score("snn", "higher", float(real.mean()), trivial)]
    for name, of in (("frag", lambda s: s.fragments), ("scaf", lambda s: s.scaffolds)):
        reference = Counter(p for row in of(sets.heldout) for p in row)
        estimate, floor = (count_similarity(of(s), reference) for s in (sets.samples, sets.real))
        if np.isnan(estimate.value) or np.isnan(floor.value):
            sets.study.note(f"{name}: not measured, since samples or held-out molecules have none")
        else:
            control = None if random is None else cosine(Counter(p for row in of(random) for p in row), reference)
            out.append(estimate.score(name, "higher", floor.value, control or 0.0))
    return out


def diversity(evidence: Evidence) -> list[Score]:
    """One minus the mean similarity of two samples (IntDiv), and one minus its root mean square (IntDiv2). Floor: of
    training molecules."""
    sets = sets_of(study_of(evidence))
    out = []
    for name, power in (("int_div", 1), ("int_div2", 2)):
        own, floor = (internal_diversity(s.fingerprints, power) for s in (sets.samples, sets.real))
        out.append(own.score(name, "higher", floor.value))
    return out


def filters(evidence: Evidence) -> list[Score]:
    """Share of valid samples that pass the filters of MOSES. Floor: of training molecules."""
    sets = sets_of(study_of(evidence))
    own, floor = (share(sum(map(passes, s.found)), len(s.found)) for s in (sets.samples, sets.real))
    return [own.score("filters", "higher", floor.value)]


def property_distances(evidence: Evidence) -> list[Score]:
    """Wasserstein distances between the properties of samples and of held-out molecules, in the units of each."""
    sets = sets_of(study_of(evidence))
    out = []
    for name in PROPERTIES:
        heldout = sets.heldout.numbers(name)
        own, floor = (distance(s.numbers(name), heldout) for s in (sets.samples, sets.real))
        out.append(own.score(f"{name}_distance", "lower", floor.value))
    return out


def requested(evidence: Evidence) -> list[Score]:
    """Mean absolute difference between the numbers that were asked for and those of the valid samples, for properties
    that RDKit computes. Floor: 0. Control: between the requests and the properties of other samples."""
    study = study_of(evidence)
    names = [k for k, part in study.conds.items() if part.kind == "number" and k in properties()]
    drawn = study.drawn
    rows = [(i, m) for i, v in enumerate(drawn.values) if (m := chem().MolFromSmiles(str(v))) is not None and str(v)]
    out = []
    for name in names:
        part, known = study.conds[name], drawn.cond.present[name]
        pairs = [
            (float(drawn.cond.parts[name][i]) * part.std + part.mean, properties()[name](m))
            for i, m in rows
            if bool(known[i])
        ]
        if len(pairs) < 2:
            continue
        asked, got = np.array(pairs).T
        other = float(np.abs(asked - np.roll(got, 1)).mean())
        out.append(mean(np.abs(asked - got)).score(f"{name}_error", "lower", 0.0, other))
    if not out:
        raise Unmeasurable("the model has no condition that RDKit computes (`data.properties`)")
    return out


WORDS = {
    "valid_molecules": ScoreWords(
        "valid molecules", "The share of samples that RDKit reads and sanitises.", Question.FOLLOWS
    ),
    "filters": ScoreWords(
        "molecules that pass filters",
        "The share of valid samples without groups that medicinal chemists avoid (MCF, PAINS), rare elements, charges "
        "and large rings.",
        Question.FOLLOWS,
    ),
    "fcd": ScoreWords(
        "distance of mean and spread (FCD)",
        "How far samples are from held-out molecules in the features of ChemNet.",
        Question.REAL,
    ),
    "snn": ScoreWords(
        "likeness to the nearest held-out molecule (SNN)", "By fingerprints; 1 is the same molecule.", Question.REAL
    ),
    "frag": ScoreWords(
        "fragments as common as in real ones", "The cosine of the counts of BRICS fragments.", Question.REAL
    ),
    "scaf": ScoreWords("scaffolds as common as in real ones", "The cosine of the counts of scaffolds.", Question.REAL),
    **{
        f"{name}_distance": ScoreWords(
            f"difference in {words}", "How far the distribution is from that of real ones.", Question.REAL
        )
        for name, words in PROPERTIES.items()
    },
    "unique_at_1000": ScoreWords("different ones of 1,000", "The share of different molecules.", Question.VARIED),
    "unique_at_10000": ScoreWords("different ones of 10,000", "The share of different molecules.", Question.VARIED),
    "int_div": ScoreWords("distance between molecules", "One minus the mean likeness of two samples.", Question.VARIED),
    "int_div2": ScoreWords(
        "distance between molecules, near ones counting more",
        "One minus the root mean square likeness of two samples.",
        Question.VARIED,
    ),
    "novel": ScoreWords(
        "new molecules", "The share of different samples that are no training molecules.", Question.COPIED
    ),
    **{
        f"{name}_error": ScoreWords(
            f"distance from the {name} that was asked for",
            "The mean difference between the numbers that were asked for and those of the samples.",
            Question.OBEYS,
        )
        for name in get_args(Property)
    },
}


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


METRICS: tuple[Metric, ...] = (
    Metric("molecule_validity", of_molecules, validity, brief=True, words=WORDS, judge=judge_molecules),
    Metric("molecule_uniqueness", of_molecules, uniqueness, brief=True, words=WORDS),
    Metric("molecule_novelty", of_molecules, novelty, brief=True, words=WORDS),
    Metric("molecule_similarity", of_molecules, similarity, brief=True, words=WORDS),
    Metric("molecule_diversity", of_molecules, diversity, brief=True, words=WORDS),
    Metric("molecule_fcd", of_molecules, fcd, brief=True, words=WORDS),
    Metric("molecule_filters", of_molecules, filters, words=WORDS),
    Metric("molecule_properties", of_molecules, property_distances, words=WORDS),
    Metric("molecule_requests", of_molecules, requested, words=WORDS),
)
