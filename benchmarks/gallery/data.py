"""What the gallery learns: a real data set of each kind where AFRESH_DATA has it, else what a script makes."""

from __future__ import annotations

import gzip
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import islice
from pathlib import Path

from afresh.services.demo.drawings import write_drawings
from afresh.services.demo.sounds import write_sounds
from afresh.services.demo.tales import write_tales
from benchmarks.common.folders import data_folder, has_data
from benchmarks.knowledge.learners import World, csv_of, simulate
from benchmarks.training.folders import FOLDERS

ROOMS = {
    "kitchen": ("kettle", "pan", "knife", "bowl", "cup", "scale"),
    "study": ("desk", "lamp", "chair", "shelf", "clock", "globe"),
    "garden": ("spade", "seeds", "pots", "hose", "bench", "lantern"),
}
CUSTOMERS, LEARNERS, ANSWERS, DRAWN, MOLECULES = 600, 400, 60, 200, 100_000


@dataclass(frozen=True)
class Source:
    """`write` puts the data into an empty folder. `needs`: the data set in AFRESH_DATA that it is made of; without it
    a script makes everything."""

    title: str
    write: Callable[[Path], None]
    needs: str = ""

    def written(self, folder: Path) -> Path:
        """The data, written once. Beside a folder `train` lies what no model sees."""
        if not folder.is_dir():
            aside = folder.with_suffix(".part")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            self.write(aside)
            aside.replace(folder)
        return next((p for p in (folder / "train",) if p.is_dir()), folder)


def like_a_persons(name: str) -> Callable[[Path], None]:
    """One of the folders like a person's own, both sides of it."""

    def write(folder: Path) -> None:
        for side in ("train", "held"):
            (folder / side).mkdir()
        FOLDERS[name].make(folder)

    return write


def stories(folder: Path) -> None:
    packed = data_folder("tinystories") / "tinystories_train.txt.gz"
    (folder / "stories.txt").write_bytes(gzip.decompress(packed.read_bytes()))


def molecules(folder: Path) -> None:
    """The first ones, below the name of their column."""
    with gzip.open(data_folder("molecules_moses") / "moses_train_300k.csv.gz", "rt") as lines:
        (folder / "molecules.csv").write_text("".join(islice(lines, MOLECULES + 1)))


def shop(folder: Path) -> None:
    """Customers who furnish one room in its order, and now and then take something for another."""
    rows = ["customer,product,date"]
    for customer in range(CUSTOMERS):
        rng = random.Random(customer)
        room, day = rng.choice(tuple(ROOMS)), date(2026, 1, 1) + timedelta(rng.randrange(200))
        start = rng.randrange(3)
        for thing in ROOMS[room][start : start + rng.randrange(3, 7)]:
            other = rng.choice(ROOMS[rng.choice(tuple(ROOMS))])
            day += timedelta(rng.randrange(1, 20))
            rows.append(f"c{customer},{other if rng.random() < 0.15 else thing},{day}")
    (folder / "shop.csv").write_text("\n".join(rows))


def answers(folder: Path) -> None:
    (folder / "answers.csv").write_text(csv_of(simulate(World.make(0), LEARNERS, ANSWERS, 0)))


SOURCES: dict[str, tuple[Source, ...]] = {
    "image": (
        Source("clothes of 28x28 (Fashion-MNIST)", like_a_persons("clothes"), "fashion_mnist_small"),
        Source("drawings of a script", lambda folder: write_drawings(folder, DRAWN, 0)),
    ),
    "audio": (
        Source("spoken digits (FSDD)", like_a_persons("digits"), "spoken_digits_fsdd"),
        Source("sounds of a script", lambda folder: write_sounds(folder, DRAWN, 0)),
    ),
    "music": (Source("folk tunes (Nottingham)", like_a_persons("tunes"), "music_nottingham"),),
    "text": (
        Source("stories (TinyStories)", stories, "tinystories"),
        Source("tales of a script", lambda folder: write_tales(folder, 10 * DRAWN, 0)),
    ),
    "code": (Source("packages of Python's standard library", like_a_persons("code")),),
    "molecule": (Source(f"{MOLECULES:,} molecules (MOSES)", molecules, "molecules_moses"),),
    "interactions": (Source(f"a simulated shop with {CUSTOMERS} customers", shop),),
    "exercises": (Source(f"{LEARNERS} simulated learners", answers),),
}


def source_of(kind: str) -> Source | None:
    """The first whose data set is there."""
    return next((s for s in SOURCES[kind] if not s.needs or has_data(s.needs)), None)
