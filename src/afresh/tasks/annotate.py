"""Which of two samples a person likes better: what is drawn, which pairs are asked, and what the votes say.

Samples are drawn once and kept in a folder beside the file of votes, with a record of the run, the request and the seed
that they came from. The same command therefore goes on with the same samples, to the byte, on any machine and whatever
became of the run since; and of every vote it is known whose samples it compares.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from afresh.alignment.feedback.preferences import Candidate, Pair, Vote, Winner, item_of, kind_of_item, scan, value_of
from afresh.alignment.feedback.ranking import ask
from afresh.alignment.feedback.vote_summary import by_request
from afresh.alignment.feedback.votes import append, line_of, repair, unjudged
from afresh.core import ItemKind, Preview, UserError
from afresh.core.files import replace_file
from afresh.core.rng import Rng
from afresh.data.text.kind import TEXT
from afresh.runs.run import Run
from afresh.sampling.request import Request, of_kind
from afresh.tasks.sample import Sampler
from afresh.training import checkpoint
from afresh.training.weights import CHOSEN, EARLY, FITTED

MOST = 1000  # pairs of one command: more samples than that make the choice of pairs slow
ENOUGH = 10  # votes of a rater after which the most telling pairs are asked
AHEAD = 5  # pairs that are chosen at once


# --------------------------------------------------------------------------- samples, drawn once


def written(text: str) -> str:
    """A text as UTF-8 can hold it: what it cannot as escapes, as in samples.jsonl."""
    return text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True)
class Wish:
    """What is asked for. Several prompts take turns; what is left open is drawn as it occurred in training."""

    prompts: tuple[str, ...] = ()
    label: str | Mapping[str, str] | None = None
    caption: str | None = None
    raw: bool = False


@dataclass(frozen=True)
class Asked:
    """What two samples have in common; `labels` by name."""

    prompt: str | None = None
    labels: tuple[tuple[str, str], ...] = ()
    caption: str | None = None
    raw: bool = False

    @property
    def words(self) -> tuple[str | None, str | None]:
        """The prompt (of a picture: its caption) and the label, as votes name them."""
        label = self.labels[0][1] if len(self.labels) == 1 else ", ".join(f"{k}={v}" for k, v in self.labels)
        prompt = self.prompt or self.caption
        return (written(prompt) if prompt else None), (written(label) or None)


def requests(runs: Sequence[Run], wish: Wish, n: int, seed: int) -> Counter[Asked]:
    """How many pairs each request gets, n in all. Raises UserError for what the first run cannot be asked."""
    run = runs[0]
    prompts = [wish.prompts[i % len(wish.prompts)] for i in range(n)] if wish.prompts else None
    _, described, _ = run.condition(n, Request(prompts, wish.label, {}, wish.caption, wish.raw), seed)
    parts = of_kind(run.conds, "label")
    # A label that nobody asked for is one only where every run knows it.
    known = wish.label is not None or all(of_kind(r.conds, "label") == parts for r in runs)
    out: Counter[Asked] = Counter()
    for row in described:
        label = row["label"]
        named = label if isinstance(label, Mapping) else dict.fromkeys(parts, label)
        found = tuple((k, v) for k, v in named.items() if v is not None and known)
        out[Asked(row["prompt"], found, wish.caption, wish.raw)] += 1
    return out


def weights_of(run: Run) -> str:
    """A name for what a run would sample with, from the hashes that stand beside its files: no weights are read."""
    root = run.path / "checkpoints"
    files = [root / name / checkpoint.SUMS for name in checkpoint.steps_in(root)[-1:]]
    files += [run.path / f"{name}.sha256" for name in (CHOSEN, FITTED, EARLY)]
    found = b"\n".join(f.read_bytes() if f.exists() else b"-" for f in files)
    return hashlib.sha256(found + str(run.record.base_sha256).encode()).hexdigest()[:16]


def items_folder(votes: Path) -> Path:
    return votes.with_name(f"{votes.stem}-items")


def owners(votes: Path) -> dict[Candidate, set[tuple[str, str]]]:
    """Which runs (name, weights) drew each candidate, by the records beside a file of votes."""
    out: dict[Candidate, set[tuple[str, str]]] = {}
    for file in sorted(items_folder(votes).glob("*.json")):
        found = read_record(file)
        for item in map(str, found.get("items", [])):
            candidate = Candidate(item, found.get("prompt"), found.get("label"))
            out.setdefault(candidate, set()).add((str(found.get("run")), str(found.get("weights"))))
    return out


def read_record(file: Path) -> dict[str, Any]:
    """What was drawn; nothing where the file is missing or is no such record."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("items"), list) else {}


