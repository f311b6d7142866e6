"""`import afresh`: the same verbs from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import afresh

# As `pictures_run` of conftest.py.
SMALL = {"family.widths": [8, 16], "train.batch": 16, "train.eval_every": 4, "train.preview_every": 4}


def test_the_interface_is_listed() -> None:
    assert callable(afresh.train)
    assert sorted(dir(afresh)) == sorted(afresh.__all__)
    with pytest.raises(AttributeError, match="'tarin'"):
        afresh.tarin  # noqa: B018


def test_from_data_to_a_picture(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], pictures_run: Path
) -> None:
    capsys.readouterr()
    run = afresh.train(digits, family="flow", steps=4, seed=0, out=tmp_path / "run", settings=SMALL, quiet=True)
    assert capsys.readouterr() == ("", "")
    assert isinstance(run, afresh.Model) and run.path == tmp_path / "run"
    samples = run.sample(3, label="d2", steps=2, seed=4)
    assert len(samples) == len(list(samples)) == 3 and samples[0].shape == (8, 8, 1) and len(samples[1:]) == 2
    assert repr(samples).startswith("Samples(3 images, the first ") and repr(samples).endswith("; seed 4)")
    assert len(repr(samples)) < 80
    records = samples.save(tmp_path / "twos")
    assert [r["label"] for r in records] == ["d2"] * 3
    samples.save(str(tmp_path / "twos.png"))
    assert (tmp_path / "twos.png").read_bytes().startswith(b"\x89PNG")
    assert samples._repr_html_().startswith("<img ")
    reopened = afresh.load(tmp_path / "run")
    assert reopened.sample(3, label="d2", steps=2, seed=4).x.equal(samples.x)
    assert afresh.resume(tmp_path / "run", quiet=True).path == run.path
    a, b = (json.loads((p / "run.json").read_bytes())["train"] for p in (run.path, pictures_run))
    assert a == b, "Python and the command line ask for the same training"


def test_data_in_memory_is_there_again_when_a_run_is_resumed(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    labels = [i % 2 for i in range(40)]
    model = afresh.train((images, labels), family="flow", steps=4, out=tmp_path / "run", settings=SMALL, quiet=True)
    assert model.sample(2, label="1", steps=2)[0].shape == (8, 8, 1)
    assert afresh.resume(model.path, quiet=True).path == model.path
    assert {c.name: c.passed for c in model.verify()}["data"]


def test_a_run_says_what_it_is(pictures_run: Path) -> None:
    run = afresh.load(pictures_run).run
    assert repr(run) == f"Run({str(pictures_run)!r})"
    said = dict(line.split(":", 1) for line in str(run).splitlines())
    assert said["model"].strip() == f"flow on image, {run.record.parameters:,} parameters"
    assert said["training"].strip().startswith("4 steps, held-out loss ")
    assert said["data"].strip().endswith("(182 training items, 18 held out)")


def test_measure_gives_plain_values(texts_run: Path) -> None:
    made = afresh.load(texts_run).measure(n=4)
    assert {"card", "metrics"} <= set(made) and json.dumps(made)
    assert {m["name"] for m in made["metrics"]} >= {"bits_per_byte"}


def test_examine_tells_and_does_not_train(digits: Path) -> None:
    seen = afresh.inspect_data(digits, data={"size": 4})
    assert seen.json()["sizes"] == {"pixels": {"4x4x1": len(seen.items)}}
    assert any("4x4x1 pixels" in line for line in seen.lines())


def test_errors_teach(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(afresh.UserError, match="one budget"):
        afresh.train(digits, minutes=1, steps=1, out=tmp_path / "run")
    with pytest.raises(afresh.UserError, match="Known: "):
        afresh.train(digits, steps=1, out=tmp_path / "run", settings={"train.speed": 3})
    with pytest.raises(afresh.UserError, match="not a run"):
        afresh.load(tmp_path)
