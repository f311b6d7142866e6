"""A verdict on a model in plain words, from its scores, and the one thing that would help most.

The thresholds were fixed on models made to deserve each word (tests/evaluation/test_verdict.py). A score counts by its
place between the control, 0, and the floor, 1: between what something trivial scores and what real data scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from afresh.core import Score
from afresh.core.safe_text import shell_word
from afresh.evaluation.study import Measurement

Word = Literal["noise", "blurred", "recognisable", "good", "memorised", "collapsed", "not measured"]
Judgement = tuple[Word, str]  # and why, as a sentence
Scores = Mapping[str, Score]

MEANING: Mapping[Word, str] = {
    "noise": "nothing of the data can be recognised in the samples",
    "blurred": "the shapes are right, but fine detail is missing",
    "recognisable": "one can tell what the samples are, and that they are not real",
    "good": "the samples are close to real data that the model has not seen",
    "memorised": "the samples are copies of the training data",
    "collapsed": "the samples are variations of one or of a few",
    "not measured": "the scores do not allow a verdict",
}
FEW = 50  # held-out items; with fewer, intervals are so wide that numbers tell little
SMALL = 300  # training items; with fewer, more of them help most once the model has seen enough examples

# Collapsed: distances between samples, in values and in features, as shares of those between held-out items, are below
# both. Blurred images come near in values, and noise does in features. Without features, the second share is that of
# distances in values between blurred held-out items.
ALIKE, ALIKE_BESIDE = 1 / 3, 0.5
MISSED = 0.15  # collapsed as well: samples are precise, but recall is below this share of its floor
SHAPED = 1 / 3  # noise: the place of likeness is below this
SOFT = 0.5  # blurred: sharpness is below the geometric mean of floor and control, by this power
COPIED = 0.2  # memorised: the interval of near copies begins above this share (of close ones, beyond their floor)
NEAR = 0.1  # good: the kernel distance is below this, or below this share of that of the trivial model
DENSE = 0.6  # good: density and coverage are above this share of their floors
LIKE = 0.7  # good: the place of likeness is above this, so that few samples are noise
WORDS = 1 / 3  # noise: the place of known words is below this; half of the words of code are names, which models alter
FORMED = 0.1  # noise: the place of valid scores of music is below this
VALID = 0.5  # noise: the share of valid items is below this share of its floor
REPEATED = 0.4  # collapsed: distinct three-word sequences are below this share of their floor
VERBATIM = 0.3  # memorised: the place of verbatim runs between held-out text, 0, and training text, 1, is above this
PREDICTED = 0.65  # good: bits per byte are below this share of those of lzma after the training text


@dataclass(frozen=True)
class Known:
    """What is known of a run beside its scores. `examples` were seen in training, of `wanted` that suit its size."""

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
    flow_minutes: float | None = None  # after which the flow should draw recognisable images, where it was measured


@dataclass(frozen=True)
class Help:
    """The one thing that would help most, as a sentence, and the exact command, if there is one."""

    sentence: str
    command: str = ""


@dataclass(frozen=True)
class Verdict:
    """A word, the reason as a sentence, and what would help most with its command (empty if there is none)."""

    word: Word
    sentence: str
    help: str
    command: str

    @property
    def meaning(self) -> str:
        return MEANING[self.word]

    def json(self) -> dict[str, str]:
        return asdict(self)


def verdict(measured: Measurement, known: Known, better_now: Help | None = None) -> Verdict:
    """The verdict on a run. `better_now`: what a plan knows to work better in the same minutes, if anything."""
    scores = {s.name: s for s in measured.scores}
    judgements = (judge(scores, known.plural) for need, judge in JUDGES.items() if need in scores)
    word, sentence = next(judgements, None) or ("not measured", unmeasured(measured, known))
    heldout = measured.card.heldout_size
    if word != "not measured" and heldout < FEW:
        sentence += f" Only {heldout} held-out {known.plural} were there to compare with, so the numbers tell little."
    advice = help_for(word, known, measured.card.train_size, heldout, better_now)
    return Verdict(word, sentence, advice.sentence, advice.command)


def unmeasured(measured: Measurement, known: Known) -> str:
    """Why there is no verdict."""
    reason = next((measured.skipped[name] for name in NEEDED if name in measured.skipped), "")
    why = f": a metric {reason}" if reason.startswith(("needs", "measures")) else f": {reason}" if reason else ""
    return f"There is no verdict on these {known.plural}{why}."


# --------------------------------------------------------------------------- judgements


def place(score: Score | None) -> float | None:
    """The place of a score between its control, 0, and its floor, 1; None if they are missing or nearly equal."""
    if score is None or score.floor is None or score.control is None:
        return None
    width = score.floor - score.control
    if abs(width) <= 0.05 * max(abs(score.floor), abs(score.control)):
        return None
    return (score.value - score.control) / width


def share_of_floor(score: Score | None) -> float:
    """A score as a share of its floor; 1 if there is none."""
    return 1.0 if score is None or not score.floor else score.value / score.floor


def judge_images(scores: Scores, plural: str) -> Judgement:
    """The judgement on images and spectra of sounds."""
    few = "kid" not in scores  # so few images that only values were compared
    values, features = scores.get("variety/pixels"), scores.get("variety")
    spread = share_of_floor(values)
    other = values.value / values.control if few and values and values.control else share_of_floor(features)
    if spread < ALIKE and other < ALIKE_BESIDE:
        return "collapsed", f"The {plural} are nearly all alike: they differ {spread:.0%} as much as real ones."
    precise, recalled, covered = (share_of_floor(scores.get(name)) for name in ("precision", "recall", "coverage"))
    if precise > 0.5 and recalled < MISSED and covered < 0.5:
        return "collapsed", f"The {plural} are of a few sorts only: they cover {covered:.0%} of what real ones cover."
    shaped = place(scores["likeness"])
    if shaped is not None and shaped < SHAPED:
        return "noise", f"The {plural} are noise: they resemble the training {plural} hardly more than random ones do."
    copied = copied_share(scores)
    if copied is not None:
        return "memorised", f"{copied:.0%} of the {plural} are near copies of training {plural}."
    sharp = scores["sharpness"]
    if sharp.floor and sharp.control and sharp.value < sharp.floor * (sharp.control / sharp.floor) ** SOFT:
        share = sharp.value / sharp.floor
        return "blurred", f"The {plural} are blurred: they have {share:.0%} of the fine detail of real ones."
    if few:
        return "recognisable", (
            f"One recognises what the {plural} show; with so few real ones, scores do not tell whether they are good."
        )
    distance, trivial = scores["kid"].value, scores["kid/pixel_gaussian"].value
    near = distance <= NEAR * max(1.0, trivial)
    dense = min(share_of_floor(scores[name]) for name in ("density", "coverage"))
    if near and dense >= DENSE and (shaped is None or shaped > LIKE):
        return "good", f"The {plural} are close to real ones that the model has not seen, and as varied."
    return "recognisable", f"One recognises what the {plural} show, and can tell that they are not real."


def copied_share(scores: Scores) -> float | None:
    """The share of images that are copies, if it is above what real or blurred images have; else None."""
    close = scores.get("close_copies")
    if close is not None:
        floor = close.floor or 0.0  # near duplicates in the data
        if (close.low or 0.0) > floor + COPIED * (1 - floor):
            return close.value
    copies, blurred = scores.get("near_copies"), scores.get("near_copies/blurred")
    by_blur = 0.0 if blurred is None else blurred.value
    if copies is not None and (copies.low or 0.0) > COPIED and copies.value > 2 * by_blur:
        return copies.value
    return None


def judge_texts(scores: Scores, plural: str) -> Judgement | None:
    """The judgement on texts; None if words do not tell text from random letters, as without spaces."""
    words = scores["known_words"]
    known = place(words)
    if known is None or words.floor is None or words.control is None or words.floor - words.control < 0.2:
        return None
    distinct = share_of_floor(scores.get("distinct_3"))
    if distinct < REPEATED:
        return "collapsed", f"The {plural} repeat themselves: they have {distinct:.0%} of the variety of real ones."
    if known < WORDS:
        return "noise", f"The {plural} are letters rather than words: {words.value:.0%} of it are words of the data."
    copied = scores.get("verbatim_50")
    if copied is not None and (1 - (place(copied) or 0.0) if place(copied) is not None else copied.value) > VERBATIM:
        return "memorised", f"{copied.value:.0%} of the {plural} occur in the training text word for word."
    bits = scores.get("bits_per_byte")
    if bits is not None and bits.control is not None and bits.value < PREDICTED * bits.control:
        return "good", f"The {plural} read like real ones: the model predicts unseen text far better than a compressor."
    return "recognisable", f"The {plural} consist of words of the data, but make little sense together."


def judge_music(scores: Scores, plural: str) -> Judgement:
    """The judgement on scores of music."""
    valid = place(scores["valid_scores"])
    values = [p for name, s in scores.items() if name.endswith("_divergence") and (p := place(s)) is not None]
    nearest = min(values, default=1.0)
    if (valid is not None and valid < FORMED) or nearest < SHAPED:
        return "noise", f"The {plural} are hardly music: their notes are as those of a random score."
    copied = scores.get("copied_runs_8")
    position = place(copied)
    if copied is not None and (copied.value if position is None else 1 - position) > VERBATIM:
        return "memorised", f"{copied.value:.0%} of the phrases of the {plural} are those of training {plural}."
    if nearest > 0.8 and (valid is None or valid > 0.8):
        return "good", f"The {plural} are valid scores, and their notes are distributed as those of real ones."
    if nearest > 0.8:
        share = share_of_floor(scores["valid_scores"])
        return "recognisable", f"The {plural} are music, but only {share:.0%} of them are valid scores."
    return "recognisable", f"The {plural} are music, and can be told from real ones."


def judge_items(scores: Scores, plural: str) -> Judgement | None:
    """The judgement on items that are compared by features of their own."""
    spread = share_of_floor(scores.get("items_diversity"))
    if spread < ALIKE:
        return "collapsed", f"The {plural} are nearly all alike: they differ {spread:.0%} as much as real ones."
    near = place(scores["items_kid"])
    valid = share_of_floor(scores.get("items_valid"))
    if near is None:
        return None
    if valid < VALID or near < SHAPED:
        return "noise", f"The {plural} are like ones whose parts were drawn independently."
    copies = scores.get("items_near_copies")
    if copies is not None and (copies.low or 0.0) > COPIED:
        return "memorised", f"{copies.value:.0%} of the {plural} are near copies of training {plural}."
    if near > 1 - NEAR and valid > 0.9:
        return "good", f"The {plural} are close to real ones that the model has not seen, and as varied."
    return "recognisable", f"The {plural} resemble real ones, and can be told from them."


def judge_recommendations(scores: Scores, plural: str) -> Judgement | None:
    """The judgement on recommendations, beside what is popular and a model that is no network."""
    own, popular = scores["NDCG@10"], scores.get("NDCG@10/popularity")
    others = [name for name in scores if name.startswith("NDCG@10/") and name != "NDCG@10/popularity"]
    if popular is None or not others:
        return None
    other = max(others, key=lambda name: scores[name].value)
    beside = scores[other]
    numbers = f"(NDCG@10 {own.value:.3f}; {other.partition('/')[2]} {beside.value:.3f}, popularity {popular.value:.3f})"
    if own.value <= popular.value:
        return "noise", f"What is popular with all is recommended better {numbers}."
    if own.value < beside.value:
        return "recognisable", f"The recommendations fit the user, but a simpler model has better ones {numbers}."
    return "good", f"The recommendations are as good as those of a simpler model, or better {numbers}."


# by the score that a judge cannot do without
JUDGES: Mapping[str, Callable[[Scores, str], Judgement | None]] = {
    "likeness": judge_images,
    "valid_scores": judge_music,
    "items_kid": judge_items,
    "known_words": judge_texts,
    "NDCG@10": judge_recommendations,
}
NEEDED = ("likeness", "score_validity", "known_words", "items_distance")  # metrics, the most telling reason first


# --------------------------------------------------------------------------- what would help most


def help_for(word: Word, known: Known, train: int, heldout: int, better_now: Help | None = None) -> Help:
    """The one thing that would help most, by the first rule that applies."""
    if word == "good" and known.use:
        return Help("Use it on what is new to it, and learn from what comes of that.", known.use)
    if word == "good":
        return Help(
            "Make as many as you like; then vote on pairs of them, and align the model to your votes.",
            sample_command(known),
        )
    if word == "not measured":
        if heldout >= FEW:
            return Help("Look at the samples and at the numbers in the report: no single word sums them up.")
        return Help(f"More data: from about {10 * FEW} {known.plural} on, the {FEW} that are held out allow a verdict.")
    if word == "memorised":
        learnt = "the text was" if known.stream else f"{train:,} {known.plural} were"
        return Help(
            f"Fewer minutes, or better more data: {learnt} learnt by heart.",
            train_command(known, (known.minutes or 5) / 4),
        )
    if better_now is not None and word != "recognisable":
        return better_now
    starved = known.examples is not None and known.wanted is not None and known.examples < known.wanted
    if word == "blurred" and known.family == "vae":
        return Help(
            f"The flow gives sharper {known.plural} than the VAE, and needs more minutes.",
            train_command(known, known.flow_minutes or 4 * (known.minutes or 5), family="flow"),
        )
    if word == "collapsed" and known.family == "gan":
        return Help("The VAE does not collapse as a GAN can.", train_command(known, known.minutes, family="vae"))
    if word == "noise" and starved and known.side is not None and known.side > 32:
        return Help(
            f"Smaller images are learnt sooner: 32 pixels a side instead of {known.side}.",
            train_command(known, known.minutes, size=32),
        )
    if word != "noise" and not starved and train < SMALL and not known.stream:
        return Help(f"More data: {train:,} {known.plural} are few to learn from.")
    times = 4
    if starved and known.examples and known.wanted:
        times = min(64, max(2, round(known.wanted / known.examples)))
    more = train_command(known, times * (known.minutes or 5))
    return Help(f"{in_words(times)} the minutes.", more)


def in_words(times: int) -> str:
    return {2: "Twice", 3: "Three times", 4: "Four times"}.get(times, f"{times} times")


def train_command(known: Known, minutes: float | None, family: str = "", size: int | None = None) -> str:
    """The command that trains again on the same data, into a folder of its own; empty if the data is not known."""
    if not known.data:
        return ""
    data, out, family = shell_word(known.data), shell_word(f"{known.run.rstrip('/')}-2"), family or known.family
    length = f"{max(minutes or 5, 0.5):.3g}"
    if size is not None:
        return f"afresh train {data} --family {family} --data size={size} --minutes {length} --out {out}"
    return f"afresh train {data} --family {family} --minutes {length} --out {out}"


def sample_command(known: Known) -> str:
    """The command that makes more samples, or uses the run otherwise."""
    if known.use:
        return known.use
    run, out = shell_word(known.run), shell_word(f"{known.run.rstrip('/')}-samples")
    if known.stream:
        return f'afresh sample {run} -n 64 --prompt "..." --out {out}'
    return f"afresh sample {run} -n 64 --out {out}"
