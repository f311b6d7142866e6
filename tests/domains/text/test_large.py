"""Texts that are larger than memory: all are learnt but those held out, each once, with the same result however often
training is interrupted, and as from memory where the order is the same."""

from __future__ import annotations

import json
import random
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL, PIPE

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.data.collected import FORMAT, ITEMS, MANIFEST, SCHEMA, kept_aside
from afresh.data.load import Loader
from afresh.data.prepare import Prepared, prepare
from afresh.data.text import spans
from afresh.data.token_parts import TokenParts
from afresh.domains.text import large
from afresh.engine.training import checkpoint
from afresh.runs.run import Run
from afresh.verbs.resume import resume
from afresh.verbs.train import TrainSpec, start
from afresh.verbs.training_job import learn
from tests.named_settings import named
from tests.warm import Warm

STREAM = {"stream": True, "tokenizer": "bytes", "context": 32}
WORDS = ["the", "a", "of", "to", "in", "and", "is", "was", "that", "it", "for", "as", "with", "his", "on", "be"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Parts of 4 kB of stretches of 500 bytes, kept for this test alone."""
    monkeypatch.setenv("AFRESH_DATA_FOLDER", str(tmp_path / "kept"))
    monkeypatch.setattr(spans, "SPAN", 500)
    for name, size in {"SPAN": 500, "PART": 4000, "SAMPLE": 8000, "HELD_OUT": 800, "FROM_SPAN": 500}.items():
        monkeypatch.setattr(large, name, size)


def texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [f"{i}: {' '.join(rng.choices(WORDS, k=rng.randint(3, 40)))}." for i in range(count)]


def write(folder: Path, documents: Sequence[str]) -> Path:
    """The documents as JSON lines, Parquet and text, a third each."""
    folder.mkdir()
    third = len(documents) // 3
    (folder / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in documents[:third]))
    pq.write_table(pa.table({"text": documents[third : 2 * third]}), folder / "b.parquet", row_group_size=20)
    (folder / "c.txt").write_text("".join(f"{t}\n<|endoftext|>\n" for t in documents[2 * third :]))
    return folder


def learnt(prepared: Prepared) -> list[str]:
    """The documents of all parts, in their order."""
    parts, out = prepared.train.parts, []
    assert isinstance(parts, TokenParts)
    for part in (p for p in range(len(parts)) if parts.tokens(p)):
        ids = parts.read(torch.tensor([part]), torch.arange(parts.tokens(part))[None])[0]
        text = bytes(i if i < 256 else 0 for i in ids.tolist()).decode()
        out += [t.strip() for t in text.split("\0") if t]
    return out


def test_every_text_is_learnt_once_or_held_out(tmp_path: Path) -> None:
    documents = texts(600)
    prepared = prepare(write(tmp_path / "data", documents), "text", STREAM)
    found, held = learnt(prepared), {str(i.value).strip() for i in prepared.heldout_items}
    assert len(found) == len(set(found)) > 500 and held and not held & set(found)
    assert set(found) | held < set(documents)  # what is held out by its content but not in the sample is not learnt
    assert len(documents) - len(found) < 1.5 * len(documents) * 0.1
    assert prepared.train_count == len(found)
    assert len(prepared.train.parts or ()) > 8


def test_copies_are_left_out_wherever_they_are(tmp_path: Path) -> None:
    documents, data = texts(300), tmp_path / "data"
    data.mkdir()
    for name, some in (("a", documents), ("b", documents[::2]), ("c", documents[::-3])):
        (data / f"{name}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in some))
    found = learnt(prepare(data, "text", STREAM))
    assert len(found) == len(set(found)) > 200


def test_parts_are_the_same_whoever_makes_them_and_are_made_once(tmp_path: Path) -> None:
    data = write(tmp_path / "data", texts(600))
    first = prepare(data, "text", STREAM)
    found = learnt(first)
    files = {p: p.read_bytes() for p in (tmp_path / "kept").rglob("*.safetensors")}
    (tmp_path / "again").mkdir()
    half = sorted(files)[len(files) // 2 :]
    for path in half:
        path.unlink()  # as if a process had been killed
    again = prepare(data, "text", STREAM)
    assert learnt(again) == found and again.split_hash == first.split_hash
    assert {p: p.read_bytes() for p in files} == files


def test_training_is_that_of_texts_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a single part, the same weights bit for bit, over several epochs."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts(60)))
    for module, name, size in ((spans, "SPAN", 1 << 20), (large, "SAMPLE", 1 << 20), (large, "FROM_SPAN", 1 << 20)):
        monkeypatch.setattr(module, name, size)
    monkeypatch.setattr(large, "HELD_OUT", 1 << 20)
    states = []
    for stream in (True, False):
        spec = TrainSpec(data, steps=12, out=tmp_path / f"run{stream}", data={**STREAM, "stream": stream})
        spec = replace(spec, settings=named(family=SMALL, train={"batch": 40, "threads": 1}))
        job = start(spec)
        learn(job)
        states.append(weights(tmp_path / f"run{stream}"))
        assert (job.source.train.parts is not None) == stream
        assert Loader(job.source.train, job.source.space, Rng(0)).count < 12 * 40 / 2
    assert same(*states)


def weights(run: Path) -> Mapping[str, Mapping[str, Tensor]]:
    """All numbers of the last checkpoint."""
    found = checkpoint.newest(run / "checkpoints")
    assert found is not None and found.step == Run.open(run).record.train.steps
    return found.tensors


def same(a: Mapping[str, Mapping[str, Tensor]], b: Mapping[str, Mapping[str, Tensor]]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(tensor, b[group][name]) for group in a for name, tensor in a[group].items())


SMALL = {"width": 16, "layers": 1, "heads": 1, "kv_heads": 1}
KILLED = """
import os, signal, sys
from pathlib import Path
from afresh.data.text import spans
from afresh.domains.text import large
from afresh.engine.training import loop
from afresh.verbs.resume import resume
from afresh.verbs.training_job import learn
spans.SPAN, large.SPAN, large.PART, large.SAMPLE, large.HELD_OUT, large.FROM_SPAN = 500, 500, 4000, 8000, 800, 500
step = loop.take_step
def killed(learner, *rest):
    if learner.step == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(learner, *rest)
loop.take_step = killed
learn(resume(Path(sys.argv[1]), trust=True))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_middle_of_an_epoch_ends_with_the_same_bits(tmp_path: Path, warm: Warm) -> None:
    data = write(tmp_path / "data", texts(600))
    saved = []
    for name in ("whole", "begun"):
        spec = TrainSpec(
            data,
            steps=24,
            out=tmp_path / name,
            data=STREAM,
            settings=named(family=SMALL, train={"batch": 20, "threads": 1, "save_every": 5}),
        )
        job = start(spec)
        if name == "whole":
            learn(job)
        else:
            run = shutil.copytree(tmp_path / name, tmp_path / "killed")  # which this process does not hold
            for path in (tmp_path / "kept").rglob("*.safetensors"):
                path.unlink()
            for at in (8, 17):
                process = warm.start("-c", KILLED, str(run), str(at), stdout=DEVNULL, stderr=DEVNULL)
                assert process.wait() == -signal.SIGKILL
            learn(resume(run, trust=True))
        saved.append(weights(tmp_path / name if name == "whole" else run))
    assert Loader(job.source.train, job.source.space, Rng(0)).count > 24 * 20
    assert same(*saved)


def test_a_declared_split_is_kept(tmp_path: Path) -> None:
    for side, documents in (("train", texts(100)), ("validation", [*texts(20, seed=1), *texts(100)[:5]])):
        (tmp_path / "data" / side).mkdir(parents=True)
        (tmp_path / "data" / side / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in documents))
    prepared = prepare(tmp_path / "data", "text", STREAM)
    held = {str(i.value) for i in prepared.heldout_items}
    assert held <= {*texts(20, seed=1), *texts(100)[:5]} and len(held) > 3
    assert set(learnt(prepared)) == set(texts(100)) - held


