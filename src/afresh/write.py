"""Samples to files and to a notebook."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from afresh.core import UserError
from afresh.data.grid import picture_grid, to_image
from afresh.training.checkpoint import replace_file

if TYPE_CHECKING:
    from afresh.run import Samples


MOST = 400  # samples on one picture


def is_picture(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def caption_of(described: Any) -> str:
    label = described.get("label")
    if isinstance(label, dict):
        return ", ".join(str(v) for v in label.values() if v is not None)
    return "" if label is None else str(label)


def png(pixels: Any) -> bytes:
    """One picture (H, W, C) uint8 as a PNG file."""
    buffer = io.BytesIO()
    to_image(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def grid_png(samples: Samples, most: int = 100) -> bytes:
    """One PNG of the first pictures, with their labels under them."""
    values = list(samples.values[:most])
    captions = [caption_of(d) for d in samples.described[:most]]
    buffer = io.BytesIO()
    columns = 10 if len(values) >= 20 else None
    picture_grid(values, columns=columns, captions=captions if any(captions) else None).save(buffer, "PNG")
    return buffer.getvalue()


def requests(samples: Samples) -> list[dict[str, Any]]:
    """What each sample answered, and by which random numbers: the seed and the index."""
    return [{**d, "seed": samples.seed, "index": i} for i, d in enumerate(samples.described)]


def text_records(samples: Samples) -> list[dict[str, Any]]:
    """Each text with what it answered: the lines of samples.jsonl. Where it is known, also why it
    ended, and how likely each token was."""
    found = [w.record() for w in samples.written] or [{}] * len(samples.values)
    return [{"text": v, **r, **w} for v, r, w in zip(samples.values, requests(samples), found, strict=True)]


def write_samples(samples: Samples, folder: Path) -> list[dict[str, Any]]:
    """Pictures: one PNG each, grid.png and samples.json. Texts: samples.jsonl. Existing samples are replaced."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"Cannot write to {folder}: {e.strerror or e}. Choose another --out.") from e
    if not is_picture(samples.values[0]):
        records = text_records(samples)
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        replace_file(folder / "samples.jsonl", lines.encode("utf-8", "backslashreplace"))
        return records
    count = len(samples.values)
    width = len(str(count - 1))
    names = samples.encoder.write(samples.values, folder, [f"{i:0{width}d}" for i in range(count)])
    records = [{"file": f, **r} for f, r in zip(names, requests(samples), strict=True)]
    replace_file(folder / "samples.json", (json.dumps(records, indent=1, ensure_ascii=False) + "\n").encode())
    replace_file(folder / "grid.png", grid_png(samples))
    return records


def write_picture(samples: Samples, path: Path) -> list[dict[str, Any]]:
    """One PNG of all pictures (at most 400); returns a record of each, with the place in it as `index`."""
    if not is_picture(samples.values[0]):
        raise UserError(f"These samples are texts, which do not go into {path.name}. Give a folder instead.")
    if len(samples.values) > MOST:
        raise UserError(
            f"One picture shows at most {MOST} samples, not {len(samples.values):,}. Give a folder instead."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"Cannot write to {path.parent}: {e.strerror or e}. Choose another place.") from e
    replace_file(path, grid_png(samples, MOST))
    return [{"file": path.name, **r} for r in requests(samples)]


def samples_html(samples: Samples) -> str:
    """What a notebook shows: a grid of pictures, or the texts."""
    if is_picture(samples.values[0]):
        data = base64.b64encode(grid_png(samples)).decode()
        return f'<img alt="{len(samples.values)} samples" src="data:image/png;base64,{data}">'
    return "".join(f"<pre>{html.escape((d['prompt'] or '') + v)}</pre><hr>" for v, d in _pairs(samples))


def _pairs(samples: Samples) -> list[tuple[str, Any]]:
    return list(zip(samples.values, samples.described, strict=True))
