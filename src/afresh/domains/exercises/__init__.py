"""Logs of answers to exercises: who answered what, when, and whether it was right."""

from afresh.core.plugin import Plugin
from afresh.data.tables import TABLES

PLUGIN = Plugin(
    items="answers to exercises",
    reads="a log as `.csv`, `.tsv`, `.xlsx`, `.parquet`, `.jsonl`: learner, exercise, right or wrong",
    enough=(2_000, "items"),
    suffixes=TABLES,
    kinds=("answers",),
    modalities={"exercises": "afresh.domains.exercises.modality:MODALITY"},
    verbs={"practise": "afresh.domains.exercises.verbs:practise"},
    pages=("afresh.domains.exercises.page:PAGE",),
    metrics=("afresh.domains.exercises.metrics:METRICS",),
    run_files=("practise",),
)
