"""Metrics of text and code: likelihood over the whole held-out split, validity, diversity, verbatim copies."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from afresh.core import CondSpec, Evidence, ItemKind, Metric, Score, Space
from afresh.data.text.kind import TEXT
from afresh.evaluation.compression import LZMA_CONTEXT, gzip_size, joined, lzma_after, lzma_size
from afresh.evaluation.estimate import Estimate, ratio, share
from afresh.evaluation.memorisation import Source
from afresh.evaluation.study import Study, Unmeasurable, study_of

RUN = 50  # bytes of a verbatim run
WORD = re.compile(r"\w+|[^\w\s]")
MOST_SOURCE = 8_000_000  # bytes of training text searched for copies


def text_space(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for text; else why not."""
    return None if kind is TEXT else f"measures text, not {kind.plural}"


class Library:
    """The texts that are compared: the model's samples, and real ones of the same lengths."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.train = [_raw(t) for i in study.train_items for t in i.targets() if t]
        self.heldout = [_raw(t) for i in study.heldout_items for t in i.targets() if t]
        if any(i.turns for i in study.heldout_items):
            study.note("conversations: all numbers are of the answers alone; a model's samples answer training prompts")
        if not self.train or not self.heldout:
            raise Unmeasurable("there is no training or no held-out text")

    def samples(self) -> list[str]:
        found = [str(v) for v in self.study.drawn.values]
        if not any(found):
            raise Unmeasurable("every sample is empty")
        return found

    def excerpts(self, documents: Sequence[bytes], purpose: str) -> list[str]:
        """Real excerpts as long as the samples, the i-th from the start of a random line in the i-th part of n.

        So they overlap little, which would count as repetition.
        """
        starts = [np.flatnonzero(np.frombuffer(b"\n" + d[:-1], np.uint8) == 10) for d in documents]
        ends = np.cumsum([len(d) for d in documents])
        every = np.concatenate([s + e - len(d) for s, e, d in zip(starts, ends, documents, strict=True)])
        room = np.concatenate([len(d) - s for s, d in zip(starts, documents, strict=True)])  # bytes to the end
        text, out = b"".join(documents), []
        for i, sample in enumerate(self.samples()):
            size = len(_raw(sample))
            fits = every[room >= size]
            fits = fits if len(fits) else every[room == room.max()]
            u = float(self.study.rng.uniform(purpose, torch.tensor([i]))[0])
            start = int(fits[int((i + u) / self.study.n * len(fits))])
            out.append(text[start : min(start + size, int(ends[np.searchsorted(ends, start, "right")]))])
        return [e.decode("utf-8", "ignore") for e in out]

    def heads(self) -> list[str]:
        """Beginnings of held-out documents, each document once, as long as the samples."""
        sizes = [len(s) for s in self.samples()]
        texts = [str(t) for i in self.study.heldout_items for t in i.targets() if t]
        order = torch.argsort(self.study.rng.bits("heads", torch.arange(len(texts)))).tolist()
        return [texts[o][:n] for o, n in zip(order, sizes, strict=False)]


def library_of(study: Study) -> Library:
    return study.once("library", lambda: Library(study))


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# --------------------------------------------------------------------------- likelihood


def bits_per_byte(evidence: Evidence) -> list[Score]:
    """-log2 p(held-out split) over its bytes of UTF-8, the whole split.

    Control: compression by lzma, (size(train + held-out) - size(train)) over the same bytes.

    Named `bits_per_byte/bound` where the model knows only an upper bound of it (minus an ELBO).

    Of conversations: the answers, each given what comes before it and with the mark that ends it, over their bytes.

    Beside it, the held-out split compressed by gzip and lzma alone, and by lzma after the training text (the control).
    The interval is over windows.
    """
    study = study_of(evidence)
    lib = library_of(study)
    held, train = joined(lib.heldout), joined(lib.train)
    size = sum(len(d) for d in lib.heldout)
    if len(train) > LZMA_CONTEXT:
        study.note(f"bits_per_byte/lzma_train: context is the last {LZMA_CONTEXT:,} of {len(train):,} bytes")
    sizes = {"gzip": gzip_size(held), "lzma": lzma_size(held), "lzma_train": lzma_after(train, held)}
    packed = {name: 8 * n / size for name, n in sizes.items()}
    out: list[Score] = []
    found = study.likelihood()
    if found is None:
        study.note("bits_per_byte: this family has no likelihood; only the compressors are measured")
    else:
        nats, tokens = (t.double().numpy() for t in found)
        per_token, to_bits = ratio(nats, tokens), float(tokens.sum()) / math.log(2) / size
        ends = [None if x is None else x * to_bits for x in (per_token.low, per_token.high)]
        value = per_token.value * to_bits
        name = "bits_per_byte/bound" if study.bound else "bits_per_byte"
        if study.bound:
            study.note(f"{name}: this family knows only a bound of its likelihood; its true bits per byte are fewer")
        out.append(Score(name, value, ends[0], ends[1], size, "lower", None, packed["lzma_train"]))
    return out + [Score(f"bits_per_byte/{name}", value, None, None, size, "lower") for name, value in packed.items()]


# --------------------------------------------------------------------------- validity


STRING_ENDS = ('"""', "'''", "*/", "`")  # of strings and comments that may run over many lines


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


def verdict(text: str, valid: Callable[[str], bool]) -> bool | None:
    """Whether a program that may stop in the middle is valid so far; None when it stops in a long string.

    Valid: one of `complete(text)` is. Undecided: one of them is once an open string or comment is closed, so
    that what there is of the program is mostly prose (a docstring, a licence) and proves nothing.
    """
    if any(valid(c) for c in complete(text)):
        return True
    whole = text.rstrip("\"'`*/")  # a closing mark may itself be cut
    return None if any(valid(whole + end) for end in STRING_ENDS) else False


