"""Images."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    items="images",
    reads="PNG, JPEG, WebP, BMP, GIF, TIFF, HEIC in a folder or `.zip`; `.npz`; class folders or `metadata.jsonl`",
    modalities={"image": "afresh.domains.image.modality:MODALITY"},
    sides={"image": "afresh.domains.image.modality:short_sides"},
    metrics=("afresh.domains.image.taught:METRICS", "afresh.domains.image.metrics:METRICS"),
    rewards=("afresh.domains.image.rewards:REWARDS",),
)
