"""The memory of `collect`: a process of its own, which makes documents and collects them.

`python -m benchmarks.collect_memory FOLDER BYTES` prints what was collected. Nothing that is heavy is imported at the
top, since the processes that clean import this module too.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.collect_documents import Maker

PROCESSES = 2
SENTENCES, WORDS, LENGTH = 200_000, 20, 100  # sentences, words of one, and sentences of a document
SOURCES = 5_000  # documents of which others are edits


def repeated(size: int) -> Iterator[str]:
    """Documents of about twelve kilobytes, of so many bytes together: half of them made of sentences that occur in
    others, half of them edits of earlier ones."""
    words = Maker(Path(os.environ["AFRESH_DATA"])).words
    rng, sources = np.random.default_rng(0), list[str]()
    sentences = [" ".join(words[at : at + WORDS]) for at in rng.integers(0, len(words) - WORDS, SENTENCES)]
    del words
    while size > 0:
        if sources and rng.random() < 0.5:
            text = sources[int(rng.integers(len(sources)))]
            for at in sorted(rng.integers(0, len(text), 5).tolist()):
                text = f"{text[:at]} edited {text[at:]}"
        else:
            text = ". ".join([sentences[k] for k in rng.integers(0, SENTENCES, LENGTH).tolist()])
            if len(sources) < SOURCES:
                sources.append(text)
        size -= len(text.encode())
        yield text


def main(folder: Path, size: int) -> None:
    """Collect without rules, which judge each text by itself: prints, exact and near duplicates, and writing."""
    from afresh.collect.gather import gather
    from afresh.collect.rules import rules
    from benchmarks.collect_places import made_source

    start = time.perf_counter()
    source = made_source("repeated", lambda: repeated(size))
    made = gather([source], folder, off=[rule.name for rule in rules()], processes=PROCESSES)
    parts = [json.loads(p.read_text()) for p in (folder / "work").rglob("[0-9]*.json")]
    print(
        json.dumps(
            {
                "characters": sum(p["bytes"] for p in parts),
                "documents": sum(p["found"] for p in parts),
                "kept": sum(made["items"].values()),
                "seconds": time.perf_counter() - start,
            }
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
