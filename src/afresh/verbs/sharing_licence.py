"""What stands between a run and sharing it: licences of its data that are unknown or do not agree with that of the
model, and persons of whom no consent is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.runs.data_lineage import learnt_from
from afresh.runs.record import BaseLicence, CollectedRecord, RunRecord
from afresh.services.collect.ledger import percentages
from afresh.services.collect.licences import NO_ADVICE, duties, normalised
from afresh.services.collect.record import UNKNOWN
from afresh.verbs.licence_table import LicenceTable, licence_table

ACCEPTED = {
    "unknown-licences": "shares a model although the licences of some of its data are unknown",
    "missing-consent": "shares a model although no consent is known of persons whom its data shows",
    "licence-conflict": "shares a model under a licence that the licences of its data do not allow",
}


def check_release(
    path: Path, record: RunRecord, licence: str | None, accept: Sequence[str], published: bool = False
) -> str | None:
    """The licence of the model as SPDX writes it, if one is given. `accept`: names of `ACCEPTED`. published: whether it
    is to be given to everybody, for which the licence of its base counts where none is given, and must be known.

    Raises UserError if what the run has learnt from stands against sharing it, for a name that is none, if the licence
    is none, and if the run is someone else's, who shares it under another one.
    """
    accept = [accept] if isinstance(accept, str) else accept
    for name in accept:
        if name not in ACCEPTED:
            listed = "; ".join(f"{n}: {about}" for n, about in ACCEPTED.items())
            raise UserError(f"`accept` knows no {name!r}. It knows: {listed}.", "unknown_name")
    wanted = None if licence is None else normalised(licence)
    bases = record.base_licences
    if (own := record.licence) is not None:
        _check_maker(path, own, wanted)
        wanted = wanted or (None if own.licence == UNKNOWN else own.licence)
    if published and wanted is None and bases:
        wanted = bases[0].licence
    found = learnt_from(record)
    unknown = sum(s.items for c in found for s in c.licences if s.licence == UNKNOWN)
    if unknown and "unknown-licences" not in accept:
        _refuse(path, f"the licences of {counted(unknown, 'item')} of its data are unknown", "unknown-licences")
    without = sum(c.without_consent for c in found)
    if without and "missing-consent" not in accept:
        _refuse(path, f"{counted(without, 'item')} of its data show persons without a known consent", "missing-consent")
    table = licence_table(record, wanted)
    if table.apart and "licence-conflict" not in accept:
        one, other = table.apart[0]
        why = f"no licence of a model agrees with both {one} and {other}, under which it has learnt"
        if one == other:
            why = f"{one}, under which it has learnt, allows no model to be shared"
        _refuse(path, why, "licence-conflict", f"Learn without one of them. {NO_ADVICE} ", table)
    silent = [b.name for b in record.licences_of_parts if b.licence == UNKNOWN]
    if published and silent and "unknown-licences" not in accept:
        _refuse(path, f"no licence is stated for {', '.join(silent)}, with which it was made", "unknown-licences")
    if wanted is not None and wanted != UNKNOWN and "licence-conflict" not in accept:
        objections = list(dict.fromkeys(row.objection for row in table.rows if row.objection is not None))
        if objections:
            whose = "its base and its data" if bases else "its data"
            why = f"{wanted} does not agree with the licences of {whose} ({'; '.join(objections[:4])})"
            _refuse(path, why, "licence-conflict", f"Choose another licence. {NO_ADVICE} ", table)
    return wanted


def _check_maker(path: Path, own: BaseLicence, wanted: str | None) -> None:
    """Raises UserError for another licence than the maker's of a run that came in a bundle, unless by the maker."""
    from afresh.services.provenance.certificates import fingerprint
    from afresh.services.provenance.signer import own_certificates

    if wanted in (None, own.licence) or own.maker in map(fingerprint, own_certificates()):
        return
    said = "states no licence for it" if own.licence == UNKNOWN else f"shares it under {own.licence}"
    raise UserError(
        f"{path} is not shared under {wanted}: its maker {said}, and only the maker may choose another licence. Leave "
        "`licence` out, or ask the maker. Nothing that is accepted changes that.",
        "makers_licence",
        maker=own.maker,
    )


def _refuse(path: Path, why: str, name: str, first: str = "", table: LicenceTable | None = None) -> None:
    raise UserError(
        f"{path} is not shared: {why}. {first}`accept={name}` {ACCEPTED[name]}; that is yours to answer for.",
        name.replace("-", "_"),
        lines=() if table is None else table.lines(),
        **({} if table is None else {"licences": table.json()}),
    )


def licence_sum(found: CollectedRecord) -> str:
    """The licences of a data set by bytes, as "72% CC0-1.0, 20% MIT, 8% unknown"."""
    return percentages({s.licence: s.bytes for s in found.licences})


def data_sentences(record: RunRecord) -> list[str]:
    """What a card says of the data sets of `collect` that a run has learnt from."""
    return [sentence for found in learnt_from(record) for sentence in _said_of(found)]


def _said_of(found: CollectedRecord) -> list[str]:
    asked = dict.fromkeys(word for share in found.licences for word in duties(share.licence))
    out = [f"Licences of the data set {found.name} (digest {found.digest[:16]}) by bytes: {licence_sum(found)}."]
    if asked:
        out.append(f"They ask for {', '.join(asked)}; its DATACARD.md names the sources. {NO_ADVICE}")
    if found.without_consent:
        out.append(f"No consent is known for {counted(found.without_consent, 'item')} of it that show persons.")
    return out
