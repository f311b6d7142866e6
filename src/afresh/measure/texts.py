"""Metrics of text and code: likelihood over the whole held-out split, validity, diversity, verbatim copies."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import torch

from afresh.core import CondSpec, Evidence, Metric, Score, Space
from afresh.measure.compression import LZMA_CONTEXT, gzip_size, joined, lzma_after, lzma_size
from afresh.measure.estimate import Estimate, mean, ratio, share
from afresh.measure.memorisation import Source
from afresh.measure.ngram import MOST_TRAIN, ByteNgram, train_ngram
from afresh.measure.study import Study, Unmeasurable, study_of

BLOCK = 4096  # bytes of held-out text that count as one unit of an interval, when there are few documents
RUN = 50  # bytes of a verbatim run
WORD = re.compile(r"\w+|[^\w\s]")
MOST_SOURCE = 16_000_000  # bytes of training text searched for copies


def text_space(space: Space, conds: CondSpec) -> str | None:
    """None for text; else why not."""
    if space.kind == "tokens" and not space.grid:
        return None
    return f"measures text, tokens on no grid, not {space.kind} of shape {space.shape}"


class Library:
    """Texts side by side: the model's, held-out ones of the same lengths, the trivial model's."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.train = [_raw(i.value) for i in study.train_items if i.value]
        self.heldout = [_raw(i.value) for i in study.heldout_items if i.value]
        if not self.train or not self.heldout:
            raise Unmeasurable("there is no training or no held-out text")

    def samples(self) -> list[str]:
        found = [str(v) for v in self.study.drawn.values]
        if not any(found):
            raise Unmeasurable("every sample is empty")
        return found

    def ngram(self) -> ByteNgram:
        def make() -> ByteNgram:
            text = joined(self.train)
            if len(text) > MOST_TRAIN:
                self.study.note(f"n-gram: learnt from the last {MOST_TRAIN:,} of {len(text):,} bytes of training text")
            return train_ngram(text[-MOST_TRAIN:])

        return self.study.once("ngram", make)

    def trivial(self) -> list[str]:
        """Texts by the n-gram model, as long as the samples."""

        def make() -> list[str]:
            sizes = [len(_raw(s)) for s in self.samples()]
            drawn = self.ngram().sample(len(sizes), max(sizes), self.study.rng.seed % 2**32)
            return [t[:n].decode("utf-8", "ignore") for t, n in zip(drawn, sizes, strict=True)]

        return self.study.once("trivial", make)

    def excerpts(self, documents: Sequence[bytes], purpose: str) -> list[str]:
        """Real excerpts as long as the samples, each from the start of a random line."""
        starts = [np.flatnonzero(np.frombuffer(b"\n" + d[:-1], np.uint8) == 10) for d in documents]
        ends = np.cumsum([len(d) for d in documents])
        every = np.concatenate([s + e - len(d) for s, e, d in zip(starts, ends, documents, strict=True)])
        room = np.concatenate([len(d) - s for s, d in zip(starts, documents, strict=True)])  # bytes to the end
        text, out = b"".join(documents), []
        for i, sample in enumerate(self.samples()):
            size = len(_raw(sample))
            fits = every[room >= size]
            fits = fits if len(fits) else every[room == room.max()]
            draw = int(self.study.rng.bits(purpose, torch.tensor([i]))[0])
            start = int(fits[draw % len(fits)])
            out.append(text[start : min(start + size, int(ends[np.searchsorted(ends, start, "right")]))])
        return [e.decode("utf-8", "ignore") for e in out]

    def heads(self) -> list[str]:
        """Beginnings of held-out documents, each document once, as long as the samples."""
        sizes = [len(s) for s in self.samples()]
        texts = [str(i.value) for i in self.study.heldout_items if i.value]
        order = torch.argsort(self.study.rng.bits("heads", torch.arange(len(texts)))).tolist()
        return [texts[o][:n] for o, n in zip(order, sizes, strict=False)]


