"""`import afresh`: the same verbs from Python."""

from __future__ import annotations

import json
from collections.abc import Sequence
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


def test_samples_are_a_sequence_whose_slices_keep_their_requests(pictures_run: Path, tmp_path: Path) -> None:
    samples = afresh.load(pictures_run).sample(4, steps=2, seed=7)
    assert isinstance(samples, Sequence) and not isinstance(samples[0], afresh.Samples)
    part = samples[1:3]
    assert isinstance(part, afresh.Samples) and len(part) == 2 and part.x.equal(samples.x[1:3])
    assert [list(v.ravel()) for v in part] == [list(samples[i].ravel()) for i in (1, 2)]
    assert [r["index"] for r in part.save(tmp_path / "part")] == [1, 2]
    assert [r["index"] for r in samples[::-1][1:].save(tmp_path / "back")] == [2, 1, 0]
    assert samples[2].copy() in samples and samples.index(samples[2].copy()) == 2
    assert "no image" not in samples and samples.count(samples[0]) >= 1
    assert len(samples[4:]) == 0 and repr(samples[4:]) == "Samples(0 images; seed 7)"


def test_two_models_are_compared_from_python(texts_run: Path, tmp_path: Path) -> None:
    model = afresh.load(texts_run)
    session = model.compare(n=4, prompt="the cat", out=tmp_path / "votes.jsonl", rater="me", settings={"length": 8})
    while (question := session.next()) is not None:
        assert isinstance(session.value(question.a), str)
        session.vote(question, "a")
    assert session.summary().votes == session.of and repr(session).endswith(
        f"{session.of} of {session.of} pairs judged)"
    )
    again = model.compare(n=4, prompt="the cat", out=tmp_path / "votes.jsonl", rater="me", settings={"length": 8})
    assert again.next() is None, "the same call goes on where it ended"
    with pytest.raises(afresh.UserError, match="given twice"):
        model.compare(model, out=tmp_path / "votes.jsonl")


def test_an_image_goes_toward_a_label(pictures_run: Path) -> None:
    model, image = afresh.load(pictures_run), np.full((8, 8, 1), 100, np.uint8)
    made = model.interpolate(image, n=2, toward="d0", away="d1", settings={"steps": 2})
    assert [d["amount"] for d in made.described] == [0, 1.5]
    with pytest.raises(afresh.UserError, match="`to_label`: only with a second file"):
        model.interpolate(image, toward="d0", to_label="d1")


def test_a_run_is_removed_from_python(texts_run: Path, tmp_path: Path) -> None:
    copy = afresh.load(texts_run).save(tmp_path / "copy")
    (copy.path / "mine.txt").write_text("kept")
    assert copy.remove() == ["mine.txt"] and not (copy.path / "run.json").exists()


def test_the_machine_is_examined_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("afresh.verbs.doctor.compile_fault", lambda device: None)  # which takes some seconds
    assert {"device", "memory", "disk"} <= {f.name for f in afresh.doctor(tmp_path, "cpu")}


def test_results_are_printed_in_a_line(texts_run: Path, digits: Path) -> None:
    model = afresh.load(texts_run)
    assert repr(model.complete("the cat", length=4)).startswith("Completions(1 completion, left-to-right, the first '")
    assert f"run:          {texts_run}" in str(model).splitlines() and len(repr(model)) < 200
    look = afresh.inspect_data(digits, near=False)
    assert repr(look) == f"Look({str(digits)!r}: image, {len(look.prepared.train_items)} items to train, " + (
        f"{len(look.prepared.heldout_items)} held out)"
    )
    assert str(look) == "\n".join(look.lines()) and "data:image/png;base64," in look._repr_html_()


def test_data_in_memory_is_there_again_when_a_run_is_resumed(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    labels = [i % 2 for i in range(40)]
    model = afresh.train((images, labels), family="flow", steps=4, out=tmp_path / "run", settings=SMALL, quiet=True)
    assert model.sample(2, label="1", steps=2)[0].shape == (8, 8, 1)
    assert afresh.resume(model.path, quiet=True).path == model.path
    assert {c.name: c.passed for c in model.verify()}["data"]


def test_a_run_says_what_it_is(pictures_run: Path) -> None:
    model = afresh.load(pictures_run)
    assert repr(model.run) == f"Run({str(pictures_run)!r})"
    said = dict(line.split(":", 1) for line in str(model).splitlines())
    assert said["model"].strip() == f"flow on image, {model.run.record.parameters:,} parameters"
    assert said["training"].strip().startswith("4 steps, held-out loss ")
    assert said["data"].strip().endswith("(182 training items, 18 held out)")


def test_measure_gives_plain_values(texts_run: Path) -> None:
    made = afresh.load(texts_run).measure(n=4)
    assert {"card", "metrics", "verdict"} <= set(made) and json.dumps(made)
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
