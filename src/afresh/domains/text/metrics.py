"""Metrics of text and code: likelihood of the whole held-out split, validity, diversity, verbatim copies."""

from __future__ import annotations

import lzma
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from afresh.core import CondSpec, Evidence, ItemKind, Judgement, Metric, Score, Space
from afresh.data.text.kind import TEXT
from afresh.engine.evaluation.estimate import Estimate, ratio, share
from afresh.engine.evaluation.memorisation import CopySearch
from afresh.engine.evaluation.score_descriptions import read_words
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of
from afresh.engine.evaluation.text_scores import copied_share, predicts_well, repeated
from afresh.engine.evaluation.verdict import place

RUN = 50  # bytes of the runs that are searched for copies
WORD = re.compile(r"\w+|[^\w\s]")
LETTERS = re.compile(r"[^\W\d_]+")
LZMA_CONTEXT = 16_000_000  # the last bytes of the training text, which lzma gets as context
LZMA_PRESET = 9 | lzma.PRESET_EXTREME
MAX_SEARCHED = 8_000_000  # bytes of training text that are searched for copies


def text_space(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for text, else the reason why not."""
    return None if kind is TEXT else f"measures text, not {kind.plural}"


class TextSets:
    """The texts that are compared: samples, and real ones of the same lengths."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.train = [_raw(t) for i in study.train_items for t in i.targets() if t]
        self.heldout = [_raw(t) for i in study.heldout_items for t in i.targets() if t]
        if any(i.turns for i in study.heldout_items):
            study.note(
                "conversations: all scores are of the answers alone; samples answer prompts of the training split"
            )
        if not self.train or not self.heldout:
            raise Unmeasurable("the training or the held-out split has no text")

    def samples(self) -> list[str]:
        texts = [str(v) for v in self.study.drawn.values]
        if not any(texts):
            raise Unmeasurable("every sample is empty")
        return texts

    def excerpts(self, documents: Sequence[bytes], purpose: str) -> list[str]:
        """Real excerpts of the samples' lengths. The i-th of n starts at a random line in the i-th nth of the text, so
        that excerpts hardly overlap, which would count as repetition.
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
        """Beginnings of held-out documents with the samples' lengths, one per document."""
        sizes = [len(s) for s in self.samples()]
        texts = [str(t) for i in self.study.heldout_items for t in i.targets() if t]
        order = torch.argsort(self.study.rng.bits("heads", torch.arange(len(texts)))).tolist()
        return [texts[o][:n] for o, n in zip(order, sizes, strict=False)]


def text_sets_of(study: Study) -> TextSets:
    """The text sets of a study, built once."""
    return study.once("text sets", lambda: TextSets(study))


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


# --------------------------------------------------------------------------- likelihood


def bits_per_byte(evidence: Evidence) -> list[Score]:
    """-log2 p(held-out split) divided by its size in bytes of UTF-8, over the whole split. The interval is over
    windows.

    Control: compression by lzma, (size(train + held-out) - size(train)) over the same bytes.

    The score is named `bits_per_byte/bound` if the model has only an upper bound (minus an ELBO). For conversations,
    the answers are scored, each given the turns before it and with the token that ends it, over their bytes. Further
    scores are the held-out split compressed by gzip and lzma alone, and by lzma after the training text (the control).
    """
    study = study_of(evidence)
    sets = text_sets_of(study)
    heldout, train = joined(sets.heldout), joined(sets.train)
    size = sum(len(d) for d in sets.heldout)
    if len(train) > LZMA_CONTEXT:
        study.note(f"bits_per_byte/lzma_train: the context is the last {LZMA_CONTEXT:,} of {len(train):,} bytes")
    sizes = {"gzip": gzip_size(heldout), "lzma": lzma_size(heldout), "lzma_train": lzma_after(train, heldout)}
    packed = {name: 8 * n / size for name, n in sizes.items()}
    out: list[Score] = []
    likelihood = study.likelihood()
    if likelihood is None:
        study.note("bits_per_byte: this family has no likelihood; only the compressors are measured")
    else:
        nats, tokens = (t.double().numpy() for t in likelihood)
        per_token, to_bits = ratio(nats, tokens), float(tokens.sum()) / math.log(2) / size
        ends = [None if x is None else x * to_bits for x in (per_token.low, per_token.high)]
        value = per_token.value * to_bits
        name = "bits_per_byte/bound" if study.bound else "bits_per_byte"
        if study.bound:
            study.note(f"{name}: this family has only a bound of its likelihood; its true bits per byte are lower")
        out.append(Score(name, value, ends[0], ends[1], size, "lower", None, packed["lzma_train"]))
    return out + [Score(f"bits_per_byte/{name}", value, None, None, size, "lower") for name, value in packed.items()]


# --------------------------------------------------------------------------- validity


STRING_ENDS = ('"""', "'''", "*/", "`")  # of strings and comments that may span many lines


def complete_parts(text: str, lines: int = 3, blocks: int = 3) -> list[str]:
    """A text that may stop at any point, followed by versions of it without its unfinished end.

    First the text itself; then without its last 1 to `lines` lines; then up to each of the last `blocks` lines that
    start a statement at the left margin. Blank versions are left out.
    """
    parts = text.splitlines(keepends=True)
    cuts = list(range(len(parts), len(parts) - lines - 1, -1))
    tops = [i for i, line in enumerate(parts) if line[:1].strip() and line[0] not in ")]}#"]
    cuts += tops[::-1][:blocks]
    return ["".join(parts[:c]) for c in cuts if c > 0 and "".join(parts[:c]).strip()]


def valid_so_far(text: str, valid: Callable[[str], bool]) -> bool | None:
    """Whether a program that may stop at any point is valid so far; None if it stops within a long string.

    Valid: one of `complete_parts(text)` is valid. Undecided: the text is valid once an open string or comment is
    closed, so that it may be mostly prose (a docstring, a licence), which says little about the program.
    """
    if any(valid(c) for c in complete_parts(text)):
        return True
    opened = text.rstrip("\"'`*/")  # the closing mark may be incomplete
    return None if any(valid(opened + end) for end in STRING_ENDS) else False


def parses(evidence: Evidence) -> list[Score]:
    """Share of samples that are valid so far, among those that are decided (see `valid_so_far`).

    Floor: beginnings of held-out documents of the samples' lengths. Control: the same beginnings with their characters
    in random order.
    """
    study = study_of(evidence)
    sets = text_sets_of(study)

    def accepted(texts: Sequence[str]) -> tuple[Estimate | None, int]:
        decided = [v for v in (valid_so_far(t, study.valid) for t in texts) if v is not None]
        return (share(sum(decided), len(decided)) if decided else None), len(texts) - len(decided)

    heads = sets.heads()
    scrambled, _ = accepted([_scrambled(t, i) for i, t in enumerate(heads)])
    control = None if scrambled is None else scrambled.value
    if control is not None and control > 0.9:
        raise Unmeasurable("nearly every text is valid in this modality, even scrambled ones")
    (own, undecided), (floor, undecided_real) = accepted(sets.samples()), accepted(heads)
    if own is None:
        raise Unmeasurable("every sample stops within a string or comment; longer samples are needed")
    study.note(
        f"parses: {undecided} of {study.n} samples stop within a long string or comment and are not counted "
        f"({undecided_real} of {len(heads)} real beginnings)"
    )
    return [own.score("parses", "higher", floor.value if floor else None, control)]


def _scrambled(text: str, seed: int) -> str:
    order = np.random.default_rng(seed).permutation(len(text))
    return "".join(text[i] for i in order)


# --------------------------------------------------------------------------- diversity and copies


def known_words(evidence: Evidence) -> list[Score]:
    """Share of the samples' letters that belong to words of the training text.

    Floor: held-out excerpts of the same lengths. Control: the same excerpts with their characters in random order.
    """
    study = study_of(evidence)
    sets = text_sets_of(study)
    known = {w for document in sets.train for w in LETTERS.findall(document.decode("utf-8", "ignore").lower())}

    def of(texts: Sequence[str]) -> Estimate | None:
        words = [LETTERS.findall(t.lower()) for t in texts]
        sizes = np.array([[sum(len(w) for w in text if w in known), sum(map(len, text))] for text in words], np.float64)
        return _bounded(ratio(sizes[:, 0], sizes[:, 1]), int(sizes[:, 1].sum())) if sizes[:, 1].sum() else None

    real = sets.excerpts(sets.heldout, "excerpts/heldout")
    own, floor, control = (of(t) for t in (sets.samples(), real, [_scrambled(t, i) for i, t in enumerate(real)]))
    if own is None:
        raise Unmeasurable("no sample has a word")
    values = (floor.value if floor else None, control.value if control else None)
    return [own.score("known_words", "higher", *values)]


def diversity(evidence: Evidence) -> list[Score]:
    """Number of distinct n-grams of words divided by the number of all n-grams, over all samples (Li et al. 2016,
    section 5.3).

    It depends on the amount of text and is meaningful only beside the floor, real text of the same lengths.
    """
    study = study_of(evidence)
    sets = text_sets_of(study)
    real = sets.excerpts(sets.heldout, "excerpts/heldout")
    out = []
    for n in (1, 2, 3):
        own, floor = _distinct(sets.samples(), n), _distinct(real, n)
        if own is None:
            raise Unmeasurable(f"no sample has {n} words")
        out.append(own.score(f"distinct_{n}", "none", floor.value if floor else None))
    return out


def _distinct(texts: Sequence[str], n: int) -> Estimate | None:
    """Distinct n-grams over all n-grams. An n-gram that occurs c times counts 1/c each time, which gives the same
    sum."""
    words = [WORD.findall(t) for t in texts]
    grams = [list(zip(*(w[i:] for i in range(n)), strict=False)) for w in words]
    count = Counter(g for text in grams for g in text)
    if not count:
        return None
    distinct = np.array([sum(1 / count[g] for g in text) for text in grams])
    return _bounded(ratio(distinct, np.array([len(text) for text in grams], np.float64)), count.total())


def _bounded(estimate: Estimate, n: int) -> Estimate:
    """A share of n units with its interval clipped to [0, 1]. If all texts are 0 or all are 1, Wilson's interval over
    the texts is used."""
    low, high = estimate.low, estimate.high
    if estimate.value in (0.0, 1.0):
        wilson = share(round(estimate.value) * estimate.n, estimate.n)
        low, high = wilson.low, wilson.high
    if low is None or high is None:
        return Estimate(estimate.value, None, None, n)
    return Estimate(estimate.value, max(0.0, low), min(1.0, high), n)


def verbatim(evidence: Evidence) -> list[Score]:
    """Share of the samples' runs of 50 bytes that occur in the training text, and the length of the longest copied run.

    Floor: held-out excerpts of the same lengths, which share licences and idioms with the training text. Control:
    training excerpts, which are copies.
    """
    study = study_of(evidence)
    sets = text_sets_of(study)
    searched: list[bytes] = []
    room = MAX_SEARCHED
    for document in reversed(sets.train):
        if room <= 0:
            study.note(f"verbatim: copies are searched in the last {MAX_SEARCHED:,} bytes of training text")
            break
        searched.append(document[-room:])
        room -= len(document)
    search = CopySearch(searched)
    own = [_raw(t) for t in sets.samples()]
    real = [_raw(t) for t in sets.excerpts(sets.heldout, "excerpts/heldout")]
    copied = [_raw(t) for t in sets.excerpts(searched, "excerpts/train")]
    estimate = _verbatim(search, own)
    if estimate is None:
        raise Unmeasurable(f"no sample has {RUN} bytes")
    floor, control = _verbatim(search, real), _verbatim(search, copied)
    values = (floor.value if floor else None, control.value if control else None)
    complete = float(max(len(t) for t in copied))
    longest = Score("longest_copy", search.longest(own), None, None, len(own), "lower", search.longest(real), complete)
    return [estimate.score("verbatim_50", "lower", *values), longest]


def _verbatim(search: CopySearch, texts: Sequence[bytes]) -> Estimate | None:
    hits = [h for h in search.contained(texts, RUN) if len(h)]
    if not hits:
        return None
    copied = ratio(np.array([h.sum() for h in hits], np.float64), np.array([len(h) for h in hits], np.float64))
    return _bounded(copied, sum(len(h) for h in hits))


# --------------------------------------------------------------------------- verdict

SPELT = 1 / 3  # noise: the place of known words is below this; half of the words of code are names, which models alter
SPELT_WELL = 0.9  # possibly good: that place is above this


def judge_texts(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on texts; None if words do not tell text from random letters, as without spaces."""
    words = scores.get("known_words")
    known = place(words)
    if words is None or known is None or (words.floor or 0.0) - (words.control or 0.0) < 0.2:
        return None
    spelt = f"{words.value:.0%} of their letters are in words of the data, {words.floor:.0%} of those of real ones"
    if (distinct := repeated(scores)) is not None:
        return "collapsed", f"The {plural} repeat themselves: they have {distinct:.0%} of the variety of real ones."
    if known < SPELT:
        return "noise", f"The {plural} are letters rather than words: {spelt}."
    if (copied := copied_share(scores)) is not None:
        return "memorised", f"{copied:.0%} of the {plural} occur in the training text word for word."
    if not any(name.startswith("bits_per_byte") for name in scores) and known > SPELT_WELL:
        return (
            "cannot tell",
            f"In spelling, the {plural} are like real ones: {spelt}. Only a likelihood tells the rest.",
        )
    well, foreseen = predicts_well(scores)
    if well:
        return "good", f"The {plural} read like real ones: {spelt}, and {foreseen}."
    if known <= SPELT_WELL:
        return "recognisable", f"The {plural} have invented words: {spelt}."
    sense = "; " if well is None else ", but they make little sense together: "
    return "recognisable", f"In spelling, the {plural} are like real ones: {spelt}{sense}{foreseen}."


WORDS = read_words(__file__)
BESIDE = {
    "bound": "an upper bound",
    "gzip": "of gzip",
    "lzma": "of lzma",
    "lzma_train": "of lzma after the training text",
}
METRICS: tuple[Metric, ...] = (
    Metric("bits_per_byte", text_space, bits_per_byte, words=WORDS, beside=BESIDE),
    Metric("parses", text_space, parses, brief=True, words=WORDS),
    Metric("known_words", text_space, known_words, brief=True, words=WORDS, judge=judge_texts),
    Metric("distinct", text_space, diversity, brief=True, words=WORDS),
    Metric("verbatim", text_space, verbatim, brief=True, words=WORDS),
)


# --------------------------------------------------------------------------- sizes under general compressors


def joined(documents: list[bytes]) -> bytes:
    """One text. A zero byte ends every document if there are several, since a model must also predict the ends."""
    return documents[0] if len(documents) == 1 else b"".join(d + b"\0" for d in documents)


def gzip_size(text: bytes) -> int:
    """Size in bytes of a raw deflate stream at level 9: gzip without the 18 bytes of its header and trailer."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return len(packer.compress(text)) + len(packer.flush())


def lzma_size(text: bytes) -> int:
    """Size in bytes of a raw LZMA2 stream, preset 9e, without a container."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": LZMA_PRESET}]
    return len(lzma.compress(text, format=lzma.FORMAT_RAW, filters=filters))


def lzma_after(train: bytes, heldout: bytes) -> int:
    """Bytes that the held-out text adds after the training text: size(train + heldout) - size(train)."""
    context = train[-LZMA_CONTEXT:]
    return lzma_size(context + heldout) - lzma_size(context)
