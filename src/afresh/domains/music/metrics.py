"""Metrics of symbolic music: validity of scores, distributions of notes, and copies.

The features that are compared follow Yang and Lerch 2020, "On the evaluation of generative models in music" (section
3); here, whole distributions are compared, by the divergence of Lin 1991.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from afresh.core import CondSpec, Evidence, ItemKind, Judgement, Metric, Question, Score, ScoreWords, Space
from afresh.domains.music.score import PITCH
from afresh.engine.evaluation.estimate import Array, Estimate, jackknife, leave_out, ratio, share
from afresh.engine.evaluation.study import Study, Unmeasurable, study_of
from afresh.engine.evaluation.verdict import SHAPED, VERBATIM, place, share_of_floor

RUN = 8  # notes of the runs that are searched for copies
WIDEST = 24  # semitones; wider intervals count as this one
MIN_NOTES = 20  # that a distribution needs


def score_space(kind: ItemKind, space: Space, conds: CondSpec) -> str | None:
    """None for symbolic music, else the reason why not."""
    return None if "score" in space.special else "measures symbolic music, whose space has a special token `score`"


@dataclass
class MusicPiece:
    """The features of a score: for each voice its notes in order, as (MIDI pitch, duration in steps), and for each
    onset the number of notes that begin together."""

    lines: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    together: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of notes."""
        return sum(map(len, self.lines.values()))

    def head(self, notes: int) -> MusicPiece:
        """About the first `notes` notes: the same share of every voice and of the onsets."""
        part = min(1.0, notes / max(1, self.size))
        lines = {v: line[: max(1, round(part * len(line)))] for v, line in self.lines.items()}
        return MusicPiece(lines, self.together[: max(1, round(part * len(self.together)))])


def piece_of(text: str) -> MusicPiece:
    """The notes of a text in either form (afresh.domains.music.score). Invalid words are skipped."""
    words = text.split()
    voices = next((int(w[1:]) for w in words[:3] if w[0] == "V" and w[1:].isdecimal()), 0)
    return _parallel(words, max(1, voices)) if voices else _events(words)


def _events(words: Sequence[str]) -> MusicPiece:
    piece = MusicPiece()
    bar, cursor, voice, pitch, last = 0, 0, 0, None, None
    for word in words:
        number = int(word[1:]) if word[1:].isdecimal() else None
        if word == "|":
            bar, cursor, voice = bar + 1, 0, 0
        elif number is not None and word[0] == "@":
            cursor = number
        elif number is not None and word[0] == "v":
            voice = number - 1
        elif number is not None and word[0] == ":" and pitch is not None:
            piece.lines.setdefault(voice, []).append((pitch, number))
            if last == (bar, cursor):
                piece.together[-1] += 1
            else:
                piece.together.append(1)
            last, cursor = (bar, cursor), cursor + number
        pitch = PITCH.get(word)
    return piece


def _parallel(words: Sequence[str], voices: int) -> MusicPiece:
    piece = MusicPiece()
    count = onsets = 0
    for word in words:
        pitch, voice = PITCH.get(word), count % voices
        if pitch is not None:
            piece.lines.setdefault(voice, []).append((pitch, 1))
            onsets += 1
        elif word == "_" and piece.lines.get(voice):
            before, steps = piece.lines[voice][-1]
            piece.lines[voice][-1] = (before, steps + 1)
        if word == "|":
            count = onsets = 0
        elif pitch is not None or word in ("_", "z"):
            count += 1
            if count % voices == 0:
                piece.together += [onsets] * (onsets > 0)
                onsets = 0
    return piece


