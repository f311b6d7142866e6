"""Logs of answers to exercises: who answered what, when, and whether it was right."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    modalities={"exercises": "afresh.domains.exercises.modality:MODALITY"},
    metrics=("afresh.domains.exercises.metrics:METRICS",),
)
