"""Files of a log to one history a learner. Every answer that is not used is counted, with the reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from afresh.core import Corpus, Item, Refused, UserError
from afresh.core.counted import counted
from afresh.data.exercises.columns import FIELDS, LogColumns, check, find, is_log, name_of, outcome_of
from afresh.data.exercises.history import Answer, History, with_gaps
from afresh.data.files import MB, DataFile, FileError, ZipLimits, decode_text, read_bytes, read_usable, read_zip, walk
from afresh.data.refusals import refusal_lines
from afresh.data.split import split_of_name
from afresh.data.text import tables
from afresh.data.times import moment_of, told_forms

HEAD = 1 << 18  # bytes of a file that are looked at
HEAD_MB = 64  # of a Parquet file, which has no lines
NAMED = 5  # examples in a note
LEAST = 2  # answers of a learner


class LogOptions(BaseModel):
    """Which columns are what, and how answers are read. Columns that are not named are found by name and content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learner: str = Field("", description="column of who answered; empty: found by name")
    item: str = Field("", description="column of the exercise; empty: found by name")
    correct: str = Field("", description="column of the outcome; empty: found by name and by its values")
    time: str = Field("", description="column of when; empty: found by name, and the order of rows where there is none")
    skill: str = Field("", description="column of the skill of the exercise; empty: found by name")
    right_from: float | None = Field(
        None,
        gt=0,
        le=1,
        description="share of the points from which an answer is right; None: such answers are refused",
    )
    max_file_mb: int = Field(512, ge=1, description="larger files are refused")

    @property
    def by_hand(self) -> dict[str, str]:
        return {what: column for what in FIELDS if (column := getattr(self, what))}


@dataclass
class Tally:
    """What reading a log counts."""

    why: Counter[str] = field(default_factory=Counter)  # reasons for leaving out answers
    first: dict[str, str] = field(default_factory=dict)  # where each reason first occurred
    times: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)  # of learner and item: types of their values
    points: int = 0
    timeless: int = 0

    def leave_out(self, reason: str, where: str) -> None:
        self.why[reason] += 1
        self.first.setdefault(reason, where)

    def saw(self, what: str, value: Any) -> None:
        kind = "texts" if isinstance(value, str) and not _is_number(value) else "numbers"
        self.kinds.setdefault(what, Counter())[kind] += 1


def _is_number(text: str) -> bool:
    return tables.is_number(text.strip())


def tables_of(path: Path, options: LogOptions, refused: list[Refused]) -> Iterator[tuple[str, tables.Table]]:
    """(name, table) of each file. Files that cannot be used are added to `refused`."""
    for name, suffix, raw in _contents(path, options, refused):
        try:
            yield name, tables.read_table(suffix, raw, options.max_file_mb, decode_text)
        except FileError as error:
            refused.append(Refused(name, str(error)))


def _suffix(name: str) -> str:
    return PurePosixPath(name.lower().removesuffix(".gz")).suffix


def _contents(path: Path, options: LogOptions, refused: list[Refused]) -> Iterator[tuple[str, str, bytes]]:
    if path.is_file() and path.suffix.lower() == ".zip":
        members, left_out = read_zip(path, tables.SUFFIXES, ZipLimits(member_bytes=options.max_file_mb * MB))
        yield from ((name, _suffix(name), raw) for name, raw in members)
        refused += left_out
        return
    files, left_out = walk(path)
    refused += left_out

    def refusal(file: DataFile) -> str | None:
        return None if _suffix(file.name) in tables.SUFFIXES else f"not a table ({file.suffix or 'no suffix'})"

    for file, raw in read_usable(files, refusal, options.max_file_mb, refused):
        yield file.name, _suffix(file.name), raw


def looks_like_log(path: Path) -> tuple[int, int]:
    """How many of the files are tables of answers, judged by their names and the beginning of the first, and how many
    files there are."""
    files = [DataFile(path, path.name, path.stat().st_size)] if path.is_file() else walk(path)[0]
    ours = [f for f in files if _suffix(f.name) in tables.SUFFIXES]
    if not ours or not head_is_log(ours[0]):
        return 0, len(files)
    return len(ours), len(files)


def head_is_log(file: DataFile) -> bool:
    """Whether the first rows of a table are answers."""
    suffix = _suffix(file.name)
    try:
        raw = read_bytes(file, HEAD_MB) if suffix in (".parquet", ".json") else _head(file)
        table = tables.read_table(suffix, raw, HEAD_MB, lambda b: b.decode("utf-8-sig", "replace"))
    except (FileError, OSError):
        return False
    return is_log([row for _, row in table.rows], table.columns)


def _head(file: DataFile) -> bytes:
    from afresh.data.files import open_plain

    try:
        with open_plain(file) as stream:
            head = stream.read(HEAD)
    except EOFError:
        return b""
    return head[: head.rfind(b"\n") + 1 or len(head)]


