"""Forecasts of ETTh1 in GIFT-Eval's setting: 7 columns of hours, horizons of 48, 480 and 720 hours.

The last windows of the series that do not overlap are forecast, as many as a tenth of it has room for and at most 20.
What is before the first of them is learnt from. The loss is the mean weighted quantile loss of the levels .1 to .9.
Of other models, the losses are those that GIFT-Eval publishes; the seasonal naive forecast, trees on lags, and the
models of statsforecast (pip install 'afresh[series]') run here, the latter fitted to the 14 days before each window.

`--validate` takes the windows before those of the test, and learns from what is before these: whatever is chosen is
chosen by it.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.domains.series import classical, tree
from afresh.domains.series.forecast import futures
from afresh.domains.series.reading.regular import Series
from afresh.domains.series.scores import LEVELS, held, quantile_losses, scaled_errors, seasonal_naive
from afresh.domains.series.stretches import read_like, series_encoder
from afresh.runs.run import Run
from benchmarks.common import processes
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import data_folder, work_folder
from benchmarks.common.results import Row, save

PERIOD, DAYS, MEMBERS, SHARE, MOST = 24, 14, 100, 0.1, 20
MINUTES = 10.0
EVERY = (*LEVELS, 0.25, 0.75, 0.05, 0.95)
PUBLISHED = {  # of GIFT-Eval's table, by horizon: PatchTST, AutoARIMA, Chronos-2
    48: (0.190, 0.223, 0.171),
    480: (0.273, 0.384, 0.261),
    720: (0.297, 0.430, 0.275),
}
# Chosen by windows of 48 hours before those of the test: the network, steps that are told, and what is held out of what
# is learnt. The longer horizons take the same, and hold out more.
WORDS = ("family.widths=[64]", "family.blocks=2", "family.emb=128", "train.stop_rising=0")
SETTINGS = {48: {"context": 336, "held": 480}, 480: {"context": 336, "held": 960}, 720: {"context": 336, "held": 960}}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """`first`: the first hour that is forecast, of `windows` of `horizon` hours."""

    horizon: int
    first: int
    windows: int

    @property
    def ends(self) -> list[int]:
        return [self.first + k * self.horizon for k in range(self.windows)]


@dataclass(frozen=True)
class Found:
    """The loss, the scaled error, and the shares that intervals of 50 and 90% hold."""

    loss: float
    mase: float
    half: float
    most: float
    seconds: float


def hours() -> tuple[list[str], list[str], Array]:
    """Names of the columns, times, and values (7, T)."""
    with gzip.open(data_folder("series_etth1") / "ETTh1.csv.gz", "rt", encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    return head[1:], [r[0] for r in rows], np.array([[float(v) for v in r[1:]] for r in rows]).T


def setting(horizon: int, length: int, validate: bool) -> Setting:
    windows = min(MOST, math.ceil(SHARE * length / horizon))
    first = length - windows * horizon
    return Setting(horizon, first - windows * horizon if validate else first, windows)


def judged(quantiles: Array, values: Array, where: Setting, seconds: float) -> Found:
    """Of quantiles EVERY (Q, N, 7, H)."""
    truth = np.stack([values[:, e : e + where.horizon] for e in where.ends])
    loss, size = quantile_losses(quantiles[: len(LEVELS)], truth)
    scaled = [
        scaled_errors(q[None], t[None], values[None, :, :e], PERIOD).mean()
        for q, t, e in zip(quantiles[EVERY.index(0.5)], truth, where.ends, strict=True)
    ]
    half, most = (
        held(quantiles[EVERY.index(a)], quantiles[EVERY.index(b)], truth) for a, b in ((0.25, 0.75), (0.05, 0.95))
    )
    return Found(
        float(loss.sum() / size.sum()),
        float(np.mean(scaled)),
        float(half[0].sum() / half[1].sum()),
        float(most[0].sum() / most[1].sum()),
        seconds,
    )


def ours(root: Path, where: Setting, values: Array, minutes: float, words: list[str]) -> Found:
    """Trained on a table of what is before the first window."""
    names, times, _ = hours()
    table, out = root / "data" / "etth1.csv", root / "run"
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = [",".join([t, *(f"{v:.10g}" for v in row)]) for t, row in zip(times, values.T.tolist(), strict=False)]
    table.write_text("\n".join([",".join(["date", *names]), *rows[: where.first], ""]))
    if not (out / "report.json").exists():
        chosen = SETTINGS[where.horizon]
        given = [f"horizon={where.horizon}", *(f"{k}={v}" for k, v in chosen.items())]
        command = [
            "afresh",
            "train",
            str(table),
            "--minutes",
            f"{minutes:g}",
            "--out",
            str(out),
            "--force",
            "--no-measure",
        ]
        processes.run([*command, *(w for g in given for w in ("--data", g)), *words], root / "train.log")
    run = Run.open(out)
    whole = root / "whole.csv"
    whole.write_text("\n".join([",".join(["date", *names]), *rows, ""]))
    (series,) = read_like(series_encoder(run), whole).series
    began = time.monotonic()
    parts = []
    for end in where.ends:
        nothing = np.full((1, len(names), where.horizon), np.nan, np.float32)
        parts.append(futures(run, [until(series, end)], [end], where.horizon, MEMBERS, nothing, end)[:, 0])
    members = np.stack(parts, 1).astype(np.float64)  # (M, N, 7, H)
    return judged(np.quantile(members, EVERY, axis=0), values, where, time.monotonic() - began)


def until(series: Series, end: int) -> Series:
    """The series without what comes from a step on, so that a forecast cannot see it."""
    return Series(series.name, series.step, series.first, series.values[:, :end], series.known[:, :end])


def naive(values: Array, where: Setting) -> Found:
    past = np.stack([values[:, e - 28 * PERIOD : e] for e in where.ends])
    return judged(seasonal_naive(past, PERIOD, where.horizon, EVERY), values, where, 0.0)


def trees(values: Array, where: Setting) -> Found:
    """On 2,000 windows of 14 days before the first that is forecast, with the hour and the day of the week."""
    context, length = DAYS * PERIOD, DAYS * PERIOD + where.horizon
    steps = np.arange(values.shape[1] + where.horizon)
    turns = [2 * np.pi * steps / PERIOD, 2 * np.pi * steps / (7 * PERIOD)]
    calendar = np.stack([f(t) for t in turns for f in (np.sin, np.cos)])

    def windows(starts: Any) -> tuple[Array, Array, Array]:
        cut = np.stack([values[:, s : s + length] for s in starts])
        return cut[..., :context], np.stack([calendar[:, s + context : s + length] for s in starts]), cut[..., context:]

    began = time.monotonic()
    past, later, truth = windows(np.linspace(0, where.first - length, 2_000).astype(int))
    predict = tree.fit(past, later, truth, PERIOD, EVERY)
    past, later, _ = windows([e - context for e in where.ends])
    return judged(predict(past, later), values, where, time.monotonic() - began)


def usual_contenders() -> list[str]:
    return ["ours", "naive", "tree", *(classical.MODELS if classical.installed() else ())]


def fitted(name: str, values: Array, where: Setting) -> Found:
    """A model of statsforecast, fitted to each window and column by itself."""

    def report(share: float) -> None:
        print(f"{name}: {share:.0%}, {time.monotonic() - began:.0f} seconds", end="\r", file=sys.stderr, flush=True)

    past, began = np.stack([values[:, e - DAYS * PERIOD : e] for e in where.ends]), time.monotonic()
    model = classical.MODELS[name]
    quantiles, _ = classical.forecasts(model, past, PERIOD, where.horizon, EVERY, math.inf, report)
    return judged(quantiles, values, where, time.monotonic() - began)


def main(*given: str) -> None:
    parser = parser_of("series_etth1", __doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each training")
    parser.add_argument("--horizons", type=int, nargs="*", default=list(PUBLISHED), help="hours")
    parser.add_argument("--validate", action="store_true", help="on the windows before those of the test")
    parser.add_argument("--only", nargs="*", default=usual_contenders(), help="contenders")
    parser.add_argument("--words", nargs="*", default=[], help="further words of `afresh train`, as family.blocks=2")
    parser.add_argument("--name", default="", help="of the folder of the run")
    asked = parser.parse_args(given)
    _, _, values = hours()
    found: dict[int, dict[str, Found]] = {}
    for horizon in asked.horizons:
        where = setting(horizon, values.shape[1], asked.validate)
        known = values[:, : where.first + where.windows * horizon]
        kind = "validate" if asked.validate else "test"
        root = work_folder(f"etth1/{kind}-{horizon}-{asked.minutes:g}{asked.name}")
        of: dict[str, Found] = {}
        if "naive" in asked.only:
            of["naive"] = naive(known, where)
        if "tree" in asked.only:
            of["tree"] = trees(known, where)
        for name in (n for n in classical.MODELS if n in asked.only):
            of[name] = fitted(name, known, where)
        if "ours" in asked.only:
            words = [w for word in (*WORDS, *asked.words) for w in ("--set", word)]
            of["ours"] = ours(root, where, known, asked.minutes, words)
        found[horizon] = of
        for name, one in of.items():
            print(horizon, name, json.dumps({k: round(v, 4) for k, v in vars(one).items()}), flush=True)
    usual = not (asked.validate or asked.words) and asked.minutes == MINUTES and "ours" in asked.only
    if usual and set(asked.horizons) == set(PUBLISHED):
        save("series_etth1", rows(found))


def rows(found: dict[int, dict[str, Found]]) -> list[Row]:
    out = []
    for horizon, of in found.items():
        patch, arima, chronos = PUBLISHED[horizon]
        mine = of["ours"]
        n = f"{setting(horizon, 17_420, False).windows} windows of 7 columns, one training of {MINUTES:g} minutes"
        theirs = f"PatchTST {patch}, AutoARIMA {arima}, Chronos-2 {chronos} as published; " + "; ".join(
            f"{name} {f.loss:.3f} here" for name, f in of.items() if name != "ours"
        )
        what = f"quantile loss, {horizon} hours ahead"
        ratio = mine.loss / patch
        out.append(Row("ETTh1", what, f"{mine.loss:.3f}", theirs, ratio, f"< {patch}", mine.loss < patch, n))
        goal, held_well = "0.87 to 0.93", 0.87 <= mine.most <= 0.93
        out.append(
            Row(
                "ETTh1", f"coverage of 90% intervals, {horizon} hours", f"{mine.most:.3f}", "", None, goal, held_well, n
            )
        )
    return out


BENCHMARKS = (Benchmark("series_etth1", ("series_etth1",), 50, main),)
