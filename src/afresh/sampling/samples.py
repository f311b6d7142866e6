"""Samples: decoded values with the requests that they answer, and how they are written to files and shown."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from afresh.core import Cond, Encoder, Sound, UserError
from afresh.core.files import replace_file
from afresh.data.audio.kind import SOUND
from afresh.data.image.grid import image_grid
from afresh.data.image.images import Pixels
from afresh.data.image.kind import IMAGE, png_bytes
from afresh.sampling.text_stream import Written

MOST = 400  # samples in one image
FILES = IMAGE.suffixes | SOUND.suffixes | {".mid", ".midi", ".abc", ".txt", ".json", ".jsonl", ".csv", ".html", ".zip"}
LONGEST = 30.0  # seconds within a page of what is heard of an item that is no sound itself; a file of its own has all
WHITE = 255
PLAYER = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{count} sounds</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{{font:16px system-ui;margin:1.5rem;display:flex;flex-wrap:wrap;gap:1rem}}figure{{margin:0;width:240px}}
img{{width:100%;image-rendering:pixelated;border:1px solid #ccc}}audio{{width:100%}}
figcaption{{text-align:center;color:#555}}</style>
{rows}
</html>
"""


@dataclass(frozen=True)
class Samples:
    """Decoded samples, with the requests they answered."""

    values: Sequence[Any]
    x: Tensor  # in the modality's space
    cond: Cond
    described: Sequence[Mapping[str, Any]]  # prompt, label, ... of each
    seed: int
    encoder: Encoder
    written: Sequence[Written] = ()  # why each text ended, where the family writes from left to right

    def save(self, folder: str | Path) -> list[dict[str, Any]]:
        """Write files of the modality's own kind and samples.json(l) into `folder`; returns the records.

        A path that ends in .png gets one image of all samples, one in .wav or .flac the only sound. Raises UserError
        if it cannot be written, and for other suffixes of files.
        """
        path = Path(folder)
        check_out(path, self.encoder, len(self.values))
        if path.is_dir() or path.suffix.lower() not in (".png", ".wav", ".flac"):
            return write_samples(self, path)
        return write_picture(self, path) if path.suffix.lower() == ".png" else write_sound(self, path)

    def _repr_html_(self) -> str:
        """The samples in a notebook."""
        return samples_html(self)


def caption_of(described: Any) -> str:
    label = described.get("label")
    if isinstance(label, dict):
        return ", ".join(str(v) for v in label.values() if v is not None)
    return "" if label is None else str(label)


def heard(encoder: Encoder, value: Any) -> Sound | None:
    """What a page plays of a value: a sound itself, or the first LONGEST seconds of what the encoder makes audible."""
    sound = encoder.hear(value)
    if sound is None or encoder.kind.view == "sound":
        return sound
    return replace(sound, samples=sound.samples[: int(LONGEST * sound.rate)])


def played(encoder: Encoder, value: Any) -> bytes | None:
    """The content of a WAV file with what is heard of a value; None if nothing is."""
    sound = heard(encoder, value)
    return None if sound is None else SOUND.encode(sound)


def from_prompts(samples: Samples) -> list[Any]:
    """The values; texts together with the prompts that they continue."""
    return [d["prompt"] + v if d.get("prompt") else v for v, d in zip(samples.values, samples.described, strict=True)]


def images_of(encoder: Encoder, values: Sequence[Any]) -> list[Pixels]:
    """The images in which values are shown side by side, of one size: smaller ones stand on white. Empty for kinds that
    are read as text."""
    images = [p.image for p in encoder.kind.previews(values) if p.image is not None]
    height, width = (max((i.shape[axis] for i in images), default=0) for axis in (0, 1))
    return [on_white(i, height, width) for i in images]


