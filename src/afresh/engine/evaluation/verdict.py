"""A verdict on a model in plain words, from its scores, and the one thing that would help most.

The judges come with the metrics (`Metric.judge`). Their thresholds were fixed on models made to deserve each word
(tests/engine/evaluation/test_verdict.py). A score counts by its place between the control, 0, and the floor, 1: between
what something trivial scores and what real data scores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from afresh.core import Score, Word, registry
from afresh.core.plural import digits
from afresh.core.safe_text import shell_word
from afresh.engine.evaluation.card import ProtocolCard
from afresh.engine.evaluation.doubt import Doubt, Judge, doubt_of
from afresh.engine.evaluation.score_descriptions import words_of
from afresh.engine.evaluation.study import Measurement
from afresh.engine.evaluation.time_budget import LATE

MEANING: Mapping[Word, str] = {
    "noise": "nothing of the data can be recognised in the samples",
    "blurred": "the shapes are right, but fine detail is missing",
    "recognisable": "one can tell what the samples are, and that they are not real",
    "good": "the samples are close to real data that the model has not seen",
    "memorised": "the samples are copies of the training data",
    "collapsed": "the samples are variations of one or of a few",
    "unchanged": "the model draws what its base draws",
    "cannot tell": "the numbers allow more than one of these words",
    "not measured": "there are no scores to judge by",
}
UNDECIDED: tuple[Word, ...] = ("cannot tell", "not measured")
FEW = 50  # held-out items; with fewer, what samples are compared with is itself uncertain
# As many samples, or held-out items, that are asked for; beyond, a value lies on the border between two words.
MOST_SAMPLES, MOST_HELDOUT = 100, 10
SCARCE = 0.25  # of what usually suffices: with less data, more of it helps most, however short the training was

# What several judges share. A place is that of a score between its control, 0, and its floor, 1.
ALIKE = 1 / 3  # collapsed: distances between samples are below this share of those between held-out items
SHAPED = 1 / 3  # noise: the place of likeness, of a distance or of a distribution is below this
COPIED = 0.2  # memorised: near copies are above this share (of close ones, beyond their floor)
NEAR = 0.1  # good: a distance is below this, or below this share of that of the trivial model
VERBATIM = 0.3  # memorised: the place of copied runs between held-out items, 0, and training items, 1, is above this


@dataclass(frozen=True)
class Help:
    """The one thing that would help most, as a sentence, and the exact command, if there is one."""

    sentence: str
    command: str = ""


@dataclass(frozen=True)
class KnownFacts:
    """What is known of a run beside its scores. `examples` were seen in training, of `wanted` that suit its size.

    divided: whether items may be parts of a few long ones, whose number says little. ended: whether training ended
    itself, because the model began to learn its data by heart. taught: whether it is a base that is told texts and was
    taught something.
    """

    plural: str
    family: str = ""
    run: str = ""  # path
    data: str = ""  # path
    minutes: float | None = None
    examples: int | None = None
    wanted: int | None = None
    side: int | None = None  # pixels of an image
    stream: bool = False  # whether samples continue a prompt
    use: str = ""  # the command by which the run is used, if not by drawing samples
    divided: bool = False
    ended: bool = False
    taught: bool = False
    share: float = 1.0  # of the data that usually suffices
    lacking: str = ""  # in words, what there is and what usually suffices; empty where it suffices
    remedies: Mapping[Word, Help] = field(default_factory=dict)  # what the run's family proposes for a word


@dataclass(frozen=True)
class Verdict:
    """A word, the reason as a sentence, and what would help most with its command (empty if none exists)."""

    word: Word
    sentence: str
    help: str
    command: str

    @property
    def meaning(self) -> str:
        return MEANING[self.word]

    def json(self) -> dict[str, str]:
        return asdict(self)


def verdict(measured: Measurement, known: KnownFacts, better_now: Help | None = None) -> Verdict:
    """The verdict on a run. `better_now`: what a plan knows to work better in the same minutes, if anything."""
    scores, card = {s.name: s for s in measured.scores}, measured.card
    word: Word = "not measured"
    sentence, doubt = unmeasured(measured, known), None
    for name, judge in judges_of(measured).items():
        if measured.failed.get(name) == LATE:  # a later judge would ask another question
            break
        if (judgement := judge(scores, known.plural)) is not None:
            word, sentence = judgement
            doubt = None if word in UNDECIDED else doubt_of(judge, scores, known.plural, word, card.modality)
            break
    if doubt is not None:
        sentence, advice = doubt.sentence(word, card.modality), what_decides(doubt, known, card)
        word = "cannot tell"
    elif word in UNDECIDED and LATE in measured.failed.values():
        named = [name.replace("_", " ") for name, reason in measured.failed.items() if reason == LATE]
        sentence += f" To keep the minutes, this was left out: {', '.join(named)}."
        advice = measured_fully(known)
    else:
        advice = help_for(word, known, card.train_size, card.heldout_size, better_now)
    if word != "memorised":
        sentence += copied_words(scores, known.plural, card.modality)
    if word not in UNDECIDED and card.heldout_size < FEW and not known.divided:
        held = f"only {card.heldout_size} {'is' if card.heldout_size == 1 else 'are'} held out to compare with"
        sentence += f" Of the {known.plural}, {held}, so the numbers tell little."
    return Verdict(word, sentence, advice.sentence, advice.command)


def copied_words(scores: Mapping[str, Score], plural: str, modality: str) -> str:
    """Sentences on what the samples copied of the training data, with the same numbers of held-out items; empty if that
    was not measured."""
    out = []
    for name, words in words_of(scores, modality).items():
        if words.said:
            values = [v for v in (scores[name].value, scores[name].floor) if v is not None]
            number, *real = (f"{100 * v:.3g}%" if "{share}" in words.said else f"{v:,.0f}" for v in values)
            said = words.said.format(plural=plural, share=number, count=number)
            out.append(said + "".join(f" ({r} with real {plural})" for r in real))
    return f" Copies: {'; '.join(out)}." if out else ""


def judges_of(measured: Measurement) -> dict[str, Judge]:
    """The judges of the metrics that apply to what was measured, by metric, whether or not these could be computed."""
    without = measured.skipped.keys() - measured.failed.keys()
    metrics = registry.metrics(measured.card.modality)
    return {m.name: m.judge for m in metrics if m.judge is not None and m.name not in without}


def what_decides(doubt: Doubt, known: KnownFacts, card: ProtocolCard) -> Help:
    """What would settle the verdict: more samples or more held-out data, if there can be so many. More samples do not
    help where the score compares no more of them than there are held-out items."""
    samples, heldout = card.samples, card.heldout_size
    lacking = doubt.heldout or doubt.score.n == heldout < samples
    if doubt.times > (MOST_HELDOUT if doubt.heldout else MOST_SAMPLES):
        return Help("The score lies on the border: look at the samples and at the numbers in the report.")
    if lacking:
        wanted = rounded_up(doubt.times * heldout)
        return Help(f"About {wanted:,} held-out {known.plural} instead of {heldout:,} settle it: train on more data.")
    wanted = rounded_up(doubt.times * samples)
    return Help(f"About {wanted:,} samples instead of {samples:,} settle it.", measure_command(known, f" -n {wanted}"))


def rounded_up(n: float) -> int:
    """The next number with one digit that is not zero."""
    unit = 10 ** max(0, math.ceil(math.log10(n)) - 1)
    return math.ceil(n / unit) * unit


def unmeasured(measured: Measurement, known: KnownFacts) -> str:
    """Why there is no verdict."""
    judged = [m.name for m in registry.metrics(measured.card.modality) if m.judge is not None]
    reason = next((measured.failed[name] for name in judged if name in measured.failed), "")
    why = f": a metric {reason}" if reason.startswith("needs") else f": {reason}" if reason else ""
    return f"No verdict on these {known.plural}{why}."


# --------------------------------------------------------------------------- what judges ask of a score


def place(score: Score | None) -> float | None:
    """The place of a score between its control, 0, and its floor, 1; None if they are missing or nearly equal."""
    if score is None or score.floor is None or score.control is None:
        return None
    width = score.floor - score.control
    if abs(width) <= 0.05 * max(abs(score.floor), abs(score.control)):
        return None
    return (score.value - score.control) / width


def beside(score: Score | None, trivial: str = "a trivial model") -> str:
    """A score with its references, for a sentence: "0.82 (real data 0.9, a trivial model 0.3)"."""
    if score is None:
        return "not measured"
    known = [("real data", score.floor), (trivial, score.control)]
    listed = ", ".join(f"{name} {digits(value)}" for name, value in known if value is not None)
    return digits(score.value) + (f" ({listed})" if listed else "")


def share_of_floor(score: Score | None) -> float:
    """A score as a share of its floor; 1 if none exists."""
    return 1.0 if score is None or not score.floor else score.value / score.floor


# --------------------------------------------------------------------------- what would help most


def help_for(word: Word, known: KnownFacts, train: int, heldout: int, better_now: Help | None = None) -> Help:
    """The one thing that would help most, by the first rule that applies."""
    if word == "good" and known.use:
        return Help("Use it on what is new to it, and learn from what comes of that.", known.use)
    if word == "good":
        return Help(
            "Make as many as you like; then vote on pairs of them, and align the model to your votes.",
            sample_command(known),
        )
    if word == "cannot tell" and known.taught:
        return Help(
            f"Look at {known.plural} of its own texts beside those of others. If the others have changed too much, "
            "tune again with `train.preserve=1`.",
            sample_command(known),
        )
    if word == "cannot tell":
        return measured_fully(known)
    if word == "not measured":
        if heldout >= FEW:
            return Help("Look at the samples and at the numbers in the report: no single word sums them up.")
        return Help(f"More data: from about {10 * FEW} {known.plural} on, the {FEW} that are held out allow a verdict.")
    if word == "unchanged":
        return Help("More steps, or a higher rate (`train.lr`).")
    if word == "memorised":
        learnt = (
            f"There are {known.lacking}." if known.lacking else f"All {train:,} {known.plural} were learnt by heart."
        )
        return Help(
            f"Train for less time or, better, give more data. {learnt}",
            train_command(known, (known.minutes or 5) / 4),
        )
    if known.ended:
        return Help(
            f"More data: training ended itself, because the model began to learn its {train:,} {known.plural} by heart."
        )
    starved = known.examples is not None and known.wanted is not None and known.examples < known.wanted
    if known.lacking and (known.share < SCARCE or not starved):
        return Help(f"More data: there are {known.lacking}. Longer training repeats them.")
    if better_now is not None and word != "recognisable":
        return better_now
    if word in known.remedies:
        return known.remedies[word]
    if word == "noise" and starved and known.side is not None and known.side > 32:
        return Help(
            f"Smaller images are learnt sooner: 32 pixels a side instead of {known.side}.",
            train_command(known, known.minutes, size=32),
        )
    times = 4
    if starved and known.examples and known.wanted:
        times = min(64, max(2, round(known.wanted / known.examples)))
    more = train_command(known, times * (known.minutes or 5))
    return Help(f"Train about {'twice' if times == 2 else f'{times} times'} as long.", more)


def measured_fully(known: KnownFacts) -> Help:
    return Help("Measure it without a limit of minutes.", measure_command(known))


def measure_command(known: KnownFacts, options: str = "") -> str:
    return f"afresh measure {shell_word(known.run)}{options}" if known.run else ""


def train_command(known: KnownFacts, minutes: float | None, family: str = "", size: int | None = None) -> str:
    """The command that trains again on the same data, into a folder of its own; empty if the data is not known."""
    if not known.data:
        return ""
    data, out, family = shell_word(known.data), shell_word(f"{known.run.rstrip('/')}-2"), family or known.family
    length = f"{max(minutes or 5, 0.5):.3g}"
    if size is not None:
        return f"afresh train {data} --family {family} --data size={size} --minutes {length} --out {out}"
    return f"afresh train {data} --family {family} --minutes {length} --out {out}"


def sample_command(known: KnownFacts) -> str:
    """The command that makes more samples, or uses the run otherwise."""
    if known.use:
        return known.use
    run, out = shell_word(known.run), shell_word(f"{known.run.rstrip('/')}-samples")
    if known.stream:
        return f'afresh sample {run} -n 64 --prompt "..." --out {out}'
    return f"afresh sample {run} -n 64 --out {out}"
