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

from afresh.core import Cond, Encoder, Sound, Space, UserError
from afresh.core.files import replace_file
from afresh.data.audio.sounds import SUFFIXES as SOUNDS
from afresh.data.image.grid import image_grid
from afresh.data.image.images import SUFFIXES as PICTURES
from afresh.data.image.images import to_image
from afresh.sampling.text_stream import Written

MOST = 400  # samples on one picture
FILES = PICTURES | SOUNDS | {".mid", ".midi", ".abc", ".txt", ".json", ".jsonl", ".csv", ".html", ".zip"}
LONGEST = 30.0  # seconds of a text's sound within a page; a file of its own has all
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

        A path that ends in .png gets one picture of all, one in .wav or .flac the only sound. Raises UserError where it
        cannot be written, and for other suffixes of files.
        """
        path = Path(folder)
        check_out(path, self.encoder.space, len(self.values))
        if path.is_dir() or path.suffix.lower() not in (".png", ".wav", ".flac"):
            return write_samples(self, path)
        return write_picture(self, path) if path.suffix.lower() == ".png" else write_sound(self, path)

    def _repr_html_(self) -> str:
        """Pictures or texts, for a notebook."""
        return samples_html(self)


def is_picture(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def is_sound(value: Any) -> bool:
    return isinstance(value, Sound)


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def pictures_of(values: Sequence[Any]) -> list[Any]:
    """Something to look at for each: pictures as they are, sounds as wave and spectrum over the same time."""
    if not is_sound(values[0]):
        return list(values)
    from afresh.data.audio.views import sound_image

    longest = max(v.seconds for v in values)
    return [sound_image(v, longest) for v in values]


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


def played(value: Any, encoder: Encoder) -> bytes | None:
    """The content of a WAV file, for what can be heard; of a text, such as a score, its first LONGEST seconds."""
    from afresh.data.audio.views import wav_bytes

    sound = encoder.hear(value)
    return None if sound is None else wav_bytes(beginning(sound) if is_text(value) else sound)


def beginning(sound: Sound, seconds: float = LONGEST) -> Sound:
    return replace(sound, samples=sound.samples[: int(seconds * sound.rate)])


def whole_texts(samples: Samples) -> list[str]:
    """Each text behind the prompt that it goes on from."""
    return [(d.get("prompt") or "") + v for v, d in _pairs(samples)]


def grid_png(samples: Samples, most: int = 100) -> bytes:
    """One PNG of the first pictures, with their labels under them."""
    values = pictures_of(samples.values[:most])
    captions = [caption_of(d) for d in samples.described[:most]]
    buffer = io.BytesIO()
    columns = 10 if len(values) >= 20 and is_picture(samples.values[0]) else None
    image_grid(values, columns=columns, captions=captions if any(captions) else None).save(buffer, "PNG")
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
    """Pictures and sounds: a file each, grid.png and samples.json, of sounds a page to play them. Texts: samples.jsonl,
    of those that can be heard also a file and a WAV each, from their prompts on, and the page. Existing samples are
    replaced."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"Cannot write to {folder}: {e.strerror or e}. Choose another `out`.") from e
    if is_text(samples.values[0]):
        records = text_records(samples)
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        replace_file(folder / "samples.jsonl", lines.encode("utf-8", "backslashreplace"))
        write_heard(samples.encoder, whole_texts(samples), folder, [caption_of(d) for d in samples.described])
        return records
    names = samples.encoder.write(samples.values, folder, numbered(len(samples.values)))
    records = [{"file": f, **r} for f, r in zip(names, requests(samples), strict=True)]
    replace_file(folder / "samples.json", (json.dumps(records, indent=1, ensure_ascii=False) + "\n").encode())
    replace_file(folder / "grid.png", grid_png(samples))
    if samples.encoder.hear(samples.values[0]) is not None:
        captions = map(caption_of, samples.described)
        page = player(names, pictures_of(samples.values), captions)
        replace_file(folder / "index.html", page.encode())
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
        src = base64.b64encode(png(pixels)).decode()
        rows.append(
            f'<figure><img alt="{said}" src="data:image/png;base64,{src}">'
            f'<audio controls preload="none" src="{html.escape(name)}"></audio><figcaption>{said}</figcaption></figure>'
        )
    return PLAYER.format(count=len(rows), rows="\n".join(rows))


def check_out(out: Path | None, space: Space, count: int) -> None:
    """Raises UserError for a place with the suffix of a file that samples of this space, or so many, cannot go to: a
    folder of that name would be a surprise."""
    suffix = "" if out is None else out.suffix.lower()
    if out is None or suffix not in FILES or out.is_dir():
        return
    given = f"The output {out.name}: "
    if suffix == ".png":
        return  # write_picture says what does not go there
    if not space.timed:
        ways = "texts go to a folder" if space.kind == "tokens" else "pictures go to a folder, or all into one .png"
    elif suffix not in (".wav", ".flac"):
        ways = "sounds go to a folder, a single one into a .wav or .flac, pictures of all into one .png"
    elif count != 1:
        ways = f"one file holds one sound, not {count:,}: give a folder, or ask for one (-n 1)"
    else:
        return
    raise UserError(f"{given}{ways}. A folder's name has no such suffix: {out.with_suffix('').name}.")


def write_sound(samples: Samples, path: Path) -> list[dict[str, Any]]:
    """The only sound as a WAV or a FLAC file, by the path's suffix; returns its record."""
    from afresh.data.audio.views import sound_bytes

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"Cannot write to {path.parent}: {e.strerror or e}. Choose another place.") from e
    replace_file(path, sound_bytes(samples.values[0], path.suffix[1:].lower()))
    return [{"file": path.name, **requests(samples)[0]}]


def write_picture(samples: Samples, path: Path) -> list[dict[str, Any]]:
    """One PNG of all pictures (at most 400); returns a record of each, with the place in it as `index`."""
    if is_text(samples.values[0]):
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
    """What a notebook shows: a grid of pictures, or of sounds and texts one by one, each with a player where it can be
    heard."""
    if is_picture(samples.values[0]):
        data = base64.b64encode(grid_png(samples)).decode()
        return f'<img alt="{len(samples.values)} samples" src="data:image/png;base64,{data}">'
    hear, out = samples.encoder.hear, []
    if not is_text(samples.values[0]):
        return "".join(sound_html(s) for s in map(hear, samples.values) if s is not None)
    for text in whole_texts(samples):
        sound = hear(text)
        out.append(f"<pre>{html.escape(text)}</pre>{'' if sound is None else sound_html(beginning(sound))}<hr>")
    return "".join(out)


def sound_html(sound: Sound) -> str:
    """A picture and a player that need no file beside them."""
    from afresh.data.audio.views import sound_image, wav_bytes

    shown, played = (base64.b64encode(b).decode() for b in (png(sound_image(sound)), wav_bytes(sound)))
    return (
        f'<img alt="a sound" src="data:image/png;base64,{shown}"><audio controls src="data:audio/wav;base64,{played}">'
        "</audio>"
    )


def _pairs(samples: Samples) -> list[tuple[str, Any]]:
    return list(zip(samples.values, samples.described, strict=True))
