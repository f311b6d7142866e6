"""The verb `pack`: write a run into one signed file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from afresh.core.verb import Option, verb
from afresh.verbs.options import Accept, Force, Licence

if TYPE_CHECKING:
    from afresh.runs.run import Run
    from afresh.verbs.packing import Packed


@verb("pack", result="{bundle, sha256, bytes, files, kind, licence, licences, signer}", served=False)
def pack(
    run: Run,
    out: Annotated[
        str | Path | None,
        Option("File to write; RUN.bundle if not given.", flags=("--out", "-o"), metavar="FILE", shell=Path),
    ] = None,
    *,
    force: Force = False,
    licence: Licence = None,
    accept: Accept = (),
) -> Packed:
    """Pack a model into one signed file, for others to take with `afresh get`.

    It holds what sampling needs, the record, the report and the licences, without the state of training, samples of
    training, and the folders of this machine that the record names. It is signed with your key, which is made at first
    use. A run from which licences stand against sharing is refused, with a table that says why.

    Raises UserError if something stands against sharing the run, for a licence that is not one of SPDX, if the run is
    damaged, in training or without a checkpoint, if the file exists, and if it cannot be written.
    """
    from afresh.verbs.packing import pack_run

    home = run.path.resolve()
    return pack_run(run, Path(out or home.with_name(f"{home.name}.bundle")), licence, accept, force)