class MusicSets:
    """The pieces that are compared: samples, held-out ones, and training ones of the samples' lengths."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.train = self._read([i.value for i in study.train_items])
        self.heldout = self._read([i.value for i in study.heldout_items])
        if not self.train or not self.heldout:
            raise Unmeasurable("the training or the held-out split has no notes")

    @staticmethod
    def _read(texts: Sequence[object]) -> list[MusicPiece]:
        return [p for t in texts if (p := piece_of(str(t))).size]

    def samples(self) -> list[MusicPiece]:
        pieces = self.study.once("pieces", lambda: self._read(self.study.drawn.values))
        if not pieces:
            raise Unmeasurable("no sample has a note")
        return pieces

    def real(self) -> list[MusicPiece]:
        """Random training pieces, each cut to the length of a sample."""
        sizes = [p.size for p in self.samples()]
        rows = self.study.rng.uniform("music/real", torch.arange(len(sizes))) * len(self.train)
        return [self.train[int(r)].head(n) for r, n in zip(rows, sizes, strict=True)]


def music_sets_of(study: Study) -> MusicSets:
    """The music sets of a study, built once."""
    return study.once("music sets", lambda: MusicSets(study))


# --------------------------------------------------------------------------- validity


def validity(evidence: Evidence) -> list[Score]:
    """Share of samples that are valid scores, with or without their last bar, since a sample may stop within a bar.

    Floor: held-out pieces. Control: held-out pieces with their words in random order.
    """
    study = study_of(evidence)
    texts = [str(i.value) for i in study.heldout_items]
    shuffled = []
    for i, text in enumerate(texts):
        words = text.split()
        order = np.random.default_rng(i).permutation(len(words))
        shuffled.append(" ".join(words[j] for j in order))
    own, floor, control = (
        share(sum((study.valid(t) or ("\n" in t and study.valid(t.rpartition("\n")[0]))) for t in group), len(group))
        for group in ([str(v) for v in study.drawn.values], texts, shuffled)
    )
    return [own.score("valid_scores", "higher", floor.value, control.value)]


# --------------------------------------------------------------------------- distributions


def _notes(piece: MusicPiece) -> Iterator[tuple[int, int]]:
    return (note for line in piece.lines.values() for note in line)


def _intervals(piece: MusicPiece) -> list[int]:
    """Intervals in semitones from each note of a voice to the next."""
    steps = [b[0] - a[0] for line in piece.lines.values() for a, b in zip(line, line[1:], strict=False)]
    return [min(max(s, -WIDEST), WIDEST) for s in steps]


FEATURES: Mapping[str, Callable[[MusicPiece], Sequence[int]]] = {
    "pitch_class": lambda piece: [pitch % 12 for pitch, _ in _notes(piece)],
    "duration": lambda piece: [steps for _, steps in _notes(piece)],
    "interval": _intervals,
    "notes_together": lambda piece: piece.together,
}


def divergence(p: Array, q: Array) -> float:
    """Jensen-Shannon divergence of two histograms (K,) in bits, from 0 (equal) to 1 (nothing in common).

    Lin 1991, "Divergence measures based on the Shannon entropy", eq. 4.1 with equal weights. Raises ValueError if a
    histogram is empty.
    """
    if not p.sum() or not q.sum():
        raise ValueError("the histogram is empty")
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [np.where(x > 0, x * np.log2(x / middle), 0.0).sum() for x in (p, q)]
    return max(0.0, float(sum(parts)) / 2)


def histograms(pieces: Sequence[Sequence[int]], kinds: Sequence[int]) -> Array:
    """Number of occurrences (N, K) of each kind in each piece."""
    place = {k: i for i, k in enumerate(kinds)}
    out = np.zeros((len(pieces), len(kinds)))
    for row, piece in zip(out, pieces, strict=True):
        for kind, n in Counter(piece).items():
            row[place[kind]] = n
    return out


def distributions(evidence: Evidence) -> list[Score]:
    """Jensen-Shannon divergence in bits between the distributions of pitch classes, durations, melodic intervals and
    numbers of simultaneous onsets in samples and in held-out pieces, with a jackknife interval over samples.

    Floor: as many training pieces of the same lengths. Control: a uniform distribution over the kinds that occur in
    training; for intervals, those of training notes in random order. A feature that is constant in real music is
    skipped.
    """
    study = study_of(evidence)
    sets = music_sets_of(study)
    out = []
    for name, feature in FEATURES.items():
        own, real, heldout = ([feature(p) for p in group] for group in (sets.samples(), sets.real(), sets.heldout))
        train = [feature(p) for p in sets.train]
        known = sorted({k for piece in (*train, *heldout) for k in piece})
        if len(known) < 2:
            study.note(f"{name}: constant in real music, so there is nothing to compare")
            continue
        if sum(map(len, own)) < MIN_NOTES or sum(map(len, heldout)) < MIN_NOTES:
            study.note(f"{name}: not measured, since samples or held-out pieces have fewer than {MIN_NOTES} notes")
            continue
        control = _shuffled(sets.train) if name == "interval" else [known]
        kinds = sorted({k for piece in (*own, *control) for k in piece} | set(known))
        reference = histograms(heldout, kinds).sum(0)
        rows = histograms(own, kinds)
        estimate = _estimate(rows, reference)
        floor, trivial = (divergence(histograms(x, kinds).sum(0), reference) for x in (real, control))
        out.append(estimate.score(f"{name}_divergence", "lower", floor, trivial))
    if not out:
        raise Unmeasurable("no feature of the notes varies, or there are too few notes")
    return out


def _estimate(rows: Array, reference: Array) -> Estimate:
    """The divergence of the sum of histograms (N, K) from another one (K,)."""
    value = divergence(rows.sum(0), reference)
    without = [part.sum(0) for mask in leave_out(len(rows)) if (part := rows[mask]).sum()]
    if len(without) < 2 or len(rows) < 2:
        return Estimate(value, None, None, len(rows))
    low, high = jackknife(value, [divergence(w, reference) for w in without])
    return Estimate(value, max(0.0, low), min(1.0, high), len(rows))


def _shuffled(pieces: Sequence[MusicPiece]) -> list[list[int]]:
    """Intervals of every piece with the notes of each voice in random order."""
    out = []
    for i, piece in enumerate(pieces):
        generator = np.random.default_rng(i)
        lines = {v: [line[j] for j in generator.permutation(len(line))] for v, line in piece.lines.items()}
        out.append(_intervals(MusicPiece(lines)))
    return out


# --------------------------------------------------------------------------- copies


def runs_of(piece: MusicPiece) -> Iterator[tuple[int, ...]]:
    """Every run of RUN notes of a voice as intervals and durations, which do not depend on the key."""
    for line in piece.lines.values():
        for i in range(len(line) - RUN + 1):
            notes = line[i : i + RUN]
            yield (*(b[0] - a[0] for a, b in zip(notes, notes[1:], strict=False)), *(d for _, d in notes))


def copies(evidence: Evidence) -> list[Score]:
    """Share of the samples' runs of 8 notes that occur in a training piece, in any key.

    Floor: held-out pieces, which share phrases with the training pieces. Control: training pieces, which are copies.
    """
    study = study_of(evidence)
    sets = music_sets_of(study)
    known = {run for piece in sets.train for run in runs_of(piece)}
    own, floor, control = (_copied(pieces, known) for pieces in (sets.samples(), sets.heldout, sets.real()))
    if own is None:
        raise Unmeasurable(f"no sample has {RUN} notes in a voice")
    values = (floor.value if floor else None, control.value if control else None)
    return [own.score(f"copied_runs_{RUN}", "lower", *values)]


def varied(evidence: Evidence) -> list[Score]:
    """Different runs of 8 notes, in any key, as a share of all runs of all samples. Floor: as many training pieces of
    the same lengths."""
    sets = music_sets_of(study_of(evidence))
    own, floor = (_different(pieces) for pieces in (sets.samples(), sets.real()))
    if own is None:
        raise Unmeasurable(f"no sample has {RUN} notes in a voice")
    return [own.score(f"distinct_runs_{RUN}", "none", floor.value if floor else None)]


def _different(pieces: Sequence[MusicPiece]) -> Estimate | None:
    runs = [list(runs_of(p)) for p in pieces]
    count = Counter(run for piece in runs for run in piece)
    if not count:
        return None
    return Estimate(len(count) / count.total(), None, None, count.total())


def _copied(pieces: Sequence[MusicPiece], known: set[tuple[int, ...]]) -> Estimate | None:
    hits = [[run in known for run in runs_of(p)] for p in pieces]
    hits = [h for h in hits if h]
    if not hits:
        return None
    copied = ratio(np.array([sum(h) for h in hits], np.float64), np.array([len(h) for h in hits], np.float64))
    if copied.low is None or copied.high is None:
        return copied
    return Estimate(copied.value, max(0.0, copied.low), min(1.0, copied.high), sum(map(len, hits)))


# --------------------------------------------------------------------------- verdict

FORMED = 0.1  # noise: the place of valid scores of music is below this, and their intervals are not those of music
TYPICAL = 0.8  # the place of validity, and the mean place of distributions, are above this, as for real music ...
FAIR = 0.5  # ... and the place of none of the distributions is below this
REPEATED = 0.4  # collapsed: different runs of notes are below this share of their floor


def judge_music(scores: Mapping[str, Score], plural: str) -> Judgement | None:
    """The judgement on scores of music; None without their validity."""
    if "valid_scores" not in scores:
        return None
    valid, share = place(scores["valid_scores"]), share_of_floor(scores["valid_scores"])
    values = {name: p for name, s in scores.items() if name.endswith("_divergence") and (p := place(s)) is not None}
    nearest, melody = min(values.values(), default=1.0), values.get("interval_divergence", 0.0)
    typical = nearest > FAIR and sum(values.values()) > TYPICAL * len(values)
    different = scores.get(f"distinct_runs_{RUN}")
    if different is not None and share_of_floor(different) < REPEATED:
        return "collapsed", f"The {plural} repeat themselves: {different.value:.0%} of their phrases are different."
    if nearest < SHAPED or (valid is not None and valid < FORMED and melody < TYPICAL):
        return "noise", (
            f"The {plural} are hardly music: from a random score to real music, their notes come {nearest:.0%} "
            f"of the way, intervals {melody:.0%}."
        )
    copied = scores.get(f"copied_runs_{RUN}")
    position = place(copied)
    if copied is not None and (copied.value if position is None else 1 - position) > VERBATIM:
        return "memorised", f"{copied.value:.0%} of the phrases of the {plural} are those of training {plural}."
    if typical and (valid is None or valid > TYPICAL):
        return (
            "good",
            f"{share:.0%} of the {plural} are valid scores, with the notes of real ones ({nearest:.0%} alike).",
        )
    if typical:
        return "recognisable", f"The {plural} are music, but only {share:.0%} of them are valid scores."
    return "recognisable", (
        f"The {plural} are music, and can be told from real ones: {share:.0%} of the usual share are valid scores, and "
        f"notes are distributed at least {nearest:.0%} of the way from a random score to real music."
    )


WORDS = {
    "valid_scores": ScoreWords(
        "valid scores", "The share of samples that are valid scores of music.", Question.FOLLOWS
    ),
    "copied_runs_8": ScoreWords(
        "copied phrases", "The share of runs of 8 notes that stand in a training piece.", Question.COPIED
    ),
    "distinct_runs_8": ScoreWords(
        "different phrases", "Different runs of 8 notes, as a share of all.", Question.VARIED
    ),
    **{
        f"{name}_divergence": ScoreWords(
            f"{name} divergence".replace("_", " "),
            "How far the distribution is from that of real music.",
            Question.REAL,
        )
        for name in FEATURES
    },
}
METRICS: tuple[Metric, ...] = (
    Metric("score_validity", score_space, validity, brief=True, words=WORDS, judge=judge_music),
    Metric("note_distributions", score_space, distributions, brief=True, words=WORDS),
    Metric("note_copies", score_space, copies, brief=True, words=WORDS),
    Metric("note_variety", score_space, varied, brief=True, words=WORDS),
)
