"""Scores: reading files, words of notes, rendering."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    modalities={"music": "afresh.domains.music.modality:MODALITY"},
    metrics=("afresh.domains.music.metrics:METRICS",),
)
