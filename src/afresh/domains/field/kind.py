"""Single states of a field: arrays (C, *space) of float32 in physical units, as .npy files and as pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from afresh.core import ItemKind, Preview
from afresh.data import array_file
from afresh.data.image.grid import GridSettings
from afresh.domains.field.pictures import previews
from afresh.domains.field.reading.names import axis_of

MOST_BYTES = 1 << 30  # of the file of a state


def describe(state: NDArray[np.float32]) -> str:
    channels, *grid = state.shape
    return f"{channels} x {' x '.join(map(str, grid))} values from {state.min():.4g} to {state.max():.4g}"


def decode(content: bytes) -> NDArray[np.float32]:
    """The array of a .npy file, or the channels of a .npz file, in which places of points are left out; of a window
    with times, the channels of each state after one another. Raises
    ValueError if it is not an array of numbers (C, *space), or holds what is not finite."""
    state = array_file.load(content, MOST_BYTES)
    if isinstance(state, np.lib.npyio.NpzFile):
        channels = [state[name] for name in state.files if not axis_of(name)]
        if not channels or any(c.shape != channels[0].shape for c in channels):
            raise ValueError("its arrays are not the channels of one state, which have one shape")
        timed = "time" in state.files and channels[0].ndim > 1 and len(channels[0]) == np.size(state["time"])
        state = np.stack(channels, 1).reshape(-1, *channels[0].shape[1:]) if timed else np.stack(channels)
    if not array_file.real_numbers(state) or not 2 <= state.ndim <= 4:
        raise ValueError("it is not an array (channels, *space) of real numbers over 1 to 3 axes of space")
    state = np.asarray(state, np.float32)
    if not np.isfinite(state).all():
        raise ValueError("it holds numbers that are not finite in 32 bits")
    return state


# Neighbouring states are nearly equal, and what follows a known state resembles what followed it, so that near
# duplicates and near copies say nothing about such items.
FIELD = ItemKind(
    name="field",
    plural="states",
    view="image",
    digest=array_file.digest,
    describe=describe,
    previews=lambda states: [Preview(image=pixels) for pixels in previews(states)],
    size=lambda state: "x".join(map(str, state.shape)),
    unit="values",
    encode=array_file.encode,
    decode=decode,
    suffix=".npy",
    suffixes=frozenset({".npy", ".npz"}),
    searched=0,
    use=lambda run, data, o: f"afresh rollout {run}" if o.get("history", 1) else f"afresh sample {run} -n 16",
    result_settings=GridSettings,
)