def collected(folder: Path, documents: Mapping[str, Sequence[str]]) -> Path:
    """A data set as `collect` makes them, of the documents of each side of the split."""
    folder.mkdir()
    rows = [{"kind": "text", "text": t, "split": s, "bytes": len(t)} for s, texts in documents.items() for t in texts]
    talk = json.dumps([{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}])
    rows.append({"kind": "conversation", "text": talk, "split": "train", "bytes": 9})
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / ITEMS, row_group_size=20)
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "digest": "f" * 64}))
    return folder


def test_a_collected_data_set_is_read_as_it_is(tmp_path: Path) -> None:
    """Each text of the one side is learnt once, with the other to judge by, from memory and from the disk."""
    sides = {"train": texts(300), "validation": texts(40, seed=1)}
    data = collected(tmp_path / "set", sides)
    options = {**STREAM, "learn": "texts"}
    prepared, whole = (prepare(data, "text", {**options, "stream": stream}) for stream in (True, False))
    assert sorted(learnt(prepared)) == sorted(sides["train"]) == sorted(i.value for i in whole.train_items)
    assert [i.value for i in whole.heldout_items] == sides["validation"]
    assert 0 < len(prepared.heldout_items) < 40 and {i.value for i in prepared.heldout_items} <= {*sides["validation"]}
    assert not list((tmp_path / "kept").rglob("*.jsonl"))
    assert [d.path for d in kept_aside("f" * 64)] == [next((tmp_path / "kept").iterdir())]
    with pytest.raises(UserError, match=r"is a conversation.*data\.learn=texts"):
        learnt(prepare(data, "text", STREAM))
    content = (data / ITEMS).read_bytes()
    (data / ITEMS).write_bytes(content[:-9])
    with pytest.raises(UserError, match=r"items\.parquet cannot be read.*Restore"):
        prepare(data, "text", options)


