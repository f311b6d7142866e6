"""The verb of logs of choices: `recommend`."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Le, Lt, MaxLen, MinLen

from afresh.core import UserError
from afresh.core.verb import Absent, Option, Setting, lazily, verb
from afresh.verbs.options import Force, Words

if TYPE_CHECKING:
    from afresh.domains.interactions.feedback import Earned
    from afresh.domains.interactions.recommend import Recommended
    from afresh.domains.interactions.recommendation_votes import LogVotes
    from afresh.runs.run import Run

WHO, WHICH, FEEDBACK = "For whom", "Which items", "Feedback"
Ids = Annotated[list[Words], MaxLen(10_000)]
Histories = Annotated[list[Ids], MinLen(1), MaxLen(256)]
Named = Annotated[list[Words], MaxLen(100_000)]


def takes_long(options: Any) -> bool:
    """Whether lists ask for much more than one answer of the network."""
    return bool(options.diversity > 0 or options.because > 0)


@verb(
    "recommend",
    able=lazily("afresh.domains.interactions.recommend:why_not"),
    result="{lists: [{user, items: [{item, probability, ...}]}]}, or with `evaluate` {logged, estimates, ...}",
    summary="What users may choose next",
    run_help="A run on interactions.",
    alone=takes_long,
)
def recommend(
    run: Run,
    users: Annotated[
        Sequence[str],
        Option("A user of the run's data; may be repeated.", panel=WHO, flags=("--user",), json=Absent),
    ] = (),
    *,
    histories: Annotated[
        Sequence[str | Sequence[str]],
        Option(
            "Items that a new user chose, oldest first, separated by commas; may be repeated. Empty: nothing is known "
            "of the user.",
            panel=WHO,
            flags=("--history",),
            metavar="A,B,C",
            shell=list[str],
            json=Histories | None,
        ),
    ] = (),
    sessions: Annotated[
        Sequence[str | Sequence[str]],
        Option(
            "Items that a user chose just now, which the data does not have yet: after those of `users` or "
            "`histories`, or alone. One for each user.",
            panel=WHO,
            flags=("--session",),
            metavar="A,B,C",
            shell=list[str],
            json=Histories | None,
        ),
    ] = (),
    everyone: Annotated[bool, Option("All users of the data.", panel=WHO, flags=("--all",), json=Absent)] = False,
    traits: Annotated[
        Mapping[str, str] | None,
        Setting(
            "What else is known of the users.",
            panel=WHO,
            flags=("--trait",),
            metavar="NAME=VALUE",
            shell=list[str],
            parse="afresh.faces.cli.words:texts",
            json=dict[Words, Words] | None,
        ),
    ] = None,
    data: Annotated[
        str | Path | None,
        Option(
            "A newer log that the users' histories are read from.",
            panel=WHO,
            metavar="PATH",
            shell=Path,
            json=Absent,
        ),
    ] = None,
    k: Annotated[int, Option("Items of a list.", flags=("-k",), json=Annotated[int, Ge(1), Le(1_000)])] = 20,
    where: Annotated[
        Mapping[str, str] | None,
        Option(
            "Only items with this feature: category=shoes|boots, price=<20; may be repeated.",
            panel=WHICH,
            metavar="COLUMN=VALUE",
            shell=list[str],
            parse="afresh.faces.cli.words:texts",
            json=dict[Words, Words] | None,
        ),
    ] = None,
    only: Annotated[
        Iterable[str] | None,
        Option(
            "A file of ids, one a line: what is in stock.",
            panel=WHICH,
            metavar="FILE",
            shell=Path,
            parse="afresh.domains.interactions.users:read_ids",
            json=Named | None,
            python="In Python, the ids themselves.",
        ),
    ] = None,
    exclude: Annotated[
        Iterable[str],
        Option(
            "Ids that are left out.",
            panel=WHICH,
            metavar="A,B",
            shell=str,
            parse="afresh.domains.interactions.users:ids_in_words",
            json=Named | None,
        ),
    ] = (),
    seen: Annotated[
        bool | None,
        Setting(
            "Recommend items of the history again; if not given, where users chose items again in training.",
            panel=WHICH,
        ),
    ] = None,
    diversity: Annotated[
        float, Option("0 = the likeliest, 1 = the least alike.", panel=WHICH, json=Annotated[float, Ge(0), Le(1)])
    ] = 0.0,
    explore: Annotated[
        float,
        Option(
            "Draw the items in proportion to their probability, to the power of 1 / this, and say with which "
            "probability each was drawn.",
            panel=WHICH,
            json=Annotated[float, Ge(0), Le(100)],
        ),
    ] = 0.0,
    novelty: Annotated[
        float,
        Option(
            "0 = whatever is likely, 1 = what is likelier for this user than for others: less of what is popular.",
            panel=WHICH,
            json=Annotated[float, Ge(0), Le(2)],
        ),
    ] = 0.0,
    because: Annotated[
        int, Option("Items of the history that are named as reasons.", json=Annotated[int, Ge(0), Le(20)])
    ] = 0,
    seed: Annotated[
        int | None,
        Option(
            "The same seed explores alike.",
            shell=int,
            json=Annotated[int, Ge(-(2**63)), Lt(2**63)] | None,
            json_default=None,
        ),
    ] = 0,
    evaluate: Annotated[
        str | Path | None,
        Option(
            "Instead of lists: what they would have earned, from a log of what was shown. Columns: history (or user), "
            "item, drawn (its probability), reward; for lists place, list.",
            panel=FEEDBACK,
            metavar="LOG",
            shell=Path,
            json=Absent,
        ),
    ] = None,
    clip: Annotated[
        float | None,
        Setting("Cut larger weights of `evaluate` to this: narrower, but biased.", json=Absent),
    ] = None,
    votes_from: Annotated[
        str | Path | None,
        Setting(
            "Instead of lists: write to `out`, as votes to align with, what earned more than another item of the same "
            "list in a log of what was shown. The columns are those of `evaluate`.",
            metavar="LOG",
            shell=Path,
            json=Absent,
        ),
    ] = None,
    out: Annotated[
        str | Path | None,
        Option(
            "Write all lists as a table, .parquet, .csv or .jsonl, or the votes, .jsonl.",
            metavar="FILE",
            shell=Path,
            json=Absent,
        ),
    ] = None,
    force: Force = False,
) -> Recommended | Earned | LogVotes:
    """Recommend items of a catalogue: for users of the data, for new ones by their history, or for all users at once.

    Items of a history are given by their ids or by the names that lists print. In a text, one that the model does not
    know is refused, with the nearest ones; in a list it is passed over, with a note. A probability is that of the next
    choice, mixed from the model and from what followed what in training, and calibrated on held-out events.

    Raises UserError if the run is not one on interactions, for an unknown user, if no item is left, and for a log that
    cannot be used.
    """
    from afresh.data.storage.folders import check_free
    from afresh.domains.interactions.feedback import evaluate as evaluate_log
    from afresh.domains.interactions.lists import FORMS, VOTES, check_form, write_lists
    from afresh.domains.interactions.recommend import Ranking, Recommended, cached_recommender
    from afresh.domains.interactions.recommendation_votes import votes_in
    from afresh.domains.interactions.users import users_of

    ranking = Ranking(
        k=k,
        seen=seen,
        where=where or {},
        only=None if only is None else frozenset(only),
        exclude=frozenset(exclude or ()),
        diversity=diversity,
        explore=explore,
        because=because,
        seed=secrets.randbelow(2**31) if seed is None else seed,
        novelty=novelty,
    )
    file, log = (None if path is None else Path(path) for path in (out, data))
    if file is not None:
        check_free(file, force)
        check_form(file, FORMS if votes_from is None else VOTES)
    recommender = cached_recommender(run)
    for_users = bool(users or histories or sessions or everyone)
    if votes_from is not None:
        if file is None or for_users or evaluate is not None:
            raise UserError("`votes_from` already names the users. Remove the users and set `out`.")
        return votes_in(recommender, Path(votes_from), log).write(file)
    if evaluate is not None:
        if for_users or file is not None:
            raise UserError("`evaluate` already names the users and writes no list. Remove the users and `out`.")
        return evaluate_log(recommender, Path(evaluate), ranking, log, clip)
    asked = users_of(recommender, users, histories or (), everyone, traits, log, sessions or ())
    lists = recommender.lists(asked.histories, ranking, asked.cond)
    if file is not None:
        rows = write_lists(file, asked.names, lists)
        return Recommended(asked.names, (), ranking.seed, asked.notes, file, rows)
    return Recommended(asked.names, list(lists), ranking.seed, asked.notes)
