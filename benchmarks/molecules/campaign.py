"""Simulated campaigns: a known oracle stands for the laboratory.

    python -m benchmarks campaign SOURCE REWARD [REWARD ...] [--methods ei,greedy,random] [--seeds 5] [--rounds 10]
        [--batch 20] [--budget 1000]

SOURCE is a run, whose samples and variations are the candidates of each round, or a file of items (molecules.smi), all
of which are candidates from the beginning. Each campaign starts with as many random items as a batch has, and measures
a batch in each round. `random` measures random samples of the run, or random items of the file. All methods of one seed
start with the same items.

For each reward, docs/results gets the share of what each method measured that was inside the 90% interval of its
prediction, and the best value and the mean of the ten best after the last round of the first method and of each other
one, with their differences, paired by seed, and 95% intervals of Student's t. Rows stay in AFRESH_BENCH (or
~/.cache/afresh-bench), in campaign/rows.jsonl; a campaign that is there is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from afresh.core import Descriptors, ItemKind
from afresh.core.events import ignore, listening
from afresh.data.measurements import MeasuredItem, Observed
from afresh.domains.molecule.kind import MOLECULE
from afresh.engine.alignment.rewards.reward import Context
from afresh.engine.alignment.rewards.reward_expression import build
from afresh.engine.alignment.surrogate.acquisition import Goal
from afresh.engine.alignment.surrogate.likeness import descriptors_of
from afresh.engine.alignment.surrogate.model import fit_surrogate
from afresh.engine.evaluation.estimate import share
from afresh.engine.sampling.request import Request
from afresh.runs.run import Run
from afresh.verbs.proposing import BatchPlan, Chooser, propose
from afresh.verbs.sample import Sampler
from benchmarks.common.benchmark import Benchmark, parser_of
from benchmarks.common.folders import work_folder
from benchmarks.common.results import Row, save, with_interval

TOP = 10
WANTED = (0.85, 0.95)  # share of measured values inside their 90% intervals
Value = Callable[[Sequence[Any]], list[float]]


@dataclasses.dataclass
class Campaign:
    """What was measured so far, and of each prediction whether its interval held."""

    kind: ItemKind
    value: Value
    items: list[Any] = dataclasses.field(default_factory=list)
    values: list[float] = dataclasses.field(default_factory=list)
    told: list[tuple[float, float, float] | None] = dataclasses.field(default_factory=list)
    origins: Counter[str] = dataclasses.field(default_factory=Counter)

    def measure(self, items: Sequence[Any], told: Sequence[tuple[float, float, float] | None] | None = None) -> None:
        self.items += items
        self.values += self.value(items)
        self.told += told or [None] * len(items)

    @property
    def observed(self) -> Observed:
        rows = zip(self.items, self.values, self.told, strict=True)
        return Observed([MeasuredItem(i, v, "", None, p) for i, v, p in rows])

    @property
    def inside(self) -> list[bool]:
        return [p[1] <= v <= p[2] for v, p in zip(self.values, self.told, strict=True) if p is not None]

    @property
    def curve(self) -> tuple[float, float]:
        """The best value and the mean of the TOP best."""
        best = sorted(self.values)[::-1]
        return best[0], float(np.mean(best[:TOP]))


Step = Callable[[Campaign, str, int], None]  # one round of a method, with its own seed


def fresh(run: Run, campaign: Campaign, count: int, seed: int) -> list[Any]:
    """`count` valid samples that were not measured yet."""
    kind = campaign.kind
    seen = {kind.digest(i) for i in campaign.items}
    out: list[Any] = []
    for attempt in range(50):
        for value in Sampler(run, 4 * count, Request(), seed * 1000 + attempt, {})().values:
            if len(out) < count and run.encoder.valid(value) and kind.digest(value) not in seen:
                seen.add(kind.digest(value))
                out.append(value)
        if len(out) == count:
            break
    return out


def of_run(run: Run, batch: int, budget: int) -> Step:
    """Rounds whose candidates are drawn by a run."""

    def step(campaign: Campaign, method: str, seed: int) -> None:
        if method == "random":
            campaign.measure(fresh(run, campaign, batch, seed))
            return
        plan = BatchPlan(Goal(), batch, budget, method, seed)  # type: ignore[arg-type]
        found = propose(run, campaign.observed, "value", plan)
        campaign.origins.update(p.origin for p in found)
        campaign.measure(found.items, [(p.predicted, p.low, p.high) for p in found])

    return step


def of_list(items: Sequence[Any], batch: int, rows: Callable[[Sequence[Any]], Any]) -> Step:
    """Rounds whose candidates are all items of a list that were not measured yet."""

    def step(campaign: Campaign, method: str, seed: int) -> None:
        seen = {campaign.kind.digest(i) for i in campaign.items}
        left = [i for i in items if campaign.kind.digest(i) not in seen]
        if method == "random":
            order = np.random.default_rng(seed).permutation(len(left))[:batch]
            campaign.measure([left[i] for i in order])
            return
        surrogate = fit_surrogate(campaign.kind, campaign.items, campaign.values, seed)
        chooser = Chooser(surrogate, BatchPlan(Goal(), batch, acquisition=method, seed=seed))  # type: ignore[arg-type]
        chosen = [left[i] for i in chooser.batch(left)]
        found = surrogate.predict(rows(chosen))
        told = zip(found.mean.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
        campaign.measure(chosen, list(told))

    return step


def remembering(kind: ItemKind) -> ItemKind:
    """The kind, whose descriptors of an item are computed once."""
    own, known = descriptors_of(kind), dict[str, Any]()

    def vectors(items: Sequence[Any]) -> Any:
        new = {kind.digest(i): i for i in items if kind.digest(i) not in known}
        if new:
            known.update(zip(new, own.vectors(list(new.values())), strict=True))
        return np.stack([known[kind.digest(i)] for i in items])

    return dataclasses.replace(kind, descriptors=Descriptors(vectors, own.likeness))


def campaigns(options: argparse.Namespace, done: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """A row for each seed, reward and method, but for those that are `done`."""
    source = Path(options.source)
    if source.is_dir():
        run = Run.open(source)
        kind, step = run.encoder.kind, of_run(run, options.batch, options.budget)

        def start(campaign: Campaign, seed: int) -> list[Any]:
            return fresh(run, campaign, options.batch, seed)
    else:
        kind = remembering(MOLECULE)
        items = [kind.decode(line.split()[0].encode()) for line in source.read_text().splitlines() if line.strip()]
        assert kind.descriptors is not None
        step = of_list(items, options.batch, kind.descriptors.vectors)

        def start(campaign: Campaign, seed: int) -> list[Any]:
            order = np.random.default_rng(10_000 + seed).permutation(len(items))[: options.batch]
            return [items[i] for i in order]

    scores = {words: build(words, Context(kind)).score for words in options.rewards}

    def value(items: Sequence[Any], words: str) -> list[float]:
        return [float(v) for v in scores[words](items, [{}] * len(items))]

    settings = [options.rounds, options.batch, options.budget]
    for seed, words, method in product(range(options.seeds), options.rewards, options.methods.split(",")):
        row: dict[str, Any] = {"source": source.name, "reward": words, "method": method, "seed": seed}
        row["settings"] = settings
        if (before := next((r for r in done if row.items() <= r.items()), None)) is not None:
            yield before
            continue
        began, campaign = time.process_time(), Campaign(kind, partial(value, words=words))
        campaign.measure(start(campaign, seed))
        curves = [campaign.curve]
        for number in range(options.rounds):
            step(campaign, method, 100 * seed + number + 1)
            curves.append(campaign.curve)
        row |= {"best": [c[0] for c in curves], "top": [c[1] for c in curves]}
        row["inside"] = [int(sum(campaign.inside)), len(campaign.inside)]
        yield row | {"origins": dict(campaign.origins), "cpu_seconds": round(time.process_time() - began, 1)}


def interval(values: Sequence[float]) -> tuple[float, str]:
    """The half width of the 95% interval of Student's t, and the mean with it."""
    n = len(values)
    half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5) if n > 1 else float("nan")
    return half, f"{np.mean(values):.3f} +- {half:.3f}"


