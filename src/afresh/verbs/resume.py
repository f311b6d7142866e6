"""Resuming a run, whether it was trained, tuned, distilled or aligned."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from afresh.core import events
from afresh.engine.alignment.alignment_batches import alignment_source
from afresh.engine.nets.kernels.build import version
from afresh.engine.training import ranks
from afresh.runs.data import run_data
from afresh.runs.lock import kept
from afresh.runs.run import Run
from afresh.verbs.data_source import data_source
from afresh.verbs.training_job import Job
from afresh.verbs.trust_prompt import check_trust


def resume(
    path: Path,
    trust: bool = False,
    ignore_stop: bool = False,
    *,
    holds: bool = True,
    processes: int = 1,
    on: str | None = None,
) -> Job:
    """Open a run to continue its training. With `ignore_stop`, training that was stopped early, because the model began
    to memorise or went too far, goes on to the planned steps; without it, such a run stays as it is.
    `holds`: take the run, so that no other process trains it; those that train beside the one that leads do not.

    Raises UserError if its data is missing or has changed, if the run was made by someone else, names programs or
    other paths, and is not to be trusted, and if another process trains it.
    """
    run = Run.open(path)
    ranks.check_batch(run.train.batch, max(processes, ranks.launched_world()))
    check_trust(run, trust)
    if run.train.device != (trained_on := run.record.train.device):
        events.warning(
            f"The run was trained on the device {trained_on}, which is not available here. Training goes on on the "
            f"device {run.train.device}."
        )
    if run.train.device == "cpu" and run.record.machine.get("kernels") and version() != run.record.machine["kernels"]:
        events.warning(
            f"The run began with compiled kernels. Here {'others are used' if version() else 'none are used'}, so that "
            "its weights will differ in the last bits from those of an uninterrupted run. To avoid that, resume it "
            "with AFRESH_KERNELS=yes, on the processor and with the compiler of before.",
            "other_kernels",
        )
    with kept(run.path, "trained") if holds else nullcontext():
        prepared = run_data(run)
        open_source = data_source if run.record.align is None else alignment_source
        return Job(run, prepared, open_source(run, prepared), ignore_stop=ignore_stop, processes=processes, on=on)
