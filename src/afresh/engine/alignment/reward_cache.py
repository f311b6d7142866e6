"""What a reward was asked: each item once, kept in the run's folder, within a budget of calls.

asked.jsonl has a line for every answer: the item, its reward, and the step. It is written, and synced, before anything
is learnt from the answers. A run that is resumed goes through the steps after its checkpoint again, which propose the
same items; their answers are read from the file, so that nothing is asked twice. What an earlier run asked of the same
reward can be known from the beginning; it has the step -1.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from afresh.core import Cond, ItemKind, UserError
from afresh.core.safe_json import parse_json, read_bytes
from afresh.data.storage.files import append_lines, free_bytes, replace_file
from afresh.engine.sampling.samples import Samples, write_samples
from afresh.runs.run import Run

ASKED = "asked.jsonl"
BEST, SHOWN = "best", 100  # the folder in a run, and how many items it holds
BEFORE = -1  # the step of what an earlier run asked
BEST, SHOWN = "best", 100  # the folder of the best items in a run, and how many they are
AUC_EVERY = 100  # calls between two values of the mean of the best, as in PMO


@dataclass(frozen=True)
class CachedReward:
    """An item with its digest, its reward, and the step in which it was asked."""

    digest: str
    item: Any
    reward: float
    step: int


class AskedMemory:
    """A core.Memory. `score` values items that were not asked before; `calls` is the budget, in items."""

    def __init__(
        self, kind: ItemKind, score: Callable[[Sequence[Any]], Iterable[float]], calls: int, file: Path
    ) -> None:
        self.kind, self.score, self.calls, self.file = kind, score, calls, file
        self.paid = {a.digest: a for a in read_answers(kind, file)}
        self.answers: dict[str, CachedReward] = {}  # those that the search may know at this step

    @property
    def items(self) -> list[Any]:
        return [a.item for a in self.answers.values()]

    @property
    def rewards(self) -> list[float]:
        return [a.reward for a in self.answers.values()]

    @property
    def left(self) -> int:
        """Answers that the search may still get. Those that were paid before a resume are among them."""
        return self.calls - len(self.own)

    @property
    def own(self) -> list[CachedReward]:
        """The answers without those of an earlier run."""
        return [a for a in self.answers.values() if a.step > BEFORE]

    def knows(self, item: Any) -> bool:
        return self.kind.digest(item) in self.answers

    def begin(self, step: int) -> None:
        """Forget the answers from this step on; they stay paid for."""
        if not self.answers:
            self.answers = {k: a for k, a in self.paid.items() if a.step < step}
        else:
            self.answers = {k: a for k, a in self.answers.items() if a.step < step}

    def ask(self, items: Sequence[Any], step: int) -> None:
        """Ask about the items that are new, in their order, as far as the budget goes. Raises RewardError."""
        new = {d: item for item in items if (d := self.kind.digest(item)) not in self.answers}
        chosen = dict(list(new.items())[: max(0, self.left)])
        unpaid = [d for d in chosen if d not in self.paid]
        if unpaid:
            rewards = self.score([chosen[d] for d in unpaid])
            answers = [CachedReward(d, chosen[d], float(r), step) for d, r in zip(unpaid, rewards, strict=True)]
            self.write(answers)
            self.paid |= dict(zip(unpaid, answers, strict=True))
        for d in chosen:
            old = self.paid[d]
            self.answers[d] = CachedReward(d, old.item, old.reward, step)

    def write(self, answers: Sequence[CachedReward]) -> None:
        """Append lines to the file and sync it. Raises UserError if the disk is full or not writable."""
        data = b"".join(line_of(self.kind, a) for a in answers)
        try:
            append_lines(self.file, data)
        except OSError as e:
            raise UserError(
                f"Could not write {self.file}: {e.strerror or e}. It needs {len(data):,} bytes; "
                f"{free_bytes(self.file.parent):,} are free. Make room, then `resume`."
            ) from e

    def best(self, count: int) -> list[CachedReward]:
        """The answers with the highest rewards, the earlier one of equals first."""
        return sorted(self.answers.values(), key=lambda a: -a.reward)[:count]

    def summary(self) -> dict[str, float]:
        """Numbers for the metrics: how many were asked, the best, and the means of the best 10 and 100."""
        if not self.answers:
            return {}
        top, own = np.sort(self.rewards)[::-1], [a.reward for a in self.own]
        means = {f"top{k}": float(top[:k].mean()) for k in (1, 10, 100)}
        return {"asked": float(len(own)), **means, "auc_top10": area(own, 10, self.calls)}


def area(rewards: Sequence[float], best: int, calls: int) -> float:
    """The area under the mean of the `best` rewards over the calls, in the unit of the reward.

    As in PMO (Gao et al. 2022, "Sample efficiency matters"): trapezoids of 100 calls, from 0 before the first one, and
    the last value up to the end of the budget.
    """
    values = np.asarray(rewards[:calls], dtype=np.float64)
    if not len(values):
        return 0.0
    ends = [*range(AUC_EVERY, len(values), AUC_EVERY), len(values)]
    tops = [float(np.sort(values[:n])[::-1][:best].mean()) for n in ends]
    widths = np.diff([0, *ends])
    total = float((widths * (np.array(tops) + np.array([0.0, *tops[:-1]])) / 2).sum())
    return (total + (calls - len(values)) * tops[-1]) / calls


def line_of(kind: ItemKind, answer: CachedReward) -> bytes:
    content = kind.encode(answer.item)
    item = (
        {"item": content.decode("utf-8", "surrogatepass")}
        if kind.inline
        else {"content": base64.b64encode(content).decode()}
    )
    row = {"step": answer.step, "reward": answer.reward, **item, "sha256": answer.digest}
    return (json.dumps(row) + "\n").encode()


def read_answers(kind: ItemKind, file: Path) -> list[CachedReward]:
    """The answers of a file, without a last line that a crash cut short, which is removed.

    Raises UserError, naming the line, if another one is damaged.
    """
    data = read_bytes(file) if file.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    if whole != data:
        replace_file(file, whole)
    out = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            row = parse_json(line)
            content = row["item"].encode("utf-8", "surrogatepass") if kind.inline else base64.b64decode(row["content"])
            reward, step = float(row["reward"]), int(row["step"])
            if not math.isfinite(reward) or step < BEFORE:
                raise ValueError("not finite")
            out.append(CachedReward(str(row["sha256"]), kind.decode(content), reward, step))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(
                f"{file}, line {number:,}: not an item with its reward and step. Remove the line, or restore a copy of "
                "the file.",
                "damaged",
            ) from None
    return out


def write_best(run: Run, memory: AskedMemory) -> str:
    """Write the best items with their rewards into the run's folder, in the files of their kind and as best.csv.
    Returns a line that says how good they are."""
    best, kind, folder = memory.best(SHOWN), run.encoder.kind, run.path / BEST
    described = [{"reward": a.reward, "asked": a.step} for a in best]
    cond = Cond.unconditional(run.conds, len(best))
    samples = Samples([a.item for a in best], torch.zeros(len(best), 1), cond, described, 0, run.encoder)
    records = write_samples(samples, folder)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["rank", kind.name, "reward", "step"])
    for rank, (answer, record) in enumerate(zip(best, records, strict=True), 1):
        rows.writerow([rank, record.get("file", record.get("text")), answer.reward, answer.step])
    replace_file(folder / "best.csv", table.getvalue().encode("utf-8", "backslashreplace"))
    s = memory.summary()
    tops = ", ".join(f"{s[f'top{k}']:.4g} of the best {k}" for k in (10, 100) if len(memory.items) >= k)
    return (
        f"asked about {int(s['asked']):,} of {memory.calls:,} {kind.plural}: best reward {s['top1']:.4g}"
        f"{f', means {tops}' if tops else ''}; area under the mean of the best 10: {s['auc_top10']:.4f}. In {folder}"
    )
