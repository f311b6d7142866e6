"""The memory of `collect`: a process of its own, which makes documents and collects them.

`python -m benchmarks.collect_memory FOLDER BYTES MINUTES` prints what was collected. Nothing that is heavy is imported
at the top, since the processes that clean import this module too.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.collect_documents import Maker

PROCESSES = 2
SENTENCES, WORDS, LENGTH = 200_000, 20, 100  # sentences, words of one, and sentences of a document
SOURCES = 5_000  # documents of which others are edits


class Documents:
    """Documents of about twelve kilobytes: half of them made of sentences that occur in others, half of them edits of
    one of the first. The n-th is the same each time, so that a collection that was interrupted goes on at once."""

    def __init__(self) -> None:
        words = Maker(Path(os.environ["AFRESH_DATA"])).words
        starts = np.random.default_rng(0).integers(0, len(words) - WORDS, SENTENCES)
        self.sentences = [" ".join(words[at : at + WORDS]) for at in starts]

    def document(self, number: int) -> str:
        rng = np.random.default_rng([0, number])
        if number < SOURCES or rng.random() < 0.5:
            return ". ".join([self.sentences[k] for k in rng.integers(0, SENTENCES, LENGTH).tolist()])
        text = self.document(int(rng.integers(SOURCES)))
        for at in sorted(rng.integers(0, len(text), 5).tolist()):
            text = f"{text[:at]} edited {text[at:]}"
        return text

    def of_bytes(self, size: int, consumed: int) -> Iterator[str | None]:
        """The documents of so many bytes together; None for each of the first that were collected before."""
        each = len(self.document(0).encode())
        for number in range(size // each):
            yield None if number < consumed else self.document(number)


def main(folder: Path, size: int, minutes: float) -> None:
    """Collect without rules, which judge each text by itself: prints, exact and near duplicates, and writing. What was
    collected when the minutes are over is assembled."""
    from afresh.collect.gather import Limits, gather
    from afresh.collect.rules import rules
    from benchmarks.collect_places import made_source

    source = made_source("repeated", lambda consumed: Documents().of_bytes(size, consumed))
    off = [rule.name for rule in rules()]
    made = gather([source], folder, off=off, limits=Limits(minutes=minutes), resume=True, processes=PROCESSES)
    parts = [json.loads(p.read_text()) for p in (folder / "work").rglob("[0-9]*.json")]
    found = {"characters": sum(p["bytes"] for p in parts), "documents": sum(p["found"] for p in parts)}
    print(json.dumps({**found, "kept": sum(made["items"].values())}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
