"""The label of a run: joined from its record, its lineage, the licences of both, and what its training has used."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.core.safe_text import visible_line
from afresh.runs.about import AboutRun, DrawnSamples, read_report
from afresh.runs.content_hash import content_hash, known_weights_hash, weights_hash
from afresh.runs.data_lineage import learnt_from
from afresh.runs.run import Run
from afresh.services.collect.licences import duties, normalised_or_unknown
from afresh.services.collect.record import UNKNOWN
from afresh.services.labels.costs import Prices, cost_of, stage_of, stated_prices, together
from afresh.services.labels.label import Consent, Cost, Follows, Label, Part, Stage
from afresh.services.labels.lineage import Lineage, declared_label, lineage_of


def label_of(run: Run, drawn: DrawnSamples | None = None, load: bool = True, licence: str | None = None) -> Label:
    """The label of a run; of one that came in a bundle, what its maker says of it. `drawn`: what drawing took, if not
    as its report.json says. load: whether weights may be loaded to know their digests, of this run and of those that it
    was made from; else what is known without. licence: what it is shared under, if not as its record says.

    Raises UserError if the run has no checkpoint or is damaged, and if a stated price is none.
    """
    id, prices = f"sha256:{content_hash(run)}", stated_prices()
    name = visible_line(run.path.resolve().name)
    if licence is None and run.record.licence is not None:
        licence = visible_line(run.record.licence.licence)
    if (declared := declared_label(run)) is not None:
        measured = {} if drawn is None else works_costs(drawn, prices)
        return declared.model_copy(update={"name": name, "licence": licence, **measured})
    lineage = lineage_of(run, id, load)
    weights = weights_hash(run) if load else known_weights_hash(run)
    stages, notes = stages_of(run, id, name, lineage, prices)
    drawn = drawn or read_report(run.path).drawn
    follows = licences_that_follow(lineage.parts.values())
    if not prices.json():
        notes.append("No price is stated: set the preferences price_kwh and price_hour.")
    if drawn is None:
        notes.append("What a work costs is not measured yet: `afresh measure` does.")
    return Label(
        subject="model",
        id=id,
        name=name,
        weights=None if weights is None else f"sha256:{weights}",
        facts=facts_of(run),
        parts=tuple(lineage.parts.values()),
        links=tuple(lineage.links),
        licences=follows,
        expression=joined(f.licence for f in follows) if known(lineage.parts.values()) else None,
        licence=licence,
        consent=consent_of(run, lineage),
        stages=tuple(stages),
        training=stages[0].cost,
        prices=prices.json(),
        notes=(*lineage.notes, *notes),
        **({} if drawn is None else works_costs(drawn, prices)),
    )


def works_costs(drawn: DrawnSamples, prices: Prices) -> dict[str, Any]:
    """What one work and a thousand take, as fields of a label."""
    one, thousand = (cost_of(drawn.usage, prices, works / drawn.works, decimals=6) for works in (1, 1000))
    return {"work": one, "thousand_works": thousand, "drawn": drawn.works}


def facts_of(run: Run) -> dict[str, str | int]:
    record, about = run.record, AboutRun(run)
    return {
        "modality": record.modality,
        "items shown as": run.encoder.kind.view,
        "family": about.family,
        "parameters": record.parameters,
        "steps": about.steps,
        "training items": record.data.train,
        "afresh": record.afresh,
    }


def stages_of(run: Run, id: str, name: str, lineage: Lineage, prices: Prices) -> tuple[list[Stage], list[str]]:
    """What training took, the run's own first, then that of the models that it is made from and that are here."""
    notes = []
    stages = [stage_of(run, id, name, prices)]
    for part, parent in lineage.runs.items():
        try:
            declared = declared_label(parent)
            if declared is not None:
                first, *others = declared.stages
                stages += [first.model_copy(update={"of": part, "name": lineage.parts[part].name}), *others]
                continue
            stages.append(stage_of(parent, part, lineage.parts[part].name, prices))
        except UserError as error:
            notes.append(f"What training {lineage.parts[part].name} took cannot be read: {visible_line(str(error))}")
    counted_here = {stage.of for stage in stages} | set(lineage.runs)
    absent = [p.name for p in lineage.parts.values() if p.kind == "model" and p.id not in counted_here]
    if absent:
        notes.append(f"What training {', '.join(absent)} took is not known here, and is not counted.")
    if not stages[0].known:
        notes.append("An earlier version trained it: its energy is estimated from the seconds in its log.")
    return stages, notes


def known(parts: Iterable[Part]) -> bool:
    """Whether a licence is stated for everything of the data and of the models with which it began."""
    asked = [p for p in parts if p.kind == "data"] + [p for p in parts if p.kind == "model" and p.licences]
    return all(p.licences and all(s.licence != UNKNOWN for s in p.licences) for p in asked)


def licences_that_follow(parts: Iterable[Part]) -> tuple[Follows, ...]:
    """The licences of parts, with what each asks for, and the names of the parts that have it; unknown ones last."""
    of: dict[str, dict[str, None]] = {}
    for part in parts:
        named = [s.licence for s in part.licences]
        if part.kind == "data" and not named:
            named = [UNKNOWN]
        for licence in named:
            of.setdefault(licence, {})[part.name] = None
    order = sorted(of, key=lambda licence: (licence == UNKNOWN, licence))
    return tuple(Follows(licence=x, duties=duties(x), of=tuple(of[x])) for x in order)


def joined(licences: Iterable[str]) -> str | None:
    """All licences as one expression of SPDX, since what is made from several has to keep all; None of none."""
    parts = [f"({x})" if " " in x else x for x in licences if x != UNKNOWN]
    if not parts:
        return None
    return normalised_or_unknown(" AND ".join(parts)) if len(parts) > 1 else parts[0].strip("()")


def consent_of(run: Run, lineage: Lineage) -> Consent:
    """What is known of persons whom the data shows."""
    collected = learnt_from(run.record)
    found = known_consent(sum(c.without_consent for c in collected) if collected else None)
    unseen = [p.name for p in lineage.parts.values() if p.kind == "data" and not p.licences] if collected else []
    more = f" Not recorded for {', '.join(unseen)}." if unseen else ""
    return found.model_copy(update={"sentence": found.sentence + more})


def known_consent(without: int | None) -> Consent:
    """The consent of data with so many items that show persons without one; None for data without a ledger."""
    sentence = "Of every item that its ledger says shows a person, consent is known."
    if without is None:
        sentence = "The data has no ledger: whether it shows persons, and whether they consent, is not recorded."
    elif without:
        sentence = f"No consent is known for {counted(without, 'item')} of the data that show persons."
    return Consent(without_consent=without, sentence=sentence)


def canonical(label: Label) -> bytes:
    """The label as a file."""
    return (json.dumps(label.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n").encode(
        "utf-8", "backslashreplace"
    )


def total(label: Label) -> Cost | None:
    """What training took together with that of all models that it is made from and that are here."""
    return together([s.cost for s in label.stages]) if len(label.stages) > 1 else None
