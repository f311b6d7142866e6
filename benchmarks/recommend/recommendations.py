"""Recommenders over the whole catalogue, ties counted against them: `python -m benchmarks recommendations [PART ...]`.

Parts are data sets (beauty, lastfm, wikipedia, movielens) and contenders (afresh, baselines, rectools-sasrec,
rectools-bert4rec, recbole-sasrec); without any, all. `table` runs nothing and writes the table of what is there. Each
contender chooses its settings, its epoch or its weights on validation events within the same seconds of one processor.
Baselines are then fitted again with the validation events, as the tables of afresh are; beside it stands what
baselines get without. Networks, those of peers and of afresh, learn without the validation events. Of afresh stand five
seeds (three of Beauty), what it gets without the items' features where there are any, and its network alone. What was
measured of each
stays in AFRESH_BENCH (or ~/.cache/afresh-bench), so that parts can be run one after another.

AFRESH_RECTOOLS and AFRESH_RECBOLE name the Python of environments with these packages (see the files of the peers);
without one its rows are left out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from afresh.domains.interactions.baselines import incidence
from afresh.domains.interactions.list_metrics import (
    coverage,
    gini,
    intra_list_diversity,
    novelty,
    popularity_lift,
    users_of,
)
from afresh.domains.interactions.ranking import Items, Ranked, Scorer, Scores, accuracy, rank_all
from afresh.engine.evaluation.estimate import Estimate
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import work_folder
from benchmarks.common.processes import ask
from benchmarks.common.results import Row, save
from benchmarks.recommend.baselines import BASELINES, Baseline, tune_baseline
from benchmarks.recommend.peers.protocol import Ask
from benchmarks.recommend.sets import TASKS, Asked, Task

K = 10
PEERS = {
    "rectools-sasrec": ("RecTools SASRec", "AFRESH_RECTOOLS", "benchmarks.recommend.peers.rectools", "sasrec"),
    "rectools-bert4rec": ("RecTools BERT4Rec", "AFRESH_RECTOOLS", "benchmarks.recommend.peers.rectools", "bert4rec"),
    "recbole-sasrec": ("RecBole SASRec", "AFRESH_RECBOLE", "benchmarks.recommend.peers.recbole", "sasrec"),
}
OURS = "afresh"
# HR@10 and NDCG@10 of BSARec (Shin et al. 2024, AAAI) on the same files, the highest that are published.
PUBLISHED = {"Beauty, leave one out": (0.1008, 0.0611), "LastFM, leave one out": (0.0807, 0.0435)}


def measured(task: Task, ranked: Ranked) -> dict[str, Estimate]:
    """Everything that is said of a contender's answers to the test."""
    asked = task.test
    counts = users_of(asked.histories, task.items)
    taken = incidence(asked.histories, task.items).T.tocsr()
    found: dict[str, Estimate | None] = {
        **accuracy(ranked.ranks, K, asked.users),
        "coverage": coverage(ranked.lists, task.items),
        "Gini": gini(ranked.lists, task.items),
        "novelty": novelty(ranked.lists, counts, len(asked.histories)),
        "diversity": intra_list_diversity(ranked.lists, taken),
        "popularity lift": popularity_lift(ranked.lists, asked.questions, counts),
    }
    return {name: e for name, e in found.items() if e is not None}


def keep(task: Task, name: str, ranked: Ranked, told: str, seconds: float, extra: dict[str, Any] | None = None) -> None:
    """Store and print what a contender got. `told`: its settings in words; `seconds`: of the processor."""
    found = measured(task, ranked)
    facts = {"settings": told, "seconds": seconds, **(extra or {})}
    path = results_of(task) / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"name": name, **facts, "metrics": {k: asdict(v) for k, v in found.items()}}, indent=1))
    numbers = ", ".join(f"{k} {v.value:.4f}" for k, v in found.items())
    print(f"{task.name}, {name} ({told}; {seconds:.0f} s): {numbers}", flush=True)


def results_of(task: Task) -> Path:
    return work_folder("recommendations") / re.sub("[^a-z0-9]+", "-", task.name.lower())


