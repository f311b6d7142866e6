"""Marks and statements of works: they are found again after edits, and by nobody else."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import afresh
from afresh.core import UserError
from afresh.services.provenance.layers import Provenance, Status
from afresh.verbs.verify_works import verify_work, verify_works

TINY = {"family.width": 32, "family.layers": 1, "family.heads": 2, "family.kv_heads": 2, "train.compile": False}
LETTERS = [*"abcdefghijklmnopqrstuvwxyz   "]


@pytest.fixture(autouse=True)
def works_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AFRESH_MARK_WORKS")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of images of 64 x 64 pixels, in whose latents they can be edited and blended."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "data").mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        smooth = rng.integers(40, 216, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(smooth).resize((64, 64), Image.Resampling.BICUBIC).save(folder / "data" / f"{i}.png")
    small = {"family.width": 8, "family.latent": 4, "train.batch": 8}
    afresh.train(folder / "data", family="vae", steps=30, out=folder / "run", settings=small, quiet=True)
    return folder / "run"


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("texts")
    # Much is possible after every letter, as after a word of a long text: where little is, little can be marked.
    lines = np.random.default_rng(0).choice(LETTERS, (400, 120))
    (folder / "tales.txt").write_text("\n\n".join("".join(line) for line in lines))
    afresh.train(folder / "tales.txt", steps=60, out=folder / "run", data={"context": 64}, settings=TINY, quiet=True)
    yield folder / "run"


def marked(found: Provenance) -> bool:
    return any(layer.status is Status.MARKED for layer in found.layers)


def test_edits_and_blends_are_marked_again_and_name_what_they_were_made_from(images: Path, tmp_path: Path) -> None:
    model = afresh.load(images)
    model.sample(2, seed=1).save(tmp_path / "first")
    model.edit([tmp_path / "first" / "0.png"], strength=0.5).save(tmp_path / "second")
    model.edit([tmp_path / "second" / "0.png"], strength=0.5).save(tmp_path / "third")
    ends = [tmp_path / "first" / f"{i}.png" for i in (0, 1)]
    model.interpolate(*ends, n=2).save(tmp_path / "blended")
    names = {"first": [], "second": ["0.png"], "third": ["0.png", "0.png"], "blended": ["0.png", "1.png"]}
    for folder, parents in names.items():
        (found,) = verify_works(tmp_path / folder / "0.png")
        assert found.status is Status.VALID and marked(found)
        assert [origin.title for origin in found.layers[0].origins[1:]] == parents


def test_a_mark_is_found_without_metadata_by_its_own_key_alone(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = afresh.load(images).sample(1, seed=1).published.values[0]
    saved = io.BytesIO()
    Image.fromarray(value).save(saved, "JPEG", quality=75)
    assert verify_work(saved.getvalue(), "a.jpg").status is Status.MARKED
    plain = io.BytesIO()
    Image.fromarray(afresh.load(images, marks=False).sample(1, seed=1).published.values[0]).save(plain, "PNG")
    assert verify_work(plain.getvalue(), "a.png").status is Status.NOTHING
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "empty"))
    assert verify_work(saved.getvalue(), "a.jpg").status is Status.NOTHING, "without a key nothing can be found"
    assert not (tmp_path / "empty").exists(), "looking for a mark makes no key"
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "another"))
    afresh.load(images).sample(1).save(tmp_path / "theirs.png")
    assert verify_work(saved.getvalue(), "a.jpg").status is Status.NOTHING


def test_texts_are_found_after_their_run_is_gone(texts: Path, tmp_path: Path) -> None:
    shutil.copytree(texts, tmp_path / "run")
    made = afresh.load(tmp_path / "run").sample(1, prompt="the cat", seed=3, length=150)[0]
    plain = afresh.load(tmp_path / "run", marks=False).sample(1, prompt="the cat", seed=3, length=150)[0]
    shutil.rmtree(tmp_path / "run")
    assert made != plain
    assert verify_work(made.encode(), "a.txt").status is Status.MARKED
    assert verify_work(plain.encode(), "a.txt").status is Status.NOTHING
    assert verify_work(b"", "a.txt").status is Status.NOTHING


def test_labels_that_people_see(images: Path, texts: Path, tmp_path: Path) -> None:
    drawn = afresh.load(images).sample(2, seed=1)
    drawn.labelled().save(tmp_path / "images")
    (found,) = verify_works(tmp_path / "images" / "0.png")
    assert found.status is Status.VALID and marked(found)
    records = json.loads((tmp_path / "images" / "samples.json").read_text())
    assert all(record["label_ai"] is True for record in records)
    corner = np.asarray(Image.open(tmp_path / "images" / "0.png"))[-16:, -24:].astype(int)
    before = drawn.values[0][-16:, -24:].astype(int)
    assert np.abs(corner - before).max() > 100
    text = afresh.load(texts).sample(1, prompt="the cat", length=20).labelled()[0]
    assert text.startswith("This text was made by AI.\n\n")


def test_kinds_without_a_label_say_so(tmp_path: Path) -> None:
    (tmp_path / "m.smi").write_text("\n".join(["CCO", "CCN", "CCC", "CCCl", "CCBr", "COC", "CNC", "CSC"] * 6))
    pytest.importorskip("rdkit")
    run = afresh.train(tmp_path / "m.smi", steps=1, out=tmp_path / "run", settings=TINY, quiet=True)
    with pytest.raises(UserError, match="have no label that people see"):
        run.sample(1).labelled()
