"""Folders like a person's own, made under DATA/train, with DATA/held beside it, which no model sees.

Photographs are drawn (benchmarks/training/drawn_photos.py) and code is Python's standard library; the others are made
from the data sets in AFRESH_DATA. The first three sets of images are divided as in benchmarks/images/sets.py.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sysconfig
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from afresh.engine.nets.spectrum import Mel
from benchmarks.common.folders import data_folder
from benchmarks.images import sets as picture_sets
from benchmarks.images.sets import Loaded
from benchmarks.sound.judges import View
from benchmarks.sound.small_judges import VIEW, drum
from benchmarks.sound.spoken_judges import HELD_OUT, parts_of
from benchmarks.training.drawn_photos import write_photos
from benchmarks.training.judges import Bits, Images, Judge, Sounds

FRESH, FRESH_SEED = 400, 10_000  # photographs that are held out, and the seed by which they are drawn
HELD_BYTES, SHORTEST, LONGEST = 100_000, 300, 3_000  # of notes: what is held out; characters of a note
PACKAGES: tuple[str, ...] = (
    "asyncio",
    "collections",
    "concurrent",
    "email",
    "html",
    "http",
    "importlib",
    "json",
    "logging",
)
PACKAGES += ("multiprocessing", "re", "unittest", "urllib", "wsgiref", "xml", "xmlrpc")
SPEECH = View(Mel(8_000, 256, 80, 64), 100, 4)  # as in benchmarks/sound/spoken_judges.py


@dataclass(frozen=True)
class Folder:
    """`make` writes train/ and held/ into a folder; `judge` scores a model of train/ by held/."""

    name: str
    make: Callable[[Path], None]
    judge: Judge
    choices: dict[str, tuple[str, ...]]  # alternatives to the plan, by name: arguments of `afresh train`

    def made(self, root: Path) -> Path:
        """root/NAME with both sides, made once. Raises SystemExit if it needs AFRESH_DATA and that is not set."""
        folder = root / self.name
        if not folder.is_dir():
            aside = root / f"{self.name}.part"
            shutil.rmtree(aside, ignore_errors=True)
            for side in ("train", "held"):
                (aside / side).mkdir(parents=True)
            self.make(aside)
            aside.replace(folder)
        return folder


def data() -> Path:
    return data_folder()


def one_in(n: int, name: str) -> bool:
    """Whether an item is one of the 1 / n that are held out, by a hash of its name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % n == 0


# --------------------------------------------------------------------------- images


def photos(folder: Path, count: int, fresh: int = FRESH) -> None:
    write_photos(folder / "train", count)
    write_photos(folder / "held", fresh, FRESH_SEED)


def images(folder: Path, load: Callable[[Path], Loaded]) -> None:
    """PNG files, in a folder for each class or with captions in metadata.jsonl, if there are any."""
    loaded = load(data())
    for name, side in (("train", loaded.train), ("held", loaded.held)):
        records = []
        for i, x in enumerate(side.x):
            file = folder / name / (loaded.classes[side.y[i]] if loaded.classes else "") / f"{i:05}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x).save(file)
            records += [{"file_name": file.name, "caption": c} for c in side.captions[i : i + 1]]
        if records:
            lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
            (folder / name / "metadata.jsonl").write_text(lines, "utf-8")


# --------------------------------------------------------------------------- texts


def passages(text: str, rng: np.random.Generator) -> Iterable[str]:
    """The paragraphs of a book in order, joined to notes of at least a random number of characters."""
    note, enough = "", rng.integers(SHORTEST, LONGEST)
    for paragraph in re.split(r"\n\s*\n", text):
        note += paragraph.strip() + "\n\n"
        if len(note) >= enough:
            yield note.strip()
            note, enough = "", rng.integers(SHORTEST, LONGEST)


def notes(folder: Path, size: int, books: Path | None = None) -> None:
    """Excerpts of books in random order, every second one Markdown with a title: the first HELD_BYTES are held out, the
    next `size` bytes are learnt. Raises ValueError if the books are shorter."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(books or data() / "gutenberg_books" / "books.zip") as z:
        found = [p for name in sorted(z.namelist()) for p in passages(z.read(name).decode(), rng)]
    left, side = {"held": HELD_BYTES, "train": size}, "held"
    for i in rng.permutation(len(found)):
        text = found[i]
        if i % 2:
            text = f"# {' '.join(text.split()[:5])}\n\n{text}"
        (folder / side / f"note-{i:05}.{'md' if i % 2 else 'txt'}").write_text(text + "\n", "utf-8")
        left[side] -= len(text.encode()) + 1
        if left[side] <= 0:
            if side == "train":
                return
            side = "train"
    raise ValueError(f"the books lack {left[side]:,} bytes of the {size + HELD_BYTES:,} that are wanted")


def code(folder: Path) -> None:
    """Packages of Python's standard library without their tests; one file in ten is held out."""
    library = Path(sysconfig.get_paths()["stdlib"])
    for name in (f.relative_to(library) for p in PACKAGES for f in sorted((library / p).rglob("*.py"))):
        if not {"test", "tests", "_test"} & set(name.parts):
            to = folder / ("held" if one_in(10, name.as_posix()) else "train") / name
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(library / name, to)


