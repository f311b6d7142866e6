"""Source code."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    modalities={"code": "afresh.domains.code.modality:MODALITY"},
    metrics=("afresh.domains.code.metrics:METRICS",),
)
