"""Checkpoints are complete, or are recognised as incomplete."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from afresh.core import UserError
from afresh.data.storage import files, folders
from afresh.engine.training import checkpoint, weights
from afresh.engine.training.checkpoint import KEEP, SUMS, Checkpoint
from afresh.engine.training.weights import read_weights, write_base, write_weights
from tests import needs
from tests.durable import disk
from tests.heard import heard, silence

DTYPES = [
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


def checkpoint_at(step: int) -> Checkpoint:
    tensors = {
        "model": {"net.weight": torch.full((3, 4), float(step)), "net.bias": torch.arange(3.0)},
        "ema": {"net.weight": torch.full((3, 4), step / 2)},
        "optimizer": {"model.adamw.net.weight.step": torch.tensor(float(step))},
        "state": {"seen": torch.tensor(step)},
    }
    return Checkpoint(step, tensors, {"skipped": 0, "lr_scale": 0.1, "sums": {"loss": 1 / 3}, "note": "é"})


def root_of(tmp_path: Path, *steps: int) -> Path:
    for step in steps:
        checkpoint.save(tmp_path / "checkpoints", checkpoint_at(step))
    return tmp_path / "checkpoints"


def same(a: Checkpoint | None, b: Checkpoint) -> bool:
    def flat(c: Checkpoint) -> dict[str, Tensor]:
        return {f"{g}/{k}": v for g, d in c.tensors.items() for k, v in d.items()}

    if a is None or a.step != b.step or a.scalars != b.scalars or flat(a).keys() != flat(b).keys():
        return False
    return all(v.dtype == flat(b)[k].dtype and torch.equal(v, flat(b)[k]) for k, v in flat(a).items())


def latest(root: Path) -> str:
    return (root.parent / "latest").read_text()


# --------------------------------------------------------------------------- whole


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    bits = torch.randint(0, 256, (96,), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    value = bits % 2 == 1 if dtype is torch.bool else bits.view(dtype)
    square = value[: len(value) // 4 * 4].view(-1, 4)
    saved = Checkpoint(3, {"model": {"a": square, "none": square[:0], "one": value[0].clone()}}, {})
    checkpoint.save(tmp_path / "checkpoints", saved)
    loaded = checkpoint.newest(tmp_path / "checkpoints")
    assert loaded is not None
    for name, tensor in saved.tensors["model"].items():
        other = loaded.tensors["model"][name]
        assert other.dtype == dtype and other.shape == tensor.shape
        assert (
            other.numpy(force=True).tobytes() == tensor.numpy(force=True).tobytes()
            if dtype not in NO_NUMPY
            else (torch.equal(other.view(torch.int16), tensor.view(torch.int16)))
        )


NO_NUMPY = (torch.bfloat16,)


def test_numbers_in_json_come_back_exactly(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 123456789.123456789]
    checkpoint.save(tmp_path / "checkpoints", Checkpoint(1, {}, {"v": values}))
    loaded = checkpoint.newest(tmp_path / "checkpoints")
    assert loaded is not None and [v.hex() for v in loaded.scalars["v"]] == [v.hex() for v in values]


def test_the_newest_are_kept_and_latest_points_at_the_last(tmp_path: Path) -> None:
    root = root_of(tmp_path, 0, 5, 10, 15)
    assert checkpoint.steps_in(root) == ["000010", "000015"] and len(checkpoint.steps_in(root)) == KEEP
    assert latest(root) == "000015\n"
    assert same(checkpoint.newest(root), checkpoint_at(15))
    assert not list(root.glob(".*"))


def test_only_the_groups_asked_for_are_read(tmp_path: Path) -> None:
    loaded = checkpoint.newest(root_of(tmp_path, 4), ("model", "ema"))
    assert loaded is not None and set(loaded.tensors) == {"model", "ema"}


def test_a_step_beyond_a_million_is_still_the_newest(tmp_path: Path) -> None:
    root = root_of(tmp_path, 999_999, 1_000_000)
    assert checkpoint.steps_in(root) == ["999999", "1000000"]
    assert same(checkpoint.newest(root), checkpoint_at(1_000_000))


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="sha256sum is not installed: apt-get install coreutils")
def test_hashes_are_in_the_format_of_sha256sum(tmp_path: Path) -> None:
    folder = root_of(tmp_path, 4) / "000004"
    subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=folder, check=True, capture_output=True)


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert checkpoint.newest(tmp_path / "checkpoints") is None
    (tmp_path / "checkpoints" / ".tmp-000005").mkdir(parents=True)
    assert checkpoint.newest(tmp_path / "checkpoints") is None


def test_a_finished_run_keeps_the_optimiser_once(tmp_path: Path) -> None:
    root = root_of(tmp_path, 0, 5, 9)
    checkpoint.drop_older_optimizers(root)
    assert same(checkpoint.newest(root), checkpoint_at(9)) and checkpoint.steps_in(root) == ["000005", "000009"]
    older = checkpoint.newest(root, before=9)
    assert older is not None and older.tensors.keys() == {"model", "ema", "state"} and older.step == 5
    assert not checkpoint.check(root / "000005") and not (root / "000005" / "optimizer.safetensors").exists()
    early = root_of(tmp_path / "early", 0, 3)
    checkpoint.drop_older_optimizers(early)
    assert checkpoint.steps_in(early) == ["000003"], "step 0 is the base"


# --------------------------------------------------------------------------- damaged

FILES = ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.safetensors", "state.json", SUMS]


def flip(at: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[min(int(at * len(data)), len(data) - 1)] ^= 1
        path.write_bytes(data)

    return damage


def cut(share: float) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.write_bytes(data[: min(int(share * len(data)), len(data) - 1)])

    return damage


def drop_last_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


DAMAGES = {
    "first byte": flip(0.0),
    "a middle byte": flip(0.5),
    "last byte": flip(1.0),
    "emptied": cut(0.0),
    "cut in half": cut(0.5),
    "cut by a byte": cut(1.0),
    "without its last line": drop_last_line,
    "gone": Path.unlink,
}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named_and_the_one_before_is_used(name: str, how: str, tmp_path: Path) -> None:
    root = root_of(tmp_path, 5, 10)
    DAMAGES[how](root / "000010" / name)
    assert any(name in fault for fault in checkpoint.check(root / "000010"))
    assert checkpoint.check(root / "000005") == []
    with heard(f"000010/.*{name}.*older checkpoint"):
        loaded = checkpoint.newest(root)
    assert same(loaded, checkpoint_at(5))


def test_every_byte_of_the_small_files_counts(tmp_path: Path) -> None:
    folder = root_of(tmp_path, 5) / "000005"
    for name in ("state.json", SUMS):
        whole = (folder / name).read_bytes()
        for at in range(len(whole)):
            (folder / name).write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
            assert checkpoint.check(folder), f"{name}, byte {at}"
        (folder / name).write_bytes(whole)
    assert checkpoint.check(folder) == []


@pytest.mark.parametrize("how", ["first byte", "emptied", "cut in half"])
def test_a_damaged_pointer_is_named_and_not_needed(how: str, tmp_path: Path) -> None:
    root = root_of(tmp_path, 5, 10)
    DAMAGES[how](tmp_path / "latest")
    with heard("latest is damaged"):
        assert same(checkpoint.newest(root), checkpoint_at(10))
    checkpoint.save(root, checkpoint_at(15))
    assert latest(root) == "000015\n"


def test_an_old_or_missing_pointer_is_expected_after_a_crash(tmp_path: Path) -> None:
    root = root_of(tmp_path, 5, 10)
    with silence():
        (tmp_path / "latest").write_text("000005\n")
        assert same(checkpoint.newest(root), checkpoint_at(10))
        (tmp_path / "latest").unlink()
        assert same(checkpoint.newest(root), checkpoint_at(10))


def test_all_damaged_is_an_error_that_names_them(tmp_path: Path) -> None:
    root = root_of(tmp_path, 5, 10)
    for step, name in (("000005", "state.json"), ("000010", "ema.safetensors")):
        flip(0.5)(root / step / name)
    with (
        heard(r"000010/ema\.safetensors"),
        pytest.raises(UserError, match=r"damaged: 000005, 000010\. Train again, or restore"),
    ):
        checkpoint.newest(root)


def test_damaged_checkpoints_never_rotate_out_good_ones(tmp_path: Path) -> None:
    root = root_of(tmp_path, 5, 10)
    flip(0.5)(root / "000010" / "model.safetensors")
    checkpoint.save(root, checkpoint_at(15))  # training continues in memory
    assert checkpoint.steps_in(root) == ["000005", "000010", "000015"]
    flip(0.5)(root / "000015" / "model.safetensors")
    assert same(checkpoint.newest(root), checkpoint_at(5))
    checkpoint.save(root, checkpoint_at(8))  # resumed from step 5; later checkpoints are useless
    assert checkpoint.steps_in(root) == ["000005", "000008"]
    checkpoint.save(root, checkpoint_at(12))
    assert checkpoint.steps_in(root) == ["000008", "000012"]


def test_saving_among_skipped_steps_removes_nothing(tmp_path: Path) -> None:
    root = root_of(tmp_path, 5, 10)
    for step in (11, 12, 13):
        checkpoint.save(root, checkpoint_at(step), rotating=False)
    assert checkpoint.steps_in(root) == ["000005", "000010", "000011", "000012", "000013"]
    assert same(checkpoint.newest(root, before=11), checkpoint_at(10))
    checkpoint.go_back(root, 10)
    assert checkpoint.steps_in(root) == ["000005", "000010"] and latest(root) == "000010\n"


# --------------------------------------------------------------------------- hostile


def seal(folder: Path) -> None:
    """Update the hashes, as a forger of a checkpoint would."""
    names = [line.split()[1] for line in (folder / SUMS).read_text().splitlines()]
    (folder / SUMS).write_text("".join(f"{digest(folder / n)}  {n}\n" for n in names))


def digest(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def safetensors(header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Runs:
    """Creates a folder if it is ever unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("was_run",)


