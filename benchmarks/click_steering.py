"""What steering by clicks gains: `python -m benchmarks.click_steering`.

Simulated users, whose chances to click each of 50 items are known, chose items by habit rather than by worth. A run
learns the habits, shows items drawn with `explore`, and is aligned to a model of the clicks. Printed are, for three
seeds, what it truly earns before and after, and what a log of other users estimates of that.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.cli import run as command
from afresh.data.interactions.shown import read_shown
from afresh.runs.run import Run
from afresh.tasks.recommend import Ranking, Recommender
from afresh.tasks.recommend_feedback import Policy, evaluate

Array = NDArray[np.float64]

ITEMS, GROUPS, USERS, LISTS, EXPLORE = 50, 5, 400, 3_000, 1.0
SIZES = ("width=32", "layers=1", "heads=2", "kv_heads=2")
REWARD = """
import json
WORTH = json.load(open({file!r}))

def score(history, request):
    before = (request["prompt"] or "").split(",")
    if not history.items or history.items[0] in before:
        return 0.0
    return WORTH[int(before[-1] or 0) % {groups} if before[-1] else 0][int(history.items[0])]
"""


def main() -> None:
    for seed in (0, 1, 2):
        with tempfile.TemporaryDirectory() as folder:
            print(f"seed {seed}: " + steered(seed, Path(folder)))


def steered(seed: int, folder: Path) -> str:
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
    seen, table = show(base, rng, habit, worth, folder / "learnt.jsonl", 10 + seed)
    show(base, rng, habit, worth, folder / "judged.jsonl", 20 + seed)
    # The mean click of an item after a group, drawn to that of the item and of all: what the clicks tell.
    of_item = (table.sum(0) + 20 * table.sum() / seen.sum()) / (seen.sum(0) + 20)
    learnt = (table + 5 * of_item) / (seen + 5)
    (folder / "worth.json").write_text(json.dumps(learnt.tolist()))
    (folder / "reward.py").write_text(REWARD.format(file=str(folder / "worth.json"), groups=GROUPS))
    align = ["align", str(folder / "run"), "--reward", f"{folder / 'reward.py'}:score", "--prompt-tokens", "4"]
    align += ["--length", "1", "--steps", "150", "--out", str(folder / "aligned"), "--seed", str(seed)]
    assert command(align) == 0
    after = Recommender(Run.open(folder / "aligned"))
    before_true, after_true = (true_value(r, folder / "judged.jsonl", worth) for r in (base, after))
    found = evaluate(after, folder / "judged.jsonl", Ranking(1, explore=EXPLORE)).found
    parts = [f"true {before_true:.3f} to {after_true:.3f}"]
    for name, v in found.estimates.items():
        parts.append(f"{name} {v.value.value:.3f} ({v.value.low:.3f} to {v.value.high:.3f})")
    return ", ".join([*parts, f"effective {found.effective:,.0f} of {found.decisions:,}"])


def walk(rng: np.random.Generator, habit: Array, length: int) -> list[int]:
    """Items that follow one another by habit, none twice."""
    out = [int(rng.integers(ITEMS))]
    while len(out) < length:
        scores = habit[out[-1] % GROUPS] + rng.gumbel(size=ITEMS)
        scores[out] = -np.inf
        out.append(int(scores.argmax()))
    return out


def show(
    base: Recommender, rng: np.random.Generator, habit: Array, worth: Array, file: Path, seed: int
) -> tuple[Array, Array]:
    """Show an item to each of LISTS new users and write the log. Returns how often each item was shown and clicked
    after each group, both (GROUPS, ITEMS)."""
    histories = [walk(rng, habit, 4) for _ in range(LISTS)]
    lists = base.recommend([list(map(str, h)) for h in histories], Ranking(1, explore=EXPLORE, seed=seed))
    seen, clicks, lines = np.zeros((GROUPS, ITEMS)), np.zeros((GROUPS, ITEMS)), []
    for history, (shown,) in zip(histories, lists, strict=True):
        group, item = history[-1] % GROUPS, int(shown.item)
        click = float(rng.random() < worth[group, item])
        seen[group, item] += 1
        clicks[group, item] += click
        row = {"history": list(map(str, history)), "item": shown.item, "drawn": shown.drawn, "click": click}
        lines.append(json.dumps(row))
    file.write_text("\n".join(lines) + "\n")
    return seen, clicks


def true_value(recommender: Recommender, log: Path, worth: Array) -> float:
    """What drawing with `explore` truly earns from the users of a log, by their chances to click."""
    shown = read_shown(log)
    policy = Policy(recommender, shown, Ranking(1, explore=EXPLORE), None)
    assert shown.histories is not None
    groups = np.array([int(h[-1]) % GROUPS for h in shown.histories])
    columns = np.array([int(i) for i in recommender.catalogue.ids])
    p = np.concatenate([policy.probabilities(r) for r in np.array_split(np.arange(len(groups)), 10)])
    return float((p * worth[groups][:, columns]).sum(1).mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
