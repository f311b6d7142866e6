"""`afresh sample`: new examples from a run."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from afresh.faces.cli import options as o
from afresh.faces.cli.show import console, emit, note, say
from afresh.faces.cli.show_samples import led, note_labels, show_samples, show_texts, show_tokens

if TYPE_CHECKING:
    from afresh.core.verb import Verb
    from afresh.engine.sampling.samples import Samples
    from afresh.runs.run import Run

PICTURES, TEXTS = 16, 4  # samples if -n is not given
SHOWN = 8  # of those that are written to files as well


def streamed(run: Run, verb: Verb[Any, Samples], values: dict[str, Any], between: str, as_json: bool) -> Samples:
    """One text, shown while it is drawn: on standard output, or on standard error where JSON goes there."""
    from afresh.core import UserError
    from afresh.engine.sampling.stream import Stream

    if values["n"] not in (None, 1):
        message = f"--stream shows one text as it is drawn; -n {values['n']} are drawn side by side."
        raise UserError(f"{message} Leave one of them out.")
    stream = Stream(lambda on_text: lambda: verb.of(run, {**values, "n": 1, "on_text": on_text}))
    pieces = iter(stream)
    first = next(pieces, "")
    if values["prompt"] is not None:
        show_prompt(values["prompt"], between, as_json)
    show_pieces(chain([first], pieces), sys.stderr if as_json else sys.stdout)
    assert stream.samples is not None
    return stream.samples


def show_prompt(prompt: str, between: str, error: bool) -> None:
    """In bold, the cursor left behind it."""
    from rich.text import Text

    from afresh.core.safe_text import visible

    console(error).print(Text(led(visible(prompt), between), style="bold"), end="")


def show_pieces(pieces: Iterable[str], file: IO[str]) -> None:
    """Each as it comes; control characters as their pictures."""
    from afresh.core.safe_text import visible

    held = ""
    for piece in pieces:
        text = held + piece
        held = "\r" if text.endswith("\r") else ""  # with a line feed it is an end of line
        file.write(visible(text.removesuffix(held)))
        file.flush()
    file.write(visible(held) + "\n")
    file.flush()


def deliver(
    run: Run,
    verb: Verb[Any, Samples],
    values: dict[str, Any],
    as_json: bool,
    *,
    out: o.SamplesOut = None,
    force: o.Force = False,
    no_marks: o.Unmarked = False,
    label_ai: o.LabelAi = False,
) -> None:
    """Draw, and write, print or show the samples."""
    from afresh.core import UserError
    from afresh.core.plural import counted
    from afresh.engine.sampling.request import converses
    from afresh.engine.sampling.samples import check_out, replace_samples, text_records
    from afresh.runs.about import read_report

    kind, run.marked, stream = run.encoder.kind, not no_marks, values.pop("on_text", None)
    if as_json and out is None and not kind.inline:
        raise UserError(f"This model makes {kind.plural}, which JSON cannot hold. Say where to write them: --out DIR.")
    if stream and label_ai:
        raise UserError("The label of a text stands before all of it: leave --stream or --label-ai out.")
    if not stream and values.get("n", 1) is None:
        values["n"] = TEXTS if kind.view == "text" else PICTURES
    count = values["n"] if "n" in values else values["each"] * len(values["inputs"])
    check_out(out, run.encoder, count or 1, force)
    between = "\n" if converses(run.encoder, run.space) and not values.get("raw") else ""
    samples = streamed(run, verb, values, between, as_json) if stream else verb.of(run, values)
    note(*samples.notes)
    samples = samples.labelled() if label_ai else samples
    records = replace_samples(samples, out) if out is not None else text_records(samples) if kind.inline else []
    if out is not None:
        say(f"{counted(len(records), 'sample')} in {out}")
        if kind.view == "sound" and out.is_dir():
            say(f"listen: {out / 'index.html'}")
    if as_json:
        emit({"verdict": (read_report(run.path).verdict or {}).get("word"), "samples": records})
    elif stream:
        show_tokens(records[0])
    elif kind.view == "text" or kind.inline:
        most = None if out is None else SHOWN
        if kind.view != "text":
            show_samples(samples)
        show_texts(samples, records, between, most)
        if most is not None and len(samples) > most:
            say(f"and {len(samples) - most:,} more in {out}")
    elif show_samples(samples):
        note_labels(samples)
    elif out is None:
        drawn = counted(len(samples), kind.name, kind.plural)
        say(f"{drawn}, not shown because this is not a terminal with colours. Write files: --out DIR.")
