"""Documents for the benchmark of `collect`: many that differ, made of passages of shared texts, and edits of them."""

from __future__ import annotations

import gzip
import html
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

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
        for at in np.flatnonzero(rng.random(len(out)) < CHANGED):
            out[at] = self.words[rng.integers(len(self.words))]
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
