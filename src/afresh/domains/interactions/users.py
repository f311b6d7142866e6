"""For whom recommendations are made: users of a log, and new ones by their histories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from afresh.core import Cond, Item, UserError, registry
from afresh.core.plural import counted
from afresh.data.conditions import encode_conditions
from afresh.data.prepare import read_options
from afresh.data.sources import readable
from afresh.domains.interactions.history import History
from afresh.domains.interactions.recommend import Recommender
from afresh.engine.sampling.request import Request, make_cond
from afresh.runs.data import check_query, run_data
from afresh.runs.run import Run
from afresh.runs.signature import made_here


@dataclass(frozen=True)
class Users:
    """B users: how they are called, what they chose, oldest first, and what else is known of them."""

    names: Sequence[str]
    histories: Sequence[Sequence[str]]
    cond: Cond
    notes: tuple[str, ...] = ()


def ids_in_words(run: Run, words: str, flag: str) -> list[str]:
    """The ids in a text that was typed, with commas."""
    return [i.strip() for i in words.split(",") if i.strip()]


def read_ids(run: Run, file: Path, flag: str) -> frozenset[str]:
    """The ids in a file that was typed, one a line. Raises UserError if it cannot be read or has none."""
    try:
        ids = frozenset(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}. Give a text with one id a line.") from None
    if not ids:
        raise UserError(f"{file} holds no ids. Give a text with one id a line.")
    return ids


def users_of(
    recommender: Recommender,
    named: Sequence[str] = (),
    histories: Sequence[str | Sequence[str]] = (),
    everyone: bool = False,
    traits: Mapping[str, str] | None = None,
    data: Path | None = None,
    sessions: Sequence[str | Sequence[str]] = (),
) -> Users:
    """The users that are named, all of the log, or new ones with these histories (ids, or a text of ids with commas).

    `sessions`: what each of them chose just now, which follows what is known before; alone, all that is known.
    The log is that of the run, or the one at `data`. Raises UserError for an unknown user, if no user is asked
    for, for sessions that are not one for each user, or for traits of users of the log, which the log tells.
    """
    if not named and not histories and not everyone:
        histories = [()] * len(sessions)
    if sum((bool(named), bool(histories), everyone)) != 1:
        raise UserError(
            "Say for whom: `users`, `histories`, `sessions`, or `everyone`. One of them is needed; a session may also "
            "follow a user or a history."
        )
    if histories:
        found = _new(recommender, histories, traits or {})
    elif traits:
        raise UserError("The traits of users of the data are read from it. Give `traits` with `histories` only.")
    else:
        found = _of_log(recommender, named, data)
    return continued(recommender, found, sessions) if sessions else found


def continued(recommender: Recommender, users: Users, sessions: Sequence[str | Sequence[str]]) -> Users:
    """The users with what each chose just now at the end of the history."""
    if len(sessions) != len(users.names):
        raise UserError(
            f"{counted(len(sessions), 'session')} for {counted(len(users.names), 'user')}. Give one for each, in the "
            "same order."
        )
    more = [known_ids(recommender, s) for s in sessions]
    histories = [[*h, *s] for h, s in zip(users.histories, more, strict=True)]
    return replace(users, histories=histories, notes=(*users.notes, *passed_over(recommender, more)))


def known_ids(recommender: Recommender, history: str | Sequence[str]) -> list[str]:
    """The ids of the items of a history, by ids or names. A text is typed by a person: a name in it that is unknown, or
    that several items have, raises UserError. Programs give lists, in which such names stay, to be passed over."""
    names = recommender.encoder.names
    if isinstance(history, str):
        return names.ids_in(history)
    return [found[0] if len(found := names.items(name)) == 1 else name for name in history]


def passed_over(recommender: Recommender, histories: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """A note on items that are not in the catalogue, if there are any, and what the first of them may mean."""
    unknown = [i for h in histories for i in h if i not in recommender.catalogue.index]
    if not unknown:
        return ()
    near = ", ".join(recommender.encoder.names.nearest(unknown[0]))
    shown = ", ".join(unknown[:5])
    return (f"{counted(len(unknown), 'item')} not in the catalogue, passed over: {shown} (nearest: {near})",)


def _new(recommender: Recommender, histories: Sequence[str | Sequence[str]], traits: Mapping[str, str]) -> Users:
    split = [known_ids(recommender, h) for h in histories]
    spec = recommender.encoder.conds
    labels = {k: v for k, v in traits.items() if k not in spec or spec[k].kind == "label"}
    numbers = {k: number(k, v) for k, v in traits.items() if k not in labels}
    cond = make_cond(spec, recommender.condition(len(split)), Request(label=labels or None, number=numbers or None))
    names = [str(i + 1) for i in range(len(split))]
    return Users(names, split, cond, passed_over(recommender, split))


def number(name: str, value: str) -> float:
    """Raises UserError for a value that is not a number."""
    try:
        return float(value)
    except ValueError:
        raise UserError(f"{name} is a number. Given: {value!r}.") from None


def _items_of_log(run: Run, data: Path | None) -> Sequence[Item]:
    """The items of the run's log as it is now, or of another one. What another user's run names is read only if it is
    what the run has learnt. Raises UserError if there is no log."""
    record = run.record
    path = Path(record.data.path) if data is None else data
    if not path.exists():
        raise UserError(f"The log of users is not in {path}. Give it by `data`, or give `histories`.", "data_missing")
    if data is None and not made_here(run):
        found = run_data(run)
        return [*found.train_items, *found.heldout_items]
    check_query(run)
    modality = registry.modality(record.modality)
    return modality.read(readable(path, record.modality), read_options(modality, record.data.options)).items


def _of_log(recommender: Recommender, named: Sequence[str], data: Path | None) -> Users:
    path = Path(recommender.run.record.data.path) if data is None else data
    known: dict[str, Item] = {}
    for item in _items_of_log(recommender.run, data):  # the held-out side of a user holds the whole history
        history: History = item.value
        if history.user not in known or len(history.items) > len(known[history.user].value.items):
            known[history.user] = item
    if missing := [u for u in named if u not in known]:
        near = get_close_matches(missing[0], known, n=3) or list(known)[:3]
        raise UserError(
            f"No user {missing[0]!r} among the {len(known):,} of {path}, which has {', '.join(near)}. For a "
            "new user give `histories`."
        )
    items = [known[u] for u in named] if named else list(known.values())
    cond = encode_conditions(items, recommender.encoder.conds)
    return Users([i.value.user for i in items], [i.value.items for i in items], cond)
