"""Molecules: reading, writing as tokens, depicting, and what RDKit computes of them."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    items="molecules",
    reads="`.smi`, `.sdf`, or SMILES in a column of `.csv`, `.tsv`, `.xlsx`, `.jsonl`, `.parquet`; numbers: conditions",
    modalities={"molecule": "afresh.domains.molecule.modality:MODALITY"},
    metrics=("afresh.domains.molecule.metrics:METRICS",),
    rewards=("afresh.domains.molecule.rewards:REWARDS",),
)
