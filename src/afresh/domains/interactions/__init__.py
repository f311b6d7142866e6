"""Logs of who did what when: users' histories of items of a catalogue."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    modalities={"interactions": "afresh.domains.interactions.modality:MODALITY"},
    metrics=("afresh.domains.interactions.metrics:METRICS",),
)
