"""A removal that is killed at any call that changes a file is repeated by the same command, and nothing is left."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.faces.cli import run as command
from afresh.runs.deletion import remove_data
from afresh.runs.run import Run
from afresh.runs.trash import binned, delete, throw

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: Linux or macOS")]

CHANGES = ("unlink", "rmdir", "rename", "replace", "mkdir", "fsync")


def killed_at(number: int, work: Callable[[], Any]) -> bool:
    """Do work in a process of its own that ends before its change of files of this number, as if by SIGKILL. Returns
    whether it came to an end before."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(inner: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal count
                if count == number:
                    os._exit(9)
                count += 1
                return inner(*args, **options)

            return call

        for name in CHANGES:
            setattr(os, name, counted(getattr(os, name)))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        try:
            os._exit(0 if work() in (0, None) else 1)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
    return code == 0


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with runs/base, its adapter anna, and the data that it learnt from."""
    folder = tmp_path_factory.mktemp("removal")
    for name in ("texts", "hers"):
        (folder / name).mkdir()
        for i in range(12):
            (folder / name / f"{i}.txt").write_text(f"a cat and a {name} slept on {'the mat ' * (i + 3)}\n")
    small = [a for k in ("width=16", "layers=1", "heads=2", "kv_heads=2") for a in ("--set", f"family.{k}")]
    how = ["--steps", "1", "--no-measure", "--set", "train.batch=4"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train = ["train", "texts", "--family", "transformer", "--data", "context=16", "--out", "runs/base"]
        assert command([*train, *small, *how]) == 0
        assert command(["tune", "base", "hers", "--adapter", "anna", "--rank", "2", *how]) == 0
        yield folder


def proofs(base: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in (base / "deletions").glob("*.json")]


def restored(begun: Path, kept: Path) -> None:
    for name in ("runs", "hers"):
        shutil.rmtree(begun / name, ignore_errors=True)
        shutil.copytree(kept / name, begun / name)


@pytest.mark.parametrize("with_data", [True, False])
def test_an_adapter_whose_deletion_was_killed_is_deleted_with_one_proof(
    begun: Path, tmp_path: Path, with_data: bool
) -> None:
    for name in ("runs", "hers"):
        shutil.copytree(begun / name, tmp_path / name)
    words = ["rm", "base:anna", "--yes", *(["--with-data"] if with_data else [])]
    base = begun / "runs" / "base"
    number, ended, proved = 0, False, None
    while not ended:
        restored(begun, tmp_path)
        ended = killed_at(number, lambda: command(words))
        if not ended and not any(proof["ended"] for proof in proofs(base)):
            assert command(words) == 0, number
        assert sorted(p.name for p in base.iterdir() if p.name in ("adapters", "deletions")) == ["deletions"]
        assert (begun / "hers").exists() is not with_data
        (proof,) = proofs(base)
        assert proof["ended"] and proof["data"]["deleted"] is with_data
        facts = {k: v for k, v in proof.items() if k not in ("begun", "ended")}
        proved = proved or facts
        assert facts == proved, number  # every file that ever was, and what the base had learnt
        number += 1
    assert number > 20
    restored(begun, tmp_path)


def test_a_run_whose_removal_was_killed_is_removed(begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun / "runs" / "base", tmp_path / "base", ignore=shutil.ignore_patterns("adapters"))
    number, ended = 0, False
    while not ended:
        run = Path(shutil.copytree(tmp_path / "base", tmp_path / "runs" / "gone"))
        ended = killed_at(number, lambda: command(["rm", str(run), "--yes"]))  # noqa: B023
        if run.exists():
            assert command(["rm", str(run), "--yes"]) == 0, number
        assert not run.exists()
        number += 1
    assert number > 20


def test_a_bin_whose_emptying_was_killed_is_emptied(begun: Path, tmp_path: Path) -> None:
    shutil.copytree(begun / "runs" / "base", tmp_path / "base", ignore=shutil.ignore_patterns("adapters"))
    number, ended = 0, False

    def empty() -> None:
        for thrown in binned(tmp_path / "runs"):
            delete(thrown)

    while not ended:
        for name in ("one", "two"):
            throw(Path(shutil.copytree(tmp_path / "base", tmp_path / "runs" / name)))
        ended = killed_at(number, empty)
        if not ended:
            throw(Path(shutil.copytree(tmp_path / "base", tmp_path / "runs" / "three")))
            empty()
        assert not list((tmp_path / "runs" / ".bin").iterdir()), number
        number += 7


def test_the_same_name_is_another_adapter(begun: Path, tmp_path: Path) -> None:
    """A proof that was begun is not gone on with by the deletion of an adapter that took the place of its own."""
    for name in ("runs", "hers"):
        shutil.copytree(begun / name, tmp_path / name)
    killed_at(12, lambda: command(["rm", "base:anna", "--yes"]))
    (old,) = (begun / "runs" / "base" / "deletions").glob("*.json")
    restored = begun / "runs" / "base" / "adapters" / "anna"
    shutil.rmtree(restored)
    shutil.copytree(tmp_path / "runs" / "base" / "adapters" / "anna", restored)
    record = json.loads((restored / "run.json").read_text())
    (restored / "run.json").write_text(json.dumps({**record, "seed": record["seed"] + 1}))
    from afresh.runs.deletion import begun_deletion

    assert json.loads(old.read_text())["ended"] is None and begun_deletion(Run.open(restored)) is None


@pytest.mark.parametrize("file", ["hers/3.txt", None])
def test_what_of_the_data_cannot_be_removed_is_named(
    file: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise OSError(errno.EACCES, "Permission denied", file)

    (tmp_path / "hers").mkdir()
    monkeypatch.setattr(shutil, "rmtree", fail)
    with pytest.raises(UserError, match=rf"removed: {file or tmp_path / 'hers'} \(Permission denied\)"):
        remove_data(tmp_path / "hers")
