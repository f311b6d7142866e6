"""A flow of clothes steered by a planted preference: 500 pairs of its own samples, judged by a rater with 5% noise.

The rater prefers light pictures: the mean over the pixels above the point that 40% of the base's samples exceed. Of two
that are alike in this he picks one by chance. The model is that of the benchmark `fashion`; nothing of the rule is told
but the votes. Measured: the share of light pictures among 1,000 new samples, and recall and KID by the judge of
`fashion`, of the base and of the steered model for the same requests.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from afresh.run import Run
from benchmarks.judge_pictures import judge_of, work_folder
from benchmarks.picture_ours import conditions
from benchmarks.pictures import prepared, write_json
from benchmarks.pinned import finish, start
from benchmarks.table import Row, save

PAIRS, FLIPPED, LIGHT = 500, 0.05, 0.4
STEPS = 60
SAMPLING = {"solver": "dpmpp", "steps": 10}


def light(x: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(x.reshape(len(x), -1).mean(1) / 255)


def votes(base: Run, folder: Path) -> float:
    """Write the pairs and the votes on them; returns the point above which a picture is light."""
    (folder / "items").mkdir(parents=True, exist_ok=True)
    drawn = np.stack(base.sample(2 * PAIRS, seed=11, **SAMPLING).values)
    b = light(drawn)
    point = float(np.quantile(b, 1 - LIGHT))
    chance, lines = random.Random(0), []
    for i in range(0, 2 * PAIRS, 2):
        for k in (i, i + 1):
            Image.fromarray(drawn[k][:, :, 0]).save(folder / "items" / f"{k}.png")
        first, second = b[i] > point, b[i + 1] > point
        winner = chance.choice("ab") if first == second else "a" if first else "b"
        if chance.random() < FLIPPED:
            winner = {"a": "b", "b": "a"}[winner]
        lines.append(json.dumps({"a": f"items/{i}.png", "b": f"items/{i + 1}.png", "winner": winner}))
    (folder / "votes.jsonl").write_text("\n".join(lines) + "\n")
    return point


def judged(run: Run, wanted: Path, point: float, judge: Any, y: Any) -> dict[str, float]:
    """What 1,000 samples are like."""
    torch.set_num_threads(run.record.train.threads)
    cond = conditions(run, wanted, 0)
    x = np.stack(run.encoder.decode(run.draw(run.modules, cond, 12, run.settings({**SAMPLING, "steps": 20}))))
    marks = judge.judge(x, y)
    return {"light": float((light(x) > point).mean()), **{k: marks[k].value for k in ("recall", "coverage", "kid")}}


def main() -> None:
    task = prepared("fashion", None, 0)
    own = task.folder / "flow"
    base, folder = Run.open(own / "run"), work_folder("steer_pictures")
    found: dict[str, Any] = {}
    point = votes(base, folder)
    judge = judge_of(task.loaded, task.set.samples)
    for name in ("rejection", "nft"):
        out = folder / name
        argv = ["afresh", "align", str(base.path), "--method", name, "--preferences", str(folder / "votes.jsonl")]
        argv += ["--steps", str(STEPS if name == "rejection" else 2 * STEPS), "--out", str(out), "--force"]
        argv += ["--no-measure", "--set", "sample.steps=8", "--set", "sample.solver=dpmpp"]
        finish(start(argv, 0, folder / f"{name}.log"), folder / f"{name}.log")
        found[name] = judged(Run.open(out), own / "wanted.npz", point, judge, task.requests[0])
        print(name, found[name], flush=True)
    found["base"] = judged(base, own / "wanted.npz", point, judge, task.requests[0])
    write_json(folder / "found.json", found)
    before = found["base"]
    rows = []
    for name in ("rejection", "nft"):
        now = found[name]
        rows.append(
            Row(
                "steering, clothes",
                f"{name} from {PAIRS} votes: share of what is preferred; recall; KID x1000",
                f"{now['light']:.3f}; {now['recall']:.3f}; {now['kid']:.0f}",
                f"base {before['light']:.3f}; {before['recall']:.3f}; {before['kid']:.0f}",
                None,
                "share at least .9, recall at least .8 of the base's",
                now["light"] >= 0.9 and now["recall"] >= 0.8 * before["recall"],
                "1,000",
            )
        )
    save("steer_pictures", rows)


if __name__ == "__main__":
    main()
