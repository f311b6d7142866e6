"""Recommenders over the whole catalogue, ties counted against them: `python -m benchmarks.recommendations [PART ...]`.

Parts are data sets (beauty, lastfm, wikipedia, movielens) and contenders (baselines, rectools-sasrec,
rectools-bert4rec, recbole-sasrec); without any, all. `table` runs nothing and writes the table of what is there. Each
contender chooses its settings or its epoch on the validation events within the same seconds of one processor. Baselines
are then fitted again with the validation events; beside it stands what they get without. The networks of peers learn
without the validation events, as their libraries do. What was measured of each stays in AFRESH_BENCH (or
~/.cache/afresh-bench), so that parts can be run one after another.

AFRESH_RECTOOLS and AFRESH_RECBOLE name the Python of environments with these packages (see the files of the peers);
without one its rows are left out.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from afresh.evaluation.estimate import Estimate
from afresh.evaluation.ranking import Items, Ranked, Scorer, Scores, accuracy, rank_all
from afresh.evaluation.recommended import coverage, gini, intra_list_diversity, novelty, popularity_lift, users_of
from afresh.evaluation.recommenders import BASELINES, Baseline
from afresh.evaluation.recommenders.incidence import incidence
from afresh.evaluation.recommenders.tuning import tuned
from benchmarks.interaction_sets import TASKS, Asked, Task
from benchmarks.judge_pictures import work_folder
from benchmarks.table import ROOT, Row, save

SECONDS = 600.0  # of one processor, for each contender on each task
K = 10
PEERS = {
    "rectools-sasrec": ("RecTools SASRec", "AFRESH_RECTOOLS", "benchmarks.peer_rectools", "sasrec"),
    "rectools-bert4rec": ("RecTools BERT4Rec", "AFRESH_RECTOOLS", "benchmarks.peer_rectools", "bert4rec"),
    "recbole-sasrec": ("RecBole SASRec", "AFRESH_RECBOLE", "benchmarks.peer_recbole", "sasrec"),
}
OURS = "afresh"  # the name under which its results are stored; see `measured`


def measured(task: Task, ranked: Ranked) -> dict[str, Estimate]:
    """Everything that is said of a contender's answers to the test."""
    asked = task.test
    counts = users_of(asked.histories, task.items)
    taken = incidence(asked.histories, task.items).T.tocsr()
    return {
        **accuracy(ranked.ranks, K, asked.users),
        "coverage": coverage(ranked.lists, task.items),
        "Gini": gini(ranked.lists, task.items),
        "novelty": novelty(ranked.lists, counts, len(asked.histories)),
        "diversity": intra_list_diversity(ranked.lists, taken),
        "popularity lift": popularity_lift(ranked.lists, asked.questions, counts),
    }


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
    found = tuned(
        baseline,
        asked.histories,
        task.items,
        asked.targets,
        seconds=SECONDS,
        times=asked.times,
        questions=asked.questions,
        seen=task.seen,
    )
    tried = f"{len(found.tried)} of {len(found.tried) + found.untried} settings tried"
    told = "; ".join([" ".join(f"{k} {v:g}" for k, v in found.settings.items()), tried]).removeprefix("; ")
    keep(task, f"{baseline.name} without validation", ranking(task, found.scorer), told, time.process_time() - begun)
    scorer = baseline.fit(test.histories, task.items, test.times, **found.settings)
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
        command = [os.environ[variable], "-m", module, folder, model, str(SECONDS)]
        single = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run(command, cwd=folder, env={**os.environ, **single, "PYTHONPATH": str(ROOT)}, check=True)
        facts = json.loads((Path(folder) / "facts.json").read_text())
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
    for result in [*([ours] if ours else []), *others]:
        told = f"{result['settings']}; {result['seconds']:.0f} s of a processor"
        beside = ", ".join(f"{k} {v['value']:.3f}" for k, v in result["metrics"].items() if k not in (f"HR@{K}",))
        side = {True: (beside, ""), False: ("", beside)}[result["name"] == OURS]
        rows.append(Row(benchmark, f"{result['name']} ({told})", *side, None, "stated", True, n))
    return rows


def interval(estimate: dict[str, Any]) -> str:
    return f"{estimate['value']:.4f} ({estimate['low']:.4f} to {estimate['high']:.4f})"


def main(*parts: str) -> None:
    known = {*TASKS, "baselines", *PEERS, "table"}
    if unknown := [p for p in parts if p not in known]:
        sys.exit(f"There is no part {unknown[0]!r}. Choose from: {', '.join(sorted(known))}.")
    contenders = [c for c in ("baselines", *PEERS) if c in parts] or ["baselines", *PEERS]
    rows = []
    for name, make in TASKS.items():
        for task in make():
            if "table" not in parts and (name in parts or not set(parts) & set(TASKS)):
                for contender in contenders:
                    if contender in PEERS:
                        run_peer(task, contender)
                    else:
                        for baseline in BASELINES:
                            run_baseline(task, baseline)
            rows += rows_of(task)
    save("recommendations", rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
