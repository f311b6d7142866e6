"""Runs that live in a store: what is visible there is whole, what differs is refused, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import afresh
from afresh.core import UserError
from afresh.data.storage.object_store import ObjectStore, address_of, is_address
from afresh.runs import run_store
from afresh.runs.run_store import INDEX, copy_place, files_in, mirrored, new_copy, opened, read_copy, upload
from tests.heard import heard

ADDRESS = "memory://bucket/run"


@pytest.fixture(autouse=True)
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("AFRESH_STORES_FOLDER", str(tmp_path / "stores"))
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    yield tmp_path / "stores"
    memory.store.clear()


@pytest.fixture
def run() -> Path:
    """A run that is whole in the store and here."""
    folder = new_copy(ADDRESS, force=False)
    with mirrored(folder):
        write(folder, {"run.json": "{}", "checkpoints/000000/model.safetensors": "zero", "metrics.jsonl": "a\n"})
    return folder


def write(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def content(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in sorted(files_in(folder))}


def in_store() -> dict[str, bytes]:
    return {k.removeprefix("/bucket/run/"): v.getvalue() for k, v in MemoryFileSystem.store.items()}


def elsewhere(folder: Path) -> Path:
    """The run as another machine reads it: without the local copy."""
    shutil.rmtree(folder.parent)
    return opened(ADDRESS)


def fail_at(monkeypatch: pytest.MonkeyPatch, method: str, at: int, error: Exception | None = None) -> list[int]:
    """Let the k-th call of a method of the store fail, after it did half its work where it writes."""
    inner, calls = getattr(MemoryFileSystem, method), [0]

    def call(self: Any, *args: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == at:
            raise error or OSError("503 Slow Down")
        return inner(self, *args, **options)

    monkeypatch.setattr(MemoryFileSystem, method, call)
    return calls


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("s3://b/r", True),
        (Path("gs://b/r"), True),
        (Path("s3://"), True),
        ("notes:", False),
        ("runs/x", False),
        ("notes:anna", False),
        ("/a:/b", False),
    ],
)
def test_an_address_is_told_from_a_path(path: str | Path, is_one: bool) -> None:
    assert is_address(path) == is_one


def test_an_address_without_a_bucket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no folder "s3:" is made here
    (tmp_path / "a.txt").write_text("The cat sat on the mat. " * 40)
    with pytest.raises(UserError, match="s3://BUCKET/NAME"):
        afresh.train("a.txt", steps=1, out="s3://", quiet=True)
    assert [f.name for f in tmp_path.iterdir()] == ["a.txt"]


def test_an_address_survives_a_path() -> None:
    assert address_of(Path("s3://b/r/")) == "s3://b/r" and address_of(Path("file:///tmp/r")) == "file:///tmp/r"


def test_a_run_comes_back_as_it_was(run: Path) -> None:
    (run / ".lock").write_text("")  # is of this machine
    before = content(run)
    assert content(elsewhere(run)) == before
    assert not [name for name in in_store() if "lock" in name]


def test_only_what_is_new_is_transferred_and_what_is_not_named_is_removed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fail_at(monkeypatch, "put_file", 0)
    with mirrored(run):
        write(run, {"checkpoints/000005/model.safetensors": "five"})
        shutil.rmtree(run / "checkpoints" / "000000")
    assert calls == [1]
    assert len([n for n in in_store() if n.startswith("checkpoints/")]) == 1 and len(in_store()) == 4
    got = fail_at(monkeypatch, "get_file", 0)
    assert opened(ADDRESS) == run and got == [0]  # it was here
    assert sorted(content(elsewhere(run))) == ["checkpoints/000005/model.safetensors", "metrics.jsonl", "run.json"]


@pytest.mark.parametrize("method", ["put_file", "pipe_file", "info"])
def test_wherever_an_upload_ends_the_store_holds_the_run_of_before_and_the_next_completes_it(
    method: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(run)
    for at in range(1, 10):
        with monkeypatch.context() as patch:
            calls = fail_at(patch, method, at)
            try:
                with mirrored(run):
                    write(run, {f"checkpoints/{at:06d}/model.safetensors": str(at), "run.json": f'{{"a": {at}}}'})
            except UserError as error:
                assert "503 Slow Down" in str(error) and "Nothing is lost" in str(error) and str(run) in str(error)
            else:
                assert calls[0] < at
                break
        assert read_copy(run).pending  # type: ignore[union-attr]
        aside = run.parent.rename(run.parent.with_name("aside"))
        assert content(opened(ADDRESS)) == before  # as another machine sees it
        shutil.rmtree(run.parent)
        aside.rename(run.parent)
        assert upload(run)
        before = content(run)
        aside = run.parent.rename(run.parent.with_name("aside"))
        assert content(opened(ADDRESS)) == before
        shutil.rmtree(run.parent)
        aside.rename(run.parent)
    assert at > 1
    assert len(in_store()) == len(content(run)) + 1  # and nothing of the uploads that failed is left


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints/000000/model.safetensors"])
def test_half_of_an_upload_does_not_count(name: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, pipe = content(run), MemoryFileSystem.pipe_file

    def half(self: Any, path: str, value: bytes, **more: Any) -> None:
        pipe(self, path, value[: len(value) // 2] if name in path else value, **more)

    def half_of_file(self: Any, file: str, path: str, **more: Any) -> None:
        half(self, path, Path(file).read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "pipe_file", half)
        patch.setattr(MemoryFileSystem, "put_file", half_of_file)
        with pytest.raises(UserError, match="4 of 8 bytes arrived"), mirrored(run):
            write(run, {name: "changed\n"})
    assert read_copy(run).pending  # type: ignore[union-attr]
    assert content(elsewhere(run)) == before


@pytest.mark.parametrize("how", ["half", "another byte", "gone", "the list is half"])
def test_what_is_damaged_in_the_store_is_refused_and_named(how: str, run: Path) -> None:
    name = next(n for n in in_store() if n.startswith("checkpoints/"))
    name = INDEX if how == "the list is half" else name
    file = MemoryFileSystem.store[f"/bucket/run/{name}"]
    data = file.getvalue()
    if how == "gone":
        del MemoryFileSystem.store[f"/bucket/run/{name}"]
    else:
        fsspec.filesystem("memory").pipe_file(
            f"/bucket/run/{name}", data[: len(data) // 2] if "half" in how else b"x" + data[1:]
        )
    with pytest.raises(UserError, match="lacks files" if how == "gone" else name.partition(".")[0]):
        elsewhere(run)
    assert not (run / "checkpoints" / "000000" / "model.safetensors").exists()


def test_a_stale_listing_hides_nothing(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = content(run)
    for method in ("ls", "find", "glob"):
        monkeypatch.setattr(MemoryFileSystem, method, lambda *args, **options: [])
    assert content(elsewhere(run)) == before


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError("Access Denied"), "credentials permit"),
        (OSError("Unable to locate credentials"), "AWS_ACCESS_KEY_ID"),
        (FileNotFoundError("The specified bucket does not exist (NoSuchBucket)"), "Make the bucket"),
        (TimeoutError(), "Nothing answered"),
    ],
)
def test_a_store_that_takes_nothing_is_an_error_before_anything_is_spent(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(monkeypatch, "pipe_file", 1, error)
    with pytest.raises(UserError, match=says):
        new_copy(ADDRESS, force=False)
    assert in_store() == {}


def test_a_run_is_replaced_only_by_force(run: Path) -> None:
    with pytest.raises(UserError, match="already holds a run"):
        new_copy(ADDRESS, force=False)
    folder = new_copy(ADDRESS, force=True)
    with mirrored(folder):
        write(folder, {"run.json": '{"b": 1}'})
    assert content(elsewhere(folder)) == {"run.json": '{"b": 1}'} and len(in_store()) == 2


def test_two_that_change_a_run_do_not_overwrite_each_other(run: Path, tmp_path: Path) -> None:
    aside = run.parent.rename(tmp_path / "first machine")
    with mirrored(opened(ADDRESS)):
        write(run, {"run.json": '{"by": 2}'})
    shutil.rmtree(run.parent)
    aside.rename(run.parent)
    with pytest.raises(UserError, match="changed by another process") as caught, mirrored(run):
        write(run, {"run.json": '{"by": 1}'})
    assert caught.value.code == run_store.CONFLICT and content(run)["run.json"] == '{"by": 1}'
    with pytest.raises(UserError, match="Keep the copy"):
        opened(ADDRESS)
    run.parent.rename(tmp_path / "kept")
    assert content(opened(ADDRESS))["run.json"] == '{"by": 2}'


def test_what_is_not_uploaded_is_used_as_it_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(UserError, match="could not be uploaded"), mirrored(run):
        fail_at(patch, "put_file", 1)
        write(run, {"checkpoints/000005/model.safetensors": "five"})
    assert opened(ADDRESS) == run and "checkpoints/000005/model.safetensors" in content(run)


def test_an_error_of_the_block_comes_first(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(monkeypatch, "put_file", 1)
    with heard("Nothing is lost"), pytest.raises(KeyboardInterrupt), mirrored(run):
        write(run, {"run.json": '{"c": 1}'})
        raise KeyboardInterrupt


def test_while_training_writes_a_checkpoint_is_uploaded_with_what_fits_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are added to the log during the upload, and once a file is replaced."""
    inner, calls = ObjectStore.upload, list[str]()

    def slowly(self: ObjectStore, file: Path, name: str) -> None:
        inner(self, file, name)
        with (run / "metrics.jsonl").open("a") as stream:
            stream.write("more\n")
        if not calls:
            write(run, {"best.sha256": "2", "best.safetensors": "2"})
        calls.append(name)

    monkeypatch.setattr(ObjectStore, "upload", slowly)
    write(run, {"checkpoints/000005/model.safetensors": "five", "best.sha256": "1", "best.safetensors": "1"})
    assert upload(run, final=False) and read_copy(run).pending  # type: ignore[union-attr]
    found = content(elsewhere(run))
    assert found["best.sha256"] == found["best.safetensors"] == "2"
    assert set(found["metrics.jsonl"].splitlines()) <= {"a", "more"} and found["metrics.jsonl"].endswith("\n")


