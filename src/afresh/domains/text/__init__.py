"""Texts: prose, tables of texts, conversations."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    items="texts",
    reads="`.txt`, `.md`, `.html`, `.eml`, `.docx`, `.pdf`, `.jsonl`, `.csv`, `.tsv`, `.xlsx`, `.parquet`; "
    "a file or a folder",
    modalities={"text": "afresh.domains.text.modality:MODALITY"},
    metrics=("afresh.domains.text.metrics:METRICS",),
    pages=("afresh.domains.text.chat_page:PAGE",),
    rewards=("afresh.domains.text.rewards:REWARDS",),
)
