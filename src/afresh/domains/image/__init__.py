"""Images."""

from afresh.core.plugin import Plugin
from afresh.data.image import SUFFIXES

PLUGIN = Plugin(
    items="images",
    reads="PNG, JPEG, WebP, BMP, GIF, TIFF, HEIC in a folder or `.zip`; `.npz`; class folders or `metadata.jsonl`",
    enough=(500, "items"),
    suffixes=SUFFIXES | {".npy", ".npz"},
    modalities={"image": "afresh.domains.image.modality:MODALITY"},
    sides={"image": "afresh.domains.image.modality:short_sides"},
    metrics=(
        "afresh.domains.image.taught:METRICS",
        "afresh.domains.image.metrics:METRICS",
        "afresh.domains.image.appearance:METRICS",
    ),
    rewards=("afresh.domains.image.rewards:REWARDS",),
)
