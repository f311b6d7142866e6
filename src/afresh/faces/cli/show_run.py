"""`afresh show`: what a run is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from afresh.faces.cli import options as o
from afresh.faces.cli.show import answer, emit, note
from afresh.faces.cli.show_samples import show_pictures

if TYPE_CHECKING:
    from afresh.runs.about import AboutRun

MOST_CHARACTERS, MOST_COLUMNS = 1_000, 64  # of a preview


def show(
    run: o.Run,
    as_json: Annotated[bool, o.json_of("{run, verdict, preview, report, next, ...}")] = False,
) -> None:
    """Show what a run is: its model and training, the verdict of its report, its last preview, and what comes next."""
    from afresh.faces.cli.runs import facts
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
