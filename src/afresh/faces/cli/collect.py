"""`afresh collect`: a data set from many sources, clean, without duplicates, and with whose it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.show import answer, emit, say


def collect(
    places: Annotated[
        list[str] | None,
        typer.Argument(help="Folders, files, addresses, tables, repositories, ...", metavar="SOURCE..."),
    ] = None,
    into: Annotated[Path | None, o.option("The folder of the data set; sources may be added later.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be collected; write nothing.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what was interrupted.")] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Read again what was collected, if it changed.")] = False,
    max_bytes: Annotated[int | None, o.setting("Stop after so many bytes.", min=1)] = None,
    max_minutes: Annotated[float | None, o.minutes_setting("Stop after so many minutes:", "max_minutes")] = None,
    max_items: Annotated[int | None, o.setting("Stop after so many files, pages or rows.", min=1)] = None,
    rule: Annotated[list[str] | None, o.option("Switch a rule on, as name or name=value.")] = None,
    no_rule: Annotated[list[str] | None, o.option("Switch a rule off.")] = None,
    show_rules: Annotated[bool, typer.Option("--rules", help="List the rules, and which of them are applied.")] = False,
    option: Annotated[list[str] | None, typer.Option("--source", help="How a source is read, as key=value.")] = None,
    licence: Annotated[str | None, o.option("Of what says nothing of its licence itself, as CC0-1.0.")] = None,
    person: Annotated[str | None, o.option("Whose it is, to be forgotten by that name.")] = None,
    consent: Annotated[str | None, o.setting("What that person agreed to.")] = None,
    near: Annotated[str | None, o.setting("Near duplicates: drop, or keep on one side of the split.")] = None,
    split_by: Annotated[
        str | None, o.setting("What is never divided: group, person or cluster; or time: the last is held out.")
    ] = None,
    heldout: Annotated[float | None, o.option("The share that is held out, as 0.1.")] = None,
    against: Annotated[
        list[str] | None, o.option("A benchmark that must not be learnt from; what occurs in it too is reported.")
    ] = None,
    leaks: Annotated[str | None, o.option("What occurs in --against: keep or drop.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Processes that clean.")] = 1,
    cluster: o.On = None,
    trust: o.Trust = False,
    as_json: Annotated[bool, o.json_of("{into, items, left_out, leakage, personal, digest}")] = False,
) -> None:
    """Gather a data set from many sources: cleaned, without duplicates, and with the licence of each item.

    The result is a folder that `afresh train` learns from. What is left out is listed with its reason, and report.html
    in it shows what each rule kept, left out and changed.
    """
    from afresh.core import UserError
    from afresh.core.options import pairs
    from afresh.core.plural import counted
    from afresh.faces.cli import EveryOption
    from afresh.faces.cli.consent import with_consent
    from afresh.faces.cli.wording import as_typed
    from afresh.services.collect.gather import CollectLimits, gather
    from afresh.services.collect.gather import places as all_places
    from afresh.verbs.collected.page import write_page

    if show_rules:
        _show_rules(into, rule or (), no_rule or (), as_json)
        return
    about = {k: v for k, v in (("licence", licence), ("person", person), ("consent", consent)) if v}
    if licence:
        about["licence_from"] = "the collector"
    given = all_places(places or (), pairs(option or [], "--source"), about)
    if dry_run:
        wrong = 0
        for place in given:
            try:
                lines = place.source.describe(place.place, place.options)
            except UserError as error:  # the others are described too
                lines, wrong = [f"{place.place}: {error}"], wrong + 1
            for line in lines:
                answer(as_typed(line, EveryOption()))
        if wrong:
            raise UserError(f"{counted(wrong, 'source')} cannot be collected so, as said above.", "wrong_source")
        return
    if into is None:
        raise UserError("Name the folder of the data set with `into`, as `into=data`.", "no_folder")
    limits = CollectLimits(max_bytes, max_items, max_minutes)
    others = [place for place in against if place] if against else None  # an empty one: none any more
    choices = {"near": near, "split_by": split_by, "heldout": heldout, "against": others, "leaks": leaks}
    collected = partial(
        gather,
        given,
        into,
        on=rule or (),
        off=no_rule or (),
        limits=limits,
        resume=resume,
        refresh=refresh,
        processes=processes,
        cluster=cluster or "",
        assembly={name: value for name, value in choices.items() if value is not None},
    )
    made = with_consent(lambda trusted: collected(trust=trusted), trust, as_json)
    report = write_page(into)
    if as_json:
        emit({"into": str(into), **{k: made[k] for k in ("items", "left_out", "leakage", "personal", "digest")}})
    else:
        for line in _lines(made):
            answer(as_typed(line, EveryOption()))
        say(f"data set: {into}; what became of all: {report}")
    if failed := made.get("failures"):
        raise UserError(f"Not collected, for the reasons above: {', '.join(failed)}. The rest is.", "not_collected")


def _lines(made: Mapping[str, Any]) -> Iterator[str]:
    """What became of all, in words."""
    from afresh.core.plural import counted
    from afresh.services.collect.rules.personal import summary

    for kind, count in made["items"].items():
        yield f"{counted(count, 'item')} of the kind {kind}"
    for rule, count in sorted(made["left_out"].items(), key=lambda pair: -pair[1]):
        yield f"left out: {count:,} by {rule}"
    for place, counts in made["leakage"].items():
        common = ", ".join(f"{count:,} {how}" for how, count in counts.items()) or "nothing"
        yield f"in common with {place}: {common}"
    yield from summary(made["personal"], made["rules"].get("personal"))


def _show_rules(into: Path | None, on: Sequence[str], off: Sequence[str], as_json: bool) -> None:
    """A row for each rule: those of a data set that exists, or else those of a new one."""
    from afresh.data.collected import is_collected, manifest
    from afresh.faces.cli.show import table
    from afresh.services.collect.rules import chosen, rules, shown

    applied = chosen(on, off, manifest(into)["rules"] if into is not None and is_collected(into) else None)
    if as_json:
        kept = [{"name": r.name, "applied": r.name in applied, "value": applied.get(r.name, r.value)} for r in rules()]
        about = {r.name: {"kinds": r.kinds, "about": r.about} for r in rules()}
        emit({"rules": [{**row, **about[row["name"]]} for row in kept]})
        return
    rows = []
    for r in rules():
        value = applied.get(r.name, r.value)
        rows.append((r.name, "on" if r.name in applied else "off", shown(value), ", ".join(r.kinds), r.about))
    answer(table(("Rule", "", "Value", "Of", "What it does"), rows, wrap=(3, 4)))
