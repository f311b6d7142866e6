"""Scores: reading files, words of notes, rendering."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    items="music in notes",
    reads="MIDI, ABC, piano rolls as JSON",
    enough=(900, "items"),
    suffixes=(".mid", ".midi", ".kar", ".abc", ".json"),
    kinds=("text",),
    modalities={"music": "afresh.domains.music.modality:MODALITY"},
    creations={
        "compose": "afresh.domains.music.creations:COMPOSE",
        "harmonise": "afresh.domains.music.creations:HARMONISE",
    },
    extractors=("afresh.domains.music.extract:EXTRACTORS",),
    verbs={"compose": "afresh.domains.music.verbs:compose"},
    metrics=("afresh.domains.music.metrics:METRICS",),
)
