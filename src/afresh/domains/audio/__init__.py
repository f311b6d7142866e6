"""Sounds."""

from afresh.core.plugin import Plugin
from afresh.data.audio import SUFFIXES

PLUGIN = Plugin(
    items="sounds",
    reads="WAV, FLAC, OGG, MP3, AIFF in a folder or `.zip`; as spectrograms or waves",
    enough=(500, "items"),
    suffixes=SUFFIXES,
    modalities={"audio": "afresh.domains.audio.modality:MODALITY"},
    rewards=("afresh.domains.audio.rewards:REWARDS",),
)