def test_batches_of_a_collected_data_set_are_those_of_its_texts(tmp_path: Path) -> None:
    sides = {"train": texts(300), "validation": texts(40, seed=1)}
    folder = tmp_path / "folder"
    folder.mkdir()
    for side, documents in sides.items():
        (folder / f"{side}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in documents))
    data = collected(tmp_path / "set", sides)
    options = {**STREAM, "stream": False, "learn": "texts"}
    loaders = [Loader(p.train, p.encoder.space, Rng(0)) for p in (prepare(d, "text", options) for d in (folder, data))]
    assert all(torch.equal(loaders[0].batch(i, 7).x, loaders[1].batch(i, 7).x) for i in range(0, 700, 7))


def test_long_texts_are_cut_at_line_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large, "LONGEST", 300)
    (tmp_path / "data").mkdir()
    book = "\n".join(texts(400))
    (tmp_path / "data" / "a.txt").write_text(book)
    found = learnt(prepare(tmp_path / "data", "text", STREAM))
    assert all(len(f) <= 300 for f in found) and {line for f in found for line in f.split("\n")} <= set(texts(400))


# --------------------------------------------------------------------------- bad input


def test_damaged_files_end_with_an_error_that_names_them(tmp_path: Path) -> None:
    data = write(tmp_path / "data", texts(600))
    whole = (data / "b.parquet").read_bytes()
    (data / "b.parquet").write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"b\.parquet: .*data\.exclude"):  # before the first step
        prepare(data, "text", STREAM)
    (data / "b.parquet").write_bytes(whole)
    prepared = prepare(data, "text", STREAM)
    content = (data / "c.txt").read_bytes()
    (data / "c.txt").write_bytes(content[:-7])
    with pytest.raises(UserError, match=r"c\.txt cannot be read from byte .*restore it"):
        learnt(prepared)
    (data / "c.txt").write_bytes(b"\xff" + content[1:])
    with pytest.raises(UserError, match=r"c\.txt .*data\.encoding"):
        learnt(prepare(data, "text", {**STREAM, "tokenizer": "bytes"}))


def test_a_damaged_part_is_named_and_can_be_made_again(tmp_path: Path) -> None:
    data = write(tmp_path / "data", texts(300))
    found = learnt(prepare(data, "text", STREAM))
    path = sorted((tmp_path / "kept").rglob("*.safetensors"))[2]
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"000002\.safetensors is damaged. Remove it"):
        learnt(prepare(data, "text", STREAM))
    path.unlink()
    assert learnt(prepare(data, "text", STREAM)) == found