def library_of(study: Study) -> Library:
    return study.once("library", lambda: Library(study))


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# --------------------------------------------------------------------------- likelihood


def bits_per_byte(evidence: Evidence) -> list[Score]:
    """-log2 p(held-out split) over its bytes of UTF-8, the whole split (control: the n-gram model).

    Beside it, what gzip and lzma make of the held-out split alone, lzma with the training text before it, and
    the n-gram model, whose interval is over documents or blocks.
    """
    study = study_of(evidence)
    lib = library_of(study)
    held, train = joined(lib.heldout), joined(lib.train)
    size = sum(len(d) for d in lib.heldout)
    if len(train) > LZMA_CONTEXT:
        study.note(f"bits_per_byte/lzma_train: context is the last {LZMA_CONTEXT:,} of {len(train):,} bytes")
    trivial = _ngram_bits(lib, train, held, size)
    out: list[Score] = []
    found = study.likelihood()
    if found is None:
        study.note("bits_per_byte: this family has no likelihood; only the compressors and the n-gram are given")
    else:
        nats, _ = found
        out.append(Score("bits_per_byte", nats / math.log(2) / size, None, None, size, "lower", None, trivial.value))
    for name, packed in (
        ("gzip", gzip_size(held)),
        ("lzma", lzma_size(held)),
        ("lzma_train", lzma_after(train, held)),
    ):
        out.append(Score(f"bits_per_byte/{name}", 8 * packed / size, None, None, size, "lower"))
    out.append(trivial.score("bits_per_byte/ngram", "lower"))
    return out


