"""What the studio says of a run at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from afresh.core import UserError, registry
from afresh.data.storage.files import bytes_on_disk
from afresh.faces.http.loaded_runs import Library
from afresh.faces.http.request_threads import Desk
from afresh.faces.studio.page_words import plain_words
from afresh.faces.studio.pages import RunPage
from afresh.runs.about import AboutRun, newest_text, previews
from afresh.runs.run import Run


@dataclass(frozen=True)
class RunCard:
    """A run for people. about: what it is; None if it cannot be read, for the reason `fault`. place: the page on which
    runs of its kind are used, if they have one of their own. parent: the name of the model that it was made from, among
    those of the server or elsewhere; how: tuned, aligned, distilled."""

    name: str
    path: Path
    about: AboutRun | None = None
    place: RunPage | None = None
    parent: str = ""
    how: str = ""
    excerpt: str = ""
    fault: str = ""

    @property
    def born(self) -> float:
        """When it was made."""
        with suppress(OSError):  # it is being removed
            return (self.path / "run.json").stat().st_mtime
        return 0.0

    @property
    def usable(self) -> bool:
        return self.about is not None and self.about.steps > 0

    @property
    def page(self) -> str:
        """The path below /studio/ where it is used."""
        return "create" if self.place is None else self.place.name

    @property
    def picture(self) -> bool:
        """Whether there is a preview image."""
        return self.about is not None and bool(previews(self.path, ".png"))

    @property
    def bytes(self) -> int:
        with suppress(OSError):
            return bytes_on_disk(self.path)
        return 0


def card_of(name: str, run: Run, names: Mapping[Path, str] | None = None) -> RunCard:
    """The card of a run; `names` are those of the server's runs. Raises UserError if it cannot be read."""
    about, place, base = AboutRun(run), page_of(run), run.record.base_model
    about.json(), run.encoder  # so that a fault shows here, and not while a page is drawn
    how = "aligned" if run.record.align else "distilled" if run.family.made_by == "distill" else "tuned"
    return RunCard(
        name,
        run.path,
        about,
        place,
        parent="" if base is None else (names or {}).get(Path(base).resolve()) or Path(base).name,
        how="" if base is None else how,
        excerpt=newest_text(run) if place is None else place.excerpt(run),
    )


def page_of(run: Run) -> RunPage | None:
    """The page on which a run is used, if its kind of data has one of its own, or a verb that leads there."""
    forms = [
        RunPage(f"verb/{v.name}", v.leads, v.able, None, newest_text, judged=True)
        for v in registry.verbs().values()
        if v.leads
    ]
    return next((p for p in (*registry.pages(), *forms) if p.able(run) is None), None)


def cards(library: Library) -> list[RunCard]:
    """The runs of a server, each with why it cannot be used if it cannot."""
    paths, out = library.paths(), []
    names = {path.resolve(): name for name, path in paths.items()}
    for name, path in paths.items():
        try:
            out.append(card_of(name, library.open(name), names))
        except (UserError, OSError) as error:
            out.append(RunCard(name, path, fault=plain_words(str(error))))
    return out


def runs_on(desk: Desk, page: str) -> list[str]:
    """The names of the runs that are used on a page."""
    return [card.name for card in cards(desk.library) if card.usable and card.page == page]
