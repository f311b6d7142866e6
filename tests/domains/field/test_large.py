"""Fields that are larger than memory: training on them from the disk is training on them in memory, with a bounded
amount of memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afresh.core import UserError
from afresh.core.memory import process_memory
from afresh.core.rng import Rng
from afresh.data import rows
from afresh.data.collected import made_of
from afresh.data.load import Loader, sweep
from afresh.data.prepare import Prepared, prepare
from afresh.domains.field import fields, modality, state_file
from afresh.domains.field.encoder import FieldEncoder
from afresh.engine.training import checkpoint
from afresh.runs.run import Run
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from tests.domains.field.drifting import write_drifting
from tests.named_settings import named


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the user's data, of this test alone."""
    monkeypatch.setenv("AFRESH_DATA_FOLDER", str(tmp_path / "kept"))
    return tmp_path / "kept"


def both(path: Path, **options: Any) -> tuple[Prepared, Prepared]:
    """The same data from the disk and from memory."""
    streamed, memory = (prepare(path, "field", {**options, "stream": stream}) for stream in (True, False))
    assert streamed.train.rows is not None and memory.train.rows is None
    return streamed, memory


def same_examples(streamed: Prepared, memory: Prepared) -> bool:
    space = memory.encoder.space
    pairs = [(getattr(streamed, side), getattr(memory, side)) for side in ("train", "heldout")]
    batches = [(a, b) for pair in pairs for a, b in zip(*(sweep(e, space, 7) for e in pair), strict=True)]
    loaders = [Loader(p.train, space, Rng(0)) for p in (streamed, memory)]
    batches += [(loaders[0].batch(d, 9), loaders[1].batch(d, 9)) for d in range(0, 90, 9)]
    return all(
        torch.equal(a.x, b.x)
        and a.cond.parts.keys() == b.cond.parts.keys()
        and all(torch.equal(a.cond.parts[k], b.cond.parts[k]) for k in a.cond.parts)
        for a, b in batches
    )


