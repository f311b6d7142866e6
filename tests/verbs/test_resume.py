"""A run of tokens goes on with the bits with which it began, or says why not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from afresh.engine.nets.kernels import build
from afresh.runs.run import Run
from afresh.verbs.resume import resume
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from tests.heard import heard, silence
from tests.named_settings import named
from tests.needs import kernels

FAMILY = {"width": 16, "layers": 1, "heads": 2, "kv_heads": 2}
pytestmark = kernels
TRAIN = {"batch": 4, "threads": 1, "precision": "float32", "compile": False}


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Sets whether kernels are used, as a new process would find it."""

    def to(value: str) -> None:
        monkeypatch.setenv("AFRESH_KERNELS", value)
        build.compiled.cache_clear()

    yield to
    monkeypatch.undo()
    build.compiled.cache_clear()


def begun(path: Path) -> Path:
    text = path.with_name("text.txt")
    text.write_text("".join(f"line {i}: {i * i % 97}\n" for i in range(200)))
    data = {"context": 16}
    start(TrainSpec(text, steps=4, out=path, device="cpu", data=data, settings=named(family=FAMILY, train=TRAIN)))
    return path


def learnt(path: Path) -> bytes:
    learn(resume(path))
    return (path / "checkpoints" / "000004" / "model.safetensors").read_bytes()


def test_a_run_that_began_without_kernels_goes_on_without_them(tmp_path: Path, switch: Callable[[str], None]) -> None:
    """One of an earlier version, which does not say so, takes those that there are."""
    switch("no")
    one, two, earlier = (begun(tmp_path / name) for name in ("one", "two", "earlier"))
    without = learnt(one)
    switch("yes")
    record = json.loads((earlier / "run.json").read_text())
    assert record["machine"].pop("kernels") == ""
    (earlier / "run.json").write_text(json.dumps(record))
    with silence():
        assert learnt(two) == without != learnt(earlier)
    assert build.library() is not None


def test_a_run_that_began_with_kernels_says_so_where_there_are_none(
    tmp_path: Path, switch: Callable[[str], None]
) -> None:
    switch("yes")
    path = begun(tmp_path / "run")
    assert Run.open(path).record.machine["kernels"] == build.version() != ""
    with silence():
        resume(path)
    switch("no")
    with heard("Here none are used.*AFRESH_KERNELS=yes"):
        resume(path)
