"""Texts as items: what text, code and music in notes have in common outside of their modalities."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from afresh.core import Descriptors, Division, ItemKind, Preview
from afresh.core.item_kind import Array
from afresh.data.text.near_duplicates import near_texts

GRAM = 3  # characters
BEGIN, END = "\x02", "\x03"


def grams(text: str) -> Counter[str]:
    """How often each n-gram of characters occurs, with marks at both ends: no text is without any."""
    marked = BEGIN * (GRAM - 1) + text + END * (GRAM - 1)
    return Counter(marked[i : i + GRAM] for i in range(len(marked) - GRAM + 1))


def cosine(a: Counter[str], b: Counter[str]) -> float:
    """Of two vectors of counts: 1 in the same direction, 0 with nothing in common (Damashek 1995)."""
    squares = sum(v * v for v in a.values()) * sum(v * v for v in b.values())
    return float(sum(v * b[k] for k, v in a.items() if k in b) / squares**0.5)


LONG, SHORTEST = 1_000, 20  # characters of texts that are divided if they are few, and of the shortest of them
DISTINCT = 4  # characters of the n-grams that are counted for diversity: words and their endings, in any script
CHARACTERS = 1 << 20  # of all training texts together that samples are compared with
BUCKETS = 1024  # hashes of words and of runs of characters
EXCERPT = 80  # characters of a text in a message


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def describe(text: str) -> str:
    return repr(text) if len(text) <= EXCERPT else f"{text[:EXCERPT]!r}... ({len(text)} characters)"


def encode(text: str) -> bytes:
    """UTF-8. Lone surrogates, which it cannot hold, are encoded like other characters."""
    return text.encode("utf-8", "surrogatepass")


def decode(content: bytes) -> str:
    """Raises ValueError (UnicodeDecodeError is one) if the content is not UTF-8."""
    return content.decode("utf-8", "surrogatepass")


def cut(text: str, share: float) -> tuple[str, str] | None:
    """The text without its last `share`, and that, divided between two characters; None if it is too short."""
    at = min(int(len(text) * (1 - share)), len(text) - 1)
    return None if len(text) < SHORTEST or at < 1 else (text[:at], text[at:])


def diversity(texts: Sequence[str]) -> float:
    """The share of distinct ones among runs of DISTINCT characters (distinct-n: Li et al. 2016, of characters)."""
    runs = [t[i : i + DISTINCT] for t in texts for i in range(max(1, len(t) - DISTINCT + 1))]
    return len(set(runs)) / len(runs)


def similarity(train: Sequence[str]) -> Callable[[Sequence[str]], Array]:
    """The cosine of the counts of three characters with those of the training texts together (Damashek 1995)."""
    counts: Counter[str] = Counter()
    for text in train:
        counts += grams(text[: max(1, CHARACTERS // len(train))])
    return lambda texts: np.array([cosine(grams(text), counts) for text in texts])


def counted_grams(texts: Sequence[str]) -> Array:
    """How often words, and runs of three characters, occur in each text, by hash: (n, 2 BUCKETS)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return np.concatenate(
        [
            HashingVectorizer(
                analyzer=analyzer,
                ngram_range=span,
                n_features=BUCKETS,
                alternate_sign=False,
                norm=None,
                token_pattern=r"(?u)\w+|[^\w\s]",
                dtype=np.float64,
            )
            .transform(texts)
            .toarray()
            for analyzer, span in (("word", (1, 1)), ("char_wb", (3, 3)))
        ],
        1,
    )


TEXT = ItemKind(
    name="text",
    plural="texts",
    view="text",
    digest=digest,
    describe=describe,
    previews=lambda texts: [Preview(text=text) for text in texts],
    size=len,
    unit="characters",
    medium="text",
    encode=encode,
    decode=decode,
    descriptors=Descriptors(counted_grams, "tanimoto"),
    near_duplicates=near_texts,
    searched=0,  # their search takes long
    similarity=similarity,
    diversity=diversity,
    division=Division(cut, LONG, SHORTEST),
)
