"""metrics.jsonl holds the lines up to the step that training goes on from, and no others."""

from __future__ import annotations

from pathlib import Path

from afresh.engine.training.metrics_log import Journal, read_rows


def test_lines_of_steps_that_are_taken_again_and_half_lines_are_removed(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    journal = Journal(file, 0)
    for step in (2, 4, 6):
        journal.append(step, {"loss": float(step)})
    with file.open("ab") as stream:
        stream.write(b'{"step": 4, "seconds": 1.0, "loss": 1.0}')  # whole, but for the end of the line
    again = Journal(file, 4)
    assert [row["step"] for row in read_rows(file)] == [2, 4]
    again.append(6, {"loss": 6.0})
    assert [row["step"] for row in read_rows(file)] == [2, 4, 6]
    seconds = [row["seconds"] for row in read_rows(file)]
    assert seconds == sorted(seconds)
