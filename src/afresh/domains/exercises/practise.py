"""What a learner knows, and which exercise is next.

The chance of a right answer is the softmax of the two outcomes after the history and the exercise, together with that
of a filter of what is known, which tells what an answer would teach (knowledge_filter.py). Where none exists, what an
answer would teach is computed by answering in the learner's place, right and wrong, and asking the network again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from afresh.core import Branch, Cond, UserError
from afresh.core.plural import counted
from afresh.core.solver_progress import blocks
from afresh.core.verb import Line, Remark, ShownResult, Table
from afresh.domains.exercises.columns import outcome_of
from afresh.domains.exercises.encoder import WIDTH, AnswerEncoder
from afresh.domains.exercises.history import FIRST, Answer, AnswerHistory, gap_of
from afresh.domains.exercises.knowledge.learning import AHEAD
from afresh.domains.exercises.knowledge_filter import Teaching, teaching_of
from afresh.domains.exercises.log import LogOptions, read_log
from afresh.runs.about import read_report
from afresh.runs.data import run_data
from afresh.runs.run import Run

Array = NDArray[np.float64]
Index = NDArray[np.int64]
Policy = Literal["gain", "success"]
AFTER = 60.0  # seconds until the next answer, unless it is said
ANCHORS = 6  # exercises that stand for a skill, the most frequent of it
TEACHING = 1  # of those, when what is learnt is asked for all skills after each of two outcomes
POOL = 50  # exercises of a skill that may be next, the most frequent
RECENT = 3  # exercises answered last, which are not asked again at once
TEN = 10  # exercises of a skill, of which it is foretold how many are answered right
TOKENS = 1 << 17  # computed together
HALF = 0.5  # of the exercises of a skill: a learner who answers fewer of them right is stuck in it ...
EVEN = math.log(2)  # nats an answer of chances of one half
FAR = 0.1  # calibration error of chances that are too sure, if they also surprise more than foreseeing nothing does
TRIED = 3  # ... after as many answers
CLASS = 100  # learners of a class, those who answered last


@dataclass(frozen=True)
class KnownSkill:
    """A skill: the chance of a right answer to one of its exercises, the 95% interval of that chance, the answers seen,
    how many of the next TEN exercises are answered right, with a chance of 95%, from the least to the most, and how
    sure it is that fewer than HALF are, from 0 to 1."""

    skill: str
    chance: float
    low: float
    high: float
    answers: int
    of_ten: tuple[int, int]
    below_half: float

    @property
    def stuck(self) -> bool:
        return self.answers >= TRIED and self.chance < HALF

    def json(self) -> dict[str, Any]:
        return {**vars(self), "of_ten": list(self.of_ten)}


@dataclass(frozen=True)
class Next:
    """An exercise, the chance that it is answered right, and what it is expected to add to the mean chance of a right
    answer over all skills (None: not asked). `later`: what some answers that begin with it are expected to add, which
    orders the exercises; None where nothing tells it."""

    item: str
    skill: str
    chance: float
    gain: float | None
    why: str
    later: float | None = None


@dataclass(frozen=True)
class Practice(ShownResult):
    """What a learner knows, and the exercises to come, the best first."""

    learner: str
    answers: int
    known: tuple[KnownSkill, ...]
    next: tuple[Next, ...]
    notes: tuple[str, ...]
    trust: str = ""

    def json(self) -> dict[str, Any]:
        return {
            "learner": self.learner,
            "answers": self.answers,
            "known": [k.json() for k in self.known],
            "next": [vars(n) for n in self.next],
            "notes": list(self.notes),
        }

    def lines(self) -> list[Line]:
        """A table of what is known, and one of what is next."""
        known = [
            [k.skill, f"{k.chance:.0%}", f"{k.of_ten[0]} to {k.of_ten[1]}", f"{k.answers:,}"]
            for k in sorted(self.known, key=lambda k: -k.chance)
        ]
        told = all(n.later is not None for n in self.next)
        ahead = [[n.item, n.skill, f"{n.chance:.0%}", shown(n.later if told else n.gain), n.why] for n in self.next]
        teaches = f"in {AHEAD} answers" if told else "teaches"
        whose = f"learner {self.learner}" if self.learner else "these answers" if self.answers else "no answers yet"
        return [
            Table(["skill", f"right{self.trust}", f"of the next {TEN}", "answers"], known, right=(1, 2, 3), wrap=(0,)),
            Table(["next", "skill", f"right{self.trust}", teaches, "why"], ahead, right=(2, 3), wrap=(4,)),
            Remark(f"from {counted(self.answers, 'answer')}: {whose}"),
        ]


@dataclass(frozen=True)
class ClassView(ShownResult):
    """What the learners of a class know, those first of whom it is surest that they are stuck: each with the number of
    answers and all skills. `trust`: what is measured of the chances, in short."""

    learners: tuple[tuple[str, int, tuple[KnownSkill, ...]], ...]
    notes: tuple[str, ...]
    trust: str = ""

    @property
    def stuck(self) -> int:
        """How many learners are stuck in a skill."""
        return sum(any(k.stuck for k in known) for _, _, known in self.learners)

    def json(self) -> dict[str, Any]:
        """{learners: [{learner, answers, known, stuck}], skills: [{skill, chance, stuck}], notes}. `stuck` of a learner
        are names of skills, that of a skill names of learners, the surest first."""
        rows = [
            {
                "learner": learner,
                "answers": answers,
                "known": [k.json() for k in known],
                "stuck": [k.skill for k in known if k.stuck],
            }
            for learner, answers, known in self.learners
        ]
        of_skill: dict[str, list[tuple[KnownSkill, str]]] = {}
        for learner, _, known in self.learners:
            for k in known:
                of_skill.setdefault(k.skill, []).append((k, learner))
        skills = [
            {
                "skill": skill,
                "chance": sum(k.chance for k, _ in all_of) / len(all_of),
                "stuck": [who for k, who in sorted(all_of, key=lambda row: -row[0].below_half) if k.stuck],
            }
            for skill, all_of in of_skill.items()
        ]
        return {"learners": rows, "skills": skills, "notes": list(self.notes)}

    def lines(self) -> list[Line]:
        """A row for each learner: the skill that is the surest obstacle, or the weakest one that was tried."""
        rows = []
        for learner, answers, known in self.learners:
            stuck = [k for k in known if k.stuck]
            worst = stuck[0] if stuck else min(known, key=lambda k: (k.answers == 0, k.chance))
            more = f" and {len(stuck) - 1} more" if len(stuck) > 1 else ""
            of_ten = f"{worst.of_ten[0]} to {worst.of_ten[1]}"
            told = [f"stuck{more}", f"{worst.below_half:.0%}"] if stuck else ["weakest", ""]
            rows.append([learner, f"{answers:,}", worst.skill, *told, f"{worst.chance:.0%}", of_ten])
        heads = ["learner", "answers", "skill", "state", "sure", f"right{self.trust}", f"of the next {TEN}"]
        remark = (
            f"{self.stuck:,} of {counted(len(self.learners), 'learner')} stuck: fewer than half right in a skill after "
            f"{TRIED} answers to it or more"
        )
        return [Table(heads, rows, right=(1, 4, 5, 6), wrap=(2,)), Remark(remark)]


def shown(gain: float | None) -> str:
    return "" if gain is None else f"{gain:+.2%}"


def why_not(run: Run) -> str | None:
    """Why a run cannot tell what a learner knows, or None."""
    if not isinstance(run.encoder, AnswerEncoder):
        return (
            f"{run.path} makes {run.encoder.kind.plural}, and has not learnt how exercises are answered. Train a "
            "run on a log of answers: `afresh train LOG.csv`."
        )
    if run.family.branch is None:
        return (
            f"The family {run.record.family} does not tell how likely an outcome is. Train a transformer on the "
            "log: `afresh train LOG.csv --family transformer`."
        )
    return None


class Tracer:
    """The chances of right answers under a run. Raises UserError for a run that has not learnt answers to exercises, or
    whose family cannot tell them."""

    def __init__(self, run: Run) -> None:
        if (reason := why_not(run)) is not None:
            raise UserError(reason, "not_exercises")
        assert isinstance(run.encoder, AnswerEncoder) and run.family.branch is not None
        self.run, self.encoder = run, run.encoder
        self.branch: Branch = run.family.branch(run.modules, run.space)
        self.device = next(p for m in run.modules.values() for p in m.parameters()).device
        self.skill_of = np.array(self.encoder.skill_of)
        self.groups = self._groups()
        self.conds: dict[int, Cond] = {}
        self.timed = "time" in self.encoder.columns

    def _groups(self) -> list[tuple[str, list[int]]]:
        """Each skill with its exercises, the most frequent first; without skills, each exercise is one."""
        e = self.encoder
        order = np.argsort(-np.array(e.count), kind="stable")
        if not e.skills:
            return [(name, [i]) for i, name in enumerate(e.items)]
        groups = [(name, [int(i) for i in order if e.skill_of[i] == s]) for s, name in enumerate(e.skills)]
        return [(name, group) for name, group in groups if group]

    @cached_property
    def teaching(self) -> Teaching | None:
        """What practice teaches; None where nothing tells it but the network."""
        return teaching_of(self.run)

    def cond(self, size: int) -> Cond:
        """No condition. The same object each time, by which a Branch knows that what it keeps still holds."""
        return self.conds.setdefault(size, Cond(size))

    def gap(self, seconds: float) -> int:
        """The class of a gap; always that of no gap if the log had no times."""
        return gap_of(seconds) if self.timed else FIRST

    @property
    def room(self) -> int:
        """Answers of a history that fit into a window before an answer and an exercise."""
        return (self.run.space.shape[0] + 1 - 2 * WIDTH) // WIDTH

    def place(self, item: int) -> int:
        """The place of its skill; without skills, its own."""
        return int(self.skill_of[item]) if self.encoder.skills else item

    def skill(self, item: int) -> str:
        return self.encoder.skills[self.skill_of[item]] if self.skill_of[item] >= 0 else ""

    def question(self, item: int, gap: int) -> list[int]:
        """The tokens of a known exercise, by its place in `encoder.items`."""
        return self.encoder.question(self.encoder.items[item], self.skill(item), gap)

    def answered(self, item: int, gap: int, right: bool) -> list[int]:
        """The tokens of an answer to a known exercise."""
        name, skill = self.encoder.items[item], self.skill(item)
        return [*self.question(item, gap), self.encoder.outcome(name, skill, right)]

    def wrong(self, items: Sequence[int]) -> list[int]:
        """The tokens of a wrong answer to each of some exercises; that of a right one is the next."""
        return [self.encoder.outcome(self.encoder.items[i], self.skill(i), False) for i in items]

    def chances(
        self,
        histories: Sequence[AnswerHistory],
        stems: Sequence[Sequence[Sequence[int]]],
        items: Sequence[int],
        gap: int,
    ) -> Array:
        """The chance of a right answer to each of some exercises after each of M stems, which are tokens after B
        histories, equally many in all: (B, M, items)."""
        probes = [token for i in items for token in self.question(i, gap)]
        stem, each = len(stems[0][0]), WIDTH - 1
        wrong = torch.tensor(self.wrong(items))
        ids = [self.encoder.tokens(h.answers[-self.room :]) for h in histories]
        step = max(1, TOKENS // max(1, len(stems[0]) * (stem + len(probes)) + max(map(len, ids))))
        out = []
        for a in blocks(range(0, len(ids), step), "asking"):
            branches = torch.tensor([[[*s, *probes] for s in row] for row in stems[a : a + step]])
            out.append(self._chances(ids[a : a + step], branches, stem, each, wrong))
        return np.concatenate(out)

    def _chances(
        self, ids: Sequence[Sequence[int]], branches: torch.Tensor, stem: int, each: int, wrong: torch.Tensor
    ) -> Array:
        counts = torch.tensor([len(row) for row in ids])
        x = torch.zeros(len(ids), int(counts.max()), dtype=torch.int64)
        for row, tokens in zip(x, ids, strict=True):
            row[: len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
        x, counts, branches, wrong = (t.to(self.device) for t in (x, counts, branches, wrong))
        with torch.no_grad():
            logits = self.branch(x, counts, branches, stem, each, self.cond(len(ids)))  # (B, M, items, V)
        pair = torch.stack([wrong, wrong + 1], 1).expand(*logits.shape[:3], 2)
        both = logits.gather(3, pair)
        return (both[..., 1] - both[..., 0]).sigmoid().double().cpu().numpy()

    def of_items(self, histories: Sequence[AnswerHistory], items: Sequence[int], gap: int) -> Array:
        """The chance of a right answer to each of some exercises, (B, items)."""
        found = self.chances(histories, [[()]] * len(histories), items, gap)[:, 0]
        return found if self.teaching is None else self.teaching.together(found, histories, items, gap)

    def of_skills(self, histories: Sequence[AnswerHistory], gap: int, anchors: int = ANCHORS) -> Array:
        """The chance of a right answer, over the `anchors` most frequent exercises of each skill, (B, skills)."""
        items = [i for _, group in self.groups for i in group[:anchors]]
        chances = self.of_items(histories, items, gap)
        return np.stack([chances[:, a:b].mean(1) for a, b in self._spans(anchors)], 1)

    def _spans(self, anchors: int) -> list[tuple[int, int]]:
        ends = np.cumsum([len(group[:anchors]) for _, group in self.groups]).tolist()
        return list(zip([0, *ends[:-1]], ends, strict=True))

    def after_answers(
        self, histories: Sequence[AnswerHistory], items: Index, gap: int, anchors: int
    ) -> tuple[Array, Array]:
        """For each history and each of its own candidates `items` (B, C), the chances of each skill after a right and
        after a wrong answer to it, (B, C, skills) each."""
        asked = [i for _, group in self.groups for i in group[:anchors]]
        stems = [[self.answered(int(i), gap, right) for i in row for right in (True, False)] for row in items]
        chances = self.chances(histories, stems, asked, self.gap(AFTER))
        chances = chances.reshape(len(histories), items.shape[1], 2, len(asked))
        means = np.stack([chances[..., a:b].mean(-1) for a, b in self._spans(anchors)], -1)
        return means[:, :, 0], means[:, :, 1]


def pool(tracer: Tracer) -> list[int]:
    """The exercises that may be next: the most frequent of each skill."""
    return [i for _, group in tracer.groups for i in group[:POOL]]


def candidates(tracer: Tracer, histories: Sequence[AnswerHistory], chances: Array, success: float) -> Index:
    """Of each skill, the place in `pool` of the exercise whose chance (B, pool) is nearest to `success`, (B, skills).
    Those that were answered last are left out if there are others."""
    items = pool(tracer)
    place = {tracer.encoder.items[i]: at for at, i in enumerate(items)}
    far = np.abs(chances - success)
    for row, history in zip(far, histories, strict=True):
        for a in history.answers[-RECENT:]:
            if a.item in place:
                row[place[a.item]] += 1
    ends = np.cumsum([len(group[:POOL]) for _, group in tracer.groups if group]).tolist()
    return np.stack([a + far[:, a:b].argmin(1) for a, b in zip([0, *ends[:-1]], ends, strict=True)], 1)


def gains(
    tracer: Tracer, histories: Sequence[AnswerHistory], items: Index, chances: Array, gap: int
) -> tuple[Array, Array]:
    """What one answer to each exercise (B, C), one of each skill, is expected to add to the mean chance over all
    skills, and a score by which the best is next: that chance after some answers that begin with it.

    By the network alone, the score is the gain: both outcomes, weighted by how likely each is by `chances` (B, C),
    against what is known now.
    """
    if tracer.teaching is not None:
        return tracer.teaching.gains(histories, [tracer.place(group[0]) for _, group in tracer.groups], gap)
    right, wrong = (k.mean(-1) for k in tracer.after_answers(histories, items, gap, TEACHING))
    now = tracer.of_skills(histories, tracer.gap(AFTER), TEACHING).mean(1)
    found = chances * right + (1 - chances) * wrong - now[:, None]
    return found, found


def choose(tracer: Tracer, histories: Sequence[AnswerHistory], policy: Policy, success: float, gap: int) -> Index:
    """The next exercise of each of many learners, (B,), by its place in `encoder.items`."""
    items = np.array(pool(tracer))
    chances = tracer.of_items(histories, items.tolist(), gap)
    best = candidates(tracer, histories, chances, success)  # (B, skills)
    own = np.take_along_axis(chances, best, 1)
    score = -np.abs(own - success) if policy == "success" else gains(tracer, histories, items[best], own, gap)[1]
    return items[best[np.arange(len(best)), score.argmax(1)]]


def knowledge(tracer: Tracer, histories: Sequence[AnswerHistory], gap: int) -> list[tuple[KnownSkill, ...]]:
    """What each learner knows: for each skill the chance of a right answer, its interval, and how many of the next TEN
    are answered right.

    The interval is that of a beta distribution with the chance as its mean and a variance that is the larger of two:
    that of a skill which is known or not, by the filter; and the one that the network implies: of answers that can be
    exchanged, the covariance of two is the variance of what lies behind them (de Finetti), and it is p (1 - p) (K+ -
    K-), where p is the chance of an answer, and K+ and K- are those of the skill after it was right and wrong.
    """
    groups = [group for _, group in tracer.groups]
    chance = tracer.of_skills(histories, gap)
    first = np.array([[group[0] for group in groups]])
    p = tracer.of_items(histories, first[0].tolist(), gap)
    right, wrong = tracer.after_answers(histories, first.repeat(len(histories), 0), gap, ANCHORS)
    own = np.arange(len(groups))
    spread = np.clip(p * (1 - p) * (right - wrong)[:, own, own], 0, None)
    if tracer.teaching is not None:
        alone = tracer.chances(histories, [[()]] * len(histories), first[0].tolist(), gap)[:, 0]
        spread = np.maximum(spread, tracer.teaching.doubt(alone, histories, first[0].tolist(), gap))
    out = []
    for history, chances, variances in zip(histories, chance.tolist(), spread.tolist(), strict=True):
        seen = [a.skill if tracer.encoder.skills else a.item for a in history.answers]
        out.append(
            tuple(
                KnownSkill(name, k, *interval(k, v), seen.count(name), right_of_ten(k, v), below(HALF, k, v))
                for (name, _), k, v in zip(tracer.groups, chances, variances, strict=True)
            )
        )
    return out


def right_of_ten(mean: float, variance: float) -> tuple[int, int]:
    """The central 95% of the number of right answers among the next TEN, whose chance has this mean and variance: of a
    beta-binomial distribution, or of a binomial one where the chance is certain."""
    from scipy.stats import betabinom, binom

    if (strength := strength_of(mean, variance)) is None:
        low, high = binom.ppf([0.025, 0.975], TEN, mean)
    else:
        low, high = betabinom.ppf([0.025, 0.975], TEN, mean * strength, (1 - mean) * strength)
    return max(0, int(low)), int(high)


def strength_of(mean: float, variance: float) -> float | None:
    """The sum of the two parameters of the beta distribution with this mean and variance; None of a certain chance."""
    most = mean * (1 - mean)
    return None if variance <= 1e-9 * most or most == 0 else most / min(variance, 0.999 * most) - 1


def interval(mean: float, variance: float) -> tuple[float, float]:
    """The central 95% of the beta distribution with this mean and variance."""
    from scipy.stats import beta

    if (strength := strength_of(mean, variance)) is None:
        return mean, mean
    low, high = beta.ppf([0.025, 0.975], mean * strength, (1 - mean) * strength)
    return float(min(low, mean)), float(max(high, mean))


def below(limit: float, mean: float, variance: float) -> float:
    """The share of the beta distribution with this mean and variance that is below a limit."""
    from scipy.stats import beta

    if (strength := strength_of(mean, variance)) is None:
        return float(mean < limit)
    return float(beta.cdf(limit, mean * strength, (1 - mean) * strength))


def class_view(run: Run, after: float = AFTER) -> ClassView:
    """What the learners of the run's data know `after` seconds from their last answers: who is stuck, in what, and how
    sure that is. Raises UserError for a run that cannot tell, and if its data is not there."""
    tracer, all_of = Tracer(run), list(learners_of(run).values())
    last = sorted(all_of, key=lambda h: (h.answers[-1].time or 0.0 if h.answers else 0.0, len(h)), reverse=True)[:CLASS]
    rows = []
    for history, known in zip(last, knowledge(tracer, last, tracer.gap(after)), strict=True):
        order = sorted(known, key=lambda k: (not k.stuck, -k.below_half))
        rows.append((history.learner, len(history), tuple(order)))
    rows.sort(key=lambda row: (not row[2][0].stuck, -row[2][0].below_half))
    trust, said = trust_in(tracer)
    more = len(all_of) - len(last)
    notes = [said, *([f"{counted(more, 'learner')} not shown: these {len(last):,} answered last"] if more else [])]
    return ClassView(tuple(rows), tuple(notes), trust)


def trust_in(tracer: Tracer) -> tuple[str, str]:
    """What is measured of the chances that are shown: in short, for the head of a column, and as a sentence."""
    checked = () if tracer.teaching is None else tracer.teaching.checked
    if checked:
        n, error, loss = checked
        where = f"on {n:,.0f} answers of learners that training has not seen"
    else:
        scores = {s["name"]: s["value"] for s in read_report(tracer.run.path).scores}
        if "answers_calibration_error" not in scores:
            return (
                " (unchecked)",
                f"how far the chances can be trusted is not measured: afresh measure {tracer.run.path}",
            )
        error, loss = scores["answers_calibration_error"], scores.get("answers_log_loss", 0.0)
        where = "on the held-out answers, by the network alone"
    if loss > EVEN and error > FAR:
        return " (too sure)", f"the chances are far too sure {where}: go by their order, not by their size"
    return f" (±{error:.0%})", f"the chances are {error:.0%} off on average {where}"


def practice_for(
    run: Run,
    history: AnswerHistory,
    *,
    success: float = 0.7,
    policy: Policy = "gain",
    k: int = 3,
    after: float = AFTER,
    skill: str | None = None,
) -> Practice:
    """What the learner of `history` knows, and the `k` next exercises.

    `policy`: "gain", the exercise after which most is expected to be known a few answers later, or "success", the
    exercise whose chance of success is nearest to `success`; of each skill, the exercise nearest to `success` stands
    for it. `after`: seconds since the last answer. `skill`: only exercises of it.

    Raises UserError for a run that cannot tell, values out of range, and a skill that does not exist.
    """
    if not 0 < success < 1 or k < 1 or not 0 <= after < 1e10:
        raise UserError(
            "success is a chance between 0 and 1, k at least 1, and after a number of seconds. "
            f"Given: {success:g}, {k}, {after:g}."
        )
    tracer = Tracer(run)
    names = [name for name, _ in tracer.groups]
    if skill is not None and skill not in names:
        more = ", ..." if len(names) > 20 else ""
        raise UserError(f"No skill {skill!r}. Skills: {', '.join(names[:20])}{more}.")
    gap = tracer.gap(after) if len(history) else FIRST
    items = np.array(pool(tracer))
    chances = tracer.of_items([history], items.tolist(), gap)
    best = candidates(tracer, [history], chances, success)
    own = chances[0, best[0]]
    gain, score = (x[0] for x in gains(tracer, [history], items[best], own[None], gap))
    later = None if tracer.teaching is None else score - tracer.teaching.known([history], gap)[0]
    score = score if policy == "gain" else -np.abs(own - success)
    (known,) = knowledge(tracer, [history], gap)
    order = [i for i in np.argsort(-score, kind="stable").tolist() if skill is None or names[i] == skill]
    chosen = [
        Next(
            tracer.encoder.items[items[best[0, i]]],
            names[i] if tracer.encoder.skills else "",
            float(own[i]),
            float(gain[i]),
            reason(policy, place == 0, float(own[i]), float(gain[i]), then, known[i], success),
            then,
        )
        for place, i in enumerate(order[:k])
        for then in [None if later is None else float(later[i])]
    ]
    trust, said = trust_in(tracer)
    notes = [*notes_on(tracer, history), said]
    if len(chosen) < k:
        each = "each skill" if tracer.encoder.skills else "each exercise"
        only = f" `skill` leaves {skill}." if skill is not None else ""
        notes.append(f"{len(chosen):,} of {k:,} exercises named: {each} has one, the best of it.{only}")
    return Practice(history.learner, len(history), known, tuple(chosen), tuple(notes), trust)


def reason(
    policy: Policy, first: bool, chance: float, gain: float, later: float | None, known: KnownSkill, success: float
) -> str:
    """Why an exercise is next, as a sentence: by what the exercises are ordered. `first`: whether it is the best."""
    state = f"{known.skill or 'It'} is answered right with {known.chance:.0%}"
    if policy == "success":
        near = "nearest to" if first else "near to"
        return f"its chance of success, {chance:.0%}, is {near} {success:.0%}; {state}"
    most = "most " if first else ""
    if later is None:
        return f"it is expected to add {most}to all skills together ({gain:+.2%} by this answer); {state}"
    return (
        f"{AHEAD} answers that begin with it are expected to add {most}to all skills together ({later:+.2%}); {state}"
    )


def notes_on(tracer: Tracer, history: AnswerHistory) -> list[str]:
    """What the model does not see of a history."""
    out = []
    unknown = sum(a.item not in tracer.encoder.item_ids for a in history.answers)
    if unknown:
        out.append(
            f"{unknown:,} of {len(history):,} answers are to exercises that training does not know: they share a token"
        )
    if len(history) > tracer.room:
        out.append(f"only the last {tracer.room:,} of {len(history):,} answers fit into the model's window")
    return out


# --------------------------------------------------------------------------- histories


def learners_of(run: Run) -> dict[str, AnswerHistory]:
    """The history of each learner in the run's data. Raises UserError if the data is gone or has changed."""
    p = run_data(run)
    return {i.value.learner: i.value for i in (*p.train_items, *p.heldout_items)}


