"""The licences that a run stands under: what each asks for, which licences a model may have, and which contradict each
other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

from afresh.core.plural import counted
from afresh.runs.data_lineage import learnt_from
from afresh.runs.record import RunRecord
from afresh.services.collect.licences import duties, models_under, objection, spdx_keys, terms_of
from afresh.services.collect.record import UNKNOWN


@dataclass(frozen=True)
class LicenceRow:
    """A licence: what is under it, its duties in words, the licences that a model may have (None: any), whether the
    table of licences knows it, and why it does not agree with that of the model, if it does not."""

    of: str
    licence: str
    duties: tuple[str, ...]
    models: tuple[str, ...] | None
    known: bool
    objection: str | None

    def json(self) -> dict[str, Any]:
        return {
            "of": self.of,
            "licence": self.licence,
            "duties": list(self.duties),
            "models": None if self.models is None else list(self.models),
            "known": self.known,
            "agrees": self.objection is None,
        }


@dataclass(frozen=True)
class LicenceTable:
    """The licences of the bases and of the data of a run, and the pairs of which no licence of a model agrees with
    both: a licence with itself if it allows none."""

    rows: tuple[LicenceRow, ...]
    apart: tuple[tuple[str, str], ...]

    def json(self) -> list[dict[str, Any]]:
        """The rows, each with the licences that it contradicts."""
        return [{**row.json(), "contradicts": self._against(row.licence)} for row in self.rows]

    def _against(self, licence: str) -> list[str]:
        return [b if a == licence else a for a, b in self.apart if licence in (a, b)]

    def lines(self) -> list[str]:
        """The table as text, a licence a line."""
        cells = [("LICENCE", "OF", "ASKS FOR", "A MODEL MAY BE UNDER", "CONTRADICTS")]
        for row in self.rows:
            if not row.known:
                may = "not in the table"
            elif row.models is None:
                may = "any licence"
            else:
                may = ", ".join(row.models) or "none"
            against = self._against(row.licence) + ([] if row.objection is None else ["that of the model"])
            cells.append((row.licence, row.of, ", ".join(row.duties) or "nothing", may, ", ".join(against) or "-"))
        widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
        return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def licence_table(record: RunRecord, wanted: str | None) -> LicenceTable:
    """The licences that a run stands under, as `wanted` for the model is judged by them."""
    under = {(b.licence, b.name): None for b in record.licences_of_parts}
    for found in learnt_from(record):
        for share in found.licences:
            under[share.licence, f"{counted(share.items, 'item')} of {found.name}"] = None
    rows = []
    for licence, of in under:
        models = models_under(licence)
        judged = None not in (wanted, licence) and UNKNOWN not in (wanted, licence)
        rows.append(
            LicenceRow(
                of,
                licence,
                duties(licence),
                None if models is None else tuple(sorted(models)),
                licence != UNKNOWN and all(terms_of(k) is not None for k in spdx_keys(licence)),
                objection(licence, wanted) if judged and wanted is not None else None,
            )
        )
    limits = {row.licence: frozenset(row.models) for row in rows if row.models is not None}
    apart = [(name, name) for name, models in limits.items() if not models]
    apart += [(a, b) for a, b in combinations(limits, 2) if limits[a] and limits[b] and not limits[a] & limits[b]]
    return LicenceTable(tuple(rows), tuple(apart))