def test_copies_are_bounded_and_what_is_not_uploaded_stays(
    run: Path, stores: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [run]
    for number in range(3):
        folders.append(new_copy(f"memory://bucket/run{number}", force=False))
        with mirrored(folders[-1]):
            write(folders[-1], {"run.json": "{}", "w": "x" * 1000})
    known = read_copy(folders[1])
    assert known is not None
    known.pending = True
    run_store.write_copy(folders[1], known)
    monkeypatch.setenv("AFRESH_STORES_BYTES", "1500")
    assert opened("memory://bucket/run2") == folders[3]
    assert [f.exists() for f in folders] == [False, True, False, True]
    assert content(opened("memory://bucket/run1")) == {"run.json": "{}", "w": "x" * 1000}


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", ".lock", "a\\b"])
def test_a_list_names_no_files_elsewhere(path: str, run: Path) -> None:
    index = json.loads(in_store()[INDEX])
    index["files"][path] = index["files"]["run.json"]
    fsspec.filesystem("memory").pipe_file(f"/bucket/run/{INDEX}", json.dumps(index).encode())
    with pytest.raises(UserError, match="damaged"):
        elsewhere(run)


def test_other_folders_are_not_mirrored(tmp_path: Path) -> None:
    with mirrored(tmp_path / "run"):
        write(tmp_path / "run", {"run.json": "{}"})
    assert in_store() == {} and upload(tmp_path / "run") and opened(tmp_path / "run") == tmp_path / "run"


def test_a_folder_as_a_store(tmp_path: Path) -> None:
    address = f"file://{tmp_path}/shared/run"
    folder = new_copy(address, force=False)
    with mirrored(folder):
        write(folder, {"run.json": "{}", "a/b c.txt": "é"})
    before = content(folder)
    shutil.rmtree(folder.parent)
    assert content(opened(address)) == before and copy_place(address) == folder


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere: run this test as another user")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o555)
    with pytest.raises(UserError, match="credentials permit"):
        new_copy(f"file://{tmp_path}/shared/run", force=False)