# --------------------------------------------------------------------------- contenders


def run_baseline(task: Task, baseline: Baseline) -> None:
    asked, test = task.validation, task.test
    begun = time.process_time()
    found = tune_baseline(
        baseline,
        asked.histories,
        task.items,
        asked.targets,
        seconds=task.seconds,
        times=asked.times,
        questions=asked.questions,
        seen=task.seen,
    )
    tried = f"{len(found.tried)} of {len(found.tried) + found.untried} settings tried"
    told = "; ".join([" ".join(f"{k} {v:g}" for k, v in found.settings.items()), tried]).removeprefix("; ")
    keep(task, f"{baseline.name} without validation", ranking(task, found.scorer), told, time.process_time() - begun)
    scorer = baseline.fit(test.histories, task.items, test.times, found.settings)
    keep(task, baseline.name, ranking(task, scorer), told, time.process_time() - begun)


def ranking(task: Task, scorer: Scorer) -> Ranked:
    return rank_all(scorer, task.test.questions, task.test.targets, task.items, k=K, seen=task.seen)


class InOrder:
    """A scorer of scores that were computed before, (N, V), asked for in their order."""

    def __init__(self, scores: Scores) -> None:
        self.scores, self.place = scores, 0

    def __call__(self, histories: Sequence[Items]) -> Scores:
        rows = slice(self.place, self.place + len(histories))
        self.place = rows.stop
        return np.array(self.scores[rows])


def run_peer(task: Task, peer: str) -> None:
    name, variable, module, model = PEERS[peer]
    if variable not in os.environ:
        print(f"{name}: left out; set {variable} to the Python of an environment that has it", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "task.npz", **arrays(task))
        request = Ask(model, task.seconds)
        facts = ask(module, request, Path(folder), threads=1, python=os.environ[variable])
        scores = np.load(Path(folder) / "scores.npy", mmap_mode="r")
        keep(task, name, ranking(task, InOrder(scores)), facts.pop("settings"), facts.pop("seconds"), facts)


def arrays(task: Task) -> dict[str, Any]:
    """A task as flat arrays: of each list of histories, the items and where each ends."""

    def flat(name: str, asked: Asked) -> dict[str, Any]:
        lists = {"histories": asked.histories, "questions": asked.questions}
        out: dict[str, Any] = {f"{name}_targets": asked.targets}
        for key, each in lists.items():
            out[f"{name}_{key}"] = np.concatenate(each)
            out[f"{name}_{key}_ends"] = np.cumsum([len(h) for h in each])
        return out

    facts = {"items": task.items, "seen": task.seen}
    return {**facts, **flat("validation", task.validation), **flat("test", task.test)}


def run_ours(tasks: Sequence[Task]) -> None:
    """The runs of all seeds that are not there yet, and their mean. Tasks with the same past share their runs."""
    for task in tasks:
        same = [t for t in tasks if list(map(len, t.test.histories)) == list(map(len, task.test.histories))]
        for seed in range(task.seeds):
            files = {t.name: results_of(t) / "seeds" / f"{seed}.json" for t in same}
            if not files[task.name].exists():
                for name, found in one_of_ours(same, seed).items():
                    files[name].parent.mkdir(parents=True, exist_ok=True)
                    files[name].write_text(json.dumps(found, indent=1))
        merge_seeds(task)


