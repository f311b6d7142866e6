"""Labels of runs, data and works in the forms that others read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from afresh.core import UserError
from afresh.core.safe_text import visible_line
from afresh.core.verb import Line, ShownResult
from afresh.data.collected import is_collected, manifest
from afresh.data.storage.files import replace_file
from afresh.runs.about import read_report
from afresh.runs.formats.model_card import with_card
from afresh.runs.run import Run
from afresh.runs.signature import made_here
from afresh.services.collect.cards import datacard, facts_of
from afresh.services.labels.cyclonedx import cyclonedx
from afresh.services.labels.data_label import croissant_of_data, croissant_of_part, label_of_data
from afresh.services.labels.label import Label
from afresh.services.labels.run_label import label_of
from afresh.services.labels.words import rows_of
from afresh.services.labels.work_label import label_of_work
from afresh.verbs.model_card import card_of

Format = Literal["label", "card", "cyclonedx", "croissant"]
FORMATS: tuple[Format, ...] = get_args(Format)


@dataclass(frozen=True)
class Labelled(ShownResult):
    """A label in one of `FORMATS`: a `document` of JSON, or a text in Markdown."""

    format: Format
    document: Mapping[str, Any] | str
    label: Label | None = None
    notes: Sequence[str] = ()

    def json(self) -> dict[str, Any]:
        return {"format": self.format, "document": self.document}

    @property
    def text(self) -> str:
        """The content of a file of it."""
        if isinstance(self.document, str):
            return self.document
        return json.dumps(self.document, indent=1, ensure_ascii=False) + "\n"

    def save(self, path: str | Path, force: bool = False) -> None:
        """Write it to a file. Raises UserError if there is one already, unless `force`, or if it cannot be written."""
        file = Path(path)
        if file.exists() and not force:
            raise UserError(f"{file} exists and would be overwritten. Choose another file, or use `force`.", "exists")
        replace_file(file, self.text.encode("utf-8", "backslashreplace"), "Choose another file")

    def lines(self) -> Sequence[Line]:
        if self.label is None:
            return [self.text.rstrip("\n")]
        return [*(f"{name + ':':22}{visible_line(value)}" for name, value in rows_of(self.label)), *self.label.notes]


def labelled_run(run: Run, format: Format, licence: str | None = None) -> Labelled:
    """The label of a run. licence: what it is shared under, if not as its record says. Raises UserError as `label_of`,
    and for an unknown format."""
    check_format(format)
    if format == "card":
        return Labelled(format, with_card(usage_of(run), card_of(run, licence), "afresh"))
    label = label_of(run, licence=licence)
    if format == "croissant":
        data = next(p for p in label.parts if p.kind == "data" and p.id in {k.source for k in label.links})
        return Labelled(format, data_of(run, data.id) or croissant_of_part(label, data))
    return in_form(label, format, read_report(run.path).quality)


def labelled(path: Path, format: Format) -> Labelled:
    """The label of a run, a work or data. Raises UserError if the path names none of them, or for an unknown format."""
    check_format(format)
    if (path / "run.json").is_file():
        return labelled_run(Run.open(path), format)
    if not path.exists():
        raise UserError(f"{path} does not exist. Give a run, a work, or a file or folder of data.", "missing")
    work = label_of_work(path) if path.is_file() else None
    if work is not None:
        if format in ("card", "croissant"):
            raise UserError(
                f"{path} is a work, and {format} describes models or data. {accepted('label', 'cyclonedx')}",
                "format",
            )
        return in_form(work, format, {})
    if format == "croissant":
        return Labelled(format, croissant_of_data(path))
    if format == "card":
        if not (path.is_dir() and is_collected(path)):
            raise UserError(
                f"A card is written of runs and of data sets of `afresh collect`; {path} is neither.", "format"
            )
        name = visible_line(path.resolve().name) or "data"
        return Labelled(format, datacard(name, facts_of(path), manifest(path)))
    return in_form(label_of_data(path), format, {})


def in_form(label: Label, format: Format, scores: Mapping[str, float]) -> Labelled:
    """A label as JSON of its own, or of CycloneDX."""
    if format == "cyclonedx":
        return Labelled(format, cyclonedx(label, scores))
    return Labelled(format, label.model_dump(mode="json"), label)


def data_of(run: Run, id: str) -> dict[str, Any] | None:
    """The Croissant of the data set of `collect` that a run has learnt from, if it is here as it was, and the user has
    made the run, so that its path is the user's."""
    path, collected = Path(run.record.data.path), run.record.data.collected
    if collected is None or not made_here(run) or not (path.is_dir() and is_collected(path)):
        return None
    return croissant_of_data(path) if f"blake3:{manifest(path)['digest']}" == id else None


def usage_of(run: Run) -> str:
    """How the model of a card is used."""
    name = visible_line(run.path.resolve().name)
    return f"\n## Use\n\n    import afresh\n\n    afresh.load({name!r}).sample(4)\n"


def check_format(format: str) -> None:
    if format not in FORMATS:
        raise UserError(f"No format {format!r}. {accepted(*FORMATS)}", "format")


def accepted(*names: str) -> str:
    return f"Accepted: {', '.join(names)}."
