"""Images that are larger than memory: training on them from the disk is training on them in memory, with the same
result however often it is interrupted, and with a bounded amount of memory."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from afresh.core import UserError
from afresh.core.memory import process_memory
from afresh.core.rng import Rng
from afresh.data import made_once, rows
from afresh.data.collected import aside_key, kept_aside, made_of
from afresh.data.image import pixel_file
from afresh.data.load import Loader, sweep
from afresh.data.prepare import Prepared, prepare
from afresh.domains.image import modality
from afresh.domains.image.modality import ImageEncoder
from afresh.engine.training import checkpoint
from afresh.runs.deletion import remove_data
from afresh.runs.run import Run
from afresh.verbs.likelihoods import read_items
from afresh.verbs.resume import resume
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from tests.named_settings import named
from tests.warm import Warm


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the user's data, of this test alone."""
    monkeypatch.setenv("AFRESH_DATA_FOLDER", str(tmp_path / "kept"))
    return tmp_path / "kept"


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def folder(root: Path, count: int = 60, grey: int = 0, side: int = 8) -> Path:
    """Images in three class folders, of which the first `grey` have no colours, with a copy and a damaged file."""
    for i in range(count):
        path = root / "abc"[i % 3] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(i, side, side, *((3,) if i >= grey else ()))).save(path)
    shutil.copy(root / "a" / "000.png", root / "b" / "again.png")
    (root / "c" / "damaged.png").write_bytes(b"nothing")
    return root


def both(path: Path, **options: Any) -> tuple[Prepared, Prepared]:
    """The same data from the disk and from memory."""
    streamed, memory = (prepare(path, "image", {**options, "stream": stream}) for stream in (True, False))
    assert streamed.train.rows is not None and memory.train.rows is None
    return streamed, memory


def same_examples(streamed: Prepared, memory: Prepared) -> bool:
    space = memory.encoder.space
    pairs = [(getattr(streamed, side), getattr(memory, side)) for side in ("train", "heldout")]
    batches = [(a, b) for pair in pairs for a, b in zip(*(sweep(e, space, 7) for e in pair), strict=True)]
    loaders = [Loader(p.train, space, Rng(0)) for p in (streamed, memory)]
    batches += [(loaders[0].batch(d, 9), loaders[1].batch(d, 9)) for d in range(0, 200, 9)]
    return all(
        torch.equal(a.x, b.x)
        and a.cond.parts.keys() == b.cond.parts.keys()
        and all(torch.equal(a.cond.parts[k], b.cond.parts[k]) for k in a.cond.parts)
        for a, b in batches
    )


@pytest.mark.parametrize("grey, options", [(0, {}), (60, {}), (40, {}), (30, {"channels": "grey"}), (30, {"size": 5})])
def test_examples_are_those_of_images_in_memory(tmp_path: Path, grey: int, options: Mapping[str, Any]) -> None:
    streamed, memory = both(folder(tmp_path / "data", grey=grey), **options)
    assert streamed.split_hash == memory.split_hash and streamed.encoder.space == memory.encoder.space
    assert streamed.encoder.conds == memory.encoder.conds and same_examples(streamed, memory)
    assert (streamed.refused, streamed.duplicates, streamed.counts) == (
        memory.refused,
        memory.duplicates,
        memory.counts,
    )
    assert [i.source for i in streamed.train_items] == [i.source for i in memory.train_items]
    for a, b in zip(streamed.heldout_items, memory.heldout_items, strict=True):
        assert np.array_equal(a.value, b.value)


def test_captions_and_numbers_are_learnt(tmp_path: Path) -> None:
    data = folder(tmp_path / "data")
    names = sorted(p.relative_to(data).as_posix() for p in data.rglob("[0-9]*.png"))
    table = ["file_name,text,height", *(f"{n},a picture of {n[0]},{i}.5" for i, n in enumerate(names))]
    (data / "metadata.csv").write_text("\n".join(table))
    streamed, memory = both(data)
    assert {"caption", "height", "label"} == set(memory.encoder.conds) == set(streamed.encoder.conds)
    assert same_examples(streamed, memory)


