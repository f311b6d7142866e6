"""Logs of who did what when: users' histories of items of a catalogue."""

from afresh.core.plugin import Plugin
from afresh.data.tables import TABLES

PLUGIN = Plugin(
    items="logs of choices",
    reads="`.csv`, `.tsv`, `.xlsx`, `.jsonl`, `.parquet`, SQLite: users, what they chose, when",
    enough=(1_000, "items"),
    suffixes=TABLES | {".inter"},
    kinds=("history",),
    modalities={"interactions": "afresh.domains.interactions.modality:MODALITY"},
    verbs={"recommend": "afresh.domains.interactions.verbs:recommend"},
    pages=("afresh.domains.interactions.page:PAGE",),
    metrics=("afresh.domains.interactions.metrics:METRICS",),
    run_files=("recommend",),
)
