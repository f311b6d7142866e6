"""States that were drawn, as the content of a file: .npz, or NetCDF with the extra science."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from afresh.domains.field.encoder import FieldEncoder
from afresh.domains.field.reading.extras import library


def states_file(
    name: str,
    format: str,
    encoder: FieldEncoder,
    times: NDArray[Any],
    npz: Mapping[str, Any],
    netcdf: Mapping[str, NDArray[Any]],
) -> dict[str, bytes]:
    """The content of the file by its name. `npz`: its arrays. `netcdf`: arrays ([members,] time, C, *space), of which
    each channel is a variable, by what its name ends in. Raises UserError without the packages of the extra science."""
    coordinates = {"time": times, **encoder.places}
    if format == "npz":
        buffer = io.BytesIO()
        np.savez_compressed(buffer, channels=np.array(encoder.channels), **npz, **coordinates)
        return {f"{name}.npz": buffer.getvalue()}
    xarray, dims = library("xarray", Path(f"{name}.nc")), ("member", "time", *encoder.axes)
    content = {}
    for c, (channel, unit) in enumerate(zip(encoder.channels, encoder.units, strict=True)):
        for end, values in netcdf.items():
            one = values.take(c, -1 - len(encoder.axes))
            content[channel + end] = (dims[-one.ndim :], one, {"units": unit} if unit else {})
    return {f"{name}.nc": bytes(xarray.Dataset(content, coordinates).to_netcdf(engine="scipy"))}