def draw(run: Run, asked: Asked, k: int, seed: int, settings: Mapping[str, Any], votes: Path) -> list[str]:
    """The first k samples for a request as items; those that are kept already are not drawn again. Raises UserError."""
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
        items = items + fresh[len(items) :]  # files keep their names, and texts that were shown stay what they were
        text = json.dumps({**record, "prompt": prompt, "label": label, "items": items}, indent=1, ensure_ascii=False)
        replace_file(folder / f"{stem}.json", (text + "\n").encode("utf-8", "backslashreplace"))
    return items[:k]


# --------------------------------------------------------------------------- pairs


@dataclass(frozen=True)
class Plan:
    """Pairs in the order in which they are asked; all candidates; whether other pairs of them may be asked instead."""

    kind: ItemKind
    pairs: tuple[Pair, ...]
    candidates: tuple[Candidate, ...]
    free: bool
    seed: int = 0
    notes: tuple[str, ...] = ()

    @cached_property
    def known(self) -> tuple[frozenset[Pair], frozenset[Candidate]]:
        return frozenset(self.pairs), frozenset(self.candidates)

    def holds(self, pair: Pair) -> bool:
        """Whether a vote on this pair is one that the plan asks for."""
        pairs, candidates = self.known
        return candidates.issuperset(pair.candidates) if self.free else pair in pairs


