"""A small log of answers, and a run on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import afresh

TINY = {"family.width": 16, "family.layers": 2, "family.heads": 2, "family.kv_heads": 2, "train.compile": False}


def write_log(path: Path, learners: int = 40, count: int = 12) -> Path:
    """Two skills of three exercises; learners are right ever more often, more so in `add`."""
    draw = np.random.default_rng(0)
    lines = ["student,exercise,skill,correct,time"]
    for i in range(learners):
        for t in range(count):
            skill = "add" if draw.random() < 0.5 else "divide"
            right = draw.random() < (0.4 + 0.05 * t if skill == "add" else 0.3)
            lines.append(f"L{i},{skill}-{draw.integers(3)},{skill},{int(right)},{1_700_000_000 + 90 * t}")
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return path


def train_practice(folder: Path, steps: int = 4) -> Path:
    """A run in the folder `practice` of a folder."""
    data = folder.parent / f"{folder.name}-answers.csv"
    data.parent.mkdir(parents=True, exist_ok=True)
    afresh.train(
        write_log(data), family="transformer", steps=steps, out=folder / "practice", data={"context": 60},
        settings=TINY, quiet=True,
    )  # fmt: skip
    return folder