def read_log(path: Path, options: LogOptions) -> Corpus:
    """One Item a learner, whose answers may lie in several files. Raises UserError if no answer can be used, or if a
    column that was named is missing."""
    corpus = Corpus([])
    tally = Tally()
    learners: dict[tuple[str, str], list[Answer]] = {}  # by the split that a file's name declares, and the learner
    events: dict[tuple[str, str], set[tuple[Any, ...]]] = {}
    chosen: dict[str, LogColumns] = {}
    for name, table in tables_of(path, options, corpus.refused):
        rows = [row for _, row in table.rows]
        check(table.columns, options.by_hand)
        columns = find(rows, table.columns, options.by_hand)
        if isinstance(columns, str):
            corpus.refused.append(
                Refused(
                    name,
                    f"{columns}; its columns are {', '.join(table.columns) or 'none'}, and `data.learner`, "
                    "`data.item` and `data.correct` name those of a log",
                )
            )
            continue
        chosen[columns.words()] = columns
        corpus.refused += [Refused(f"{name}, row {number:,}", reason) for number, reason in table.bad]
        split = split_of_name(name) or ""
        for number, row in table.rows:
            found = answer_of(row, columns, options, tally, f"{name}, row {number:,}")
            if found is None:
                continue
            learner, answer = found
            key = (split, learner)
            event = (answer.item, answer.skill, answer.correct, answer.time)
            if answer.time is not None and event in events.setdefault(key, set()):
                tally.leave_out("the same event is there before", f"{name}, row {number:,}")
                continue
            events.setdefault(key, set()).add(event)
            learners.setdefault(key, []).append(answer)
    _untimed(learners, tally)
    one_only = sorted(learner for (_, learner), answers in learners.items() if len(answers) < LEAST)
    corpus.refused += [
        Refused(f"learner {who}", "one answer only, with no other to predict it from") for who in one_only
    ]
    corpus.refused += _summed(tally)
    for (split, learner), answers in learners.items():
        if len(answers) >= LEAST:
            history = History(with_gaps(answers), learner)
            corpus.items.append(Item(history, f"learner {learner}", split=split or None))
    if not corpus.items:
        raise UserError(
            f"There is no usable log of answers in {path} (columns of the learner, the exercise and the outcome, as "
            f"{', '.join(sorted(tables.SUFFIXES))}).",
            lines=refusal_lines(corpus.refused),
        )
    corpus.notes += [*chosen, *_notes(tally, learners, options)]
    if len({c.of.get("skill") for c in chosen.values()}) == 1:
        corpus.settled = dict(next(iter(chosen.values())).of) if len(chosen) == 1 else {}
    return corpus


def answer_of(
    row: Mapping[str, Any], columns: LogColumns, options: LogOptions, tally: Tally, where: str
) -> tuple[str, Answer] | None:
    """The learner and the answer in a row; None, counted with the reason, if it holds none."""
    of = columns.of
    learner, item = name_of(row.get(of["learner"])), name_of(row.get(of["item"]))
    if not learner or not item:
        tally.leave_out(f"no {'learner' if not learner else 'exercise'}", where)
        return None
    value = row.get(of["correct"])
    outcome = outcome_of(value)
    if outcome is None:
        missing = value is None or value == ""
        tally.leave_out("no outcome" if missing else "its outcome is neither right nor wrong", where)
        return None
    if 0 < outcome < 1 and options.right_from is None:
        tally.leave_out("partly right; `data.right_from` says from which share of the points it counts as right", where)
        return None
    tally.points += 0 < outcome < 1
    time = None
    if "time" in of:
        moment = moment_of(row.get(of["time"]))
        if moment is None:
            tally.leave_out("its time is not one", where)
            return None
        time, form = moment
        tally.times[form] += 1
    for what in ("learner", "item"):
        tally.saw(what, row.get(of[what]))
    skill = name_of(row.get(of["skill"])) if "skill" in of else ""
    return learner, Answer(item, outcome >= (options.right_from or 1.0), skill, time=time)


def _untimed(learners: Mapping[tuple[str, str], list[Answer]], tally: Tally) -> None:
    """Counts answers without a time: if files differ, the order of rows stands for all of a learner."""
    for answers in learners.values():
        tally.timeless += sum(a.time is None for a in answers)


def _summed(tally: Tally) -> list[Refused]:
    """One refusal a reason, with the number of answers and where the first is."""
    return [
        Refused(tally.first[why], why if n == 1 else f"{why} ({n:,} answers in all, this is the first)")
        for why, n in tally.why.most_common()
    ]


def _notes(tally: Tally, learners: Mapping[tuple[str, str], Sequence[Answer]], options: LogOptions) -> list[str]:
    kept = [a for answers in learners.values() if len(answers) >= LEAST for a in answers]
    right = sum(a.correct for a in kept)
    out = [
        f"{counted(len(kept), 'answer')}, {right / max(1, len(kept)):.0%} right, of {counted(len(learners), 'learner')}"
    ]
    if left_out := sum(tally.why.values()):
        reasons = "; ".join(f"{n:,} {why}" for why, n in tally.why.most_common(NAMED))
        out.append(f"{counted(left_out, 'answer')} left out: {reasons}")
    if tally.points:
        out.append(f"{tally.points:,} partly right answers count as right from {options.right_from:g} of the points")
    if tally.timeless:
        out.append("there are no times: the order of rows is taken, and forgetting cannot be learnt")
    out += told_forms(tally.times)
    for what, kinds in tally.kinds.items():
        if len(kinds) > 1:
            out.append(
                f"ids of {what}s are {' and '.join(f'{n:,} {k}' for k, n in kinds.items())}: all are read as text"
            )
    return out