def on_white(image: Pixels, height: int, width: int) -> Pixels:
    """An image (H, W, C) in the middle of a white one (height, width, C)."""
    if image.shape[:2] == (height, width):
        return image
    sheet = np.full((height, width, image.shape[2]), WHITE, np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def grid_png(samples: Samples, most: int = 100) -> bytes:
    """One PNG of the first samples, with their labels under them. Raises ValueError for kinds that are read as text."""
    images = images_of(samples.encoder, samples.values[:most])
    captions = [caption_of(d) for d in samples.described[:most]]
    buffer = io.BytesIO()
    columns = 10 if len(images) >= 20 and samples.encoder.kind.view == "image" else None
    image_grid(images, columns=columns, captions=captions if any(captions) else None).save(buffer, "PNG")
    return buffer.getvalue()


def requests(samples: Samples) -> list[dict[str, Any]]:
    """What each sample answered, and by which random numbers: the seed and the index."""
    return [{**d, "seed": samples.seed, "index": i} for i, d in enumerate(samples.described)]


def text_records(samples: Samples) -> list[dict[str, Any]]:
    """Each text with what it answered: the lines of samples.jsonl. Where it is known, also why it ended, and how likely
    each token was."""
    known = [w.record() for w in samples.written] or [{}] * len(samples.values)
    texts = [samples.encoder.kind.encode(v).decode("utf-8", "surrogatepass") for v in samples.values]
    return [{"text": v, **r, **w} for v, r, w in zip(texts, requests(samples), known, strict=True)]


def make_folder(folder: Path, else_: str) -> None:
    """Raises UserError, with what else can be done, if the folder cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"Cannot write to {folder}: {e.strerror or e}. {else_}") from e


def write_samples(samples: Samples, folder: Path) -> list[dict[str, Any]]:
    """Items that are text: samples.jsonl, and if they can be heard a file and a WAV each, from their prompts on, and a
    page to play them. Other items: a file each, samples.json, grid.png if they are shown as images, and if they can be
    heard the page. Existing samples are replaced."""
    make_folder(folder, "Choose another output folder.")
    encoder, captions = samples.encoder, [caption_of(d) for d in samples.described]
    if encoder.kind.inline:
        records = text_records(samples)
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        replace_file(folder / "samples.jsonl", lines.encode("utf-8", "backslashreplace"))
        write_heard(encoder, from_prompts(samples), folder, captions)
        return records
    names = encoder.write(samples.values, folder, numbered(len(samples.values)))
    records = [{"file": f, **r} for f, r in zip(names, requests(samples), strict=True)]
    replace_file(folder / "samples.json", (json.dumps(records, indent=1, ensure_ascii=False) + "\n").encode())
    if encoder.kind.view != "text":
        replace_file(folder / "grid.png", grid_png(samples))
    if encoder.kind.view == "sound":
        replace_file(folder / "index.html", player(names, images_of(encoder, samples.values), captions).encode())
    return records


def numbered(count: int) -> list[str]:
    """000, 001, ...: names in order."""
    width = len(str(count - 1))
    return [f"{i:0{width}d}" for i in range(count)]


def write_heard(
    encoder: Encoder, values: Sequence[Any], folder: Path, captions: Iterable[str]
) -> list[tuple[str, str | None]]:
    """Where any value can be heard: the encoder's own file of each, a WAV beside it and index.html to play them all.
    Returns (file, WAV or None where there is nothing to be heard) of each; nothing where no value can be heard."""
    from afresh.data.audio.views import sound_image, wav_bytes

    pictures: list[Any] = []
    sounds: list[str | None] = []
    names = numbered(len(values))
    for value, name in zip(values, names, strict=True):  # one at a time: a minute of sound is 5 MB
        sound = encoder.hear(value)
        pictures.append(None if sound is None else sound_image(sound))
        sounds.append(None if sound is None else f"{name}.wav")
        if sound is not None:
            replace_file(folder / f"{name}.wav", wav_bytes(sound))
    if not any(sounds):
        return []
    files = encoder.write(values, folder, names)
    said = [c or f for c, f in zip(captions, files, strict=True)]
    replace_file(folder / "index.html", player(sounds, pictures, said).encode())
    return list(zip(files, sounds, strict=True))


def player(names: Sequence[str | None], pictures: Iterable[Any], captions: Iterable[str]) -> str:
    """A page that shows every sound and plays it from its file beside the page. No name: nothing is to be heard."""
    rows = []
    for name, pixels, caption in zip(names, pictures, captions, strict=True):
        said = html.escape(caption or name or "")
        if name is None:
            rows.append(f"<figure><figcaption>{said}: nothing to be heard</figcaption></figure>")
            continue
        src = base64.b64encode(png_bytes(pixels)).decode()
        rows.append(
            f'<figure><img alt="{said}" src="data:image/png;base64,{src}">'
            f'<audio controls preload="none" src="{html.escape(name)}"></audio><figcaption>{said}</figcaption></figure>'
        )
    return PLAYER.format(count=len(rows), rows="\n".join(rows))


def check_out(out: Path | None, encoder: Encoder, count: int) -> None:
    """Raises UserError for a path with the suffix of a file that these samples, or this number of them, cannot be
    written to: a folder of that name would be a surprise."""
    suffix, kind = "" if out is None else out.suffix.lower(), encoder.kind
    if out is None or suffix not in FILES | kind.suffixes or out.is_dir():
        return
    if suffix == ".png":
        return  # write_picture says what cannot be written there
    if kind.view == "sound" and suffix in (".wav", ".flac"):
        if count == 1:
            return
        ways = f"one file holds one sound, not {count:,}: give a folder, or ask for one (-n 1)"
    else:
        more = {"text": "", "image": ", or all into one .png"}
        more["sound"] = ", a single one into a .wav or .flac, images of all into one .png"
        ways = f"{kind.plural} go to a folder{more[kind.view]}"
    raise UserError(f"The output {out.name}: {ways}. A folder's name has no such suffix: {out.with_suffix('').name}.")


def write_sound(samples: Samples, path: Path) -> list[dict[str, Any]]:
    """The only sound as a WAV or a FLAC file, by the path's suffix; returns its record."""
    from afresh.data.audio.views import sound_bytes

    make_folder(path.parent, "Choose another place.")
    sound = samples.encoder.kind.preview(samples.values[0]).sound
    assert sound is not None
    replace_file(path, sound_bytes(sound, path.suffix[1:].lower()))
    return [{"file": path.name, **requests(samples)[0]}]


def write_picture(samples: Samples, path: Path) -> list[dict[str, Any]]:
    """One PNG of all samples (at most 400); returns a record of each, with the place in it as `index`."""
    if samples.encoder.kind.view == "text":
        raise UserError(
            f"These samples are {samples.encoder.kind.plural}, which do not go into {path.name}. Give a folder instead."
        )
    if len(samples.values) > MOST:
        raise UserError(f"One image shows at most {MOST} samples, not {len(samples.values):,}. Give a folder instead.")
    make_folder(path.parent, "Choose another place.")
    replace_file(path, grid_png(samples, MOST))
    return [{"file": path.name, **r} for r in requests(samples)]


def samples_html(samples: Samples) -> str:
    """What a notebook shows: a grid of images, or sounds and texts one by one, with a player if they can be heard."""
    encoder = samples.encoder
    if encoder.kind.view == "image":
        data = base64.b64encode(grid_png(samples)).decode()
        return f'<img alt="{len(samples.values)} samples" src="data:image/png;base64,{data}">'
    out = []
    for value in from_prompts(samples):
        sound, text = heard(encoder, value), ""
        if encoder.kind.view == "text":
            text = f"<pre>{html.escape(encoder.kind.preview(value).text or '')}</pre>"
        out.append(text + ("" if sound is None else sound_html(sound)) + ("<hr>" if text else ""))
    return "".join(out)


def sound_html(sound: Sound) -> str:
    """An image and a player that need no file beside them."""
    from afresh.data.audio.views import sound_image

    image, wav = (base64.b64encode(b).decode() for b in (png_bytes(sound_image(sound)), SOUND.encode(sound)))
    return (
        f'<img alt="a sound" src="data:image/png;base64,{image}"><audio controls src="data:audio/wav;base64,{wav}">'
        "</audio>"
    )
