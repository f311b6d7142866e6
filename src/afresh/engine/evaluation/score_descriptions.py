"""Scores in words, as their metrics describe them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from afresh.core import Question, ScoreWords, registry


def words_of(names: Iterable[str], modality: str = "") -> dict[str, ScoreWords]:
    """The words of scores of a modality, such as "kid" or "kid/random_net", by their names. One that no metric
    describes keeps its name."""
    metrics, out = registry.metrics(modality), {}
    for name in names:
        base, _, rest = name.partition("/")
        metric = next((m for m in metrics if base in m.words), None)
        if metric is None:
            out[name] = ScoreWords(name, "", Question.OTHER)
            continue
        words = metric.words[base]
        beside = f", {metric.beside.get(rest, rest)}" if rest else ""
        out[name] = ScoreWords(words.name + beside, words.meaning, words.question)
    return out


def read_words(module: str) -> dict[str, ScoreWords]:
    """The words of the scores of a metrics module, from `scores.json` beside the file `module`: {question: {score:
    [name, meaning]}}, where a question is the name of a `Question`."""
    questions = json.loads(Path(module).with_name("scores.json").read_text("utf-8"))
    return {
        k: ScoreWords(name, words, Question[q])
        for q, all_of in questions.items()
        for k, (name, words) in all_of.items()
    }
