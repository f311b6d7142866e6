"""`afresh data`: what would be learnt, before anything is spent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from afresh.faces.cli import options as o
from afresh.faces.cli.show import answer, emit, one_line, say
from afresh.faces.cli.show_samples import show_pictures
from afresh.faces.cli.wording import as_typed

if TYPE_CHECKING:
    from afresh.verbs.inspect_data import Look


def data(
    path: o.DataPath,
    modality: o.Modality = None,
    option: o.DataOptions = None,
    validation: o.Validation = None,
    near: Annotated[bool, o.setting("Search for near duplicates.")] = True,
    out: Annotated[Path | None, o.option("Write this as one HTML page, with examples.")] = None,
    examples: Annotated[
        Path | None, o.option("Write a few items as training sees them into this folder.", metavar="FOLDER")
    ] = None,
    force: o.Force = False,
    as_json: Annotated[bool, o.json_of("{path, modality, ...}")] = False,
) -> None:
    """Look at data as training would see it: what it is, how much, its labels, duplicates, licences, what is refused.

    Of a data set that afresh collect made: what became of all that was found, and whose it is; with --modality as
    training would see it. Nothing is trained and nothing is changed.
    """
    from afresh.core.options import pairs
    from afresh.data.collected import is_collected
    from afresh.data.storage.folders import check_free
    from afresh.faces.cli import EveryOption
    from afresh.verbs.inspect_data import look, write_examples

    for place in (out, examples):
        if place is not None:
            check_free(place, force)
    if modality is None and not option and is_collected(path):
        collected(path, out, as_json)
        return
    found = look(path, modality, pairs(option or [], "--data"), validation, near)
    if out is not None:
        found.save(out)
        say(f"page: {out}")
    if examples is not None:
        write_examples(examples, found, force)
        say(f"examples: {examples}")
    if as_json:
        emit(found.json())
        return
    for line in found.lines():
        answer(as_typed(line, EveryOption()))
    show_examples(found)


def collected(path: Path, out: Path | None, as_json: bool) -> None:
    """Show a data set that `afresh collect` made."""
    from afresh.verbs.collected.page import write_page
    from afresh.verbs.collected.survey import survey

    if out is not None:
        say(f"page: {write_page(path, out)}")
    found = survey(path)
    if as_json:
        emit({"path": str(path), **found.json()})
        return
    for line in found.lines():
        answer(line)


def show_examples(found: Look) -> None:
    """Images as half blocks where the terminal draws them, texts as the first lines of each."""
    from rich.rule import Rule
    from rich.text import Text

    from afresh.core.safe_text import visible
    from afresh.engine.sampling.samples import images_of
    from afresh.verbs.inspect_data import excerpt

    items, encoder = found.examples, found.prepared.encoder
    if images := images_of(encoder, [i.value for i in items]):
        show_pictures(images)
        return
    for item in items:
        answer(Rule(Text(one_line(item.source)), style="dim"))
        answer(Text(visible(excerpt(encoder.kind.preview(item.value).text or ""))))