def rounds(k: int) -> Iterator[tuple[int, int]]:
    """All pairs of k things, neighbours on a ring first, then those two apart, ...: whenever one stops, no thing was
    shown much more often than another, and from the first round on all are connected."""
    for apart in range(1, k // 2 + 1):
        for i in range(k if 2 * apart < k else apart):
            yield i, (i + apart) % k


def among(items: Sequence[str], count: int, asked: Asked) -> list[Pair]:
    return [Pair.of(items[i], items[j], *asked.words) for i, j in islice(rounds(len(items)), count)]


def check(runs: Sequence[Run], n: int, samples: int | None) -> None:
    """Raises UserError for runs and numbers that make no pairs."""
    if not 1 <= n <= MOST:
        raise UserError(
            f"`n` is the number of pairs, from 1 to {MOST:,}. Given: {n}. For more, use another `seed` too."
        )
    if samples is not None and (len(runs) > 1 or not 2 <= samples <= MOST):
        raise UserError(
            f"`samples` is how many samples of one run each request gets, from 2 to {MOST:,}; of two runs each pair "
            f"has samples of its own. Given: {samples}."
        )
    if len(runs) > 1 and runs[0].path.resolve() == runs[1].path.resolve():
        raise UserError(f"{runs[0].path} is given twice. Give one run to compare its samples with each other.")
    kinds = [r.encoder.kind for r in runs]
    if kinds[0] is not kinds[-1]:
        makes = " and ".join(f"{r.path} makes {kind.plural}" for r, kind in zip(runs, kinds, strict=True))
        raise UserError(f"{makes}. Compare like with like.")


def make_plan(
    runs: Sequence[Run],
    wish: Wish,
    n: int,
    *,
    samples: int | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    votes: Path,
) -> Plan:
    """n pairs of samples, each for one request: of one run, or one of each of two runs.

    `samples`: how many a run draws for each request, so that each is shown more often when they are few; about as many
    as pairs when None. Draws what is not kept beside `votes` yet. Raises UserError as `Run.sample`, and when no two
    samples differ.
    """
    check(runs, n, samples)
    pairs: list[Pair] = []
    free = False
    for asked, count in requests(runs, wish, n, seed).items():
        k = count if len(runs) > 1 else samples or (count if count > 2 else count + 1)
        drawn = [draw(run, asked, k, seed, settings or {}, votes) for run in runs]
        if len(runs) > 1:
            pairs += [Pair.of(a, b, *asked.words) for a, b in zip(*drawn, strict=True) if a != b]
        else:
            items = list(dict.fromkeys(drawn[0]))
            pairs += among(items, count, asked)
            free = free or len(items) * (len(items) - 1) // 2 > count
    pairs = list(dict.fromkeys(pairs))
    if not pairs:
        raise UserError("All samples are the same, so there is nothing to choose. Raise the temperature, or ask anew.")
    fewer = f"{n - len(pairs):,} of the {n:,} pairs are left out: too few samples, or samples that are the same."
    order = torch.argsort(Rng(seed).uniform("compare/order", torch.arange(len(pairs))), stable=True).tolist()
    candidates = dict.fromkeys(c for p in pairs for c in p.candidates)
    notes = (fewer,) if len(pairs) < n else ()
    return Plan(runs[0].encoder.kind, tuple(pairs[i] for i in order), tuple(candidates), free, seed, notes)


# --------------------------------------------------------------------------- asking


@dataclass(frozen=True)
class Question:
    """A pair as it is shown: which side is which was drawn by chance. `number` counts from 1 to `of`."""

    pair: Pair
    a: str
    b: str
    number: int
    of: int


class Session:
    """One rater's way through a plan. A vote is on the disk when `vote` returns; what is skipped is asked another time.

    `active`: whether the most telling pairs are asked (None: once the rater has given ten votes, so that several raters
    begin with the same pairs and their agreement can be measured).
    """

    def __init__(self, plan: Plan, path: Path, rater: str | None = None, active: bool | None = None) -> None:
        """Raises UserError when the file is not one of votes on such items, or the rater's name cannot be written."""
        if active and not plan.free:
            raise UserError("`active` chooses among the pairs of one run's samples; here the pairs are fixed already.")
        self.plan, self.path, self.rater, self.active = plan, path, (rater or "").strip() or None, active
        line_of(Vote("a", "b", "a", rater=self.rater))
        self.votes = votes_in(path, plan.kind)
        self.judged = {v.pair for v in self.votes if v.rater == self.rater and plan.holds(v.pair)}
        self.begun = len(self.judged)
        self.skipped: set[Pair] = set()
        self._ahead: list[Pair] = []
        self._now: Question | None = None

    @property
    def of(self) -> int:
        return len(self.plan.pairs)

    def preview(self, item: str) -> Preview:
        """An item as a person sees it. Raises UserError if its file cannot be read."""
        return self.plan.kind.preview(value_of(self.plan.kind, item, self.path.parent))

    @property
    def ties(self) -> int:
        return len({v.pair for v in self.votes if v.rater == self.rater and v.winner == "tie"} & self.judged)

    def next(self) -> Question | None:
        """The question that is open; None when all are answered or skipped."""
        if self._now is None and (pair := self._choose()) is not None:
            number = len(self.judged) + len(self.skipped) + 1
            what = f"compare/side/{json.dumps([pair.first, pair.second, pair.prompt, pair.label, self.rater])}"
            sides = (pair.first, pair.second)
            turned = int(Rng(self.plan.seed).bits(what, torch.zeros(1, dtype=torch.int64))[0]) < 0
            self._now = Question(pair, *(sides[::-1] if turned else sides), number, max(self.of, number))
        return self._now

    def _choose(self) -> Pair | None:
        if len(self.judged) + len(self.skipped) >= self.of:
            return None
        gone = self.judged | self.skipped
        if self.active or (self.active is None and self.plan.free and len(self.judged) >= ENOUGH):
            if not self._ahead:
                found = by_request(self.votes, self.plan.candidates)
                questions = [q for s in found for q in ask(s, AHEAD, gone)]
                self._ahead = [q.pair for q in sorted(questions, key=lambda q: -q.gain)[:AHEAD]]
            if self._ahead:
                return self._ahead.pop(0)
        return next((p for p in unjudged((), self.plan.pairs, self.rater) if p not in gone), None)

    def vote(self, question: Question, winner: Winner) -> None:
        """Write an answer to the open question. Raises UserError, with the question still open, when it cannot."""
        vote = Vote(question.a, question.b, winner, question.pair.prompt, question.pair.label, self.rater)
        append(self.path, vote)
        self.votes.append(vote)
        self.judged.add(question.pair)
        self._now = None

    def skip(self, question: Question) -> None:
        self.skipped.add(question.pair)
        self._now = None

    def kept(self) -> str:
        """What a person who stops should know."""
        count = len(self.judged)
        more = "" if self.next() is None else "; go on with the same command"
        return f"{count:,} {'vote' if count == 1 else 'votes'} kept in {self.path}{more}."


def votes_in(path: Path, kind: ItemKind) -> list[Vote]:
    """The votes of a file that may not exist yet, its last line mended. Raises UserError when it holds another kind."""
    repair(path)
    if not path.exists():
        return []
    if not kind.inline and (there := scan(path)).votes and there.kind is not kind:
        raise other_votes(path, there.kind, kind)
    found = scan(path, kind)
    if kind.inline:  # whose items are taken for text, whatever they look like
        for vote in found.votes:
            if (other := kind_of_item(vote.a)) is not TEXT and found.path(vote.a).is_file():
                raise other_votes(path, other, kind)
    return list(found.votes)


def other_votes(path: Path, found: ItemKind, kind: ItemKind) -> UserError:
    return UserError(f"{path} holds votes on {found.plural}, and this run makes {kind.plural}. Choose another `out`.")
