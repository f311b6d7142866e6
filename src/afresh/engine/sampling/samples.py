"""Samples: decoded values with their requests, written to files or shown in a notebook."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from afresh.core import Cond, Encoder, Sound, UserError
from afresh.core.plural import counted
from afresh.core.results import SIDECAR, ResultHook, finished_files, finished_values
from afresh.data.audio import SUFFIXES as SOUNDS
from afresh.data.audio.views import wav_bytes
from afresh.data.image import SUFFIXES as IMAGES
from afresh.data.image.grid import GridSettings, image_grid
from afresh.data.image.images import Pixels
from afresh.data.image.kind import png_bytes
from afresh.data.storage.files import replace_file
from afresh.data.storage.folders import check_free, output_folder
from afresh.engine.pages.render import data_uri, render_page
from afresh.engine.sampling.request import contains_prompts

if TYPE_CHECKING:
    from afresh.engine.sampling.text_stream import Written

MOST = 400  # samples in one image
FILES = IMAGES | SOUNDS | {".mid", ".midi", ".abc", ".txt", ".json", ".jsonl", ".csv", ".html", ".zip"}
SINGLE = (".png", ".wav", ".flac")  # suffixes of paths to which samples are written as one file
TEXTS, LISTED = "samples.jsonl", "samples.json"  # what a folder of samples holds: texts, or a list of files
LONGEST = 30.0  # seconds of audio that a page embeds for an item that is not itself a sound, such as a melody
WHITE = 255
LISTEN = Path(__file__).with_name("templates") / "listen.html.j2"


@dataclass(frozen=True, eq=False)
class Samples(Sequence[Any]):
    """Decoded samples and their requests: a sequence of the values, which are arrays (H, W, C) of uint8, texts or
    Sounds. A slice of it holds the requests of its samples, too. What is written of them passes the `hooks` of
    plug-ins, which mark and sign it; `ingredients` are what each sample was made from."""

    values: Sequence[Any]
    x: Tensor  # in the modality's space
    cond: Cond
    described: Sequence[Mapping[str, Any]]  # prompt, label, ... of each sample
    seed: int
    encoder: Encoder
    written: Sequence[Written] = ()  # why each text ended; empty if the family does not write from left to right
    numbers: Sequence[int] = ()  # of the samples among those that were drawn; empty: 0, 1, 2, ...
    hooks: Sequence[ResultHook] = ()
    ingredients: Sequence[Sequence[Any]] = ()  # empty: the samples were made from nothing else
    notes: Sequence[str] = ()  # what a control did
    arrangement: GridSettings | None = None  # how they stand in a grid

    @property
    def published(self) -> Samples:
        """The samples with a mark in each value that can bear one: as they are written. Texts are marked while they are
        drawn."""
        return replace(self, values=finished_values(self.hooks, self.values))

    def labelled(self) -> Samples:
        """The samples with the label that AI made them, for people: letters in each image, a spoken notice before each
        sound, a sentence before each text. Raises UserError for kinds that have none, and for images below 32 pixels.
        """
        from afresh.services.disclosure.label import labelled

        values = [labelled(self.encoder.kind, value) for value in self.values]
        return replace(self, values=values, described=[{**d, "label_ai": True} for d in self.described])

    def save(self, folder: str | Path) -> list[dict[str, Any]]:
        """Write the samples as files, and samples.json or samples.jsonl, into `folder`. Returns the records.

        A path with the suffix .png is written as one image of all samples, and one with .wav or .flac as the only
        sound. Files of these names are replaced, others in the folder stay. Raises UserError if the path cannot be
        written or has another file suffix.
        """
        path = Path(folder)
        check_out(path, self.encoder, len(self.values))
        if path.is_dir() or path.suffix.lower() not in SINGLE:
            return write_samples(self, path)
        write = write_grid if path.suffix.lower() == ".png" else write_sound
        records = write(self.published, path)
        sign(self, path)
        return records

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Any:
        """The value of one sample, or the samples of a slice."""
        if not isinstance(index, slice):
            return self.values[index]
        rows = torch.tensor(range(len(self))[index], dtype=torch.int64)
        return replace(
            self,
            values=self.values[index],
            x=self.x[rows],
            cond=self.cond.select(rows),
            described=self.described[index],
            written=self.written[index],
            ingredients=self.ingredients[index],
            numbers=(self.numbers or range(len(self)))[index],
        )

    def __contains__(self, value: object) -> bool:
        """Whether one of the samples has the same content; arrays have no truth value to compare them by."""
        return self.count(value) > 0

    def index(self, value: Any, start: int = 0, stop: int | None = None) -> int:
        """The first place of a sample with the same content. Raises ValueError if none exists."""
        return self._digests.index(self._digest(value), start, len(self) if stop is None else stop)

    def count(self, value: Any) -> int:
        """How many samples have the same content."""
        return self._digests.count(self._digest(value))

    @property
    def _digests(self) -> list[str]:
        return [self.encoder.kind.digest(v) for v in self.values]

    def _digest(self, value: Any) -> str:
        """The digest of the content of a value; empty for one of another kind, which no sample equals."""
        try:
            return self.encoder.kind.digest(value)
        except (TypeError, AttributeError, ValueError):
            return ""

    def __repr__(self) -> str:
        kind = self.encoder.kind
        first = f", the first {kind.describe(self[0])}" if len(self) else ""
        return f"Samples({counted(len(self), kind.name, kind.plural)}{first}; seed {self.seed})"

    def _repr_html_(self) -> str:
        """The samples in a notebook."""
        return samples_html(self)


def caption_of(described: Any) -> str:
    label = described.get("label")
    if isinstance(label, dict):
        return ", ".join(str(v) for v in label.values() if v is not None)
    return "" if label is None else str(label)


def preview_sound(encoder: Encoder, value: Any) -> Sound | None:
    """The audio that a page embeds for a value: a sound, or the first LONGEST seconds of the encoder's rendering.

    None if the value cannot be rendered as audio.
    """
    sound = encoder.hear(value)
    if sound is None or encoder.kind.view == "sound":
        return sound
    return replace(sound, samples=sound.samples[: int(LONGEST * sound.rate)])


def preview_wav(encoder: Encoder, value: Any, hooks: Sequence[ResultHook] = ()) -> bytes | None:
    """`preview_sound` as the content of a WAV file, after `hooks`; None if the value cannot be rendered as
    audio."""
    sound = preview_sound(encoder, value)
    return None if sound is None else wav_bytes(finished_values(hooks, [sound], "sound")[0])


def from_prompts(samples: Samples) -> list[Any]:
    """The values, where texts include the prompts that they continue."""
    if contains_prompts(samples.encoder):
        return list(samples.values)
    return [
        d["prompt"] + v if d.get("prompt") and isinstance(v, str) else v
        for v, d in zip(samples.values, samples.described, strict=True)
    ]


def images_of(encoder: Encoder, values: Sequence[Any]) -> list[Pixels]:
    """Images of the values, all of one size; smaller ones are centred on white.

    Empty for kinds that are shown as text.
    """
    images = [p.image for p in encoder.kind.previews(values) if p.image is not None]
    height, width = (max((i.shape[axis] for i in images), default=0) for axis in (0, 1))
    return [on_white(i, height, width) for i in images]


def on_white(image: Pixels, height: int, width: int) -> Pixels:
    """Centre an image (H, W, C) on a white one (height, width, C)."""
    if image.shape[:2] == (height, width):
        return image
    sheet = np.full((height, width, image.shape[2]), WHITE, np.uint8)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    return sheet


def grid_png(samples: Samples, most: int = 100) -> bytes:
    """A PNG grid of the first `most` samples with their labels. Raises ValueError for kinds that are shown as text."""
    images = images_of(samples.encoder, samples.values[:most])
    chosen, buffer = samples.arrangement or GridSettings(), io.BytesIO()
    captions = [caption_of(d) for d in samples.described[:most]] if chosen.captions else []
    grid = image_grid(images, chosen.columns, captions if any(captions) else None, chosen.scale)
    if samples.hooks:
        grid = Image.fromarray(finished_values(samples.hooks, [np.asarray(grid.convert("RGB"))], "image")[0])
    grid.save(buffer, "PNG")
    return buffer.getvalue()


def requests(samples: Samples) -> list[dict[str, Any]]:
    """The request of each sample, with the seed and index that determine its random numbers, and that it is not marked,
    if it was not to be."""
    numbers, marked = samples.numbers or range(len(samples)), {} if samples.hooks else {"marked": False}
    return [{**d, "seed": samples.seed, "index": i, **marked} for i, d in zip(numbers, samples.described, strict=True)]


def text_records(samples: Samples) -> list[dict[str, Any]]:
    """The lines of samples.jsonl: each text with its request and, if known, the reason why it ended and its
    log-probabilities."""
    known = [w.record() for w in samples.written] or [{}] * len(samples.values)
    texts = [samples.encoder.kind.encode(v).decode("utf-8", "surrogatepass") for v in samples.values]
    return [{"text": v, **r, **w} for v, r, w in zip(texts, requests(samples), known, strict=True)]


def make_folder(folder: Path, hint: str) -> None:
    """Create a folder and its parents. Raises UserError, with `hint` as the advice, if this is not possible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"Cannot write to {folder}: {e.strerror or e}. {hint}") from e


