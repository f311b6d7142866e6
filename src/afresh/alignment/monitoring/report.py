"""What a report says of an aligned run: reward against divergence and diversity, the curves, the law, the alarms.

Everything is made of the rows of metrics.jsonl, with the names that `afresh.alignment.monitoring.health` knows; what a
method does not log is left out. The base is the first row that has a value; its error is part of every gain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from afresh.alignment.monitoring.health import KL_LIMIT, alarms, stop_reason
from afresh.alignment.monitoring.overoptimisation import Law, Peak, fit, frontier, interval, peak, predict
from afresh.alignment.monitoring.rows import Row, by_step, finite, series
from afresh.core import Score, UserError
from afresh.evaluation.curves import Curves, number, thin
from afresh.evaluation.curves import Point as Place
from afresh.evaluation.report import Fact, plain
from afresh.training.highest import STOP_ERRORS

Gained = Literal["reward", "unseen"]
WORDS: dict[Gained, str] = {"reward": "reward", "unseen": "unseen reward"}

MARKS = 24  # points that a noisy cloud is drawn by, each a mean of neighbours
SMOOTH = 120  # places at which a law is drawn

# Charts over steps: title, what the axis says, the names drawn.
STEPS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Reward", "reward", ("reward",)),
    ("Unseen reward", "unseen reward", ("unseen",)),
    ("Likeness to the data", "likeness", ("likeness",)),
    ("Divergence from the reference", "nats a sample", ("kl", "kl_error")),
    ("Distance from the base's samples of the same noise", "distance", ("away",)),
    ("Distance of velocities from the reference's", "mean square", ("velocity_away",)),
    ("Trainer from sampler", "nats a step", ("gap",)),
    ("Entropy", "nats a step", ("entropy",)),
    ("Length", "steps a sample", ("length",)),
    ("Shares", "share", ("diversity", "flat", "clipped", "accuracy")),
    ("Margin", "nats", ("margin",)),
)
SAID = {
    "unseen": "unseen reward",
    "kl_error": "its standard error",
    "flat": "flat groups",
    "clipped": "clipped ratios",
    "accuracy": "pairs ordered rightly",
}


@dataclass(frozen=True)
class Alignment:
    """What goes beside the other parts of a `afresh.evaluation.report.Section`; `json` holds the same as plain
    values."""

    facts: list[Fact] = field(default_factory=list)
    curves: list[Curves] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    json: dict[str, Any] = field(default_factory=dict)


def alignment(rows: Sequence[Row], kl_limit: float = KL_LIMIT) -> Alignment | None:
    """The part of the report that is about alignment; None where no row has a reward or an accuracy.

    `kl_limit` is that of the alarms, in nats a sample. Raises UserError for rows that cannot be read.
    """
    merged = by_step(rows)
    if not any(finite(row, name) is not None for row in merged for name in ("reward", "accuracy")):
        return None
    laws = {of: law_of(merged, of) for of in WORDS}
    found, stop, best = alarms(merged, kl_limit), stop_reason(merged, errors=STOP_ERRORS), frontier(merged)
    notes = [f"{a.said} (Since step {a.step:,}.)" for a in found] + ([stop] if stop else [])
    judge: Gained = "reward" if laws["unseen"] is None else "unseen"  # the one that is not trained on, if there is
    notes += told(judge, laws[judge])
    fitted = {of: law for of, law in laws.items() if isinstance(law, Law)}
    return Alignment(
        facts(merged),
        [*against(merged, fitted), *over_steps(merged)],
        [s for of, law in fitted.items() for s in scores(of, law)],
        notes,
        {
            "alarms": [asdict(a) for a in found],
            "stop": stop or None,
            "laws": {of: law_json(law) for of, law in fitted.items()},
            "frontier": [plain(asdict(p)) for p in best],
        },
    )


# --------------------------------------------------------------------------- points


def gains(rows: Sequence[Row], of: Gained) -> tuple[list[tuple[float, float, float]], float] | None:
    """(KL, value, weight) of the rows that have both, by growing KL, and the base's value; None without any.

    Weights are inverse variances where every unseen reward has its error, else 1.
    """
    base = series(rows, of).values[:1]
    found = [
        (kl, value, finite(row, "unseen_error"))
        for row in rows
        if (kl := finite(row, "kl")) is not None and (value := finite(row, of)) is not None
    ]
    if not found:
        return None
    errors = [e for _, _, e in found if e is not None and e > 0]
    known = of == "unseen" and len(errors) == len(found)
    weights = [1 / e**2 for e in errors] if known else [1.0] * len(found)
    return sorted((kl, value, w) for (kl, value, _), w in zip(found, weights, strict=True)), base[0]


def law_of(rows: Sequence[Row], of: Gained) -> Law | str | None:
    """The law of reinforcement learning through a reward's points, or why there is none; None without points."""
    found = gains(rows, of)
    if found is None:
        return None
    points, base = found
    try:
        return fit([k for k, _, _ in points], [v - base for _, v, _ in points], "rl", [w for _, _, w in points])
    except UserError as e:
        return str(e)


# --------------------------------------------------------------------------- figures


