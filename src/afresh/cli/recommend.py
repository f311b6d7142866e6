"""`afresh recommend`: what users may choose next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afresh.cli import options as o
from afresh.cli.show import answer, emit, note, quoted, say, table

if TYPE_CHECKING:
    from afresh.domains.interactions.feedback import Earned
    from afresh.domains.interactions.recommend import Recommendation
    from afresh.evaluation.estimate import Estimate

WHO, WHICH, SEQUENCE, FEEDBACK = "For whom", "Which items", "A sequence to a wish", "Feedback"


def recommend(
    run: Annotated[Path, o.run_argument("A run on interactions.")],
    user: Annotated[
        list[str] | None, typer.Option(help="A user of the run's data; may be repeated.", rich_help_panel=WHO)
    ] = None,
    history: Annotated[
        list[str] | None,
        typer.Option(
            help="Items that a new user chose, oldest first, separated by commas; may be repeated. Empty: nothing is "
            "known of the user.",
            metavar="A,B,C",
            rich_help_panel=WHO,
        ),
    ] = None,
    session: Annotated[
        list[str] | None,
        typer.Option(
            help="Items that somebody chose just now, which the data does not have yet: after those of --user or "
            "--history, or of somebody unknown. One for each user.",
            metavar="A,B,C",
            rich_help_panel=WHO,
        ),
    ] = None,
    everyone: Annotated[bool, typer.Option("--all", help="All users of the data.", rich_help_panel=WHO)] = False,
    trait: Annotated[
        list[str] | None,
        typer.Option(help="What else is known of the users.", metavar="NAME=VALUE", rich_help_panel=WHO),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A newer log that the users' histories are read from.", metavar="PATH", rich_help_panel=WHO),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Items of a list.")] = 20,
    where: Annotated[
        list[str] | None,
        typer.Option(
            help="Only items with this feature: category=shoes|boots, price=<20; may be repeated.",
            metavar="COLUMN=VALUE",
            rich_help_panel=WHICH,
        ),
    ] = None,
    only: Annotated[
        Path | None,
        typer.Option(help="A file of ids, one a line: what is in stock.", metavar="FILE", rich_help_panel=WHICH),
    ] = None,
    exclude: Annotated[str, typer.Option(help="Ids that are left out.", metavar="A,B", rich_help_panel=WHICH)] = "",
    seen: Annotated[
        bool | None,
        typer.Option(
            help="Recommend items of the history again; if not given, where users chose items again in training.",
            rich_help_panel=WHICH,
        ),
    ] = None,
    diversity: Annotated[
        float, typer.Option(help="0 = the likeliest, 1 = the least alike.", rich_help_panel=WHICH)
    ] = 0.0,
    explore: Annotated[
        float,
        typer.Option(
            help="Draw the items in proportion to their probability, to the power of 1 / this, and say with which "
            "probability each was drawn.",
            rich_help_panel=WHICH,
        ),
    ] = 0.0,
    novelty: Annotated[
        float,
        typer.Option(
            help="0 = whatever is likely, 1 = what is likelier for this user than for others: less of what everybody "
            "chooses.",
            rich_help_panel=WHICH,
        ),
    ] = 0.0,
    because: Annotated[int, typer.Option(help="Items of the history that are named as reasons.")] = 0,
    seed: Annotated[int, typer.Option(help="The same seed explores alike.")] = 0,
    playlist: Annotated[
        bool,
        typer.Option(
            "--playlist",
            help="A playlist or reading list: each of the -k items follows from the history and from those before it. "
            "--explore is the temperature.",
            rich_help_panel=SEQUENCE,
        ),
    ] = False,
    wish: Annotated[
        list[str] | None,
        typer.Option(
            help="Items with this feature, as many as --share says; may be repeated.",
            metavar="COLUMN=VALUE",
            rich_help_panel=SEQUENCE,
        ),
    ] = None,
    share: Annotated[
        float, typer.Option(help="The share of the items that fit the wish, at least.", rich_help_panel=SEQUENCE)
    ] = 1.0,
    total: Annotated[
        list[str] | None,
        typer.Option(
            help="What a column of numbers adds up to at most, as seconds=3600; may be repeated.",
            metavar="COLUMN=MOST",
            rich_help_panel=SEQUENCE,
        ),
    ] = None,
    top_p: Annotated[
        float,
        typer.Option(help="Draw from the likeliest items that have this probability.", rich_help_panel=SEQUENCE),
    ] = 1.0,
    repeat: Annotated[bool, typer.Option("--repeat", help="An item may come again.", rich_help_panel=SEQUENCE)] = False,
    evaluate: Annotated[
        Path | None,
        typer.Option(
            help="Instead of lists: what they would have earned, from a log of what was shown. Columns: history (or "
            "user), item, drawn (its probability), reward; for lists place, list.",
            metavar="LOG",
            rich_help_panel=FEEDBACK,
        ),
    ] = None,
    clip: Annotated[
        float | None,
        typer.Option(help="Cut larger weights of --evaluate to this: narrower, but biased.", rich_help_panel=FEEDBACK),
    ] = None,
    votes_from: Annotated[
        Path | None,
        typer.Option(
            help="Instead of lists: write to --out, as votes for afresh align --preferences, what earned more than "
            "another item of the same list in a log of what was shown. The columns are those of --evaluate.",
            metavar="LOG",
            rich_help_panel=FEEDBACK,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write all lists as a table, .parquet, .csv or .jsonl, or the votes, .jsonl.",
            metavar="FILE",
        ),
    ] = None,
    force: o.Force = False,
    as_json: Annotated[
        bool,
        o.json_of("{lists: [{user, items: [{item, probability, ...}]}]}, or with --evaluate {logged, estimates, ...}"),
    ] = False,
) -> None:
    """Recommend items of a catalogue: for users of the data, for new ones by their history, or for all users at once.

    Items of a history that the model does not know are passed over. A probability is that of the next choice, mixed
    from the model and from what followed what in training, and calibrated on held-out events.
    """
    from afresh.core import UserError
    from afresh.domains.interactions.lists import FORMS, VOTES, check_form, write_lists
    from afresh.domains.interactions.playlist import Playlist, check_unused, playlists, sums
    from afresh.domains.interactions.recommend import Ranking, Recommender
    from afresh.domains.interactions.users import number, read_ids, users_of
    from afresh.runs.run import Run
    from afresh.storage.output_paths import check_free

    ranking = Ranking(
        k,
        seen,
        texts(where, "--where"),
        None if only is None else read_ids(only),
        frozenset(x.strip() for x in exclude.split(",") if x.strip()),
        diversity,
        explore,
        because,
        seed,
        novelty,
    )
    totals = {name: number(name, most) for name, most in texts(total, "--total").items()}
    sequence = Playlist(texts(wish, "--wish"), share, totals, top_p, repeat)
    if not playlist:
        check_unused(sequence)
    if out is not None:
        check_free(out, force)
        check_form(out, FORMS if votes_from is None else VOTES)
    recommender = Recommender(Run.open(run))
    if votes_from is not None:
        from afresh.domains.interactions.recommendation_votes import votes_in

        if out is None or user or history or session or everyone or playlist or evaluate is not None:
            raise UserError("The log of `votes_from` says for whom. Give `out` for the votes, and no users.")
        told = votes_in(recommender, votes_from, ranking, data)
        told.write(out)
        note(*told.notes)
        say(f"next: afresh align {quoted(run)} --preferences {quoted(out)}")
        return
    if evaluate is not None:
        from afresh.domains.interactions.feedback import evaluate as earned_in

        if user or history or session or everyone or playlist or out is not None:
            raise UserError(
                "The log of `evaluate` says for whom, and no list is written. Leave out the users, `playlist` and "
                "`out`."
            )
        earned = earned_in(recommender, evaluate, ranking, data, clip)
        note(*earned.notes)
        if as_json:
            emit(earned.json())
        else:
            show_earned(earned)
        return
    users = users_of(recommender, user or (), history or (), everyone, texts(trait, "--trait"), data, session or ())
    note(*users.notes)
    if playlist:
        made = playlists(recommender, users.histories, ranking, sequence, users.cond)
    else:
        made = recommender.lists(users.histories, ranking, users.cond)
    if out is not None:
        count = write_lists(out, users.names, made)
        say(f"{count:,} recommendations for {len(users.names):,} users in {out}")
        return
    lists = list(zip(users.names, made, strict=True))
    if as_json:
        emit({"lists": [{"user": u, "items": [r.json() for r in found]} for u, found in lists], "notes": users.notes})
        return
    for name, found in lists:
        show(name, found)
        for column, value in sums(recommender.catalogue, found, totals).items():
            say(f"{column}: {value:,.6g} of {totals[column]:,.6g}")


def texts(given: list[str] | None, flag: str) -> dict[str, str]:
    """NAME=VALUE by name; a list is its values separated by `|`, any of which fits."""
    from afresh.core.options import pairs

    return {k: "|".join(map(str, v)) if isinstance(v, list) else v for k, v in pairs(given or (), flag).items()}


def show(name: str, found: list[Recommendation]) -> None:
    """A table of one user's list."""
    from afresh.core.safe_text import visible

    reasons = any(r.because for r in found)
    rows = []
    for r in found:
        shown = r.title if r.title == r.item else f"{r.title} ({r.item})"
        row = [visible(shown), f"{r.probability:.2%}"]
        rows.append([*row, ", ".join(visible(why.title) for why in r.because)] if reasons else row)
    answer(table([f"for {visible(name)}", "probability", *(["because of"] if reasons else [])], rows, right=[1]))


def show_earned(earned: Earned) -> None:
    """A table of the estimates, a line each."""
    found = earned.found
    rows = [["as shown", *_interval(found.logged), "", ""]]
    rows += [[name.upper(), *_interval(v.value), *_interval(v.gain)] for name, v in found.estimates.items()]
    answer(table(["reward of a list", "value", "95% interval", "gain", "95% interval"], rows, right=[1, 3]))
    answer(f"{found.decisions:,} lists count as {found.effective:,.0f}; the largest weight is {found.most:,.1f}.")


def _interval(estimate: Estimate) -> list[str]:
    if estimate.low is None or estimate.high is None:
        return [f"{estimate.value:.4g}", ""]
    return [f"{estimate.value:.4g}", f"{estimate.low:.4g} to {estimate.high:.4g}"]
