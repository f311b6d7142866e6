"""Two judges of sentiment that share neither data nor features, trained on halves of sentiment_rt."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Score = Callable[[list[str]], list[float]]  # texts -> probability of being positive


def halves(data: Path, folder: Path) -> tuple[Path, Path]:
    """Two tables {text, label}, every other snippet in each."""
    out = (folder / "seen.jsonl", folder / "unseen.jsonl")
    for part, path in enumerate(out):
        rows = []
        for label in ("positive", "negative"):
            packed = (data / "sentiment_rt" / f"rt-polarity.{label[:3]}.txt.gz").read_bytes()
            texts = gzip.decompress(packed).decode("utf-8", "replace").splitlines()
            rows += [json.dumps({"text": t, "label": label}) for t in texts[part::2] if t.strip()]
        path.write_text("\n".join(rows) + "\n")
    return out


def read(path: Path) -> tuple[list[str], Any]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [r["text"] for r in rows], np.array([r["label"] == "positive" for r in rows])


def proxy(path: Path) -> Score:
    """What is learnt from: `class:positive` of afresh on the first half (words and pairs of words)."""
    from afresh.data.prepare import prepare
    from afresh.engine.alignment.rewards.classifier_reward import of_class

    data = prepare(path, "text", {"label_column": "label"})
    made = of_class("positive", data, data.encoder.kind, lambda line: print(line, flush=True))
    return lambda texts: [float(v) for v in made.score(texts, [{}] * len(texts))]


def unseen(path: Path) -> Score:
    """What no side learns from: runs of 2 to 5 characters within words, on the other half."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    texts, y = read(path)
    seen = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    model = LogisticRegression(C=3.0, max_iter=400).fit(seen.fit_transform(texts), y)
    return lambda given: [float(v) for v in model.predict_proba(seen.transform(given))[:, 1]]