def table(rows: Sequence[dict[str, Any]]) -> list[Row]:
    """What the module says, as rows of the results."""
    out: list[Row] = []
    for words in dict.fromkeys(r["reward"] for r in rows):
        own = [r for r in rows if r["reward"] == words]
        methods = list(dict.fromkeys(r["method"] for r in own))
        by = {m: {r["seed"]: r for r in own if r["method"] == m} for m in methods}
        rounds, batch, budget = own[0]["settings"]
        about = f"campaigns of {rounds} rounds of {batch}, {words}"
        for m in methods:
            hits, n = (sum(r["inside"][k] for r in by[m].values()) for k in (0, 1))
            if n:
                found = share(hits, n)
                held = with_interval(found)
                reached = WANTED[0] <= found.value <= WANTED[1]
                goal = f"{WANTED[0]} to {WANTED[1]}"
                out.append(
                    Row(about, f"{m}: measured inside the 90% interval", held, goal=goal, reached=reached, n=f"{n:,}")
                )
        for m, (key, what) in product(methods[1:], (("best", "the best"), ("top", f"mean of the {TOP} best"))):
            seeds = [s for s in by[methods[0]] if s in by[m]]
            ends = [[by[name][s][key][-1] for s in seeds] for name in (methods[0], m)]
            gains = [a - b for a, b in zip(*ends, strict=True)]
            half, told = interval(gains)
            name = f"{methods[0]} beside {m}: {what}; difference {told}"
            ours, theirs = (f"{np.mean(e):.3f}" for e in ends)
            ratio = float(np.mean(ends[0]) / np.mean(ends[1])) if np.mean(ends[1]) else None
            seen = f"{len(seeds)} seeds, {budget:,} candidates a round"
            out.append(Row(about, name, ours, f"{theirs} ({m})", ratio, "above", float(np.mean(gains)) > half, seen))
    return out


def main(*given: str) -> None:
    parser = parser_of("campaign", __doc__)
    parser.add_argument("source")
    parser.add_argument("rewards", nargs="+")
    parser.add_argument("--methods", default="ei,greedy,random")
    for name, default in (("seeds", 5), ("rounds", 10), ("batch", 20), ("budget", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args(given)
    out = work_folder("campaign") / "rows.jsonl"
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    rows = []
    with listening(ignore):
        for row in campaigns(options, done):
            rows.append(row)
            if row in done:
                continue
            with out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row | {"best": row["best"][-1], "top": row["top"][-1]}), flush=True)
    found = table(rows)
    for r in found:
        print(f"{r.benchmark}; {r.what}: {r.ours}{f', {r.theirs}' if r.theirs else ''}, {r.n}")
    save("campaign", found)


BENCHMARKS = (Benchmark("campaign", ("SOURCE", "REWARD"), 20, main),)
