"""What steering by clicks gains: `python -m benchmarks click_steering [SEED ...]`.

Simulated users, whose chances to click each of 50 items are known, chose items by habit rather than by worth. A run
learns the habits and shows lists drawn with `explore`. It is aligned to a model of the clicks as a reward, and to
votes: what was clicked over what was not in the same list. Printed are, for seeds 1 to 5 (settings were chosen on 0),
what one item truly earns before and after, and what is estimated of that from a log of other users, to whom the run
before showed one item each.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.domains.interactions.exposure_log import read_shown
from afresh.domains.interactions.feedback import RankingPolicy, evaluate
from afresh.domains.interactions.recommend import Ranking, Recommender
from afresh.domains.interactions.recommendation_votes import votes_in
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import with_interval

Array = NDArray[np.float64]

ITEMS, GROUPS, USERS, EXPLORE = 50, 5, 400, 1.0
LEARNT, PLACES, HOT = 750, 4, 2.0  # lists that are learnt from, their places, and the temperature of their drawing
JUDGED = 3_000  # lists of one item
WAYS = {
    "reward": ["--length", "1", "--set", "prompt_tokens=4"],
    "votes": ["--method", "dpo", "--set", "align.beta=0.5", "--set", "train.lr=1e-3"],
}
SIZES = ("width=32", "layers=1", "heads=2", "kv_heads=2")
REWARD = """
import json
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import with_interval
WORTH = json.load(open({file!r}))

def score(history, request):
    before = (request["prompt"] or "").split(",")
    if not history.items or history.items[0] in before:
        return 0.0
    return WORTH[int(before[-1] or 0) % {groups} if before[-1] else 0][int(history.items[0])]
"""


def main(*seeds: str) -> None:
    torch.set_num_threads(1)
    for seed in map(int, seeds or range(1, 6)):
        with tempfile.TemporaryDirectory() as folder:
            for line in steered(seed, Path(folder)):
                print(f"seed {seed}: {line}", flush=True)


def steered(seed: int, folder: Path) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    worth = rng.beta(1, 3, (GROUPS, ITEMS))  # the chance of a click, by the group of the last item
    habit = rng.normal(0, 0.7, (GROUPS, ITEMS))
    histories = [walk(rng, habit, 8) for _ in range(USERS)]
    (folder / "data").mkdir()
    rows = [f"{u},{i},{1_700_000_000 + 1000 * t + u}" for u, h in enumerate(histories) for t, i in enumerate(h)]
    (folder / "data" / "log.csv").write_text("\n".join(["user,item,time", *rows, ""]))
    settings = [part for s in SIZES for part in ("--set", f"family.{s}")]
    train = ["train", str(folder / "data"), "--steps", "150", "--out", str(folder / "run"), "--no-measure", *settings]
    assert command([*train, "--data", "split=last", "--seed", str(seed)]) == 0
    base = Recommender(Run.open(folder / "run"))
    hot = Ranking(PLACES, explore=HOT, seed=10 + seed)
    seen, table = show(base, rng, habit, worth, folder / "learnt.jsonl", hot, LEARNT)
    show(base, rng, habit, worth, folder / "judged.jsonl", Ranking(1, explore=EXPLORE, seed=20 + seed), JUDGED)
    before = true_value(base, folder / "judged.jsonl", worth)
    best = worth[:, [int(i) for i in base.catalogue.ids]].max(1).mean()
    yield f"before {before:.3f}, the best item of each group {best:.3f}"
    # The mean click of an item after a group, drawn to that of the item and of all: what the clicks tell.
    of_item = (table.sum(0) + 20 * table.sum() / seen.sum()) / (seen.sum(0) + 20)
    learnt = (table + 5 * of_item) / (seen + 5)
    (folder / "worth.json").write_text(json.dumps(learnt.tolist()))
    (folder / "reward.py").write_text(REWARD.format(file=str(folder / "worth.json"), groups=GROUPS))
    votes_in(base, folder / "learnt.jsonl").write(folder / "votes.jsonl")
    sources = [["--reward", f"{folder / 'reward.py'}:score"], ["--preferences", str(folder / "votes.jsonl")]]
    for (name, asked), source in zip(WAYS.items(), sources, strict=True):
        out = folder / name
        align = ["align", str(folder / "run"), *source, *asked, "--steps", "150", "--out", str(out)]
        assert command([*align, "--seed", str(seed), "--no-measure"]) == 0
        after = Recommender(Run.open(out))
        found = evaluate(after, folder / "judged.jsonl", Ranking(1, explore=EXPLORE)).found
        parts = [f"{name}: true {true_value(after, folder / 'judged.jsonl', worth):.3f}"]
        for way, v in found.estimates.items():
            parts.append(f"{way} {with_interval(v.value)}")
        yield ", ".join([*parts, f"effective {found.effective:,.0f} of {found.decisions:,}"])


def walk(rng: np.random.Generator, habit: Array, length: int) -> list[int]:
    """Items that follow one another by habit, none twice."""
    out = [int(rng.integers(ITEMS))]
    while len(out) < length:
        scores = habit[out[-1] % GROUPS] + rng.gumbel(size=ITEMS)
        scores[out] = -np.inf
        out.append(int(scores.argmax()))
    return out


def show(
    base: Recommender, rng: np.random.Generator, habit: Array, worth: Array, file: Path, ranking: Ranking, users: int
) -> tuple[Array, Array]:
    """Show a list to each of some new users and write the log. Returns how often each item was shown and clicked after
    each group, both (GROUPS, ITEMS)."""
    histories = [walk(rng, habit, 4) for _ in range(users)]
    lists = base.recommend([list(map(str, h)) for h in histories], ranking)
    seen, clicks, lines = np.zeros((GROUPS, ITEMS)), np.zeros((GROUPS, ITEMS)), []
    for number, (history, found) in enumerate(zip(histories, lists, strict=True)):
        for place, shown in enumerate(found, 1):
            group, item = history[-1] % GROUPS, int(shown.item)
            click = float(rng.random() < worth[group, item])
            seen[group, item] += 1
            clicks[group, item] += click
            row = {"list": number, "place": place, "history": list(map(str, history))}
            lines.append(json.dumps({**row, "item": shown.item, "drawn": shown.drawn, "click": click}))
    file.write_text("\n".join(lines) + "\n")
    return seen, clicks


def true_value(recommender: Recommender, log: Path, worth: Array) -> float:
    """What drawing with `explore` truly earns from the users of a log, by their chances to click."""
    shown = read_shown(log)
    policy = RankingPolicy(recommender, shown, Ranking(1, explore=EXPLORE), None)
    assert shown.histories is not None
    groups = np.array([int(h[-1]) % GROUPS for h in shown.histories])
    columns = np.array([int(i) for i in recommender.catalogue.ids])
    p = np.concatenate([policy.probabilities(r) for r in np.array_split(np.arange(len(groups)), 10)])
    return float((p * worth[groups][:, columns]).sum(1).mean())


BENCHMARKS = (Benchmark("click_steering", (), 15, main),)
