"""What the peers of `recommendations` share: `python -m benchmarks.recommend.peers.NAME FOLDER`.

FOLDER/ask.json is an `Ask`, FOLDER/task.npz is as `arrays` of recommendations.py makes it. Beside the answer the peer
writes scores.npy, (N, V) float32 for the N test questions. It needs numpy alone, since each peer has an environment of
its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.common.processes import answer

K = 10
JUDGED = 2_000  # validation questions after each epoch
PATIENCE = 10  # epochs without a better one
ROWS = 512

Histories = list[np.ndarray]
Answer = Callable[[Histories], np.ndarray]  # histories -> (B, V)


class Over(Exception):
    """The seconds are over."""


@dataclass(frozen=True)
class Ask:
    model: str
    seconds: float


@dataclass
class Job:
    """A task, and the best state of a network so far. `seconds` are of the processor, from when it is made."""

    folder: Path
    model: str
    seconds: float
    begun: float = field(default_factory=time.process_time)
    best: float = -1.0
    state: Any = None
    epochs: int = 0
    kept: int = 0

    def __post_init__(self) -> None:
        with np.load(self.folder / "task.npz") as arrays:
            self.arrays = dict(arrays)
        self.items = int(self.arrays["items"])

    @property
    def gone(self) -> float:
        return time.process_time() - self.begun

    def check(self) -> None:
        """Raises Over when the seconds are over; to be called at each step."""
        if self.gone > self.seconds:
            raise Over

    def lists(self, name: str) -> Histories:
        return np.split(self.arrays[name], self.arrays[f"{name}_ends"][:-1])

    def judge(self, answer: Answer, state: Callable[[], Any]) -> None:
        """After an epoch: NDCG@10 on validation events, the state kept if it is the best. Raises Over when ten epochs
        brought nothing better, or the seconds are over."""
        questions, targets = self.lists("validation_questions"), self.arrays["validation_targets"]
        rows = np.random.default_rng(0).permutation(len(targets))[:JUDGED]
        self.epochs += 1
        found = self.ndcg(answer, [questions[r] for r in rows], targets[rows])
        print(f"epoch {self.epochs}, {self.gone:.0f} s: NDCG@10 {found:.4f}", flush=True)
        if found > self.best:
            self.best, self.state, self.kept = found, state(), self.epochs
        if self.epochs - self.kept >= PATIENCE:
            raise Over
        self.check()

    def ndcg(self, answer: Answer, questions: Histories, targets: np.ndarray) -> float:
        total = 0.0
        for start in range(0, len(questions), ROWS):
            batch, wanted = questions[start : start + ROWS], targets[start : start + ROWS]
            scores = np.array(answer(batch))
            own = scores[np.arange(len(batch)), wanted][:, None]
            ahead = ~(scores < own)
            if not self.arrays["seen"]:
                for row, history in zip(ahead, batch, strict=True):
                    row[history] = False
            rank = ahead.sum(1)
            total += float(np.where(rank <= K, 1 / np.log2(1.0 + np.maximum(rank, 1)), 0).sum())
        return total / len(questions)

    def facts(self, answer: Answer, told: str, users: int) -> dict[str, Any]:
        """Writes the scores of the test questions; returns what there is to know. `users`: of an epoch of training."""
        learnt = self.gone
        questions = self.lists("test_questions")
        scores = np.lib.format.open_memmap(self.folder / "scores.npy", "w+", np.float32, (len(questions), self.items))
        begun = time.process_time()
        for start in range(0, len(questions), ROWS):
            scores[start : start + ROWS] = answer(questions[start : start + ROWS])
        return {
            "settings": f"{told}; epoch {self.kept} of {self.epochs} kept",
            "seconds": learnt,
            "users a second in training": users * self.epochs / learnt,
            "questions a second": len(questions) / (time.process_time() - begun),
        }


def window(histories: Histories, most: int = 100) -> int:
    """The length that 95% of the histories do not exceed, in tens, at most `most`."""
    return min(most, 10 * int(np.ceil(np.quantile([len(h) for h in histories], 0.95) / 10)))


def serve(learn: Callable[[Job], dict[str, Any]]) -> None:
    """Read the question, learn in the folder, write the answer."""

    def work(ask: Ask, folder: Path) -> dict[str, Any]:
        os.chdir(folder)
        return learn(Job(folder, ask.model, ask.seconds))

    answer(Ask, work)
