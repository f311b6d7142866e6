"""Comparisons of samples by people: drawing samples, choosing pairs, and recording votes.

Samples are drawn once and saved in a folder beside the file of votes, with a record of their run, request and seed. The
same command therefore continues with exactly the same samples on any machine, even if the run has changed since, and
the runs that each vote compares are known.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from afresh.core import ItemKind, Preview, UserError, events
from afresh.core.plural import counted
from afresh.core.rng import Rng
from afresh.data.storage.files import replace_file
from afresh.engine.alignment.feedback.preferences import (
    Candidate,
    Pair,
    Vote,
    Winner,
    item_of,
    kind_of_item,
    scan,
    value_of,
)
from afresh.engine.alignment.feedback.ranking import ask
from afresh.engine.alignment.feedback.vote_summary import VoteTally, by_request, tally
from afresh.engine.alignment.feedback.votes import append, line_of, repair, unjudged, withdraw
from afresh.engine.sampling.request import Request, of_kind
from afresh.engine.training import checkpoint
from afresh.engine.training.weights import CHOSEN, EARLY, FITTED
from afresh.runs.run import Run
from afresh.verbs.sample import Sampler

MAX_PAIRS = 1000  # of one command, as choosing pairs is slow with more samples
MIN_VOTES = 10  # of a rater before the most informative pairs are chosen
QUESTION = "Which is better?"
CHOSEN_PAIRS = 5  # that are chosen together


# --------------------------------------------------------------------------- samples, drawn once


def written(text: str) -> str:
    """A text in which characters that UTF-8 cannot represent are escaped, as in samples.jsonl."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class PairRequest:
    """A request by the user. Several prompts are used in turn; conditions that are not given are drawn as in
    training."""

    prompts: tuple[str, ...] = ()
    label: str | Mapping[str, str] | None = None
    caption: str | None = None
    raw: bool = False


@dataclass(frozen=True)
class Asked:
    """The request of both samples of a pair; `labels` are pairs of name and class."""

    prompt: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    caption: str | None = None
    raw: bool = False

    @property
    def words(self) -> tuple[str | None, str | None]:
        """The prompt (or the caption of an image) and the label, as in votes."""
        label = self.labels[0][1] if len(self.labels) == 1 else ", ".join(f"{k}={v}" for k, v in self.labels)
        prompt = self.prompt or self.caption
        return (written(prompt) if prompt else None), (written(label) or None)


def requests(runs: Sequence[Run], wish: PairRequest, n: int, seed: int) -> Counter[Asked]:
    """The number of pairs of each request, n in total. Raises UserError if the first run cannot fulfil a request."""
    run = runs[0]
    prompts = [wish.prompts[i % len(wish.prompts)] for i in range(n)] if wish.prompts else None
    _, described, _ = run.condition(n, Request(prompts, wish.label, {}, wish.caption, wish.raw), seed)
    parts = of_kind(run.conds, "label")
    # A label that was drawn, not requested, is only used if all runs have it.
    known = wish.label is not None or all(of_kind(r.conds, "label") == parts for r in runs)
    out: Counter[Asked] = Counter()
    for row in described:
        label = row["label"]
        named = label if isinstance(label, Mapping) else dict.fromkeys(parts, label)
        labels = tuple((k, v) for k, v in named.items() if v is not None and known)
        out[Asked(row["prompt"], labels, wish.caption, wish.raw)] += 1
    return out


def weights_of(run: Run) -> str:
    """An identifier of the weights that a run samples with, from the saved hashes of its files."""
    root = run.path / "checkpoints"
    files = [root / name / checkpoint.SUMS for name in checkpoint.steps_in(root)[-1:]]
    files += [run.path / f"{name}.sha256" for name in (CHOSEN, FITTED, EARLY)]
    hashes = b"\n".join(f.read_bytes() if f.exists() else b"-" for f in files)
    return hashlib.sha256(hashes + str(run.record.base_sha256).encode()).hexdigest()[:16]


def items_folder(votes: Path) -> Path:
    return votes.with_name(f"{votes.stem}-items")


def owners(votes: Path) -> dict[Candidate, set[tuple[str, str]]]:
    """The runs (name, weights) that drew each candidate, from the records beside a file of votes."""
    out: dict[Candidate, set[tuple[str, str]]] = {}
    for file in sorted(items_folder(votes).glob("*.json")):
        record = read_record(file)
        for item in map(str, record.get("items", [])):
            candidate = Candidate(item, record.get("prompt"), record.get("label"))
            out.setdefault(candidate, set()).add((str(record.get("run")), str(record.get("weights"))))
    return out


def read_record(file: Path) -> dict[str, Any]:
    """The record of saved samples; empty if the file is missing or is not such a record."""
    try:
        record = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and isinstance(record.get("items"), list) else {}


