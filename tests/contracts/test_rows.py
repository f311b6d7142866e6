"""Every name in the registry has a row, and every row a name."""

from __future__ import annotations

from afresh.core import registry
from afresh.core.plugins import own_plugins
from afresh.engine.sampling.ode import SOLVERS
from tests.contracts import rows


def test_every_plugin_has_one_row() -> None:
    for table, names in (
        (rows.MODALITIES, registry.own_modalities()),
        (rows.FAMILIES, (*registry.FAMILIES, *(name for domain in own_plugins().values() for name in domain.families))),
        (rows.CODECS, [name for name in registry.CODECS if name not in rows.RECORD_CODECS]),
        (rows.METRICS, (*registry.METRICS, *(name for name, domain in own_plugins().items() if domain.metrics))),
        (rows.SOLVERS, tuple(SOLVERS)),
    ):
        found = [r.name for r in table if r.name not in registry.FOREIGN and not getattr(r, "variant", "")]
        assert sorted(found) == sorted(names), "add the missing row to tests/contracts/rows.py"


def test_every_metric_is_named() -> None:
    found = {m.name for m in registry.metrics()}
    assert found == {m for row in rows.METRICS for m in row.metrics}


def test_every_space_is_used() -> None:
    assert set().union(*(r.spaces for r in rows.FAMILIES)) | {"levels"} == set(rows.SPACES)
