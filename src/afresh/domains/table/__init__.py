"""Tables of mixed columns: synthetic rows, rows with given values, and missing values filled in."""

from afresh.core.plugin import Plugin
from afresh.data.tables import TABLES

PLUGIN = Plugin(
    items="tables",
    reads="CSV, TSV, Excel, Parquet, JSON lines and SQLite tables of numbers, categories, dates and missing values",
    enough=(10_000, "items"),
    suffixes=TABLES,
    kinds=("row",),
    modalities={"table": "afresh.domains.table.modality:MODALITY"},
    metrics=("afresh.domains.table.metrics:METRICS",),
    verbs={"rows": "afresh.domains.table.verbs:rows", "impute": "afresh.domains.table.verbs:impute"},
)
