"""Items that nobody chose in training: `python -m benchmarks new_items [beauty] [lastfm] [SEED ...]`.

5% of the items are drawn, and all of their events are left out of the log that is learnt; what is known of them is
their attributes. Asked are the users whose last event is of such an item, from their history without such items: the
whole catalogue is ranked without the items of the history, and then the new items alone. Ties count against each
contender, so popularity, to which all new items are equal, is last among them; what a random order gets is beside it.
The same runs are asked for the last event of other users, beside a run whose catalogue is without the new items. What
was measured of each seed stays in AFRESH_BENCH (or ~/.cache/afresh-bench).
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from afresh.domains.interactions.baselines import popularity
from afresh.domains.interactions.neighbours import FADE
from afresh.domains.interactions.ranking import Items, Scorer, Scores, contained, hit_rate, ndcg, ranks
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.folders import work_folder
from benchmarks.common.results import Row, save
from benchmarks.recommend.recommendations import Ours, write_log
from benchmarks.recommend.sets import Asked, Log, Task, last_events, s3rec

SHARE = 0.05  # of the items are new
SEEDS = (0, 1, 2)
SETS = {"beauty": "Beauty", "lastfm": "LastFM"}
STEPS, BATCH = {"beauty": 2_350, "lastfm": 800}, {"beauty": 64, "lastfm": 16}
NETWORK = {"width": 64, "heads": 2, "kv_heads": 2, "layers": 2, "dropout": 0.5}
AT_ONCE, OTHERS = 256, 1_000  # questions that are scored together; users with another last event


def task_of(name: str, seed: int) -> tuple[Task, Items]:
    """The events before the last of each user without those of new items, and the numbers of these."""
    log: Log = s3rec(name)
    new = np.sort(np.random.default_rng(seed).permutation(log.items)[: round(SHARE * log.items)])
    last = last_events(log, 1)
    histories, questions = ([h[~np.isin(h, new)] for h in each] for each in (last.histories, last.questions))
    test = Asked(histories, None, questions, last.targets, last.users)
    return Task(f"{name}, seed {seed}", log.items, test, test, features=log.features), new


def trained(folder: Path, name: str, seed: int, new_items: bool) -> Any:
    """A recommender from the data of a folder, without EASE, for time."""
    import afresh
    from afresh.domains.interactions.recommend import Recommender
    from afresh.runs.run import Run

    out = folder / f"run-{new_items}"
    afresh.train(
        folder / "data",
        modality="interactions",
        family="transformer",
        steps=STEPS[name],
        seed=seed,
        out=out,
        device="cpu",
        data={"split": "last", "new_items": new_items},
        settings={"train.threads": 1, "train.batch": BATCH[name]} | {f"family.{k}": v for k, v in NETWORK.items()},
        quiet=True,
    )
    return Recommender(Run.open(out), hurry=True)


def ranked(scorer: Scorer, asked: Asked, rows: Items, items: int, new: Items) -> tuple[Items, Items]:
    """The rank of the target of each row, among all items and among new ones, without those of the history."""
    in_all, among = [], []
    old = np.ones(items, bool)
    old[new] = False
    for part in np.array_split(rows, -(-len(rows) // AT_ONCE)):
        questions = [asked.questions[i] for i in part.tolist()]
        barred, scores = contained(questions, items), scorer(questions)
        in_all.append(ranks(scores, asked.targets[part], barred))
        among.append(ranks(scores, asked.targets[part], barred | old))
    return np.concatenate(in_all), np.concatenate(among)


def alike(recommender: Any, items: int) -> Scorer:
    """Likeness of features to those of the history, alone."""
    columns = np.array([int(i) for i in recommender.catalogue.ids])

    def score(histories: Any) -> Scores:
        rows = [recommender.encoder.ids([str(i) for i in h.tolist()]) for h in histories]
        out = np.full((len(rows), items), -1.0, np.float32)
        out[:, columns] = recommender.catalogue.alike(rows, FADE).toarray()
        return out

    return score


def measured(name: str, seed: int) -> dict[str, Any]:
    """What each contender gets: recall@50 of new items, in the whole catalogue and among new ones; HR@10 and NDCG@10 of
    other items."""
    task, new = task_of(SETS[name], seed)
    asked = task.test
    is_new = np.isin(asked.targets, new)
    of_new, others = np.flatnonzero(is_new), np.flatnonzero(~is_new)
    others = others[np.linspace(0, len(others) - 1, min(OTHERS, len(others))).astype(int)]
    found: dict[str, Any] = {"new": len(of_new), "others": len(others), "items": task.items, "drawn": len(new)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_log(task, folder / "data")
        ours, without = (trained(folder, name, seed, new_items) for new_items in (True, False))
        scorers: dict[str, Scorer] = {
            "network": Ours(ours, task.items, True),
            "all experts": Ours(ours, task.items, False),
            "likeness of features": alike(ours, task.items),
            "popularity": popularity.fit(asked.histories, task.items),
            "without new items": Ours(without, task.items, False),
        }
        for contender, scorer in scorers.items():
            in_all, among = ranked(scorer, asked, of_new, task.items, new)
            usual, _ = ranked(scorer, asked, others, task.items, new)
            found[contender] = {
                "recall@50": float(hit_rate(in_all, 50).mean()),
                "recall@50 among new": float(hit_rate(among, 50).mean()),
                "HR@10": float(hit_rate(usual, 10).mean()),
                "NDCG@10": float(ndcg(usual, 10).mean()),
            }
            print(f"{task.name}, {contender}: {found[contender]}", flush=True)
    found["random"] = {"recall@50": 50 / task.items, "recall@50 among new": 50 / len(new)}
    return found


def of_seed(name: str, seed: int) -> dict[str, Any]:
    file = work_folder("new_items") / f"{name}-{seed}.json"
    if not file.exists():
        file.write_text(json.dumps(measured(name, seed), indent=1))
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def rows_of(name: str, results: list[dict[str, Any]]) -> list[Row]:
    """A row for each measure: the mean of the seeds, with the lowest and the highest."""
    n = f"{results[0]['drawn']} new of {results[0]['items']:,} items, {len(results)} seeds"

    def told(contender: str, metric: str) -> str:
        values = [r[contender][metric] for r in results]
        return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f}; {contender})"

    def row(what: str, metric: str, ours: str, others: Sequence[str], times: float = 0.0) -> Row:
        """`times`: how many times the best of the others is to be reached; 0 where the numbers are only stated."""
        mean = {c: float(np.mean([r[c][metric] for r in results])) for c in (ours, *others)}
        top = max(mean[c] for c in others)
        asked = sum(r["new" if "recall" in metric else "others"] for r in results)
        return Row(
            f"new items, {SETS[name]}",
            what,
            told(ours, metric),
            "; ".join(told(c, metric) for c in others),
            mean[ours] / top if top else None,
            f"{times:g} times the better" if times else "stated",
            mean[ours] >= times * top,
            f"{asked:,} targets, {n}",
        )

    rows = []
    for metric, where in (("recall@50", "whole catalogue"), ("recall@50 among new", "new items alone")):
        what = f"recall@50 of new items, {where}"
        rows.append(row(what, metric, "all experts", ("popularity", "random"), 3))
        rows.append(row(what, metric, "all experts", ("likeness of features", "network")))
    for metric in ("HR@10", "NDCG@10"):
        rows.append(row(f"{metric} of other items", metric, "all experts", ("without new items", "popularity")))
    return rows


def main(*parts: str) -> None:
    names = [p for p in parts if p in SETS] or list(SETS)
    seeds = [int(p) for p in parts if p.isdigit()] or SEEDS
    if unknown := [p for p in parts if p not in SETS and not p.isdigit()]:
        sys.exit(f"There is no set {unknown[0]!r}. Choose from: {', '.join(SETS)}.")
    rows = []
    for name in names:
        rows += rows_of(name, [of_seed(name, seed) for seed in seeds])
    save("new_items", rows)


BENCHMARKS = (Benchmark("new_items", ("interactions_s3rec",), 60, main),)
