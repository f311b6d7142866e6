"""What the studio says of a run at a glance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from afresh.core import UserError, registry
from afresh.core.plural import counted
from afresh.faces.http.loaded_runs import Library
from afresh.faces.studio.pages import RunPage
from afresh.runs.about import previews, read_report
from afresh.runs.run import Run, summary
from afresh.verbs.training_job import SEPARATOR

EXCERPT = 420  # characters of a text


@dataclass(frozen=True)
class RunCard:
    """A run for people. `view`: text, image or sound. `picture`: whether there is a preview image. `page`: where it is
    used, below /studio/; `invitation`: what the button says that leads there. `judged`: whether its samples are
    voted on in pairs. `fault`: why the run cannot be used."""

    name: str
    modality: str = ""
    view: str = "text"
    family: str = ""
    how: str = ""
    size: str = ""
    data: str = ""
    lineage: str = ""
    progress: str = ""
    verdict: str = ""
    sentence: str = ""
    excerpt: str = ""
    picture: bool = False
    usable: bool = True
    page: str = "create"
    judged: bool = True
    invitation: str = ""
    fault: str = ""


def card_of(name: str, run: Run) -> RunCard:
    """Raises UserError if the run cannot be read."""
    record, made, verdict = run.record, summary(run), read_report(run.path).verdict
    begun, done = made["steps"] > 0, made["steps"] >= made["planned"]
    place = page_of(run)
    word = "" if verdict is None or verdict["word"] == "not measured" else verdict["word"]
    return RunCard(
        name=name,
        modality=record.modality,
        view=run.encoder.kind.view,
        family=record.family,
        how=run.family.how if place is None else "",
        size=magnitude(record.parameters),
        data=counted(record.data.train, "example"),
        lineage=lineage(run),
        progress=""
        if done
        else "not trained yet"
        if not begun
        else f"{100 * made['steps'] // made['planned']}% trained",
        verdict=word,
        sentence="" if verdict is None else verdict["sentence"],
        excerpt=excerpt_of(run),
        picture=bool(previews(run.path, ".png")),
        usable=begun,
        page="create" if place is None else place.name,
        judged=place is None or place.judged,
        invitation="Create with it" if place is None else place.invitation,
    )


def page_of(run: Run) -> RunPage | None:
    """The page on which a run is used, if its kind of data has one of its own."""
    return next((p for p in registry.pages() if p.able(run) is None), None)


def excerpt_of(run: Run) -> str:
    """A few words of what a run is about: of its page, or of its newest sample."""
    if (place := page_of(run)) is not None:
        return place.excerpt(run)
    return first_text(run)


def cards(library: Library) -> list[RunCard]:
    """The runs of a server, each with why it cannot be used if it cannot."""
    out = []
    for name in library.paths():
        try:
            out.append(card_of(name, library.open(name)))
        except UserError as error:
            out.append(RunCard(name, usable=False, fault=str(error)))
    return out


def lineage(run: Run) -> str:
    """What a run was made from, in words."""
    record = run.record
    if record.base_model is None:
        return ""
    verb = "aligned from" if record.align is not None else "tuned from"
    return f"{verb} {Path(record.base_model).name}"


def first_text(run: Run) -> str:
    """The beginning of the first text in the newest preview that is not empty."""
    texts = [t for file in previews(run.path, ".txt")[-1:] for t in file.read_text("utf-8", "replace").split(SEPARATOR)]
    return next((t.strip()[:EXCERPT] for t in texts if t.strip()), "")


def magnitude(parameters: int) -> str:
    """A number of parameters in few characters, such as 12.3M."""
    for size, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")):
        if parameters >= size:
            return f"{parameters / size:.3g}{letter}"
    return str(parameters)