def replace_samples(samples: Samples, out: Path) -> list[dict[str, Any]]:
    """`samples.save(out)`, but earlier samples in a folder `out` are replaced as a whole, once these are complete."""
    if out.suffix.lower() in SINGLE and not out.is_dir():
        return samples.save(out)
    with output_folder(out, (TEXTS, LISTED)) as folder:
        return write_samples(samples, folder)


def write_samples(samples: Samples, folder: Path) -> list[dict[str, Any]]:
    """Write samples into a folder, replacing existing ones. Returns their records.

    Texts are written to samples.jsonl. Texts that can be rendered as audio, such as melodies, also get a file and a WAV
    each, including their prompts, and a page that plays them. Other samples get a file each, samples.json, grid.png
    if they are shown as images or sounds, and for sounds the page.
    """
    make_folder(folder, "Choose another output folder.")
    encoder, captions = samples.encoder, [caption_of(d) for d in samples.described]
    samples = samples.published
    if encoder.kind.inline:
        records = text_records(samples)
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        replace_file(folder / TEXTS, lines.encode("utf-8", "backslashreplace"))
        sign(samples, folder / TEXTS)
        for suffix, content in encoder.kind.collected.items():
            if file := content(samples.values, records):
                replace_file(folder / f"samples{suffix}", file)
                sign(samples, folder / f"samples{suffix}")
        if encoder.kind.view != "text":
            replace_file(folder / "grid.png", grid_png(samples))
            sign(samples, folder / "grid.png")
        heard = write_with_audio(encoder, from_prompts(samples), folder, captions, samples.hooks)
        for number, files in enumerate(heard):
            for name in filter(None, files):
                sign(samples, folder / name, number)
        if heard:
            sign(samples, folder / "index.html")
        return records
    names = encoder.write(samples.values, folder, numbered(len(samples.values)))
    for number, name in enumerate(names):
        sign(samples, folder / name, number)
    records = [{"file": f, **r} for f, r in zip(names, requests(samples), strict=True)]
    replace_file(folder / LISTED, (json.dumps(records, indent=1, ensure_ascii=False) + "\n").encode())
    sign(samples, folder / LISTED)
    if encoder.kind.view != "text":
        replace_file(folder / "grid.png", grid_png(samples))
        sign(samples, folder / "grid.png")
    if encoder.kind.view == "sound":
        replace_file(folder / "index.html", player(names, images_of(encoder, samples.values), captions).encode())
        sign(samples, folder / "index.html")
    return records