def test_only_a_sample_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what is told of the data says so; batches are of all examples."""
    monkeypatch.setattr(rows, "SAMPLE", 8 * 8 * 8 * 3 * 4)
    streamed, memory = both(folder(tmp_path / "data", 120))
    assert len(streamed.train) == len(streamed.train_items) == 8 == len(streamed.heldout_items)
    assert streamed.train_count == memory.train_count > 90 and streamed.heldout_count == memory.heldout_count > 8
    assert same_examples(streamed, memory)
    for item, x in zip(streamed.train_items, streamed.train.x, strict=True):
        assert np.array_equal(np.moveaxis(item.value, 2, 0), x.numpy())
    (note,) = (n for n in streamed.notes if "from the disk" in n)
    assert f"8 of {memory.train_count} training and 8 of {memory.heldout_count} held-out images" in note


def test_pixels_are_made_once_and_shared(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path / "data")
    first = prepare(data, "image", {"stream": True})
    (made,) = kept.iterdir()
    decoded: list[object] = []
    monkeypatch.setattr(modality, "decode_image", lambda *_: decoded.append(1))
    again = prepare(data, "image", dict(first.options))
    assert again.split_hash == first.split_hash and not decoded and list(kept.iterdir()) == [made]
    monkeypatch.undo()
    monkeypatch.setenv("AFRESH_DATA_FOLDER", str(kept))
    Image.fromarray(pixels(999, 8, 8, 3)).save(data / "a" / "000.png")  # another image of that name
    assert prepare(data, "image", {"stream": True}).split_hash != first.split_hash


# --------------------------------------------------------------------------- training

TRAIN = {"batch": 16, "micro_batch": 8, "threads": 1, "save_every": 2}


def weights(run: Path) -> Mapping[str, Mapping[str, Tensor]]:
    """All numbers of the last checkpoint."""
    found = checkpoint.newest(run / "checkpoints")
    assert found is not None and found.step == Run.open(run).record.train.steps
    return found.tensors


def same(a: Mapping[str, Mapping[str, Tensor]], b: Mapping[str, Mapping[str, Tensor]]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(tensor, b[group][name]) for group in a for name, tensor in a[group].items())


NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "flow": {"widths": [4], "emb": 8},
    "vae": {"width": 4, "latent": 4},
    "gan": {},
}


def spec(data: Path, out: Path, family: str = "flow", stream: bool = True) -> TrainSpec:
    network = NETWORKS[family]
    return TrainSpec(
        data, steps=7, out=out, family=family, data={"stream": stream}, settings=named(family=network, train=TRAIN)
    )


@pytest.mark.parametrize("family", NETWORKS)
def test_training_is_that_of_images_in_memory(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same weights bit for bit, over several epochs, although only a sample is in memory."""
    monkeypatch.setattr(rows, "SAMPLE", 30 * 8 * 8 * 3 * 4)
    data = folder(tmp_path / "data")
    for stream in (True, False):
        job = start(spec(data, tmp_path / f"run{stream}", family, stream))
        learn(job)
        assert job.run.record.data.options["stream"] is stream
        assert all(isinstance(i.value, np.ndarray) for i in read_items(job.run, data))  # such as those to score
        assert Loader(job.source.train, job.source.space, Rng(0)).count < 7 * 16
    assert same(*(weights(tmp_path / f"run{stream}") for stream in (True, False)))


