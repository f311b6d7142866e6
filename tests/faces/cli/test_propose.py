"""`afresh propose` for images and texts: files named in a table, results filled in, and what is printed."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.faces.cli.conftest import Invoke, error_of, parsed


def brightness(path: Path) -> float:
    with Image.open(path) as image:
        return float(np.asarray(image).mean())


@pytest.fixture
def rated(digits: Path) -> Path:
    """A table of 40 of the digits, by their files, and how bright they are."""
    files = sorted(p for p in digits.rglob("*.png") if p.name not in ("broken.png", "copy.png"))[:40]
    table = digits / "rated.csv"
    with table.open("w", newline="") as out:
        csv.writer(out).writerows(
            [("file", "bright"), *((p.relative_to(digits), brightness(p)) for p in files), ("gone.png", 3.0)]
        )
    return table


def test_images_are_proposed_measured_and_proposed_again(
    rated: Path, pictures_run: Path, tmp_path: Path, invoke: Invoke
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    asked = ("propose", pictures_run, "--column", "bright", "--set", "budget=24", "--batch", 4, "--set", "steps=2")
    code, out, err = invoke(*asked, "--observed", rated, "--out", one)
    said = " ".join(err.split())
    assert code == 0, err
    assert "gone.png" in said and "Gaussian process on 40 values" in said and "varied from the best" in said
    with (one / "proposals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["file"] for r in rows] == [f"{r['id']}.png" for r in rows] and rows[0]["id"] in out
    for row in rows:
        row["bright"] = str(brightness(one / row["file"]))
    with (one / "proposals.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    code, out, err = invoke(*asked, "--observed", rated, "--observed", one, "--out", two, "--minimise", "--json")
    assert code == 0, err
    found = parsed(out)
    assert found["measured"] == 44 and found["past"]["n"] == 4 and found["goal"] == "lowest"
    assert len(found["proposals"]) == 4 and (two / "plot.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = invoke(*asked, "--observed", rated, "--observed", one, "--out", one, "--force")
    assert code == 2 and "would be replaced" in " ".join(err.split()) and (one / "proposals.csv").exists()


def test_texts_are_proposed(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    draw = random.Random(0)
    table = tmp_path / "liked.csv"
    rows = [" ".join(draw.choices(["the", "cat", "sat", "mat"], k=8)) for _ in range(30)]
    table.write_text("text,liked\n" + "".join(f"{t},{t.count('cat')}\n" for t in rows))
    asked = ("propose", texts_run, "--observed", table, "--column", "liked", "--set", "budget=150", "--batch", 3)
    code, out, err = invoke(*asked, "--set", "length=24", "--set", "acquisition=thompson", "--json")
    assert code == 0, err
    found = parsed(out)
    assert len(found["proposals"]) == 3 and all(p["item"] and p["why"] for p in found["proposals"])
    assert found["best"]["item"] == max(rows, key=lambda t: t.count("cat"))


def test_what_is_missing_is_asked_for(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    code, out, _ = invoke("propose", texts_run, "--json")
    assert code == 2 and "--observed, a table" in error_of(out)["text"]
    table = tmp_path / "liked.csv"
    table.write_text("text,liked\na,1\n")
    code, out, _ = invoke("propose", texts_run, "--observed", table, "--column", "like", "--json")
    assert code == 2 and error_of(out)["code"] == "no_column" and "'liked'" in error_of(out)["text"]
