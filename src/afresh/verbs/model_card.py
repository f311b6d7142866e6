"""The model card of a run: what it was trained on, from what, for how long, and how good it was measured to be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afresh.core.plural import counted
from afresh.core.safe_text import visible_line
from afresh.runs.about import AboutRun
from afresh.runs.base_licence import licences_of
from afresh.runs.formats.model_card import UNKNOWN, Card, dataset_name, shared_name
from afresh.runs.record import BaseLicence
from afresh.runs.run import Run
from afresh.runs.signature import base_model_here
from afresh.services.collect.licences import hub_name
from afresh.services.labels.lineage import how_made
from afresh.services.labels.run_label import label_of
from afresh.services.labels.words import sentences_of
from afresh.verbs.base_terms import base_sentences
from afresh.verbs.sharing_licence import data_sentences

RELATIONS = {"an adapter of": "adapter"}  # of models to their bases, as the hub names them; any other is "finetune"


def card_of(run: Run, licence: str | None = None) -> Card:
    """The card of a run's model. licence: of the model, as SPDX writes it; if none is given, its maker's counts, or
    else its base's."""
    record, about = run.record, AboutRun(run)
    base, here = (
        None if record.base_model is None else visible_line(shared_name(record.base_model)),
        base_model_here(run),
    )
    how = "Aligned" if record.align else "Trained" if base is None else "Tuned"
    begun = "" if base is None else f" from {base}"
    captions = any(part.kind in ("prompt", "vector") for part in run.conds.values())
    without, with_text = run.encoder.kind.hub_task
    scores = about.report.quality
    sentences = [
        f"{how}{begun} with afresh {record.afresh} for {counted(about.steps, 'step')}: a model of the family "
        f"{record.family} for {run.encoder.kind.plural}, {record.parameters:,} parameters, on "
        f"{counted(record.data.train, 'item')} of {dataset_name(record.data.path)}."
    ]
    if scores:
        listed = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in scores.items())
        sentences.append(f"Measured on {counted(record.data.heldout, 'held-out item')}: {listed}.")
    sentences += data_sentences(record)
    bases = record.base_licences
    if not bases and here is not None and Path(here).is_dir():  # a run of an earlier version
        bases = licences_of(here)
    sentences += base_sentences([*bases, *([] if record.codec_licence is None else [record.codec_licence])])
    sentences += sentences_of(label_of(run, load=False))
    if licence is None and record.licence is not None and record.licence.licence != UNKNOWN:
        licence = record.licence.licence
    stated, named, link = card_licence(licence, bases)
    return Card(
        name=run.path.resolve().name,
        task=with_text if captions else without,
        base_model=base,
        relation=None if base is None else RELATIONS.get(how_made(record), "finetune"),
        licence=stated,
        licence_name=named,
        licence_link=link,
        datasets=(dataset_name(record.data.path),),
        scores=scores,
        sentences=sentences,
    )


def card_licence(licence: str | None, bases: Sequence[BaseLicence]) -> tuple[str, str, str]:
    """The licence as the hub names it, its own name, and where its text is: the one given, else that of the base."""
    if licence is not None:
        return hub_name(licence), licence, ""
    if len({b.licence for b in bases}) != 1:
        return UNKNOWN, "", ""
    own = bases[0]
    return own.hub or hub_name(own.licence), own.licence.removeprefix("LicenseRef-"), own.link
