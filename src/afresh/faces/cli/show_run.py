"""`afresh show`: what was trained, what a run is, and what a model, data or a work is made of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from afresh.core.plural import digits, size
from afresh.faces.cli import completion
from afresh.faces.cli import options as o
from afresh.faces.cli.commands import show_result
from afresh.faces.cli.paths import existing_run
from afresh.faces.cli.show import answer, emit, note, say, table
from afresh.faces.cli.show_samples import show_pictures

if TYPE_CHECKING:
    from afresh.runs.about import AboutRun

Format = Literal["label", "card", "cyclonedx", "croissant"]
MOST_CHARACTERS, MOST_COLUMNS = 1_000, 64  # of a preview


def show(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A run: its folder, or its name in runs/. Or a folder of runs; runs/ if nothing is given. Or data, or "
            "a work: its file.",
            metavar="[RUN|FOLDER|DATA|WORK]",
            callback=existing_run,
            autocompletion=completion.runs,
        ),
    ] = None,
    format: Annotated[
        Format | None,
        o.option(
            "What it is made of, as a label: all that is known, in JSON. card: a card of the Hugging Face hub. "
            "cyclonedx: an ML-BOM of CycloneDX 1.6. croissant: the data, in the words of ML Croissant."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write the label to.", metavar="FILE")] = None,
    force: o.Force = False,
    as_json: Annotated[
        bool, o.json_of("{run, verdict, preview, report, next, ...}, of a folder {runs}, of a label {format, document}")
    ] = False,
) -> None:
    """Show what a run is: its model and training, the verdict of its report, its last preview, and what comes next. Of
    a folder, list its runs and the adapters of persons of each.

    With --format, and of a file, show the label: it names a model, its base, its data and its votes by the digests of
    their contents, the licences that follow and what they ask for, and the seconds, the energy and the money that
    training and works took. Energy is measured where the machine tells, else estimated. Money rests on the preferences
    price_kwh and price_hour. A work is joined with the run that made it, where that is in runs/.
    """
    from afresh.data.preferences import preferences

    if path is not None and (format or out or path.is_file()):
        show_label(path, format or "label", out, force, as_json)
    elif path is not None and (path / "run.json").is_file():
        show_run(path, as_json)
    else:
        show_runs(path or preferences().runs, as_json)


def show_label(path: Path, format: Format, out: Path | None, force: bool, as_json: bool) -> None:
    from afresh.verbs.labelling import labelled

    made = labelled(path, format)
    note(*made.notes)
    if out is not None:
        made.save(out, force)
        say(f"{made.format} in {out}")
    if as_json:
        emit({"run": str(path), **made.json()})
    elif out is None:
        show_result(made)


def show_runs(root: Path, as_json: bool) -> None:
    from afresh.core import UserError
    from afresh.runs.person_adapters import runs_in

    if not root.is_dir():
        raise UserError(f"No folder {root}. Give one that holds runs; afresh train makes runs/.")
    found = []
    for folder in runs_in(root):
        try:
            found.append(facts(folder))
        except UserError as e:  # one bad folder does not hide the others
            note(str(e))
    if as_json:
        emit({"runs": found})
    elif found:
        columns = ["run", "modality", "family", "parameters", "steps", "state", "held-out loss", "disk"]
        answer(table(columns, [row(f) for f in found], right=(3, 4, 6, 7), wrap=(0,)))
    else:
        say(f"No run in {root}. Make one: afresh train PATH. For the label of data: afresh show {root} --format label")


def facts(folder: Path) -> dict[str, Any]:
    """What a run's folder says. Raises UserError when its run.json is not understood."""
    from afresh.data.storage.files import bytes_on_disk
    from afresh.runs.about import AboutRun
    from afresh.runs.run import Run

    about = AboutRun(Run.open(folder))
    return {
        "run": str(about.run.path),
        **about.state,
        "state": "done" if about.done else "stopped" if about.steps else "not begun",
        "heldout_loss": next(reversed(about.heldout), None),
        "bytes": bytes_on_disk(folder),
        "data": about.record.data.path,
    }


def row(f: dict[str, Any]) -> list[str]:
    steps = f"{f['steps']:,}" if f["state"] == "done" else f"{f['steps']:,} of {f['planned']:,}"
    words = [f["run"], f["modality"], f["family"], f"{f['parameters']:,}", steps, f["state"]]
    return [*words, digits(f["heldout_loss"]), size(f["bytes"])]


def show_run(run: Path, as_json: bool) -> None:
    from afresh.runs.about import AboutRun, previews
    from afresh.runs.run import Run
    from afresh.verbs.use_command import next_commands

    found = Run.open(run)
    about = AboutRun(found)
    verdict, following = about.report.verdict, next_commands(found)
    preview = next(reversed(previews(found.path)), None)
    page = found.path / "report.html"
    report = str(page) if page.is_file() else None
    if as_json:
        shown = None if preview is None else str(preview)
        emit({**facts(found.path), "verdict": verdict, "preview": shown, "report": report, "next": following})
        return
    lines = about.lines()
    if verdict is not None:
        lines.append(("verdict", f"{verdict['word']}. {verdict['sentence']} {verdict['help']}".strip()))
    lines += cost_lines(about)
    if report is not None:
        lines.append(("report", report))
    for name, value in lines:
        answer(f"{name + ':':14}{value}")
    if preview is not None:
        show_preview(preview)
    answer("next:")
    for command in following:
        answer(f"  {command}")


def cost_lines(about: AboutRun) -> list[tuple[str, str]]:
    """What training the run and drawing works took; nothing before its first checkpoint."""
    from afresh.services.labels.run_label import label_of
    from afresh.services.labels.words import cost_rows, followed

    if about.progress is None:
        return []
    label = label_of(about.run, load=False)
    costs = [f"{name} {text}" for name, text in cost_rows(label)]
    own = [] if label.licence is None else [("licence", label.licence)]
    return [*own, ("licences", "; ".join(map(followed, label.licences))), ("costs", "; ".join(costs))]


def show_preview(file: Path) -> None:
    """The text, or the picture if the terminal draws it; otherwise its path."""
    from rich.text import Text

    from afresh.core.safe_text import visible
    from afresh.data.files import FileError
    from afresh.data.image.images import full_size_image

    step = f"step {int(file.stem):,}"
    if file.suffix == ".txt":
        text = file.read_text("utf-8", "replace")
        answer(f"preview of {step}:")
        answer(Text(visible(text[:MOST_CHARACTERS] + (" ..." if len(text) > MOST_CHARACTERS else ""))))
        return
    try:
        shown = show_pictures([full_size_image(file).pixels], MOST_COLUMNS)
    except FileError as e:
        note(f"{file} cannot be shown: {e}")
        return
    if not shown:
        answer(f"{'preview:':14}{file} ({step})")
