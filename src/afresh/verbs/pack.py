"""`afresh pack`: write a run into one signed file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from afresh.core.verb import Option, verb
from afresh.verbs.options import Force

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
    licence: Annotated[str | None, Option("Of the model, as Apache-2.0; checked against those of its data.")] = None,
    accept: Annotated[
        Sequence[str],
        Option(
            "Share the model although the licences of some of its data are unknown (unknown-licences), no consent is "
            "known of persons whom its data shows (missing-consent), or licences do not agree (licence-conflict).",
            metavar="NAME",
        ),
    ] = (),
) -> Packed:
    """Pack a model into one signed file, for others to take with `afresh get`.

    It holds what sampling needs, the record, the report and the licences, without the state of training, samples of
    training, and the folders of this machine that the record names. It is signed with your key, which is made at first
    use. A run from which licences stand against sharing is refused, with a table that says why.

    Raises UserError if something stands against sharing the run, for a licence that is none of SPDX, if the run is
    damaged, in training or without a checkpoint, if the file exists, and if it cannot be written.
    """
    from afresh.verbs.packing import pack_run

    home = run.path.resolve()
    target = home.with_name(f"{home.name}.bundle") if out is None else Path(out)
    return pack_run(run, target, licence, accept, force)
