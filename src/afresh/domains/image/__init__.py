"""Images."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    modalities={"image": "afresh.domains.image.modality:MODALITY"},
    metrics=("afresh.domains.image.metrics:METRICS",),
    rewards=("afresh.domains.image.rewards:REWARDS",),
)