def against(rows: Sequence[Row], laws: Mapping[Gained, Law]) -> list[Curves]:
    """Each reward against the divergence, with its law and what is attainable; the reward against diversity."""
    charts = []
    for of, word in WORDS.items():
        found = gains(rows, of)
        if found is None or len(found[0]) < 2:
            continue
        points, base = found
        marks, k = thin([(kl, value) for kl, value, _ in points], MARKS)
        lines: dict[str, Sequence[Place]] = {f"{word}, means of {k} rows" if k > 1 else word: marks}
        if of in laws:
            kl = np.linspace(0, math.sqrt(laws[of].farthest), SMOOTH) ** 2  # even in its root: the law is steep at 0
            lines["fitted law"] = list(zip(kl.tolist(), (base + predict(laws[of], kl)).tolist(), strict=True))
        lines["best at no more divergence"] = stairs(marks)
        charts.append(Curves(lines, "nats from the reference", word, f"{word.capitalize()} against divergence"))
    pairs = [  # in the order of steps: a line from where the run began to where it ended
        (d, r)
        for row in rows
        if (d := finite(row, "diversity")) is not None and (r := finite(row, "reward")) is not None
    ]
    if len(pairs) > 1:
        marks, k = thin(pairs, MARKS)
        name = f"reward, means of {k} rows" if k > 1 else "reward"
        charts.append(Curves({name: marks}, "diversity of samples", "reward", "Reward against diversity"))
    return charts


def stairs(marks: Sequence[Place]) -> list[Place]:
    """The frontier of points (KL, reward) as a stair: the most that is had at no more than each KL."""
    best = frontier([{"step": i, "kl": kl, "reward": value} for i, (kl, value) in enumerate(marks)])
    out: list[Place] = []
    for p in best:
        assert p.reward is not None
        out += [(p.kl, out[-1][1])] if out else []
        out.append((p.kl, p.reward))
    return [*out, (max(out[-1][0], *(kl for kl, _ in marks)), out[-1][1])]


def over_steps(rows: Sequence[Row]) -> list[Curves]:
    charts = []
    for title, label, names in STEPS:
        lines = {
            SAID.get(n, n): [(float(s), v) for s, v in found.pairs()] for n in names if (found := series(rows, n)).steps
        }
        if lines.keys() - {SAID["kl_error"]}:
            charts.append(Curves(lines, y_label=label, title=title))
    return charts


# --------------------------------------------------------------------------- numbers and words


def facts(rows: Sequence[Row]) -> list[Fact]:
    """First and last values, of evaluations where there are some, and the best evaluation."""
    names = {
        "reward": "reward",
        "kl": "nats from the reference",
        "away": "distance from the base's samples",
        "likeness": "likeness to the data",
        "diversity": "diversity",
        "accuracy": SAID["accuracy"],
    }
    looks = [row for row in rows if finite(row, "diversity") is not None]
    found = {name: series(looks if series(looks, name).values else rows, name) for name in names}
    errors = dict(series(rows, "kl_error").pairs())
    out: list[Fact] = []
    for name, s in found.items():
        if s.values:
            error = f" ± {number(errors[s.steps[-1]])}" if name == "kl" and s.steps[-1] in errors else ""
            out.append((names[name], f"{number(s.values[0])} → {number(s.values[-1])}{error}"))
    if not found["kl"].values:
        out.append((names["kl"], "not known: only of what is drawn step by step are likelihoods known"))
    if (unseen := series(rows, "unseen")).values:
        best, step = max((v, -s) for s, v in unseen.pairs())
        ends = f"{number(unseen.values[0])} → {number(unseen.values[-1])}"
        out.insert(1, ("unseen reward", f"{ends}, at most {number(best)} (step {-step:,})"))
    return out


def scores(of: Gained, law: Law) -> list[Score]:
    """The law's parameters, how well it fits, and its peak; with 95% intervals."""
    word, n = f"law of the {WORDS[of]}", law.points
    out = [
        Score(f"{word}: alpha", law.alpha, *interval(law.alpha, law.alpha_error, law.degrees), n, "none"),
        Score(f"{word}: beta", law.beta, *interval(law.beta, law.beta_error, law.degrees), n, "none"),
        Score(f"{word}: R²", law.r2, None, None, n, "none"),
    ]
    if (top := peak(law)) is not None and math.isfinite(top.kl_high):
        out.append(Score(f"{word}: nats at its peak", top.kl, top.kl_low, top.kl_high, n, "none"))
        out.append(Score(f"{word}: gain at its peak", top.reward, top.reward_low, top.reward_high, n, "none"))
    return out


def told(of: Gained, law: Law | str | None) -> list[str]:
    """What the law means, as a sentence, or why there is none."""
    if law is None:
        return []
    word = WORDS[of]
    if isinstance(law, str):
        return [f"No law of over-optimisation for the {word}. {law}"]
    form = f"gain = d (α - β log d), d = √KL, α = {number(law.alpha)}, β = {number(law.beta)}, R² = {number(law.r2)}"
    top = peak(law)
    if top is None or math.isinf(top.kl_high):
        return [f"It is not shown that the {word} turns: it was followed to {number(law.farthest)} nats ({form})."]
    return [
        f"By its law the {word} is largest at {number(top.kl)} nats from the reference ({number(top.kl_low)} to "
        f"{number(top.kl_high)}): {number(top.reward)} above the base's{beyond(top, law)} ({form})."
    ]


def beyond(top: Peak, law: Law) -> str:
    far = number(law.farthest)
    return (
        f", which is a guess, for the run went only to {far}" if top.kl > law.farthest else f"; the run went to {far}"
    )


def law_json(law: Law) -> dict[str, Any]:
    top = peak(law)
    made = {**asdict(law), "alpha_error": law.alpha_error, "beta_error": law.beta_error}
    return dict(plain({**made, "peak": None if top is None else asdict(top)}))
