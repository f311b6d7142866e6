"""Scores in words, as their metrics describe them."""

from __future__ import annotations

from collections.abc import Iterable

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