def one_of_ours(tasks: Sequence[Task], seed: int) -> dict[str, dict[str, dict[str, Any]]]:
    """For each task, what a run of a seed got, by name, with its seconds and settings. All tasks have the same past."""
    from afresh.domains.interactions.recommend import Recommender

    begun, task = time.process_time(), tasks[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split = "last" if task.test.times is None or "leave one out" in task.name else "time"
        run = trained(task, folder, task.seconds / 60, seed, split)
        told = f"{run.record.train.steps:,} steps of width {run.record.config['width']}"
        found: dict[str, dict[str, dict[str, Any]]] = {t.name: {} for t in tasks}

        def judge(name: str, recommender: Recommender, alone: bool = False) -> None:
            for each in tasks:
                ranked = ranking(each, Ours(recommender, each.items, alone))
                metrics = {k: asdict(v) for k, v in measured(each, ranked).items()}
                seconds = time.process_time() - begun
                found[each.name][name] = {"settings": told, "seconds": seconds, "metrics": metrics}
                numbers = ", ".join(f"{k} {v['value']:.4f}" for k, v in metrics.items())
                print(f"{each.name}, {name}, seed {seed} ({told}; {seconds:.0f} s): {numbers}", flush=True)

        judge(OURS, Recommender(run))
        judge(f"{OURS}, network alone", Recommender(run), alone=True)
        if task.features:
            judge(f"{OURS} without features", Recommender(bare(run)))
        return found


def trained(task: Task, folder: Path, minutes: float, seed: int, split: str) -> Any:
    """A run on everything before the test, on one processor, by the planner's own sizes."""
    import afresh
    from afresh.runs.run import Run

    write_log(task, folder / "data")
    afresh.train(
        folder / "data",
        modality="interactions",
        family="transformer",
        minutes=minutes,
        seed=seed,
        out=folder / "run",
        device="cpu",
        data={"split": split},
        settings={"train.threads": 1},
        quiet=True,
    )
    return Run.open(folder / "run")


def write_log(task: Task, folder: Path) -> None:
    """Everything before the test as a table of events, and the features of items as another."""
    import pyarrow
    from pyarrow import csv

    folder.mkdir()
    histories, times = task.test.histories, task.test.times
    users = np.repeat(np.arange(len(histories)), [len(h) for h in histories])
    columns = {"user_id": users, "item_id": np.concatenate(histories)}
    if times is not None:
        columns["timestamp"] = np.concatenate(times).astype(np.int64)
    csv.write_csv(pyarrow.table(columns), folder / "events.csv")
    if task.features:
        ids = sorted(task.features)
        table = {"item_id": ids, "attributes": ["|".join(task.features[i]) for i in ids]}
        csv.write_csv(pyarrow.table(table), folder / "items.csv")


def bare(run: Any) -> Any:
    """A copy of a run that knows no features of items."""
    from dataclasses import replace

    from afresh.runs.run import Run

    folder = run.path.parent / "bare"
    shutil.copytree(run.path, folder, ignore=shutil.ignore_patterns("recommend"))
    replace(run.encoder.catalogue, features={}).save(folder / "encoder")
    return Run.open(folder)


class Ours:
    """A scorer of a run: the log-probability of each item of the task, or of its network alone."""

    def __init__(self, recommender: Any, items: int, alone: bool) -> None:
        self.recommender, self.items, self.alone = recommender, items, alone
        self.columns = np.array([int(i) for i in recommender.catalogue.ids])

    def __call__(self, histories: Sequence[Items]) -> Scores:
        rows = [self.recommender.encoder.ids([str(i) for i in h.tolist()]) for h in histories]
        cond = self.recommender.condition(len(rows))
        if self.alone:
            logs = self.recommender.log_probs(rows, cond)
        else:
            logs = self.recommender.probabilities(rows, cond).clamp_min(1e-30).log()
        out = np.full((len(rows), self.items), -1e9, np.float32)  # items without an event before the test
        out[:, self.columns] = logs.numpy()
        return out


def mean_of(values: Sequence[float | None]) -> float | None:
    """The mean; None if a value is missing, as the ends of an interval are where there is none."""
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def merge_seeds(task: Task) -> None:
    """Store the mean over the seeds of each metric and of its interval, and the lowest and highest seed."""
    runs = [json.loads(p.read_text()) for p in sorted((results_of(task) / "seeds").glob("*.json"))]
    for name in runs[0]:
        each = [r[name] for r in runs]
        metrics = {
            metric: {
                **first,
                **{k: mean_of([r["metrics"][metric][k] for r in each]) for k in ("value", "low", "high")},
            }
            for metric, first in each[0]["metrics"].items()
        }
        spread = ", ".join(
            f"{m} {min(v):.4f} to {max(v):.4f}"
            for m in (f"HR@{K}", f"NDCG@{K}")
            for v in [[r["metrics"][m]["value"] for r in each]]
        )
        told = f"{each[0]['settings']}; {len(each)} seeds, {spread}"
        seconds = float(np.mean([r["seconds"] for r in each]))
        path = results_of(task) / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.json"
        path.write_text(json.dumps({"name": name, "settings": told, "seconds": seconds, "metrics": metrics}, indent=1))


# --------------------------------------------------------------------------- table


def rows_of(task: Task) -> list[Row]:
    """A row for each measure of accuracy, ours beside all others; and one for each contender on its lists."""
    results = [json.loads(p.read_text()) for p in sorted(results_of(task).glob("*.json"))]
    if not results:
        return []
    ours = next((r for r in results if r["name"] == OURS), None)
    others = sorted((r for r in results if r["name"] != OURS), key=lambda r: -r["metrics"]["NDCG@10"]["value"])
    n = f"{len(task.test.targets):,} targets of {len(np.unique(task.test.users)):,} users, {task.items:,} items"
    benchmark, rows = f"recommendations, {task.name}", []
    for metric in (f"HR@{K}", f"NDCG@{K}"):
        values = {r["name"]: r["metrics"][metric]["value"] for r in others}
        own = None if ours is None else ours["metrics"][metric]["value"]
        top = max(values.values(), default=0.0)
        rows.append(
            Row(
                benchmark,
                f"{metric}, whole catalogue, items of the history {'in' if task.seen else 'left out'}",
                "not measured" if ours is None else interval(ours["metrics"][metric]),
                "; ".join(f"{v:.4f} ({name})" for name, v in values.items()),
                None if own is None or not top else own / top,
                "stated" if ours is None else "more than each",
                own is None or own > top,
                n,
            )
        )
    if ours is not None and task.name in PUBLISHED:
        for metric, value in zip((f"HR@{K}", f"NDCG@{K}"), PUBLISHED[task.name], strict=True):
            own = ours["metrics"][metric]["value"]
            text = interval(ours["metrics"][metric])
            goal = f"at least {value:.4f}"
            rows.append(
                Row(benchmark, metric, text, f"{value} (BSARec, published)", own / value, goal, own >= value, n)
            )
    for result in [*([ours] if ours else []), *others]:
        told = f"{result['settings']}; {result['seconds']:.0f} s of a processor"
        beside = ", ".join(f"{k} {v['value']:.3f}" for k, v in result["metrics"].items() if k not in (f"HR@{K}",))
        side = {True: (beside, ""), False: ("", beside)}[result["name"] == OURS]
        rows.append(Row(benchmark, f"{result['name']} ({told})", *side, None, "stated", True, n))
    return rows


def interval(estimate: dict[str, Any]) -> str:
    return f"{estimate['value']:.4f} ({estimate['low']:.4f} to {estimate['high']:.4f})"


def main(*parts: str) -> None:
    known = {*TASKS, OURS, "baselines", *PEERS, "table"}
    if unknown := [p for p in parts if p not in known]:
        sys.exit(f"No part {unknown[0]!r}. Choose from: {', '.join(sorted(known))}.")
    every = (OURS, "baselines", *PEERS)
    contenders = [c for c in every if c in parts] or list(every)
    rows = []
    for name, make in TASKS.items():
        tasks = make()
        run = "table" not in parts and (name in parts or not set(parts) & set(TASKS))
        if run and OURS in contenders:
            run_ours(tasks)
        for task in tasks:
            if run:
                for contender in contenders:
                    if contender == OURS:
                        continue
                    if contender in PEERS:
                        run_peer(task, contender)
                    else:
                        for baseline in BASELINES:
                            run_baseline(task, baseline)
            rows += rows_of(task)
    save("recommendations", rows)


BENCHMARKS = (Benchmark("recommendations", ("interactions_s3rec", "interactions_wikipedia"), 240, main),)