def parses(evidence: Evidence) -> list[Score]:
    """Share of samples that are valid so far, of those of which it can be said (see `verdict`).

    Floor: beginnings of held-out documents cut to the samples' lengths and judged alike. Control: the same with their
    characters in random order.
    """
    study = study_of(evidence)
    lib = library_of(study)

    def accepted(texts: Sequence[str]) -> tuple[Estimate | None, int]:
        said = [v for v in (verdict(t, study.valid) for t in texts) if v is not None]
        return (share(sum(said), len(said)) if said else None), len(texts) - len(said)

    heads = lib.heads()
    scrambled, _ = accepted([_scrambled(t, i) for i, t in enumerate(heads)])
    control = None if scrambled is None else scrambled.value
    if control is not None and control > 0.9:
        raise Unmeasurable("nearly every text is valid in this modality, scrambled ones too")
    (own, open_), (floor, open_real) = accepted(lib.samples()), accepted(heads)
    if own is None:
        raise Unmeasurable("every sample stops within a string or comment: draw longer ones")
    study.note(
        f"parses: {open_} of {study.n} samples stop within a long string or comment and are not counted "
        f"({open_real} of {len(heads)} real beginnings)"
    )
    return [own.score("parses", "higher", floor.value if floor else None, control)]


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
    real = lib.excerpts(lib.heldout, "excerpts/heldout")
    out = []
    for n in (1, 2, 3):
        own, floor = _distinct(lib.samples(), n), _distinct(real, n)
        if own is None:
            raise Unmeasurable(f"no sample has {n} words")
        out.append(own.score(f"distinct_{n}", "none", floor.value if floor else None))
    return out


def _distinct(texts: Sequence[str], n: int) -> Estimate | None:
    """Different over all n-grams. A gram that occurs c times counts 1/c in every text it occurs in: same sum."""
    words = [WORD.findall(t) for t in texts]
    grams = [list(zip(*(w[i:] for i in range(n)), strict=False)) for w in words]
    count = Counter(g for text in grams for g in text)
    if not count:
        return None
    new = np.array([sum(1 / count[g] for g in text) for text in grams])
    found = ratio(new, np.array([len(text) for text in grams], np.float64))
    return _within(found, count.total())


def _within(found: Estimate, n: int) -> Estimate:
    """A share's interval kept in [0, 1]; where all texts agree on 0 or 1, Wilson's over the texts."""
    low, high = found.low, found.high
    if found.value in (0.0, 1.0):
        whole = share(round(found.value) * found.n, found.n)
        low, high = whole.low, whole.high
    if low is None or high is None:
        return Estimate(found.value, None, None, n)
    return Estimate(found.value, max(0.0, low), min(1.0, high), n)


def verbatim(evidence: Evidence) -> list[Score]:
    """Share of the samples' runs of 50 bytes that occur in the training text, and the longest copied run.

    Floor: held-out excerpts of the same lengths, which share licences and idioms with the training text.
    Control: training excerpts, of which all is copied by construction.
    """
    study = study_of(evidence)
    lib = library_of(study)
    kept: list[bytes] = []
    room = MOST_SOURCE
    for document in reversed(lib.train):
        if room <= 0:
            study.note(f"verbatim: copies are looked for in the last {MOST_SOURCE:,} bytes of training text")
            break
        kept.append(document[-room:])
        room -= len(document)
    source = Source(kept)
    own = [_raw(t) for t in lib.samples()]
    real = [_raw(t) for t in lib.excerpts(lib.heldout, "excerpts/heldout")]
    copied = [_raw(t) for t in lib.excerpts(kept, "excerpts/train")]
    found = _verbatim(source, own)
    if found is None:
        raise Unmeasurable(f"no sample has {RUN} bytes")
    floor, control = _verbatim(source, real), _verbatim(source, copied)
    values = (floor.value if floor else None, control.value if control else None)
    whole = float(max(len(t) for t in copied))
    longest = Score("longest_copy", source.longest(own), None, None, len(own), "lower", source.longest(real), whole)
    return [found.score("verbatim_50", "lower", *values), longest]


def _verbatim(source: Source, texts: Sequence[bytes]) -> Estimate | None:
    hits = [h for h in source.seen(texts, RUN) if len(h)]
    if not hits:
        return None
    found = ratio(np.array([h.sum() for h in hits], np.float64), np.array([len(h) for h in hits], np.float64))
    return _within(found, sum(len(h) for h in hits))


METRICS: tuple[Metric, ...] = (
    Metric("bits_per_byte", text_space, bits_per_byte),
    Metric("parses", text_space, parses),
    Metric("distinct", text_space, diversity),
    Metric("verbatim", text_space, verbatim),
)