def draw(run: Run, asked: Asked, k: int, seed: int, settings: Mapping[str, Any], votes: Path) -> list[str]:
    """The first k samples for a request as items. Saved samples are not drawn again. Raises UserError."""
    kind, folder = run.encoder.kind, items_folder(votes)
    prompt, label = asked.words
    name = re.sub(r"[^A-Za-z0-9._-]", "_", run.path.resolve().name)
    record: dict[str, Any] = {"run": name, "weights": weights_of(run), "seed": seed, "request": asdict(asked)}
    record["settings"] = dict(settings)
    key = hashlib.sha256(json.dumps(record, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()[:12]
    stem = f"{name}-seed{seed}-{key}"
    items: list[str] = [str(i) for i in read_record(folder / f"{stem}.json").get("items", [])]
    if len(items) < k or not (kind.inline or all((votes.parent / i).is_file() for i in items[:k])):
        request = Request(asked.prompt, dict(asked.labels) or None, {}, asked.caption, asked.raw)
        values = Sampler(run, max(k, len(items)), request, seed, settings)().values
        fresh = [item_of(kind, v, folder, f"{stem}-{i:04d}") for i, v in enumerate(values)]
        items = items + fresh[len(items) :]  # saved items are not replaced, as votes may refer to them
        text = json.dumps({**record, "prompt": prompt, "label": label, "items": items}, indent=1, ensure_ascii=False)
        replace_file(folder / f"{stem}.json", (text + "\n").encode("utf-8", "backslashreplace"))
    return items[:k]


# --------------------------------------------------------------------------- pairs


@dataclass(frozen=True)
class PairPlan:
    """Pairs in their order, all candidates, and `free`: whether other pairs of the candidates may be shown instead."""

    kind: ItemKind
    pairs: tuple[Pair, ...]
    candidates: tuple[Candidate, ...]
    free: bool
    seed: int = 0

    @cached_property
    def known(self) -> tuple[frozenset[Pair], frozenset[Candidate]]:
        return frozenset(self.pairs), frozenset(self.candidates)

    def holds(self, pair: Pair) -> bool:
        """Whether a vote on this pair belongs to the plan."""
        pairs, candidates = self.known
        return candidates.issuperset(pair.candidates) if self.free else pair in pairs


def all_pairs(k: int) -> Iterator[tuple[int, int]]:
    """All pairs of k items: neighbours on a ring first, then items two apart, and so on. At any point, all items have
    been shown about equally often, and after the first round all are connected."""
    for apart in range(1, k // 2 + 1):
        for i in range(k if 2 * apart < k else apart):
            yield i, (i + apart) % k


def pairs_of(items: Sequence[str], count: int, asked: Asked) -> list[Pair]:
    return [Pair.of(items[i], items[j], *asked.words) for i, j in islice(all_pairs(len(items)), count)]


def check(runs: Sequence[Run], n: int, samples: int | None) -> None:
    """Raises UserError for runs that cannot be compared and for numbers out of range."""
    if not 1 <= n <= MAX_PAIRS:
        raise UserError(
            f"`n` is the number of pairs, from 1 to {MAX_PAIRS:,}. Given: {n}. For more pairs, use another `seed`."
        )
    if samples is not None and (len(runs) > 1 or not 2 <= samples <= MAX_PAIRS):
        raise UserError(
            f"`samples` is the number of samples for each request, from 2 to {MAX_PAIRS:,}, and is only for one run: "
            f"with two runs, each pair has its own samples. Given: {samples}."
        )
    if len(runs) > 1 and runs[0].path.resolve() == runs[1].path.resolve():
        raise UserError(f"{runs[0].path} is given twice. Give one run to compare its samples with each other.")
    kinds = [r.encoder.kind for r in runs]
    if kinds[0] is not kinds[-1]:
        makes = " and ".join(f"{r.path} makes {kind.plural}" for r, kind in zip(runs, kinds, strict=True))
        raise UserError(f"{makes}. Compare runs that make the same kind of items.")


def make_plan(
    runs: Sequence[Run],
    wish: PairRequest,
    n: int,
    *,
    samples: int | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    votes: Path,
) -> PairPlan:
    """n pairs of samples for the same request: both of one run, or one of each of two runs.

    `samples`: the number of samples of each request; with fewer, each is shown more often. By default about the number
    of pairs. Samples that are not saved beside `votes` yet are drawn. Raises UserError like `Run.sample`, if no two
    samples differ, and before anything is drawn if the file `votes` holds something else.
    """
    check(runs, n, samples)
    votes_in(votes, runs[0].encoder.kind)
    pairs: list[Pair] = []
    free = False
    for asked, count in requests(runs, wish, n, seed).items():
        k = count if len(runs) > 1 else samples or (count if count > 2 else count + 1)
        drawn = [draw(run, asked, k, seed, settings or {}, votes) for run in runs]
        if len(runs) > 1:
            pairs += [Pair.of(a, b, *asked.words) for a, b in zip(*drawn, strict=True) if a != b]
        else:
            items = list(dict.fromkeys(drawn[0]))
            pairs += pairs_of(items, count, asked)
            free = free or len(items) * (len(items) - 1) // 2 > count
    pairs = list(dict.fromkeys(pairs))
    if not pairs:
        raise UserError("All samples are equal, so there is nothing to choose. Raise the temperature or the seed.")
    if len(pairs) < n:
        left = f"{n - len(pairs):,} of the {n:,} pairs are left out: there are too few samples, or equal samples."
        events.note(f"note: {left}", "result_note")
    order = torch.argsort(Rng(seed).uniform("compare/order", torch.arange(len(pairs))), stable=True).tolist()
    candidates = dict.fromkeys(c for p in pairs for c in p.candidates)
    return PairPlan(runs[0].encoder.kind, tuple(pairs[i] for i in order), tuple(candidates), free, seed)


def beside(
    runs: Sequence[Run], wish: PairRequest, n: int, *, seed: int, votes: Path
) -> list[tuple[Asked, tuple[str, ...]]]:
    """n samples of each run as items, made for the same requests from the same random numbers. Raises UserError."""
    out: list[tuple[Asked, tuple[str, ...]]] = []
    for asked, count in requests(runs, wish, n, seed).items():
        drawn = [draw(run, asked, count, seed, {}, votes) for run in runs]
        out += [(asked, items) for items in zip(*drawn, strict=True)]
    return out


# --------------------------------------------------------------------------- asking


@dataclass(frozen=True)
class VoteQuestion:
    """A pair as it is shown, with its sides in random order. `number` counts from 1 to `of`."""

    pair: Pair
    a: str
    b: str
    number: int
    of: int


def begin_again(run: Run, n: int, votes: Path, *, rater: str | None = None, question: str | None = None) -> Session:
    """Begin to vote on at most n pairs once more that this rater has decided, the oldest first, with their sides
    exchanged: how often both judgements agree says how much can be learnt at all.

    Raises UserError if the rater has decided none that was not asked twice already.
    """
    kind, name = run.encoder.kind, (rater or "").strip() or None
    votes_in(votes, kind)
    data = scan(votes if votes.exists() else Path(os.devnull), kind)
    twice = {first.pair for first, _ in data.judged_again if first.rater == name}
    shown = {v.pair: v for v in reversed(data.votes) if v.rater == name and v.decided and v.pair not in twice}
    once = list(reversed(shown))
    if not once:
        raise UserError("No pair to ask again: vote on new pairs first.", "nothing_to_ask_again")
    pairs = tuple(once[:n])
    plan = PairPlan(kind, pairs, tuple(dict.fromkeys(c for p in pairs for c in p.candidates)), False)
    return Session(plan, votes, rater, False, question, again={p: shown[p].b for p in pairs})


def default_votes(run: Run) -> Path:
    """The file of votes on a run's samples, beside the run."""
    path = run.path.resolve()
    return path.with_name(f"{path.name}-votes.jsonl")


def summary_of(votes: Path, kind: ItemKind) -> VoteTally:
    """The summary of a file of votes. Raises UserError if none exists."""
    return tally(scan(votes, kind), owners(votes))


class Session:
    """The progress of one rater through a plan. Votes are on disk when `vote` returns; skipped pairs are shown again in
    a later session.

    `active`: whether the most informative pairs are shown (None: after MIN_VOTES votes of the rater, so that several
    raters begin with the same pairs and their agreement can be measured). `question`: what the rater is asked about
    each pair.
    """

    def __init__(
        self,
        plan: PairPlan,
        path: Path,
        rater: str | None = None,
        active: bool | None = None,
        question: str | None = None,
        again: Mapping[Pair, str] | None = None,
    ) -> None:
        """`again`: pairs that are judged once more, with the item that stands on the side a. Raises UserError if the
        file has no votes on such items, or if the rater's name cannot be saved."""
        if active and not plan.free:
            raise UserError("`active` chooses pairs of one run's samples, but here all pairs are fixed. Leave it out.")
        self.plan, self.path, self.rater, self.active = plan, path, (rater or "").strip() or None, active
        self.question = (question or "").strip() or QUESTION
        line_of(Vote("a", "b", "a", rater=self.rater))
        self.votes = votes_in(path, plan.kind)
        self.again = again
        self.judged = (
            {v.pair for v in self.votes if v.rater == self.rater and plan.holds(v.pair)} if not again else set()
        )
        self.begun = len(self.judged)
        self.skipped: set[Pair] = set()
        self._ahead: list[Pair] = []
        self._now: VoteQuestion | None = None
        self._answered: list[tuple[VoteQuestion, Vote | None]] = []  # in this session; None: skipped

    def __repr__(self) -> str:
        return f"Session({str(self.path)!r}: {len(self.judged):,} of {counted(self.of, 'pair')} judged)"

    @property
    def of(self) -> int:
        return len(self.plan.pairs)

    def value(self, item: str) -> Any:
        """An item of a question as a value: a text, an array (H, W, C) of uint8, or a Sound."""
        return value_of(self.plan.kind, item, self.path.parent)

    def summary(self) -> VoteTally:
        """What the votes so far say, of all raters and sessions."""
        return summary_of(self.path if self.path.exists() else Path(os.devnull), self.plan.kind)

    def preview(self, item: str) -> Preview:
        """The preview of an item. Raises UserError if its file cannot be read."""
        return self.plan.kind.preview(self.value(item))

    @property
    def ties(self) -> int:
        return len({v.pair for v in self.votes if v.rater == self.rater and v.winner == "tie"} & self.judged)

    def next(self) -> VoteQuestion | None:
        """The open question; None if all are answered or skipped."""
        if self._now is None and (pair := self._choose()) is not None:
            number = len(self.judged) + len(self.skipped) + 1
            what = f"compare/side/{json.dumps([pair.first, pair.second, pair.prompt, pair.label, self.rater])}"
            sides = (pair.first, pair.second)
            turned = int(Rng(self.plan.seed).bits(what, torch.zeros(1, dtype=torch.int64))[0]) < 0
            if self.again is not None:
                turned = self.again[pair] != pair.first
            self._now = VoteQuestion(pair, *(sides[::-1] if turned else sides), number, max(self.of, number))
        return self._now

    def _choose(self) -> Pair | None:
        if len(self.judged) + len(self.skipped) >= self.of:
            return None
        done = self.judged | self.skipped
        self._ahead = [p for p in self._ahead if p not in done]
        active = self.active or (self.active is None and self.plan.free and len(self.judged) >= MIN_VOTES)
        if active and not self._ahead:
            strengths = by_request(self.votes, self.plan.candidates)
            questions = [q for s in strengths for q in ask(s, CHOSEN_PAIRS, done)]
            self._ahead = [q.pair for q in sorted(questions, key=lambda q: -q.gain)[:CHOSEN_PAIRS]]
        if self._ahead:
            return self._ahead.pop(0)
        return next((p for p in unjudged((), self.plan.pairs, self.rater) if p not in done), None)

    def vote(self, question: VoteQuestion, winner: Winner) -> None:
        """Save the answer to the open question. On UserError the question remains open."""
        vote = Vote(question.a, question.b, winner, question.pair.prompt, question.pair.label, self.rater)
        append(self.path, vote)
        self.votes.append(vote)
        self.judged.add(question.pair)
        self._answered.append((question, vote))
        self._now = None

    def skip(self, question: VoteQuestion) -> None:
        self.skipped.add(question.pair)
        self._answered.append((question, None))
        self._now = None

    @property
    def can_undo(self) -> bool:
        return bool(self._answered)

    def undo(self) -> bool:
        """Withdraw the last answer of this session, so that its pair is the open question again. Returns whether there
        was one. On UserError nothing is changed."""
        if not self._answered:
            return False
        question, vote = self._answered[-1]
        if vote is None:
            self.skipped.remove(question.pair)
        else:
            withdraw(self.path, vote)
            self.votes.remove(vote)
            self.judged.remove(question.pair)
        self._answered.pop()
        if self._now is not None:
            self._ahead.insert(0, self._now.pair)
        self._now = question
        return True

    def saved(self) -> str:
        """A sentence for a rater who stops."""
        count = len(self.judged)
        if not count:
            return "No vote was given, so nothing is saved. Run the same command again to begin."
        more = "" if self.next() is None else "; run the same command again to continue"
        return f"{count:,} {'vote' if count == 1 else 'votes'} saved in {self.path}{more}."


def votes_in(path: Path, kind: ItemKind) -> list[Vote]:
    """The votes of a file, which may not exist yet, after a repair of its last line. Raises UserError if they are on
    another kind of items."""
    repair(path)
    if not path.exists():
        return []
    if not kind.inline and (existing := scan(path)).votes and existing.kind is not kind:
        raise other_votes(path, existing.kind, kind)
    preferences = scan(path, kind)
    if kind.inline:  # items that look like paths are read as text
        for vote in preferences.votes:
            if not (other := kind_of_item(vote.a)).inline and preferences.path(vote.a).is_file():
                raise other_votes(path, other, kind)
    return list(preferences.votes)


def other_votes(path: Path, given: ItemKind, kind: ItemKind) -> UserError:
    return UserError(f"{path} has votes on {given.plural}, but this run makes {kind.plural}. Choose another `out`.")
