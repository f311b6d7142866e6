"""Texts: prose, tables of texts, conversations."""

from afresh.core.plugin import Plugin
from afresh.data.tables import SUFFIXES

PLUGIN = Plugin(
    items="texts",
    reads="`.txt`, `.md`, `.html`, `.eml`, `.docx`, `.pdf`, `.jsonl`, `.csv`, `.tsv`, `.xlsx`, `.parquet`; "
    "a file or a folder",
    enough=(1_000_000, "bytes"),
    suffixes=SUFFIXES
    | {".txt", ".text", ".md", ".markdown", ".rst", ".html", ".htm", ".xhtml", ".eml", ".mbox", ".docx", ".odt"}
    | {".epub", ".pdf", ".bin", ".npy", ".xls", ".ods", ".numbers", ".smi", ".smiles", ".sdf", ".mol2", ".inchi"}
    # about which it only gives advice, as about tables and lists
    | {".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".rtf", ".doc", ".wpd", ".pages"},
    kinds=("text",),
    modalities={"text": "afresh.domains.text.modality:MODALITY"},
    metrics=("afresh.domains.text.metrics:METRICS",),
    pages=("afresh.domains.text.chat_page:PAGE",),
    rewards=("afresh.domains.text.rewards:REWARDS",),
)
