"""What the names of arrays and axes in scientific files mean."""

from __future__ import annotations

import re

SAMPLE, TIME, CHANNEL = "sample", "time", "channel"
ROLES = (SAMPLE, TIME, CHANNEL)  # of axes; any other name is one of space
_KINDS = {
    SAMPLE: "sample samples trajectory trajectories traj n_traj member members ensemble realization realisation batch "
    "sim sims simulation simulations run runs number case cases seed seeds",
    TIME: "t tt ts time times timestep timesteps time_step time_steps n_steps step steps frame frames snapshot "
    "snapshots valid_time",
    CHANNEL: "channel channels variable variables var vars component components feature features field fields c",
}
KINDS = {name: kind for kind, names in _KINDS.items() for name in names.split()}
_SPACE = (
    "x y z lat latitude lon long longitude level levels lev height depth plev altitude pressure_level r radius theta "
    "phi rlat rlon nx ny nz xc yc zc cell"
)
SPACE = {name: name for name in _SPACE.split()} | {"xx": "x", "yy": "y", "zz": "z", "xs": "x", "ys": "y", "zs": "z"}
# CF conventions: the attributes `axis` and `standard_name` of a coordinate.
CF_AXES = {"T": TIME, "X": "x", "Y": "y", "Z": "z"}
# Names of the two sides of an operator that is learnt from pairs: what is given, and what is sought.
PAIRS = (
    ("x", "y"),
    ("x_train", "y_train"),
    ("a", "u"),
    ("input", "output"),
    ("inputs", "outputs"),
    ("coeff", "sol"),
    ("nu", "tensor"),
)


def axis_of(name: str) -> str:
    """What an axis of this name is: sample, time, channel or a name of space; "" if the name says nothing."""
    plain = re.sub(r"[-_ ]?(coordinates?|coords?|grid|axis|dim)$", "", name.lower().rsplit("/", 1)[-1])
    plain = re.sub(r"^(grid|coords?)[-_ ]", "", plain)
    return KINDS.get(plain) or SPACE.get(plain, "")
