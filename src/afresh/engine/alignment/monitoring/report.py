"""The alignment part of a report: the reward against divergence and diversity, curves over steps, and alarms.

It is computed from the rows of metrics.jsonl, with the names that `afresh.engine.alignment.monitoring.health` uses.
Metrics that a method does not log are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from afresh.engine.alignment.monitoring.health import alarms, kl_limit_for, stop_reason
from afresh.engine.alignment.monitoring.rows import Row, by_step, finite, series
from afresh.engine.evaluation.curves import Curves, number, thin
from afresh.engine.evaluation.report import Fact
from afresh.engine.training.best_checkpoint import STOP_ERRORS

REWARD_TITLES = {"reward": "reward", "heldout_reward": "held-out reward"}

MAX_POINTS = 24  # of a line; noisy values are averaged to as many points

# Charts over steps: title, label of the axis, names of the metrics.
CHARTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Reward", "reward", ("reward",)),
    ("Best items asked", "reward", ("top1", "top10", "top100")),
    ("Held-out reward", "held-out reward", ("heldout_reward",)),
    ("Similarity to the data", "data_similarity", ("data_similarity",)),
    ("Divergence from the reference", "nats per sample", ("kl", "kl_error")),
    ("Distance from the base's samples from the same noise", "distance", ("distance_from_base",)),
    ("Distance of velocities from the reference", "mean square", ("velocity_away",)),
    ("Difference of trainer and sampler", "nats per step", ("gap",)),
    ("Entropy", "nats per step", ("entropy",)),
    ("Length", "steps per sample", ("length",)),
    ("Shares", "share", ("diversity", "flat", "clipped", "accuracy")),
    ("Margin", "nats", ("margin",)),
)
TITLES = {
    "heldout_reward": "held-out reward",
    "kl_error": "its standard error",
    "top1": "the best",
    "top10": "mean of the best 10",
    "top100": "mean of the best 100",
    "flat": "flat groups",
    "clipped": "clipped ratios",
    "accuracy": "pairs in the right order",
}


@dataclass(frozen=True)
class Alignment:
    """Parts for an `afresh.engine.evaluation.report.Section`; `json` has the alarms as plain values."""

    facts: list[Fact] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    json: dict[str, Any] = field(default_factory=dict)


def alignment(rows: Sequence[Row], distance: float | None = None) -> Alignment | None:
    """The alignment part of a report; None if no row has a reward or an accuracy.

    The alarm of the divergence allows for the `distance` from the base that was asked for. Raises UserError for invalid
    rows.
    """
    merged = by_step(rows)
    if not any(finite(row, name) is not None for row in merged for name in ("reward", "accuracy")):
        return None
    active, stop = alarms(merged, kl_limit_for(distance)), stop_reason(merged, errors=STOP_ERRORS)
    return Alignment(
        facts(merged),
        [*against(merged), *over_steps(merged)],
        [f"{a.message} (Since step {a.step:,}.)" for a in active] + ([stop] if stop else []),
        {"alarms": [asdict(a) for a in active], "stop": stop or None},
    )


# --------------------------------------------------------------------------- figures


def against(rows: Sequence[Row]) -> list[Curves]:
    """Each reward against the divergence, in order of divergence; and the reward against diversity, in order of
    steps."""
    charts = []
    for name, word in REWARD_TITLES.items():
        points = sorted(pairs(rows, "kl", name))
        if len(points) > 1:
            title = f"{word.capitalize()} against divergence"
            charts.append(Curves(means(word, points), "nats from the reference", word, title))
    points = pairs(rows, "diversity", "reward")
    if len(points) > 1:
        charts.append(Curves(means("reward", points), "diversity of samples", "reward", "Reward against diversity"))
    return charts


def pairs(rows: Sequence[Row], x: str, y: str) -> list[tuple[float, float]]:
    """(x, y) of the rows that have both values, in the order of the rows."""
    values = [(finite(row, x), finite(row, y)) for row in rows]
    return [(a, b) for a, b in values if a is not None and b is not None]


def means(name: str, points: Sequence[tuple[float, float]]) -> dict[str, list[tuple[float, float]]]:
    """One line of at most MAX_POINTS points. Its name states how many rows each point is the mean of."""
    averaged, k = thin(points, MAX_POINTS)
    return {f"{name}, means of {k} rows" if k > 1 else name: averaged}


def over_steps(rows: Sequence[Row]) -> list[Curves]:
    charts = []
    for title, label, names in CHARTS:
        lines = {
            TITLES.get(n, n): [(float(s), v) for s, v in line.pairs()] for n in names if (line := series(rows, n)).steps
        }
        if lines.keys() - {TITLES["kl_error"]}:
            charts.append(Curves(lines, y_label=label, title=title))
    return charts


# --------------------------------------------------------------------------- numbers and words


def facts(rows: Sequence[Row]) -> list[Fact]:
    """First and last values, of evaluations if there are any, and the best evaluation."""
    names = {
        "reward": "reward",
        "kl": "nats from the reference",
        "distance_from_base": "distance from the base's samples",
        "data_similarity": "similarity to the data",
        "diversity": "diversity",
        "accuracy": TITLES["accuracy"],
        "asked": "items asked",
        "top1": "best reward",
        "top10": TITLES["top10"],
        "auc_top10": "area under the mean of the best 10",
    }
    evaluations = [row for row in rows if finite(row, "diversity") is not None]
    values = {name: series(evaluations if series(evaluations, name).values else rows, name) for name in names}
    errors = dict(series(rows, "kl_error").pairs())
    out: list[Fact] = []
    for name, s in values.items():
        if s.values:
            error = f" ± {number(errors[s.steps[-1]])}" if name == "kl" and s.steps[-1] in errors else ""
            out.append((names[name], f"{number(s.values[0])} → {number(s.values[-1])}{error}"))
    if not values["kl"].values:
        out.append((names["kl"], "not known: this method does not compute likelihoods of samples"))
    if (unseen := series(rows, "heldout_reward")).values:
        best, step = max((v, -s) for s, v in unseen.pairs())
        ends = f"{number(unseen.values[0])} → {number(unseen.values[-1])}"
        out.insert(1, ("held-out reward", f"{ends}, at most {number(best)} (step {-step:,})"))
    return out
