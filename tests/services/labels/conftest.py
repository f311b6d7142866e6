"""A small text run, pictures that `collect` gathered and a run on them, and what was made from these: tuned, with an
adapter, aligned to a reward, distilled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import afresh
from afresh.faces.cli import run as command
from afresh.services.collect.gather import gather, place_of
from tests.faces.cli.conftest import FLOW, WORDS, texts, trained

__all__ = ["texts"]
TUNED = ("--steps", "2", "--set", "train.batch=4")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of this test process, in which digests of weights are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AFRESH_CACHE_FOLDER", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels")


@pytest.fixture(scope="session")
def text_run(texts: Path, places: Path) -> Path:
    return trained(texts, places / "words", *WORDS)


@pytest.fixture(scope="session")
def collected(places: Path) -> Path:
    """120 digits under a licence, of which 40 show a person who has not consented."""
    data = load_digits()
    for i in range(120):
        folder = places / ("seen" if i < 40 else "open") / f"d{data.target[i] % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((data.images[i] * 255 / 16).astype(np.uint8)).save(folder / f"{i:03d}.png")
    gather(
        [
            place_of(str(places / "seen"), about={"licence": "CC-BY-4.0", "licence_from": "x", "person": "ann"}),
            place_of(str(places / "open"), about={"licence": "CC0-1.0", "licence_from": "y"}),
        ],
        places / "my digits",
        off=("image_small", "image_blurred", "image_grey", "image_blank"),
    )
    return places / "my digits"


@pytest.fixture(scope="session")
def picture_run(collected: Path, places: Path) -> Path:
    return trained(collected, places / "digits", *FLOW)


@pytest.fixture(scope="session")
def tuned_run(text_run: Path, texts: Path, places: Path) -> Path:
    out = places / "tuned"
    small = {"train.batch": 4}
    return afresh.tune(text_run, texts, lora=False, steps=2, out=out, settings=small, quiet=True).run.path


@pytest.fixture(scope="session")
def adapter_run(tuned_run: Path, texts: Path, places: Path) -> Path:
    """An adapter of the tuned run, so that two models stand behind it."""
    out = places / "adapter"
    assert command(["tune", str(tuned_run), str(texts), "--out", str(out), "--no-measure", *TUNED]) == 0  # a report
    return out


@pytest.fixture(scope="session")
def aligned_run(text_run: Path, places: Path) -> Path:
    made = afresh.load(text_run).align(reward="length:max=20", steps=1, out=places / "aligned", quiet=True)
    return made.run.path


@pytest.fixture(scope="session")
def student_run(picture_run: Path, places: Path) -> Path:
    return afresh.load(picture_run).distill(steps=1, out=places / "student", quiet=True).run.path
