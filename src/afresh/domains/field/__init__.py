"""Physical fields in time: simulated and measured systems, rolled out with their uncertainty."""

from afresh.core.plugin import Plugin

PLUGIN = Plugin(
    items="fields",
    reads="`.npy`, `.npz`, `.mat`, HDF5, NetCDF, Zarr: trajectories of states on a grid, or pairs of input and output",
    enough=(0, "items"),
    # .json: a store of Zarr has a zarr.json
    suffixes={".npy", ".npz", ".mat", ".h5", ".hdf5", ".hdf", ".he5", ".nc", ".nc4", ".cdf", ".json"},
    kinds=("field",),
    modalities={"field": "afresh.domains.field.modality:MODALITY"},
    families={"ensemble": "afresh.engine.families.ensemble:FAMILY", "refiner": "afresh.engine.families.refiner:FAMILY"},
    makers=("afresh.domains.field.make_data:MAKERS",),
    metrics=("afresh.domains.field.metrics:METRICS",),
    verbs={"rollout": "afresh.domains.field.verbs:rollout", "assimilate": "afresh.domains.field.verbs:assimilate"},
)
