"""The label of a generated work: its signed facts, joined with the label of the run that made it, if that is here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from afresh.core import UserError
from afresh.core.safe_text import visible_line
from afresh.data.preferences import preferences
from afresh.runs.content_hash import content_hash
from afresh.runs.person_adapters import runs_in
from afresh.runs.run import Run
from afresh.services.labels.data_label import hash_of
from afresh.services.labels.label import Consent, Label, Link, Part
from afresh.services.labels.run_label import label_of
from afresh.services.provenance.layers import Layer, Provenance
from afresh.services.provenance.read import read
from afresh.services.provenance.work import Work

UNKNOWN_RUN = "The run that made it is not among the runs here, so what that was made of is not known."


def label_of_work(file: Path, licence: str | None = None, run: Run | None = None) -> Label | None:
    """The label of a work; None if the file has no signed facts of one. licence: what it is shared under, if that is
    known. run: one that may have made it, besides the runs of the user.

    Raises UserError if it cannot be read.
    """
    found = read(file)
    signed = next(facts(found), None)
    if signed is None:
        return None
    layer, work = signed
    id, made_by = f"sha256:{hash_of(file)}", f"sha256:{work.run.removeprefix('sha256:')}"
    about: dict[str, str | int] = {
        "medium": visible_line(work.medium),
        "made": work.made.isoformat(),
        "signature": visible_line(layer.detail),
    }
    parts = [Part(id=made_by, kind="model", name=visible_line(work.model), about="the content of the run", run=made_by)]
    links = [Link(of=id, how="made by", source=made_by)]
    for one in work.ingredients:
        source = Part(id=f"sha256:{one.sha256}", kind="data", name=visible_line(one.title), about="its content")
        parts.append(source)
        links.append(Link(of=id, how="an edit of" if one.relationship == "parentOf" else "given", source=source.id))
    own: dict[str, Any] = {"subject": "work", "id": id, "name": visible_line(file.name), "licence": licence}
    whose = run if run is not None and f"sha256:{content_hash(run)}" == made_by else run_with(made_by)
    if whose is None:
        own |= {"facts": {**about, "family": visible_line(work.family)}, "parts": tuple(parts), "links": tuple(links)}
        return Label(**own, consent=Consent(without_consent=None, sentence=UNKNOWN_RUN), notes=(UNKNOWN_RUN,))
    model = label_of(whose)
    own |= {"facts": {**about, **model.facts}, "parts": (*parts, *model.parts), "links": (*links, *model.links)}
    return model.model_copy(update={**own, "weights": None})


def facts(found: Provenance) -> Iterator[tuple[Layer, Work]]:
    """The facts that the layers of a file have of it, with the layer."""
    for layer in found.layers:
        if layer.origins and layer.origins[0].work is not None:
            yield layer, layer.origins[0].work


def run_with(id: str) -> Run | None:
    """The run of this content hash, among the runs of the user."""
    for path in runs_in(preferences().runs):
        try:
            run = Run.open(path)
            if f"sha256:{content_hash(run)}" == id:
                return run
        except UserError:  # one that is damaged or has no weights yet made nothing
            continue
    return None
