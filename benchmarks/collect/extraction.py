"""How well the main text of web pages is found: F1 of words on thirty pages that are written here.

Beside it stand trafilatura alone, which finds the main text, and all text that is visible.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

import numpy as np

from afresh.data.text.web_pages import main_content, visible_text
from benchmarks.collect.extraction_pages import Page, pages
from benchmarks.common.benchmark import Benchmark
from benchmarks.common.results import Row, save

WORD = re.compile(r"\w+")


def f1(found: str, wanted: str) -> float:
    """The harmonic mean of precision and recall of words, each as often as it occurs."""
    a, b = Counter(WORD.findall(found.lower())), Counter(WORD.findall(wanted.lower()))
    return 2 * (a & b).total() / max(1, a.total() + b.total())


def alone(html: str) -> str:
    """The text that trafilatura finds by itself."""
    import trafilatura

    return trafilatura.extract(html) or ""


def score(every: list[Page], extract: Callable[[str], str]) -> list[float]:
    return [f1(extract(page.html), page.main) for page in every]


def main() -> None:
    every = pages()
    ours = score(every, lambda html: main_content(html).text)
    for page, value in zip(every, ours, strict=True):
        print(f"{value:.3f}  {page.name}")
    rows = []
    for name, extract in (("trafilatura alone", alone), ("all visible text", visible_text)):
        theirs = score(every, extract)
        mine, other = float(np.mean(ours)), float(np.mean(theirs))
        rows.append(
            Row(
                "collect: main text of web pages",
                f"F1 of words, mean of the pages; beside {name}; lowest {min(ours):.3f} and {min(theirs):.3f}",
                f"{mine:.3f}",
                f"{other:.3f}",
                mine / other,
                "1.00 or more",
                mine >= other,
                f"{len(every)} pages",
            )
        )
        print(rows[-1])
    save("collect_extraction", rows)


BENCHMARKS = (Benchmark("collect_extraction", (), 1, main),)
