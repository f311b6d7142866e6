"""Molecules: reading, writing as tokens, depicting, and what RDKit computes of them."""

from afresh.core.plugin import Plugin
from afresh.data.tables import SUFFIXES

PLUGIN = Plugin(
    items="molecules",
    reads="`.smi`, `.sdf`, or SMILES in a column of `.csv`, `.tsv`, `.xlsx`, `.jsonl`, `.parquet`; numbers: conditions",
    suffixes={*SUFFIXES, *[".smi", ".smiles", ".sdf", ".sd", ".mol", ".txt"]},
    kinds=("molecule",),
    modalities={"molecule": "afresh.domains.molecule.modality:MODALITY"},
    metrics=("afresh.domains.molecule.metrics:METRICS",),
    rewards=("afresh.domains.molecule.rewards:REWARDS",),
)
