"""Sounds."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    modalities={"audio": "afresh.domains.audio.modality:MODALITY"},
    rewards=("afresh.domains.audio.rewards:REWARDS",),
)
