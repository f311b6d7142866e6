"""Texts: prose, tables of texts, conversations."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    modalities={"text": "afresh.domains.text.modality:MODALITY"},
    metrics=("afresh.domains.text.metrics:METRICS",),
    rewards=("afresh.domains.text.rewards:REWARDS",),
)