def history_of(run: Run, learner: str) -> AnswerHistory:
    """The history of a learner in the run's data. Raises UserError, naming some, if there is none."""
    found = learners_of(run)
    if learner not in found:
        near = get_close_matches(learner, found, n=3) or list(found)[:3]
        raise UserError(
            f"No learner {learner!r} in {run.record.data.path}, but {', '.join(near)} and others. "
            "`learner=all` lists them."
        )
    return found[learner]


def history_in(run: Run, text: str) -> AnswerHistory:
    """A history in words, `item:right,item:wrong,...`, a minute apart, or in a table of one learner, as logs have
    them. Raises UserError for anything else."""
    path = Path(text)
    if ":" not in text or path.is_file():
        items = read_log(path, LogOptions()).items
        if len(items) != 1:
            raise UserError(f"{path} has {len(items):,} learners. Give the answers of one.")
        value: AnswerHistory = items[0].value
        return value
    answers: list[tuple[str, bool]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        item, _, outcome = part.rpartition(":")
        right = outcome_of(outcome)
        if not item or right not in (0.0, 1.0):
            raise UserError(
                f"{part!r} is not an answer. A history is item:right,item:wrong,..., or a table of one learner."
            )
        answers.append((item.strip(), right == 1))
    return history_from(run, answers)


def history_from(run: Run, answers: Sequence[tuple[str, bool] | Mapping[str, Any]]) -> AnswerHistory:
    """A history of answers, with the skills that the exercises had in training; those without a time are a minute
    apart. Raises UserError for a run that has not learnt answers."""
    tracer = Tracer(run)
    skills = {item: tracer.skill(i) for i, item in enumerate(tracer.encoder.items)}
    given = [(*a, AFTER) if isinstance(a, tuple) else (a["item"], a["correct"], a.get("after", AFTER)) for a in answers]
    return AnswerHistory(
        tuple(
            Answer(item, right, skills.get(item, ""), tracer.gap(seconds) if i else FIRST)
            for i, (item, right, seconds) in enumerate(given)
        )
    )
