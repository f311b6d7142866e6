"""`afresh distill`: a flow becomes a student that draws in one to four steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from afresh.faces.cli import options as o
from afresh.faces.cli.train import finish


def distill(
    run: Annotated[Path, o.run_argument("A run of the family flow, the teacher.")],
    guidance: Annotated[
        float | None, o.option("The teacher's guidance, which becomes part of the student; 1 by default.")
    ] = None,
    finest: Annotated[int, o.option("The largest number of steps that the student samples in: 1, 2, 4, 8, ...")] = 4,
    minutes: o.Minutes = None,
    steps: o.Steps = None,
    seed: o.Seed = 0,
    out: Annotated[Path | None, o.option("Folder of the run; RUN-student by default.")] = None,
    force: o.Force = False,
    device: o.Device = None,
    processes: o.Processes = 1,
    on: o.On = None,
    setting: o.TrainSettings = None,
    log: o.Log = None,
    measure: o.MeasureAtEnd = True,
    verbose: o.Verbose = False,
    as_json: o.ResultAsJson = False,
) -> None:
    """Distill a flow into a student that samples in one to four steps what its teacher samples in twenty.

    The student starts from the teacher's weights and learns, on the teacher's data, to take long steps at once, for 5
    minutes if no budget is given. The result is a run like any other, which cannot be distilled again. Ctrl-C saves;
    afresh train --resume RUN continues.
    """
    from afresh.core.options import pairs
    from afresh.engine.training.options import by_part
    from afresh.verbs.distill import DistillSpec, start

    set_family, set_train = by_part(pairs(setting or [], "--set"))
    spec = DistillSpec(
        run=run,
        guidance=guidance,
        finest=finest,
        minutes=minutes,
        steps=steps,
        seed=seed,
        out=out,
        force=force,
        device=device,
        processes=processes,
        on=on,
        set_family=set_family,
        set_train=set_train,
        clock=o.clock(measure),
    )
    finish(start(spec), measure, as_json, log)
