"""Every name in the catalog has its row, and every row its name."""

from __future__ import annotations

from afresh import catalog
from afresh.sampling.ode import SOLVERS
from tests.contracts import rows


def test_every_plugin_has_one_row() -> None:
    for table, names in (
        (rows.MODALITIES, catalog.MODALITIES),
        (rows.FAMILIES, catalog.FAMILIES),
        (rows.CODECS, catalog.CODECS),
        (rows.METRICS, catalog.METRICS),
        (rows.SOLVERS, tuple(SOLVERS)),
    ):
        found = [r.name for r in table if r.name not in catalog.FOREIGN and not getattr(r, "variant", "")]
        assert sorted(found) == sorted(names), "add the missing row to tests/contracts/rows.py"


def test_every_metric_is_named() -> None:
    found = {m.name for m in catalog.metrics()}
    assert found == {m for row in rows.METRICS for m in row.metrics}


def test_every_space_is_used() -> None:
    assert set().union(*(r.spaces for r in rows.FAMILIES)) | {"levels"} == set(rows.SPACES)