def _ngram_bits(lib: Library, train: bytes, held: bytes, size: int) -> Estimate:
    bits = -np.log2(lib.ngram().probabilities(held, train))
    if len(lib.heldout) >= 20:  # documents, each with the byte that ends it
        ends = np.cumsum([len(d) + 1 for d in lib.heldout])
        unit = np.searchsorted(ends, np.arange(len(bits)), "right")
        weight = np.array([len(d) for d in lib.heldout], np.float64)
    else:
        unit = np.arange(len(bits)) * max(1, len(bits) // BLOCK) // len(bits)
        weight = np.bincount(unit).astype(np.float64) * (size / len(bits))
    found = ratio(np.bincount(unit, bits).astype(np.float64), weight)
    return Estimate(found.value, found.low, found.high, size)


# --------------------------------------------------------------------------- validity


def complete(text: str, lines: int = 3, blocks: int = 3) -> list[str]:
    """A text that may stop in the middle, and what is left of it when its unfinished end is taken off.

    First the text itself; then without its last 1 to `lines` lines; then up to each of the last `blocks`
    lines that start a statement at the left margin. Blank remainders are left out.
    """
    parts = text.splitlines(keepends=True)
    cuts = list(range(len(parts), len(parts) - lines - 1, -1))
    tops = [i for i, line in enumerate(parts) if line[:1].strip() and line[0] not in ")]}#"]
    cuts += tops[::-1][:blocks]
    return ["".join(parts[:c]) for c in cuts if c > 0 and "".join(parts[:c]).strip()]


def parses(evidence: Evidence) -> list[Score]:
    """Share of samples that the modality accepts once their unfinished end is off (see `complete`).

    Floor: beginnings of held-out documents cut to the samples' lengths and treated alike. Control: text by
    the n-gram model.
    """
    study = study_of(evidence)
    lib = library_of(study)

    def accepted(texts: Sequence[str]) -> Estimate:
        return share(sum(any(study.valid(c) for c in complete(t)) for t in texts), len(texts))

    heads = lib.heads()
    scrambled = [_scrambled(t, i) for i, t in enumerate(heads)]
    if accepted(scrambled).value > 0.9:
        raise Unmeasurable("nearly every text is valid in this modality, scrambled ones too")
    return [accepted(lib.samples()).score("parses", "higher", accepted(heads).value, accepted(lib.trivial()).value)]


def _scrambled(text: str, seed: int) -> str:
    order = np.random.default_rng(seed).permutation(len(text))
    return "".join(text[i] for i in order)


# --------------------------------------------------------------------------- diversity and copies


def diversity(evidence: Evidence) -> list[Score]:
    """Different n-grams of words over all n-grams of words of all samples together (Li et al. 2016, section 5.3).

    Depends on the amount of text, so that only the floor, real text of the same lengths, gives it meaning.
    """
    study = study_of(evidence)
    lib = library_of(study)
    real, trivial = lib.excerpts(lib.heldout, "excerpts/heldout"), lib.trivial()
    out = []
    for n in (1, 2, 3):
        own, floor, control = (_distinct(t, n) for t in (lib.samples(), real, trivial))
        if own is None:
            raise Unmeasurable(f"no sample has {n} words")
        values = (floor.value if floor else None, control.value if control else None)
        out.append(own.score(f"distinct_{n}", "none", *values))
    return out


def _distinct(texts: Sequence[str], n: int) -> Estimate | None:
    """The share with an interval over texts: a gram's first occurrence counts for the text it is in."""
    seen: set[tuple[str, ...]] = set()
    new, all_of = [], []
    for text in texts:
        words = WORD.findall(text)
        grams = list(zip(*(words[i:] for i in range(n)), strict=False))
        before = len(seen)
        seen.update(grams)
        new.append(len(seen) - before)
        all_of.append(len(grams))
    if sum(all_of) == 0:
        return None
    found = ratio(np.array(new, np.float64), np.array(all_of, np.float64))
    return Estimate(found.value, found.low, found.high, sum(all_of))


def verbatim(evidence: Evidence) -> list[Score]:
    """Share of the samples' runs of 50 bytes that occur in the training text, and the longest copied run.

    Floor: held-out excerpts of the same lengths, which share licences and idioms with the training text.
    Control: training excerpts, 1 by construction. `longest_copy` is the mean over samples, in bytes.
    """
    study = study_of(evidence)
    lib = library_of(study)
    kept, size = [], 0
    for document in reversed(lib.train):
        kept.append(document[-(MOST_SOURCE - size) :])
        size += len(kept[-1])
        if size >= MOST_SOURCE:
            study.note(f"verbatim: copies are looked for in the last {MOST_SOURCE:,} bytes of training text")
            break
    source = Source(kept)
    texts = {
        "own": lib.samples(),
        "floor": lib.excerpts(lib.heldout, "excerpts/heldout"),
        "control": lib.excerpts(kept, "excerpts/train"),
    }
    found = {k: _verbatim(source, v) for k, v in texts.items()}
    own = found["own"]
    if own is None:
        raise Unmeasurable(f"no sample has {RUN} bytes")
    others = [None if e is None else e.value for e in (found["floor"], found["control"])]
    longest = {k: mean(np.array([source.longest(_raw(t)) for t in v[:64]], np.float64)) for k, v in texts.items()}
    return [
        own.score("verbatim_50", "lower", *others),
        longest["own"].score("longest_copy", "lower", longest["floor"].value, longest["control"].value),
    ]


def _verbatim(source: Source, texts: Sequence[str]) -> Estimate | None:
    hits = [source.seen(_raw(t), RUN) for t in texts]
    top, bottom = (np.array([f(h) for h in hits], np.float64) for f in (np.sum, len))
    if bottom.sum() == 0:
        return None
    found = ratio(top, bottom)
    return Estimate(found.value, max(0.0, found.low or 0.0), min(1.0, found.high or 1.0), int(bottom.sum()))


METRICS: tuple[Metric, ...] = (
    Metric("bits_per_byte", text_space, bits_per_byte),
    Metric("parses", text_space, parses),
    Metric("distinct", text_space, diversity),
    Metric("verbatim", text_space, verbatim),
)
