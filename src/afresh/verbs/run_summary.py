"""A summary of a finished or stopped run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from afresh.engine.alignment.monitoring.report import alignment
from afresh.engine.evaluation.study import Measurement
from afresh.engine.training.best_checkpoint import read_choice
from afresh.engine.training.checkpoint import steps_in
from afresh.runs.run import Run, metrics_rows
from afresh.verbs.report import run_verdict, stopped
from afresh.verbs.training_job import Job


def steps_done(run: Run) -> int:
    """The step of the newest checkpoint."""
    steps = steps_in(run.path / "checkpoints")
    return int(steps[-1]) if steps else 0


def final_record(job: Job, seconds: float, measured: Measurement | None) -> dict[str, Any]:
    """The final record that `train --json` prints, with the verdict if the run was measured."""
    r = job.run.record
    curve = [row["heldout_loss"] for row in metrics_rows(job.run) if "heldout_loss" in row]
    tuned = (
        {"base_model": r.base_model, "heldout_loss_before": curve[0], "heldout_loss": curve[-1]}
        if r.base_model and curve
        else {}
    )
    why = stopped(job.run)
    aligned = alignment(metrics_rows(job.run), r.align.asked_distance) if r.align is not None else None
    return {
        "run": str(job.run.path),
        **({} if measured is None else {"verdict": run_verdict(job.run, measured).json()}),
        "modality": r.modality,
        "family": r.family,
        "parameters": r.parameters,
        "steps": steps_done(job.run),
        "seconds": round(seconds, 2),
        **({"stopped": why} if why else {}),
        **({"sampling": used.model_dump()} if (used := read_choice(job.run.path)) is not None else {}),
        **tuned,
        **({} if aligned is None or r.align is None else {"align": r.align.model_dump(mode="json"), **aligned.json}),
        "metrics": [] if measured is None else [asdict(s) for s in measured.scores],
    }
