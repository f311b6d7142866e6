"""`afresh score`: how likely a run finds texts, images or sounds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afresh.cli import options as o
from afresh.cli.sample import labels, numbers
from afresh.cli.show import answer, emit, note, one_line, say, table
from afresh.cli.show import number as digits
from afresh.cli.show_samples import show_tokens

if TYPE_CHECKING:
    from afresh.verbs.score import Scores

TEXTS = "Texts"
LONGEST = 60  # characters of a text in the table


def score(
    run: o.Run,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="Files or folders of items, read as the run's data was.", metavar="[FILE ...]"),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="A text to score; may be repeated.", metavar="TEXT", rich_help_panel=TEXTS),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What stands before each text, or what it answers; not scored itself.", rich_help_panel=TEXTS
        ),
    ] = None,
    end: Annotated[
        bool,
        typer.Option("--end/--no-end", help="Score the end of a text, too, or let it go on.", rich_help_panel=TEXTS),
    ] = True,
    logprobs: Annotated[
        bool, typer.Option("--logprobs", help="How likely each token is, in nats.", rich_help_panel=TEXTS)
    ] = False,
    label: o.Label = None,
    number: o.Number = None,
    caption: o.Caption = None,
    draws: Annotated[int, typer.Option(help="Draws of noise that an estimate is the mean of.")] = 1,
    seed: o.Seed = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="{kind, method, unit, mean, items} on standard output.")
    ] = False,
) -> None:
    """Score items: how likely the model finds each, as a log-likelihood in nats, or a lower bound of it.

    Transformers give exact log-likelihoods; masked models, VAEs and flows bounds, which more --draws make less noisy;
    GANs none. Higher nats are likelier. A label or caption that is not given is as it was read with the item, or open.
    """
    from afresh.core import UserError
    from afresh.data.text.kind import TEXT
    from afresh.runs.run import Run
    from afresh.sampling.request import Request
    from afresh.verbs.score import score as scored

    found = Run.open(run)
    if text and found.encoder.kind is not TEXT:
        raise UserError(f"--text is for texts; this model makes {found.encoder.kind.plural}. Give files of them.")
    request = Request(prompt, labels(label, spec=found.conds), numbers(number) or {}, caption, logprobs=logprobs)
    inputs = [*(text or []), *(files or [])]
    scores = scored(found, inputs, request, end=end, draws=draws, seed=seed)
    note(*scores.notes)
    if as_json:
        emit({"run": str(run), **scores.json()})
    else:
        show(scores, text or [])


def show(scores: Scores, texts: list[str]) -> None:
    """A table of the items, the tokens of each if they were asked for, and what the nats are."""
    per = "nats per token" if scores.unit == "token" else "bits per dimension"
    names = [*map(shortened, texts), *(item.source for item in scores[len(texts) :])]
    errors = any(item.error is not None for item in scores)
    rows = []
    for name, item in zip(names, scores, strict=True):
        rate = item.nats_per_token if item.bits_per_dim is None else item.bits_per_dim
        error = [digits(item.error)] if errors else []
        rows.append([name, digits(item.nats), *error, f"{item.size:,}", digits(rate)])
    columns = ["item", "nats", *(["+-"] if errors else []), f"{scores.unit}s", per]
    answer(table(columns, rows, right=range(1, len(columns)), wrap=(0,)))
    for item in scores:
        show_tokens(item.json())
    word = "log-likelihoods" if scores.kind == "exact" else "lower bounds of log-likelihoods"
    say(f"{word} ({scores.method}); all items: {digits(scores.mean)} {per}")


def shortened(text: str) -> str:
    line = one_line(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