def entry(dtype: str = "F32", shape: tuple[int, ...] = (2,), offsets: tuple[int, int] = (0, 8)) -> dict[str, Any]:
    return {"net.weight": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


FORGED = {
    "a pickle": pickle.dumps({"net.weight": Runs()}),
    "empty": b"",
    "a header longer than the file": safetensors(entry(), b"\0" * 8, length=10**6),
    "a header of 2^63 bytes": safetensors(entry(), b"\0" * 8, length=2**63),
    "a header that is not JSON": safetensors(b"{not json", b"\0" * 8),
    "data beyond the end": safetensors(entry(offsets=(0, 800)), b"\0" * 8),
    "data that ends before it begins": safetensors(entry(offsets=(8, 0)), b"\0" * 8),
    "a shape that lies": safetensors(entry(shape=(2000,)), b"\0" * 8),
    "a shape that overflows": safetensors(entry(shape=(2**62, 2**62)), b"\0" * 8),
    "a negative shape": safetensors(entry(shape=(-2,)), b"\0" * 8),
    "a dtype that does not exist": safetensors(entry(dtype="F7"), b"\0" * 8),
    "a dtype that torch lacks": safetensors(entry(dtype="F4", shape=(16,)), b"\0" * 8),
    "bytes that no tensor owns": safetensors(entry(), b"\0" * 80),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_forged_file_is_refused_even_with_valid_hashes(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = root_of(tmp_path, 5)
    (root / "000005" / "model.safetensors").write_bytes(FORGED[what])
    seal(root / "000005")
    with pytest.raises(UserError, match=r"model\.safetensors is not a valid safetensors file"):
        checkpoint.newest(root)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "a b"])
def test_a_list_of_hashes_cannot_name_files_elsewhere(name: str, tmp_path: Path) -> None:
    folder = root_of(tmp_path, 5) / "000005"
    (folder / SUMS).write_text("0" * 64 + f"  {name}\n" + (folder / SUMS).read_text())
    assert checkpoint.check(folder) == [f"000005/{SUMS} is missing or damaged (ValueError)"]


# --------------------------------------------------------------------------- no space


class Full:
    """Replaces system functions and fails at the k-th call of any of them."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def wrap(self, f: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self.at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return f(*args, **options)

        return call


def test_no_space_at_any_write_names_the_bytes_and_keeps_older_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root_of(tmp_path, 5, 10)
    for at in range(1, 100):
        root = Path(shutil.copytree(tmp_path / "checkpoints", tmp_path / f"try{at}" / "checkpoints"))
        shutil.copy(tmp_path / "latest", root.parent / "latest")
        full = Full(at)
        with monkeypatch.context() as patch:
            patch.setattr(folders, "write_file", full.wrap(files.write_file))
            patch.setattr(os, "fsync", full.wrap(os.fsync))
            patch.setattr(os, "replace", full.wrap(os.replace))
            patch.setattr(os, "mkdir", full.wrap(os.mkdir))
            try:
                checkpoint.save(root, checkpoint_at(15))
            except UserError as e:
                assert "No space left" in str(e) and "bytes; " in str(e) and "resume" in str(e)
                fine = False
            else:
                fine = True
        with silence():
            loaded = checkpoint.newest(root)
        # The new one counts once it has its name, even if `latest` could not be updated.
        renamed = fine or (root / "000015").exists()
        assert same(loaded, checkpoint_at(15 if renamed else 10))
        assert checkpoint.check(root / "000010") == [] and not list(root.glob(".*"))
        checkpoint.save(root, checkpoint_at(15))
        assert latest(root) == "000015\n" and checkpoint.steps_in(root) == ["000010", "000015"]
        if full.calls < at:
            break
    assert fine and at > 10


def test_what_a_full_disk_leaves_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, now = tmp_path / "checkpoints", checkpoint_at(1_000)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def said() -> str:
        with monkeypatch.context() as patch, pytest.raises(UserError) as error:
            patch.setattr(os, "fsync", full)
            checkpoint.save(root, now)
        return str(error.value).split(" are free. ")[1]

    assert said() == "No checkpoint is saved yet: make room, then `resume`."
    for step in (5, 6):
        checkpoint.save(root, checkpoint_at(step))
    assert said() == "The checkpoint of step 6 is intact: make room, then `resume`."
    (root / "000006" / "state.json").write_text("{}")
    assert said().startswith("The checkpoint of step 5 is intact")


def test_a_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("only the superuser may mount a disk of 64 kB: run this test as root (in a container: privileged)")
    try:
        root = root_of(disk, 5)
        big = Checkpoint(10, {"model": {"w": torch.zeros(100, 1000)}}, {})
        with pytest.raises(
            UserError, match=r"step 10 .*No space left on device. It needs 400,\d\d\d bytes; \d+,\d\d\d"
        ):
            checkpoint.save(root, big)
        assert same(checkpoint.newest(root), checkpoint_at(5)) and not list(root.glob(".*"))
        with pytest.raises(UserError, match=r"No space left on device. It needs 100,000 bytes"):
            files.replace_file(disk / "report.html", bytes(100_000))
        assert sorted(p.name for p in disk.iterdir()) == ["checkpoints", "latest"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_without_write_permission() -> None:
    with needs.folder_of_a_user() as folder:
        root = root_of(folder, 5)
        root.chmod(0o555)
        with needs.without_privileges(), pytest.raises(UserError, match="Permission denied"):
            checkpoint.save(root, checkpoint_at(10))
        root.chmod(0o755)
        assert same(checkpoint.newest(root), checkpoint_at(5))


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path: Path) -> None:
    """Its files, then its folder, then its name, and then what points to it."""
    root = tmp_path / "run" / "checkpoints"
    with disk() as found:
        for step in (0, 4, 8):
            checkpoint.save(root, checkpoint.Checkpoint(step, {"model": {"w": torch.ones(3)}}, {"a": 1}))
    assert found.renamed == ["000000", "latest", "000004", "latest", "000008", "latest"]


def test_weights_beside_checkpoints_are_on_the_disk_before_they_have_their_names(tmp_path: Path) -> None:
    with disk() as found:
        for value in (1.0, 2.0):
            write_weights(tmp_path, "lowest", {"m.w": torch.full((3,), value)})
        write_base(tmp_path, {"m.w": torch.ones(3)})
    first, later = ["lowest.sha256", "lowest.safetensors"], ["lowest.sha256", "lowest.safetensors", "lowest.sha256"]
    assert found.renamed == [*first, *later, "base.safetensors"]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_weights_are_the_old_or_the_new_ones_wherever_writing_ends(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = ({"m.w": torch.full((3,), value)} for value in (1.0, 2.0))
    write_weights(tmp_path, "lowest", old)
    done = 0

    def some(path: Path, data: bytes) -> None:
        nonlocal done
        if done == written:
            raise KeyboardInterrupt
        done += 1
        files.replace_file(path, data)

    monkeypatch.setattr(weights, "replace_file", some)
    with pytest.raises(KeyboardInterrupt):
        write_weights(tmp_path, "lowest", new)
    found = read_weights(tmp_path, "lowest")
    assert found is not None and torch.equal(found["m.w"], (new if written == 2 else old)["m.w"])
