"""`afresh get`: take a model, data or works that others have packed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from afresh.faces.cli import options as o
from afresh.faces.cli.commands import show_result
from afresh.faces.cli.show import emit, note


def get(
    source: Annotated[
        str,
        typer.Argument(
            help="A bundle: a file, or its address (https). Or a listing of a catalogue: CATALOGUE#LISTING.",
            metavar="BUNDLE",
        ),
    ],
    listing: Annotated[
        str | None, o.option("A listing of the catalogue that BUNDLE is, by its id.", metavar="ID")
    ] = None,
    name: Annotated[str | None, o.option("Name of the run; the one that it was packed with.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder to make; for a model, NAME in the folder of runs.", metavar="DIR"),
    ] = None,
    accept_signer: Annotated[
        list[str] | None,
        o.option(
            "Accept a signer who is not known, for this once, by the SHA-256 of the certificate.", metavar="FINGERPRINT"
        ),
    ] = None,
    trust_signer: o.TrustSigner = None,
    force: o.Force = False,
    as_json: Annotated[bool, o.json_of("{folder, kind, name, made, facts, signer, sha256, files, bytes}")] = False,
) -> None:
    """Take a model, data or works that others have packed, and check them first.

    The signature and every byte are checked before anything is used. What is signed by a person who is not known here
    is refused, with the fingerprint of the certificate, unless that is accepted. A model becomes a run. Nothing that it
    names is run or read. From a catalogue, its signature and the hash that it states are checked, too.
    """
    from afresh.verbs.get import GetRequest
    from afresh.verbs.get import get as take

    received = take(GetRequest(source, listing, name, out, tuple(accept_signer or ()), trust_signer, force))
    note(*received.notes)
    if as_json:
        emit(received.json())
    else:
        show_result(received)
