"""`afresh average`: how long the average of the weights is that sampling uses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from afresh.cli.show import answer, emit, number, quoted, say, table

if TYPE_CHECKING:
    from afresh.tasks.average import Chosen


def average(
    path: Annotated[Path, typer.Argument(help="The run's folder.", metavar="RUN")],
    length: Annotated[
        str, typer.Option(help="auto, a share of the run such as 0.1, or none: as trained.", metavar="LENGTH")
    ] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="The choice as JSON on standard output.")] = False,
) -> None:
    """Choose, after training, over how much of the run the weights are averaged that sampling uses.

    auto compares a few lengths by the held-out loss. Nothing that was learnt is changed; none goes back.
    """
    from dataclasses import asdict

    from afresh.tasks.average import average as choose

    chosen = choose(path, length, say)
    if as_json:
        emit({"run": str(path), **asdict(chosen)})
        return
    show(chosen, path)


def show(chosen: Chosen, path: Path) -> None:
    """What was compared, and what sampling uses now."""
    if len(chosen.tried) > 1:
        rows = [[name(t.length), number(t.loss), f"{t.error:.1%}"] for t in chosen.tried]
        answer(table(["length", "held-out loss", "off by"], rows, right=(1, 2)))
    how = "as it was trained" if chosen.length is None else f"with an average of length {chosen.length:g}"
    answer(f"{path} samples {how}")
    answer(f"next: afresh measure {quoted(path)}")


def name(length: float | None) -> str:
    return "as trained" if length is None else f"{length:g}"
