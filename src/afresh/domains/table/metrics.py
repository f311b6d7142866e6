"""Scores of synthetic tables: fidelity, usefulness and privacy, each beside real rows and beside what is trivial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from afresh.core import CondSpec, Evidence, ItemKind, Judgement, Metric, Question, Score, ScoreWords, Space
from afresh.domains.table.fidelity import detection, marginals, pairs, separation, told_apart, trees_matrix, undetected
from afresh.domains.table.frame import Floats, Frame, frames_of, shuffled_columns
from afresh.domains.table.row import ROW, Header, Row
from afresh.engine.evaluation.estimate import Z95, Estimate, jackknife, leave_out, share
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of

# Whether synthetic rows give training rows away: exact copies, rows nearer to training rows than chance has it, and an
# attack that guesses who was in the training data. None of this is a proof, as differential privacy would be.
BLOCK = 500  # rows whose distances are held at a time


def copies(rows: Sequence[Row], known: Sequence[Row]) -> int:
    """How many rows are equal to one of the known ones."""
    every = {row.cells for row in known}
    return sum(row.cells in every for row in rows)


def ranked(reference: Frame, frame: Frame) -> list[Floats]:
    """Columns (N,) in which numbers are their share of the reference's below them, so that all columns weigh alike."""
    out = []
    for known, column, levels in zip(reference.columns, frame.columns, frame.levels, strict=True):
        if levels:
            out.append(column)
            continue
        ordered = np.sort(known[~np.isnan(known)])
        places = (np.searchsorted(ordered, column, "left") + np.searchsorted(ordered, column, "right")) / 2
        out.append(np.where(np.isnan(column), np.nan, places / max(1, len(ordered))))
    return out


def nearest(reference: Frame, rows: Frame, known: Frame) -> Floats:
    """The distance of each row to the nearest known one, (N,): the mean over columns of the difference of ranks, and of
    0 or 1 for categories and where one is missing (Gower 1971)."""
    a, b = ranked(reference, rows), ranked(reference, known)
    out = []
    for start in range(0, len(rows), BLOCK):
        total = np.zeros((min(BLOCK, len(rows) - start), len(known)), np.float32)
        for x, y, levels in zip(a, b, rows.levels, strict=True):
            x, y = x[start : start + BLOCK, None].astype(np.float32), y[None].astype(np.float32)
            if levels:
                total += x != y
            else:
                apart = np.abs(x - y)
                lost = np.isnan(apart)
                total += np.where(lost, (np.isnan(x) != np.isnan(y)).astype(np.float32), apart) if lost.any() else apart
        out.append(total.min(1) / len(a))
    return np.concatenate(out).astype(np.float64)


def membership(reference: Frame, members: Frame, others: Frame, synthetic: Frame) -> tuple[Floats, Floats]:
    """The attack's score of each member and of each other row: how near the nearest synthetic row is (Chen et al. 2020,
    GAN-Leaks, sec. 4.1, the attack that sees samples alone)."""
    return -nearest(reference, members, synthetic), -nearest(reference, others, synthetic)


MOST_CLASSES = 20  # of a target


def target_of(frame: Frame, wanted: str | None = None) -> int | None:
    """The column that is predicted: the one that is wanted; else the last one if it is a category with 2 to
    MOST_CLASSES values, or the last such one, or the last number. None if there is no other column to predict it from.
    """
    header: Header = frame.header
    if len(header.names) < 2:
        return None
    if wanted is not None:
        return header.names.index(wanted)
    usable = [i for i, n in enumerate(frame.levels) if 2 <= n <= MOST_CLASSES]
    numbers = [i for i, n in enumerate(frame.levels) if not n]
    return usable[-1] if usable else numbers[-1] if numbers else None


def predicts(train: Frame, test: Frame, target: int, seed: int = 0) -> float:
    """How well gradient-boosted trees of scikit-learn, fitted to `train`, predict column `target` of `test`: the AUC of
    two classes, the mean AUC of one against the rest of more, or R^2 of a number. Classes that either side lacks are
    left out; the score is that of guessing where only one is left."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import r2_score, roc_auc_score

    others = [i for i in range(len(train.columns)) if i != target]
    (a, categorical), (b, _) = trees_matrix(train), trees_matrix(test)
    y, truth = train.columns[target], test.columns[target]
    flags = [categorical[i] for i in others]
    if not train.levels[target]:
        known, counted = ~np.isnan(y), ~np.isnan(truth)
        model = HistGradientBoostingRegressor(categorical_features=flags, random_state=seed)
        model.fit(a[known][:, others], y[known])
        return float(r2_score(truth[counted], model.predict(b[counted][:, others])))
    shared = np.intersect1d(y, truth)
    if len(shared) < 2:
        return 0.5
    here, there = np.isin(y, shared), np.isin(truth, shared)
    classifier = HistGradientBoostingClassifier(categorical_features=flags, random_state=seed)
    classifier.fit(a[here][:, others], y[here])
    p = classifier.predict_proba(b[there][:, others])
    aucs = [roc_auc_score(truth[there] == c, p[:, i]) for i, c in enumerate(classifier.classes_)]
    return float(np.mean(aucs))


LEAST = 20  # rows of each table
MOST, BRIEF = 5_000, 2_000  # rows of each table that are compared, the second where seconds are limited
MOST_KNOWN = 20_000  # training rows among which the nearest is searched
GROUPS = 10  # of the jackknife


def tables_only(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for rows of tables, else the reason why not."""
    return None if kind is ROW else f"measures tables, not {kind.plural}"


