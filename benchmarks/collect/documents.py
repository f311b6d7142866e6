"""Documents for the benchmark of `collect`: many that differ, made of passages of shared texts, and edits of them.

`python -m benchmarks.collect.documents FOLDER` collects documents while they are made, in a process of its own, whose
memory is measured. Nothing that is heavy is imported at the top, since the processes that clean import this module too.
"""

from __future__ import annotations

import gzip
import html
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.common.folders import data_folder
from benchmarks.common.processes import answer

if TYPE_CHECKING:
    from afresh.services.collect.gather import SourcePlace
    from afresh.services.collect.record import Found, Rejection

PROCESSES = 2
SENTENCES, WORDS, LENGTH = 200_000, 20, 100  # sentences, words of one, and sentences of a document
SOURCES = 5_000  # documents of which others are edits
PASSAGE = 60  # words
CHANGED = 0.03  # of the words of a document, so that no two hold a passage unchanged


def prose(data: Path) -> list[str]:
    """The texts of books, articles and stories."""
    with zipfile.ZipFile(data / "gutenberg_books" / "books.zip") as archive:
        books = [archive.read(name).decode() for name in sorted(archive.namelist()) if name.endswith(".txt")]
    stories = gzip.decompress((data / "tinystories" / "tinystories_train.txt.gz").read_bytes()).decode()
    articles = gzip.decompress((data / "wikitext2" / "wikitext2_valid.txt.gz").read_bytes()).decode()
    return [*books, *stories.split("<|endoftext|>"), *re.split(r"\n = [^=].* = \n", articles)]


class Maker:
    """Makes documents of passages: the n-th is the same for the same seed."""

    def __init__(self, data: Path, seed: int = 0) -> None:
        self.words = np.array(" ".join(prose(data)).split(), dtype=object)
        self.seed = seed

    def document(self, number: int, words: tuple[int, int] = (100, 600)) -> list[str]:
        """The words of a document."""
        rng = np.random.default_rng([self.seed, number])
        out: list[str] = []
        while len(out) < rng.integers(*words):
            at = int(rng.integers(len(self.words) - PASSAGE))
            out += self.words[at : at + int(rng.integers(PASSAGE // 2, PASSAGE))].tolist()
        for place in np.flatnonzero(rng.random(len(out)) < CHANGED):
            out[place] = self.words[rng.integers(len(self.words))]
        return out

    def edited(self, words: list[str], number: int) -> list[str]:
        """A document with some words replaced, removed or added: from a few to so many that it is none any more."""
        rng = np.random.default_rng([self.seed + 1, number])
        out = list(words)
        for _ in range(int(rng.integers(1, max(2, len(words) // 25)))):
            at = int(rng.integers(len(out)))
            end = at + int(rng.integers(0, 3))
            out[at:end] = self.words[rng.integers(len(self.words), size=int(rng.integers(0, 3)))].tolist()
        return out

    def documents(self, count: int, again: float = 0.3) -> Iterator[str]:
        """So many documents, of which a share are edits of earlier ones, some of them of the same."""
        rng = np.random.default_rng([self.seed, count, 7])
        sources: list[int] = []
        for number in range(count):
            if sources and rng.random() < again:
                source = sources[int(rng.integers(len(sources)))]
                yield laid_out(self.edited(self.document(source), number))
            else:
                sources.append(number)
                yield laid_out(self.document(number))


def laid_out(words: list[str]) -> str:
    """A text of paragraphs."""
    return "\n\n".join(" ".join(words[i : i + 80]) for i in range(0, len(words), 80))


def page(text: str, number: int) -> str:
    """A text as a page of the web, among menus and notices."""
    links = "".join(f'<li><a href="/{k}">Section {k}</a></li>' for k in range(12))
    body = "".join(f"<p>{html.escape(p)}</p>" for p in text.split("\n\n"))
    return (
        f"<!DOCTYPE html><html lang=en><head><title>Page {number}</title><meta charset=utf-8></head><body>"
        f"<nav><ul>{links}</ul></nav><div id=cookies>We use cookies to improve your experience. <button>Accept"
        f"</button></div><main><article><h1>Page {number}</h1>{body}</article></main>"
        f"<aside><h2>Related</h2><ul>{links}</ul></aside><footer>Copyright, all rights reserved. Imprint</footer>"
        "</body></html>"
    )


# --------------------------------------------------------------------------- made while they are collected


class RepeatedDocuments:
    """Documents of about twelve kilobytes: half of them made of sentences that occur in others, half of them edits of
    one of the first. The n-th is the same each time, so that a collection that was interrupted goes on at once."""

    def __init__(self) -> None:
        words = Maker(data_folder()).words
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


def made_source(name: str, documents: Callable[[int], Iterator[str | None]]) -> SourcePlace:
    """Documents that are made while they are collected, by a function of how many of the first are not made again:
    each of these is None."""

    from afresh.services.collect.gather import SourcePlace
    from afresh.services.collect.record import Found
    from afresh.services.collect.sources import CONSUMED, Options, Source

    def find(place: str, options: Any, fetched: Any) -> Iterator[Found | Rejection]:
        for number, text in enumerate(documents(fetched.consumed)):
            yield CONSUMED if text is None else Found(f"document {number}", text)

    return SourcePlace(Source(name, "", lambda place: False, find, lambda place, options: []), name, Options(), {})


@dataclass(frozen=True)
class Ask:
    """So many bytes of documents, and what ends the collection before."""

    bytes: int
    minutes: float


def collect_repeated(ask: Ask, folder: Path) -> dict[str, Any]:
    """Collect without rules, which judge each text by itself: prints, exact and near duplicates, and writing. What was
    collected when the minutes are over is assembled."""
    from afresh.services.collect.gather import CollectLimits, gather
    from afresh.services.collect.rules import rules

    source = made_source("repeated", lambda consumed: RepeatedDocuments().of_bytes(ask.bytes, consumed))
    off = [rule.name for rule in rules()]
    out = folder / "set"
    made = gather([source], out, off=off, limits=CollectLimits(minutes=ask.minutes), resume=True, processes=PROCESSES)
    parts = [json.loads(p.read_text()) for p in (out / "work").rglob("[0-9]*.json")]
    found = {"characters": sum(p["bytes"] for p in parts), "documents": sum(p["found"] for p in parts)}
    return {**found, "kept": sum(made["items"].values())}


if __name__ == "__main__":
    answer(Ask, collect_repeated)