@pytest.mark.parametrize(
    "option, value", [("folder_labels", True), ("label_column", "n"), ("number_columns", ("n",)), ("max_bytes", 10)]
)
def test_options_that_need_all_texts_at_once_are_refused(tmp_path: Path, option: str, value: object) -> None:
    data = write(tmp_path / "data", texts(30))
    with pytest.raises(UserError, match=f"data.{option}.*larger than memory"):
        prepare(data, "text", {**STREAM, option: value})


def test_conversations_and_families_over_a_codec_are_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "data", texts(60))
    with pytest.raises(UserError, match="family=transformer"):
        start(TrainSpec(data, steps=1, family="vae", out=tmp_path / "run", data=STREAM))
    (data / "d.jsonl").write_text('{"prompt": "Why?", "completion": "Because."}\n' * 20)
    with pytest.raises(UserError, match=r"d\.jsonl.* is a conversation"):
        learnt(prepare(data, "text", STREAM))


def test_an_archive_is_not_streamed(tmp_path: Path) -> None:
    data = shutil.make_archive(str(tmp_path / "data"), "zip", write(tmp_path / "folder", texts(60)))
    with pytest.raises(UserError, match=r"unpack .*data\.zip"):
        prepare(Path(data), "text", STREAM)


def test_changed_data_is_not_gone_on_with(tmp_path: Path) -> None:
    data = write(tmp_path / "data", texts(300))
    spec = TrainSpec(
        data, steps=2, out=tmp_path / "run", data=STREAM, settings=named(family=SMALL, train={"threads": 1})
    )
    learn(start(spec))
    assert Run.open(tmp_path / "run").record.data.options["stream"] is True
    (data / "a.jsonl").write_text((data / "a.jsonl").read_text().replace("the", "eht"))
    with pytest.raises(UserError, match="is not what"):
        resume(tmp_path / "run")


def test_texts_that_memory_does_not_hold_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write(tmp_path / "data", texts(600))
    options = {k: v for k, v in STREAM.items() if k != "stream"}
    assert prepare(data, "text", options).train.parts is None
    monkeypatch.setattr("afresh.data.text.documents.available_memory", lambda: 100_000.0)
    prepared = prepare(data, "text", options)
    assert prepared.train.parts is not None and prepared.options.stream is True
    assert any("from the disk" in note for note in prepared.notes)


# --------------------------------------------------------------------------- memory

WHOLE_EPOCH = """
import sys, torch
from pathlib import Path
from afresh.core.rng import Rng
from afresh.data.load import Loader
from afresh.data.prepare import prepare
from afresh.domains.text import large
from tests.peak import peak_memory
large.SAMPLE, large.PART = 1 << 20, 1 << 20
held = peak_memory()
prepared = prepare(Path(sys.argv[1]), "text", {"stream": True, "tokenizer": "bytes"})
loader = Loader(prepared.train, prepared.encoder.space, Rng(0))
seen = 0
for first in range(0, 1 << 30, 1 << 10):
    seen += loader.batch(first, 1 << 10).x.numel()
    if loader.parts.complete and first + (1 << 10) >= loader.parts.count:
        break
print(peak_memory() - held, seen)
"""


@pytest.mark.slow
def test_an_epoch_takes_little_memory_whatever_the_size(tmp_path: Path, warm: Warm) -> None:
    """Of 96 MB of text, all of which is drawn. In memory, they take seven times as much."""
    data, text = tmp_path / "data", " ".join(texts(40))
    data.mkdir()
    for number in range(4):
        rows = (json.dumps({"text": f"{number} {i} {text}"}) + "\n" for i in range(24_000_000 // len(text)))
        with (data / f"{number}.jsonl").open("w") as file:
            file.writelines(rows)
    process = warm.start("-c", WHOLE_EPOCH, str(data), stdout=PIPE)
    taken, seen = map(int, process.communicate(timeout=250)[0].split())
    assert seen > 85_000_000
    assert taken < 120_000_000  # 111 with Python 3.13, less than 90 with 3.11