@dataclass(frozen=True)
class Sets:
    """Equally many synthetic rows, held-out rows and training rows, and what none of them can be: training rows whose
    columns are drawn apart, and training rows drawn with replacement."""

    synthetic: Frame
    heldout: Frame
    train: Frame
    apart: Frame
    repeated: Frame
    known: Frame  # training rows, at most MOST_KNOWN, of which `repeated` are


def sets_of(study: Study) -> Sets:
    """Raises Unmeasurable for fewer rows than LEAST."""
    return study.once("table/sets", lambda: _sets(study))


def _sets(study: Study) -> Sets:
    drawn = list(study.drawn.values)
    synthetic, heldout, train = frames_of(
        drawn, [i.value for i in study.heldout_items], [i.value for i in study.train_items]
    )
    count = min(len(synthetic), len(heldout), len(train) // 2, BRIEF if study.limited else MOST)
    if count < LEAST:
        raise Unmeasurable(f"needs {LEAST} synthetic rows, {LEAST} held-out rows and twice as many training rows")
    if len(drawn) < count:
        study.note(f"{len(drawn):,} synthetic rows are compared with as many held-out ones")
    rng = np.random.default_rng(0)
    few = [frame.take(rng.permutation(len(frame))[:count]) for frame in (synthetic, heldout, train)]
    study.reference_size = count
    known = train.take(rng.permutation(len(train))[:MOST_KNOWN])
    repeated = known.take(rng.integers(0, len(known), count))
    return Sets(few[0], few[1], few[2], shuffled_columns(few[2]), repeated, known)


def similarity(name: str, measure: Callable[[Frame, Frame], float], sets: Sets) -> Score:
    """A similarity to held-out rows, with an interval that leaves out parts of the synthetic rows."""
    value = measure(sets.heldout, sets.synthetic)
    n = len(sets.synthetic)
    without = [measure(sets.heldout, sets.synthetic.take(keep)) for keep in leave_out(n, GROUPS)]
    low, high = jackknife(value, without)
    floor, control = measure(sets.heldout, sets.train), measure(sets.heldout, sets.apart)
    return Score(name, value, min(low, value), min(1.0, max(high, value)), n, "higher", floor, control)


def fidelity(evidence: Evidence) -> list[Score]:
    """Similarity of columns, of pairs of columns, and of rows to a classifier; the last one also of training rows that
    are drawn with replacement."""
    sets = sets_of(study_of(evidence))
    held = sets.heldout

    def detected(other: Frame) -> float:
        return detection(*told_apart(held, other))

    auc = estimated(separation, *told_apart(held, sets.synthetic))
    assert auc.low is not None and auc.high is not None
    ends = (undetected(auc.high), undetected(auc.low))
    told = Estimate(undetected(auc.value), *ends, auc.n).score(
        "table_detection", "higher", detected(sets.train), detected(sets.apart)
    )
    n = len(held)
    again = Score("table_detection/bootstrap", detected(sets.repeated), None, None, n, "higher")
    return [similarity("table_marginals", marginals, sets), similarity("table_pairs", pairs, sets), told, again]


def estimated(measure: Callable[[Floats, Floats], float], a: Floats, b: Floats) -> Estimate:
    """An AUC of two samples of equal size, with an interval that leaves out parts of both, and is at least as wide as
    that of samples that are alike (Mann and Whitney 1947: a variance of (2 n + 1) / (12 n^2))."""
    value, n = measure(a, b), len(a)
    low, high = jackknife(value, [measure(a[keep], b[keep]) for keep in leave_out(n, GROUPS)])
    alike = Z95 * ((2 * n + 1) / (12 * n * n)) ** 0.5
    return Estimate(value, max(0.0, min(low, value - alike)), min(1.0, max(high, value + alike)), n)


def usefulness(evidence: Evidence) -> list[Score]:
    """How well a column of held-out rows is predicted from synthetic rows; `floor`: from as many training rows, and
    `control`: from training rows whose columns are drawn apart."""
    study = study_of(evidence)
    sets = sets_of(study)
    target = target_of(sets.train, study.train_items[0].value.header.target)
    if target is None:
        raise Unmeasurable("there is no column that others could predict")
    name, number = sets.train.header.names[target], not sets.train.levels[target]
    what = "R² of" if number else "AUC of"
    study.note(f"usefulness is the {what} {name!r} in held-out rows; `data.target` names another column")
    value, floor, control = (predicts(t, sets.heldout, target) for t in (sets.synthetic, sets.train, sets.apart))
    return [Score("table_use", value, None, None, len(sets.heldout), "higher", floor, control)]


def privacy(evidence: Evidence) -> list[Score]:
    """Exact copies; how often a synthetic row is nearer to its nearest training row than a held-out row is to its own;
    and how well an attack guesses members. `control`: what a table of training rows drawn with replacement has."""
    study = study_of(evidence)
    sets = sets_of(study)
    known = [i.value for i in study.train_items]
    drawn, held = list(study.drawn.values), [i.value for i in study.heldout_items]
    real = copies(held, known) / len(held)
    copied = share(copies(drawn, known), len(drawn)).score("table_copies", "lower", real, 1.0)
    reference = sets.known
    to_train = [nearest(reference, frame, reference) for frame in (sets.synthetic, sets.heldout, sets.repeated)]

    near = estimated(separation, -to_train[0], -to_train[1])
    near_control = separation(-to_train[2], -to_train[1])
    attack = estimated(separation, *membership(reference, sets.train, sets.heldout, sets.synthetic))
    worst = separation(*membership(reference, sets.train, sets.heldout, sets.repeated))
    return [
        copied,
        near.score("table_nearer", "lower", 0.5, near_control),
        attack.score("table_membership", "lower", 0.5, worst),
    ]


# --------------------------------------------------------------------------- verdict

KNOWN = 0.6  # memorised: a row is nearer to training rows than a real one is so often, where one half is by chance
ALIKE = 0.8  # good: of the floor's detection score, at least this share
FAR = 0.1  # noise: of the way from independent columns to real rows, less than this share


def judge_table(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on synthetic rows; None without the scores of the classifier."""
    told, near = scores.get("table_detection"), scores.get("table_nearer")
    if told is None or told.floor is None or told.control is None:
        return None
    numbers = f"(a classifier: {told.value:.2f}, real rows {told.floor:.2f}, columns drawn apart {told.control:.2f})"
    if near is not None and near.value >= KNOWN:
        return "memorised", (
            f"Rows are nearer to training rows than other real rows are, {near.value:.0%} of the time (chance: 50%): "
            "the model repeats what it learnt from, and its rows should not be passed on as anonymous."
        )
    if told.value >= ALIKE * told.floor:
        return "good", f"Rows are hardly told from real ones {numbers}."
    if told.value < told.control + FAR * (told.floor - told.control):
        return "noise", f"Rows are told from real ones as easily as if columns had been drawn apart {numbers}."
    return "recognisable", f"Rows resemble real ones, and a classifier still tells them apart {numbers}."


WORDS = {
    "table_marginals": ScoreWords(
        "columns like real ones",
        "How alike columns are, from 0 to 1: the mean complement of Kolmogorov-Smirnov or total variation.",
        Question.REAL,
    ),
    "table_pairs": ScoreWords(
        "pairs of columns like real ones",
        "The mean over pairs of columns of how alike their correlations or joint frequencies are, from 0 to 1.",
        Question.REAL,
    ),
    "table_detection": ScoreWords(
        "rows that a classifier cannot tell from real ones",
        "1: no better than guessing; 0: each row is recognised. Gradient-boosted trees, cross-validated.",
        Question.REAL,
    ),
    "table_use": ScoreWords(
        "what a model learns from the rows",
        "How well a model that was fitted to synthetic rows predicts a column of real ones (AUC, or R² of a number).",
        Question.PREDICTS,
    ),
    "table_copies": ScoreWords(
        "exact copies of training rows",
        "The share of rows that are equal to a training row; real rows that were held out have some as well.",
        Question.COPIED,
        "{share} of the {plural} are equal to a training row",
    ),
    "table_nearer": ScoreWords(
        "rows nearer to training rows than real ones are",
        "How often a row is nearer to its nearest training row than a held-out one is: one half is by chance.",
        Question.COPIED,
    ),
    "table_membership": ScoreWords(
        "members that an attack guesses (AUC)",
        "How well the distance to the nearest synthetic row tells training rows from others: one half is by chance.",
        Question.COPIED,
    ),
}
METRICS = [
    Metric(
        "table_fidelity",
        tables_only,
        fidelity,
        brief=True,
        words={k: WORDS[k] for k in ("table_marginals", "table_pairs", "table_detection")},
        beside={"bootstrap": "of training rows drawn with replacement"},
    ),
    Metric(
        "table_privacy",
        tables_only,
        privacy,
        brief=True,
        words={k: WORDS[k] for k in ("table_copies", "table_nearer", "table_membership")},
        judge=judge_table,
    ),
    Metric("table_use", tables_only, usefulness, words={"table_use": WORDS["table_use"]}),
]
