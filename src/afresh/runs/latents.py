"""Latents of images, computed once for all runs over the same images and autoencoder, in a file of the user's data.

The file is named after the autoencoder and the images, and holds numbers of 16 bits. Batches are read from it where the
latents are larger than IN_MEMORY. Training images come with their mirror images, which the latents of an image do not
tell: `Examples.mirrored` says which are which, so that a family need not draw them.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from afresh.core import Codec, Examples
from afresh.core.solver_progress import blocks
from afresh.data.files import DataFile
from afresh.data.imported import data_folder
from afresh.data.made_once import check_room, making
from afresh.data.prepare import Prepared
from afresh.data.rows import RowFile, StoredRows
from afresh.data.storage.folders import folder_aside, put_in_place
from afresh.engine.families.codecs.pipeline import PipelineCodec

VERSION = 1  # of how images become latents
LATENTS = "latents"
IN_MEMORY = 1 << 28  # bytes of latents that are held in memory


def training_latents(codec: Codec, prepared: Prepared) -> Examples:
    """The training split in the space of a codec, followed by its mirror images where the codec learns them."""
    return encoded(codec, prepared, prepared.train, isinstance(codec, PipelineCodec) and codec.mirrored)


def heldout_latents(codec: Codec, prepared: Prepared) -> Examples:
    """The held-out split in the space of a codec."""
    return encoded(codec, prepared, prepared.heldout, False)


def encoded(codec: Codec, prepared: Prepared, examples: Examples, mirrored: bool) -> Examples:
    """Raises UserError if the file cannot be written, or if the codec does not encode the examples."""
    if not isinstance(codec, PipelineCodec):
        return codec.encode(examples)
    cond = examples.rows.cond if isinstance(examples.rows, StoredRows) else examples.cond
    file = latent_file(codec, prepared, examples, mirrored)
    cond = cond.select(torch.arange(examples.count).repeat(1 + mirrored))
    half = torch.arange(file.count) >= examples.count if mirrored else None
    if file.count * file.row_bytes <= IN_MEMORY:
        return Examples(torch.from_numpy(file.read(range(file.count))), cond, bytes=examples.bytes, mirrored=half)
    stored = StoredRows(file, torch.arange(file.count), cond).examples(1.0, 0.0, examples.bytes)
    return replace(stored, mirrored=half)


def latent_folder(codec: PipelineCodec, prepared: Prepared, examples: Examples, mirrored: bool) -> Path:
    """Where the latents of a split are kept, whether they are made or not."""
    split = "heldout" if examples is prepared.heldout else "train"
    key = hashlib.sha256(f"{VERSION} {split} {mirrored} {prepared.split_hash} {codec.digest}".encode())
    return data_folder() / key.hexdigest()[:24]


def latent_file(codec: PipelineCodec, prepared: Prepared, examples: Examples, mirrored: bool) -> RowFile:
    """The file with the latents, which is made unless it is there."""
    from afresh.data.collected import is_collected, mark_kept, mark_made_from  # imports pyarrow

    place, count, shape = latent_folder(codec, prepared, examples, mirrored), examples.count, codec.target.shape
    with making(place, "latents of the images"):
        if not place.exists():
            check_room(2 * (1 + mirrored) * count * math.prod(shape), "latents of the images", "choose a smaller size")
            starts = [(first, turned) for turned in range(1 + mirrored) for first in range(0, count, codec.at_once)]
            with folder_aside(place) as aside:
                aside.mkdir(parents=True)
                with (aside / LATENTS).open("wb") as stream:
                    for first, turned in blocks(starts, "encoding the images"):
                        x = images(examples, torch.arange(first, min(count, first + codec.at_once)))
                        z = codec.latents(x.flip(-1) if turned else x)
                        stream.write(z.numpy().astype(np.float16).tobytes())
                if is_collected(prepared.path):
                    mark_kept(aside, prepared.path)
                else:
                    mark_made_from(aside, DataFile(prepared.path, "", 0))
                put_in_place(aside, place)
    return RowFile(place / LATENTS, shape, "float16", (1 + mirrored) * count)


def images(examples: Examples, rows: Tensor) -> Tensor:
    """Images (R, 3, H, W) in [-1, 1], from memory or the disk."""
    x = examples.x[rows] if examples.rows is None else examples.rows.read(rows)[0]
    return x.float() * examples.scale + examples.shift