def signed_content(samples: Samples, number: int | None, content: bytes, name: str) -> dict[str, bytes]:
    """A file of one sample, or of all if `number` is None, with those beside it, as plug-ins' hooks leave them."""
    if number is not None:
        recipe, used = requests(samples)[number], samples.ingredients[number] if samples.ingredients else ()
    else:
        every = {one.sha256: one.model_copy(update={"relationship": "inputTo"}) for one in chain(*samples.ingredients)}
        recipe, used = {"seed": samples.seed, "samples": len(samples)}, list(every.values())
    return finished_files(samples.hooks, name, content, recipe, used)


def sign(samples: Samples, file: Path, number: int | None = None) -> None:
    """Let the hooks of plug-ins finish a file of one sample, or of all, in its place. A statement beside it that is
    about an older file goes."""
    file.with_name(file.name + SIDECAR).unlink(missing_ok=True)
    if samples.hooks:
        for name, content in signed_content(samples, number, file.read_bytes(), file.name).items():
            replace_file(file.with_name(name), content)


def numbered(count: int) -> list[str]:
    """File names 000, 001, ... for `count` files."""
    width = len(str(count - 1))
    return [f"{i:0{width}d}" for i in range(count)]


def write_with_audio(
    encoder: Encoder,
    values: Sequence[Any],
    folder: Path,
    captions: Iterable[str],
    hooks: Sequence[ResultHook] = (),
) -> list[tuple[str, str | None]]:
    """Write a file and a WAV of each value, and index.html to play them, if any value can be rendered as audio. The
    sounds pass the `hooks`.

    Returns (file, WAV) of each value, where the WAV is None for a value without audio; an empty list, with nothing
    written, if no value has audio.
    """
    from afresh.data.audio.views import sound_image

    images: list[Any] = []
    sounds: list[str | None] = []
    names = numbered(len(values))
    for value, name in zip(values, names, strict=True):  # one at a time: a minute of sound is 5 MB
        sound = encoder.hear(value)
        images.append(None if sound is None else sound_image(sound))
        sounds.append(None if sound is None else f"{name}.wav")
        if sound is not None:
            replace_file(folder / f"{name}.wav", wav_bytes(finished_values(hooks, [sound], "sound")[0]))
    if not any(sounds):
        return []
    files = encoder.write(values, folder, names)
    titles = [c or f for c, f in zip(captions, files, strict=True)]
    replace_file(folder / "index.html", player(sounds, images, titles).encode())
    return list(zip(files, sounds, strict=True))


