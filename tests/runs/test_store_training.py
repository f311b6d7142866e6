"""Training into a store, and using what is there; a server that speaks the protocol of S3."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

import afresh
from afresh.core import UserError
from afresh.data.storage.object_store import ObjectStore
from afresh.engine.training import checkpoint
from afresh.runs.run_store import copy_place, mirrored, new_copy, opened, read_copy
from tests.heard import heard
from tests.s3_server import s3_server

ADDRESS = "memory://bucket/models/lines"
SETTINGS = {"train.threads": 1, "train.precision": "float32", "train.save_every": 2, "train.batch": 4}
SETTINGS |= {"family.width": 16, "family.layers": 1, "family.heads": 2, "family.kv_heads": 2}


@pytest.fixture(autouse=True)
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AFRESH_STORES_FOLDER", str(tmp_path / "stores"))
    fsspec.filesystem("memory").store.clear()
    yield tmp_path / "stores"
    fsspec.filesystem("memory").store.clear()


def trained(tmp_path: Path, out: str | Path, **options: Any) -> afresh.Model:
    text = tmp_path / "lines.txt"
    text.write_text("\n".join(f"line {i}: {i * i % 97} and {i % 7}" for i in range(200)))
    return afresh.train(text, steps=6, out=out, settings=SETTINGS, **options)


def weights(model: afresh.Model) -> dict[str, torch.Tensor]:
    saved = checkpoint.newest(model.path / "checkpoints")
    assert saved is not None and saved.step == 6
    return dict(saved.tensors["model"])


def test_a_run_in_a_store_is_that_of_a_folder_and_is_used_like_one(tmp_path: Path, stores: Path) -> None:
    here = trained(tmp_path, tmp_path / "run", quiet=True)
    trained(tmp_path, ADDRESS, quiet=True)
    shutil.rmtree(stores)  # as another machine sees it
    model = afresh.load(ADDRESS)
    assert all(torch.equal(v, weights(here)[k]) for k, v in weights(model).items())
    assert list(model.sample(2, seed=1).values) == list(here.sample(2, seed=1).values)
    assert afresh.resume(ADDRESS, quiet=True).path == model.path
    with pytest.raises(UserError, match="already holds a run"):
        trained(tmp_path, ADDRESS, quiet=True)


def test_a_store_that_fails_for_a_while_gets_the_next_checkpoint(
    tmp_path: Path, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, failures = ObjectStore.upload, iter([OSError("503 Slow Down")])

    def failing(self: ObjectStore, file: Path, name: str) -> None:
        if (error := next(failures, None)) is not None:
            with self._failures(f"{name} could not be uploaded"):
                raise error
        upload(self, file, name)

    monkeypatch.setattr(ObjectStore, "upload", failing)
    with heard("503 Slow Down.*Training goes on"):
        before = weights(trained(tmp_path, ADDRESS))
    shutil.rmtree(stores)
    assert all(torch.equal(v, before[k]) for k, v in weights(afresh.load(ADDRESS)).items())


def test_a_store_that_fails_at_the_end_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: ObjectStore, file: Path, name: str) -> None:
        with self._failures(f"{name} could not be uploaded"):
            raise OSError("503 Slow Down")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "upload", failing)
        with pytest.raises(UserError, match="Nothing is lost") as caught:
            trained(tmp_path, ADDRESS, quiet=True)
    assert caught.value.fields["path"] == str(copy_place(ADDRESS))
    before = weights(afresh.resume(ADDRESS, quiet=True))  # uploads what was missing
    known = read_copy(copy_place(ADDRESS))
    assert known is not None and not known.pending
    shutil.rmtree(copy_place(ADDRESS).parent)
    assert all(torch.equal(v, before[k]) for k, v in weights(afresh.load(ADDRESS)).items())


# --------------------------------------------------------------------------- S3


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(monkeypatch) as address:
        yield address


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_server_of_s3(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"{bucket}/models/one"
    folder = new_copy(address, force=False)
    noise = torch.rand(3_000_000, generator=torch.Generator().manual_seed(0))  # 12 MB, which go up in parts
    with mirrored(folder):
        folder.mkdir()
        (folder / "run.json").write_text("{}")
        checkpoint.save(folder / "checkpoints", checkpoint.Checkpoint(3, {"model": {"w": noise}}, {}))
    shutil.rmtree(folder.parent)
    found = checkpoint.newest(opened(address) / "checkpoints")
    assert found is not None and torch.equal(found.tensors["model"]["w"], noise)
    with pytest.raises(UserError, match="Make the bucket first"):
        new_copy("s3://elsewhere/run", force=False)
    with pytest.raises(UserError, match="No run at s3://bucket/other"):
        opened(f"{bucket}/other")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(UserError, match="No credentials were found"):
        new_copy(f"{bucket}/third", force=False)