# --------------------------------------------------------------------------- sounds and tunes


def unpacked(folder: Path, source: str, place: Callable[[str], tuple[str, bool] | None]) -> None:
    """The files of all archives in AFRESH_DATA/SOURCE; `place` says of a name in which folder of a class it belongs (""
    for none) and whether it is held out; None leaves it out."""
    for archive in sorted((data() / source).glob("*.zip")):
        with zipfile.ZipFile(archive) as z:
            for name in z.namelist():
                if (found := place(name)) is not None:
                    to = folder / ("held" if found[1] else "train") / found[0] / PurePosixPath(name).name
                    to.parent.mkdir(exist_ok=True)
                    to.write_bytes(z.read(name))


def digit_place(name: str) -> tuple[str, bool] | None:
    found = parts_of(name)
    return None if found is None else (str(found[0]), found[2] < HELD_OUT)


def drum_place(name: str) -> tuple[str, bool] | None:
    return (drum(name)[0], one_in(4, PurePosixPath(name).name)) if name.endswith(".flac") else None


def tune_place(name: str) -> tuple[str, bool] | None:
    return ("", one_in(10, PurePosixPath(name).name)) if name.endswith(".mid") else None


# --------------------------------------------------------------------------- the grid


def family(name: str, *settings: str) -> tuple[str, ...]:
    """Arguments of a family with settings of its own (width=16) or of the data (data.size=32)."""
    arguments = ["--family", name]
    for s in settings:
        arguments += ["--data", s.removeprefix("data.")] if s.startswith("data.") else ["--set", f"family.{s}"]
    return tuple(arguments)


def image_choices(side: int) -> dict[str, tuple[str, ...]]:
    whole, half = f"data.size={side}", f"data.size={side // 2}"
    return {f"{f}-{s.partition('=')[2]}": family(f, s) for f in ("vae", "gan", "flow") for s in (whole, half)} | {
        "vae-narrow": family("vae", whole, "width=16"),
        "flow-narrow": family("flow", half, "widths=[16,32,48]", "emb=64"),
    }


SOUND_CHOICES = {f: family(f) for f in ("vae", "gan", "flow")} | {
    "vae-narrow": family("vae", "width=16"),
    "gan-narrow": family("gan", "width=16"),
    "flow-narrow": family("flow", "widths=[16,32,48,64]", "emb=64"),
    "flow-mels": family("flow", "data.mels=32"),
}
SIZES = {"tiny": (96, 3, 3), "small": (192, 4, 3), "middle": (256, 5, 4), "large": (384, 6, 6)}  # width, layers, heads


def sized(name: str, size: str) -> tuple[str, ...]:
    width, layers, heads = SIZES[size]
    kv = [f"kv_heads={heads}"] if name == "transformer" else []
    return family(name, f"width={width}", f"layers={layers}", f"heads={heads}", *kv)


TOKEN_CHOICES = {s: sized("transformer", s) for s in SIZES} | {"masked": family("masked")}
TEXT_CHOICES = TOKEN_CHOICES | {k: family("transformer", f"data.tokenizer={k}") for k in ("bytes", "bpe")}
TUNE_CHOICES = TOKEN_CHOICES | {"masked-tiny": sized("masked", "tiny")}
FOLDERS = {
    f.name: f
    for f in (
        *(Folder(f"photos{n}", partial(photos, count=n), Images(64), image_choices(64)) for n in (40, 200, 1_000)),
        Folder("emoji", partial(images, load=picture_sets.emoji), Images(64), image_choices(64)),
        Folder("faces", partial(images, load=picture_sets.faces), Images(64), image_choices(64)),
        Folder("clothes", partial(images, load=picture_sets.fashion), Images(28), image_choices(28)),
        Folder("notes50k", partial(notes, size=50_000), Bits(), TEXT_CHOICES),
        Folder("notes1m", partial(notes, size=1_000_000), Bits(), TEXT_CHOICES),
        Folder("code", code, Bits(), TEXT_CHOICES),
        Folder(
            "digits", partial(unpacked, source="spoken_digits_fsdd", place=digit_place), Sounds(SPEECH), SOUND_CHOICES
        ),
        Folder("drums", partial(unpacked, source="drums_sonicpi", place=drum_place), Sounds(VIEW), SOUND_CHOICES),
        Folder("tunes", partial(unpacked, source="music_nottingham", place=tune_place), Bits(), TUNE_CHOICES),
    )
}