KILLED = """
import os, signal, sys
from pathlib import Path
from afresh.engine.training import loop
from afresh.verbs.resume import resume
from afresh.verbs.training_job import learn
step = loop.take_step
def killed(learner, *rest):
    if learner.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(learner, *rest)
loop.take_step = killed
learn(resume(Path(sys.argv[1]), trust=True))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_ends_with_the_same_bits(tmp_path: Path, kept: Path, warm: Warm) -> None:
    """Also when the pixels are lost meanwhile."""
    data = folder(tmp_path / "data")
    learn(start(spec(data, tmp_path / "whole")))
    job = start(spec(data, tmp_path / "begun"))
    run = shutil.copytree(job.run.path, tmp_path / "killed")  # which this process does not hold
    for at in (3, 6):
        process = warm.start("-c", KILLED, str(run), str(at), stdout=DEVNULL, stderr=DEVNULL)
        assert process.wait() == -signal.SIGKILL
        shutil.rmtree(kept)
    learn(resume(run, trust=True))
    assert same(weights(tmp_path / "whole"), weights(run))


@pytest.mark.slow
def test_memory_is_bounded_whatever_the_number_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """300 MB of pixels are decoded, divided, fitted and drawn from with less than half of that in memory."""
    if process_memory() is None:
        pytest.skip("needs Linux")
    monkeypatch.setattr(rows, "SAMPLE", 1 << 23)
    monkeypatch.setattr(pixel_file, "HELD", 1 << 24)
    side, data = 512, tmp_path / "data"
    data.mkdir()
    y, x = np.mgrid[:side, :side]
    for i in range(400):
        levels = np.stack([(x + i) // 2, (y + 7 * i) // 2, x * 0 + i], 2).astype(np.uint8)
        Image.fromarray(levels).save(data / f"{i}.bmp")
    prepare(folder(tmp_path / "small"), "image", {"stream": True})  # what is imported and kept
    before = process_memory()
    prepared = prepare(data, "image", {"stream": True, "size": side})
    loader = Loader(prepared.train, prepared.encoder.space, Rng(0))
    for draw in range(0, prepared.train_count, 8):
        loader.batch(draw, 8)
    after = process_memory()
    assert before is not None and after is not None
    assert prepared.train_count * 3 * side * side > 250e6 and after[1] - before[0] < 157e6


def test_memory_decides_unless_the_user_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = folder(tmp_path / "data")
    assert prepare(data, "image").options.stream is False
    monkeypatch.setattr(modality, "available_memory", lambda: 3e4)
    found = prepare(data, "image")
    assert found.options.stream is True and found.train.rows is not None
    assert isinstance(found.encoder, ImageEncoder) and found.encoder.options.stream is None  # reads other data anyhow


def test_what_was_made_of_a_data_set_is_found_when_it_is_forgotten(tmp_path: Path, kept: Path) -> None:
    aside = aside_key("f" * 64, "image")
    prepare(folder(kept / aside / "images"), "image", {"stream": True})
    assert {d.name for d in kept_aside("f" * 64)} == {d.name for d in kept.iterdir()} and len(list(kept.iterdir())) == 2
    assert not kept_aside("e" * 64)


def test_what_was_made_of_data_goes_with_it(tmp_path: Path, kept: Path) -> None:
    data, other = folder(tmp_path / "data"), folder(tmp_path / "other", 40)
    for path in (data, other):
        prepare(path, "image", {"stream": True})
    remove_data(data)
    assert made_of(other) and [d.path for d in made_of(other)] == list(kept.iterdir()) and not data.exists()


# --------------------------------------------------------------------------- bad input


def test_what_is_not_learnt_from_the_disk_is_refused_by_name(tmp_path: Path) -> None:
    data, options = folder(tmp_path / "data"), {"stream": True}
    with pytest.raises(UserError, match=r"no codec.*family=flow.*data\.stream=false"):
        start(TrainSpec(data, steps=1, family="transformer", out=tmp_path / "run", data=options))
    archive = Path(shutil.make_archive(str(tmp_path / "archive"), "zip", data))
    np.save(tmp_path / "x.npy", np.stack([pixels(i, 8, 8) for i in range(40)]))
    for file in (archive, tmp_path / "x.npy"):
        with pytest.raises(UserError, match=r"needs a folder.*Unpack"):
            prepare(file, "image", options)
        assert prepare(file, "image").train.rows is None
    names = sorted(p.relative_to(data).as_posix() for p in data.rglob("[0-9]*.png"))
    rows = [f"{n},{names[0]}" for n in names[1:]]
    (data / "metadata.csv").write_text("\n".join(["file_name,edge_image", *rows]))
    with pytest.raises(UserError, match="condition others"):
        prepare(data, "image", options)
    assert prepare(data, "image").train.rows is None


def test_damaged_pixels_are_named(tmp_path: Path, kept: Path) -> None:
    data = folder(tmp_path / "data")
    found = prepare(data, "image", {"stream": True})
    (pixels,), (index,) = kept.rglob("pixels"), kept.rglob("images.jsonl")
    content = pixels.read_bytes()
    pixels.write_bytes(content[:-1])
    for use in (
        lambda: prepare(data, "image", {"stream": True}),
        lambda: [*sweep(found.train, found.encoder.space, 9), *sweep(found.heldout, found.encoder.space, 9)],
    ):
        with pytest.raises(UserError, match=r"pixels is damaged. Remove"):
            use()
    pixels.write_bytes(content)
    index.write_text(index.read_text()[:-20])
    with pytest.raises(UserError, match=r"images\.jsonl is damaged. Remove"):
        prepare(data, "image", {"stream": True})
    shutil.rmtree(index.parent)
    assert prepare(data, "image", {"stream": True}).split_hash == found.split_hash


def test_a_full_disk_is_an_error_before_anything_is_written(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made_once, "free_bytes", lambda _: 1000)
    with pytest.raises(UserError, match=r"take up to 11,\d+ bytes.*1,000 are free.*AFRESH_DATA_FOLDER"):
        prepare(folder(tmp_path / "data"), "image", {"stream": True})
    assert not list(kept.iterdir())