def player(names: Sequence[str | None], images: Iterable[Any], captions: Iterable[str]) -> str:
    """A page that shows an image of every sound and plays its file beside the page. A name of None means no sound."""
    sounds = [
        {"file": name, "image": name and data_uri("image/png", png_bytes(pixels)), "title": caption or name or ""}
        for name, pixels, caption in zip(names, images, captions, strict=True)
    ]
    return render_page(LISTEN, title=counted(len(sounds), "sound"), sounds=sounds)


def check_out(out: Path | None, encoder: Encoder, count: int, force: bool = True) -> None:
    """Raises UserError for a path with a file suffix that does not suit these samples or their number, because a folder
    of that name would be created, which is unexpected. Without `force` also if something is there already."""
    if out is None:
        return
    check_suffix(out, encoder, count)
    check_free(out, force)


def check_suffix(out: Path, encoder: Encoder, count: int) -> None:
    suffix, kind = out.suffix.lower(), encoder.kind
    if suffix not in FILES | kind.suffixes or out.is_dir():
        return
    if suffix == ".png":
        return  # write_grid checks this case
    if kind.view == "sound" and suffix in (".wav", ".flac"):
        if count == 1:
            return
        ways = f"one file holds one sound, not {count:,}: give a folder, or request one sound (-n 1)"
    else:
        more = {"text": "", "image": ", or all to one .png"}
        more["sound"] = ", a single one to a .wav or .flac, or images of all to one .png"
        ways = f"{kind.plural} are written to a folder{more[kind.view]}"
    raise UserError(
        f"The output {out.name}: {ways}. A folder is named without a suffix, as in {out.with_suffix('').name}."
    )


def write_sound(samples: Samples, path: Path) -> list[dict[str, Any]]:
    """Write the only sound as a WAV or FLAC file, depending on the suffix. Returns its record."""
    from afresh.data.audio.views import sound_bytes

    make_folder(path.parent, "Choose another path.")
    sound = samples.encoder.kind.preview(samples.values[0]).sound
    assert sound is not None
    replace_file(path, sound_bytes(sound, path.suffix[1:].lower()))
    return [{"file": path.name, **requests(samples)[0]}]


def write_grid(samples: Samples, path: Path) -> list[dict[str, Any]]:
    """Write one PNG of all samples, at most MOST.

    Returns a record of each, with its position in the image as `index`.
    """
    if samples.encoder.kind.view == "text":
        raise UserError(
            f"These samples are {samples.encoder.kind.plural}, which do not go into {path.name}. Give a folder instead."
        )
    if len(samples.values) > MOST:
        raise UserError(f"One image shows at most {MOST} samples, not {len(samples.values):,}. Give a folder instead.")
    make_folder(path.parent, "Choose another path.")
    replace_file(path, grid_png(samples, MOST))
    return [{"file": path.name, **r} for r in requests(samples)]


def samples_html(samples: Samples) -> str:
    """The HTML that a notebook shows: a grid of images, or sounds and texts one by one, with players for audio."""
    encoder = samples.encoder
    if encoder.kind.view == "image":
        return png_html(grid_png(samples), counted(len(samples), "sample"))
    out = []
    for value in from_prompts(samples):
        sound, text = preview_sound(encoder, value), ""
        if encoder.kind.view == "text":
            text = f"<pre>{html.escape(encoder.kind.preview(value).text or '')}</pre>"
        out.append(text + ("" if sound is None else sound_html(sound)) + ("<hr>" if text else ""))
    return "".join(out)


def png_html(png: bytes, alt: str) -> str:
    """The HTML of a PNG file, with the data embedded."""
    return f'<img alt="{html.escape(alt)}" src="{data_uri("image/png", png)}">'


def sound_html(sound: Sound) -> str:
    """The HTML of a sound: its image and a player, with the data embedded."""
    from afresh.data.audio.views import sound_image

    image = png_html(png_bytes(sound_image(sound)), "a sound")
    return f'{image}<audio controls src="{data_uri("audio/wav", wav_bytes(sound))}"></audio>'