@pytest.mark.parametrize(
    ("options", "trajectories"),
    [
        ({}, 12),
        ({"history": 2, "noise": 0.1}, 12),
        ({"history": 0}, 12),
        ({"window": 3, "infer": ("speed",)}, 12),
        ({}, 1),
    ],
)
def test_examples_are_those_of_states_in_memory(
    tmp_path: Path, options: Mapping[str, Any], trajectories: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same bits, split and statistics, whatever is told of a state."""
    monkeypatch.setattr(fields, "CHUNK", 1)  # one state at a time
    steps = 8 if trajectories > 1 else 60
    data = write_drifting(tmp_path / "data", trajectories, steps, speeds=trajectories > 1, mask=True)
    streamed, memory = both(data, **options)
    assert streamed.split_hash == memory.split_hash
    assert isinstance(streamed.encoder, FieldEncoder) and isinstance(memory.encoder, FieldEncoder)
    assert streamed.encoder == memory.encoder and same_examples(streamed, memory)
    for side in ("train_items", "heldout_items"):
        for a, b in zip(getattr(streamed, side), getattr(memory, side), strict=True):
            assert a.source == b.source and np.array_equal(a.value, b.value)
            assert all(np.array_equal(a.images[k], b.images[k]) for k in b.images)


def test_the_sample_in_memory_is_of_whole_trajectories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which rollouts can be scored; batches are of all states."""
    monkeypatch.setattr(rows, "SAMPLE", 15 * 2 * 16 * 4)
    streamed, memory = both(write_drifting(tmp_path / "data", 40, 6))
    for examples, items in ((streamed.train, streamed.train_items), (streamed.heldout, streamed.heldout_items)):
        groups = [item.group for item in items]
        assert len(examples) == len(items) in (5, 10, 15) and all(groups.count(g) == 5 for g in groups)
    assert streamed.train_count == memory.train_count and same_examples(streamed, memory)
    assert any("states are learnt from the disk" in note and "15 of" in note for note in streamed.notes)


def test_states_are_written_once_and_shared(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_drifting(tmp_path / "data")
    first = prepare(data, "field", {"stream": True})
    (made,) = kept.iterdir()
    monkeypatch.setattr(state_file, "read_states", None)  # nothing is read from the data again
    assert prepare(data, "field", dict(first.options)).split_hash == first.split_hash
    prepare(data, "field", {"stream": True, "window": 4})
    assert list(kept.iterdir()) == [made] == [d.path for d in made_of(data)]


def test_memory_decides_unless_the_user_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_drifting(tmp_path / "data")
    assert prepare(data, "field").options.stream is False
    monkeypatch.setattr(modality, "available_memory", lambda: 1e4)
    found = prepare(data, "field")
    assert found.options.stream is True and found.train.rows is not None
    assert "stream" not in found.encoder.settled  # other data is read anyhow
    assert prepare(data, "field", {"stream": False}).train.rows is None


def test_damaged_states_are_named(tmp_path: Path, kept: Path) -> None:
    data = write_drifting(tmp_path / "data")
    prepare(data, "field", {"stream": True})
    (states,) = kept.rglob("states")
    states.write_bytes(states.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"states is damaged. Remove"):
        prepare(data, "field", {"stream": True})


def last_weights(run: Path) -> Mapping[str, Mapping[str, torch.Tensor]]:
    found = checkpoint.newest(run / "checkpoints")
    assert found is not None and found.step == Run.open(run).record.train.steps
    return found.tensors


def test_training_is_that_of_states_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights bit for bit, although only a sample is in memory."""
    monkeypatch.setattr(rows, "SAMPLE", 5 * 2 * 16 * 4)
    data = write_drifting(tmp_path / "data")
    network, train = {"widths": [4], "blocks": 1}, {"threads": 1, "save_every": 5}
    runs = []
    for stream in (True, False):
        out = tmp_path / f"run{stream}"
        options = {"stream": stream, "noise": 0.1}
        job = start(TrainSpec(data, steps=5, out=out, data=options, settings=named(family=network, train=train)))
        assert job.run.record.family == "ensemble" and job.run.record.data.options["stream"] is stream
        learn(job)
        runs.append(last_weights(out))
    assert runs[0].keys() == runs[1].keys()
    assert all(torch.equal(t, runs[1][group][name]) for group in runs[0] for name, t in runs[0][group].items())


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_number_of_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """160 MB of states are written, divided and fitted with less than 60 MB of memory, and learnt with less than
    150 MB, most of it for a batch of 64 held-out states in the network; in memory, they and their examples take 480."""
    if process_memory() is None:
        pytest.skip("needs Linux")
    monkeypatch.setattr(rows, "SAMPLE", 1 << 22)
    monkeypatch.setattr(fields, "CHUNK", 1 << 22)
    network, train = {"widths": [4], "blocks": 1, "patch": 4}, {"threads": 1, "save_every": 3, "batch": 4}

    def peaks(path: Path, name: str, **options: Any) -> list[int]:
        """What is held at most before the first step, and after it, more than at the beginning."""
        given = {"data": {"stream": True, **options}, "settings": named(family=network, train=train)}
        held = [process_memory()]
        job = start(TrainSpec(path, steps=3, out=tmp_path / name, modality="field", **given))  # type: ignore[arg-type]
        held.append(process_memory())
        learn(job)
        held.append(process_memory())
        return [most - held[0][0] for _, most in held[1:]]  # type: ignore[index, misc]

    peaks(write_drifting(tmp_path / "small"), "first")  # what is imported and kept
    data = tmp_path / "data"
    data.mkdir()
    values = np.lib.format.open_memmap(data / "u.npy", "w+", np.float32, (50, 100, 2, 64, 64))  # type: ignore[no-untyped-call]
    x, t = 2 * np.pi * np.arange(64) / 64, 0.05 * np.arange(100)[:, None, None, None]
    for number, trajectory in enumerate(values):
        waves = np.sin(x[:, None] + number + t) + np.cos(x + t * np.arange(1, 3)[:, None, None])
        trajectory[:] = waves
    assert values.nbytes > 160e6
    del values, trajectory, waves
    prepared, learnt = peaks(data, "second", axes="sample,time,channel,x,y")
    assert prepared < 60e6 and learnt < 150e6
