"""`afresh verify`: sound runs pass, and each kind of damage is found by the check that is there for it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from tools.fuzz.mutations import correct_hashes

import afresh
from afresh.core import UserError
from afresh.data.text.tokenizer import Tokenizer
from afresh.engine.training import checkpoint
from afresh.runs.manifest import manifest_faults
from afresh.runs.run import Run
from afresh.verbs.verify import check_hashes, guarded, verify
from tests.faces.cli.conftest import Invoke, parsed


@pytest.fixture
def copied(pictures_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pictures_run, tmp_path / "run"))


def verdicts(folder: Path) -> dict[str, bool | None]:
    return {c.name: c.passed for c in verify(Run.open(folder))}


def flip(file: Path, place: int = -1) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize("kind", ["pictures_run", "texts_run"])
def test_a_sound_run_passes(kind: str, invoke: Invoke, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    code, printed, _ = invoke("verify", folder, "--json")
    made: dict[str, Any] = parsed(printed)
    found = {c["name"]: c["passed"] for c in made["checks"]}
    cache = None if kind == "pictures_run" else True  # a flow has none
    assert code == 0 and made["passed"] is True
    kept = dict.fromkeys(["record", "hashes", "data", "weights", "resume", "samples"], True)
    assert found == {**kept, "cache": cache}
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before, "looking changes nothing"


def test_the_numbers_are_printed(texts_run: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke("verify", texts_run)
    assert code == 0 and "sound" in printed
    for words in ("match their SHA-256", "equal to the bit", "differ by at most", "4 of 4 have the same tokens"):
        assert words in printed


@pytest.mark.filterwarnings("ignore:000004/model.safetensors")
def test_a_flipped_bit_is_named_and_the_older_checkpoint_is_looked_at(copied: Path, invoke: Invoke) -> None:
    newest = copied / "checkpoints" / "000004"
    flip(newest / "model.safetensors")
    code, printed, _ = invoke("verify", copied)
    assert code == 1 and "FAIL hashes   000004/model.safetensors" in printed
    assert "at step 3 are finite" in printed
    assert verdicts(copied)["resume"] is True


@pytest.mark.parametrize("kind", ["pictures_run", "texts_run"])
def test_any_changed_file_is_named(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run = Path(shutil.copytree(request.getfixturevalue(kind), tmp_path / "run"))
    files = [p for p in run.rglob("*") if p.is_file() and p.name != "signature"]
    names = {p.relative_to(run).as_posix() for p in files}
    expected = {"run.json", "SHA256SUMS", "metrics.jsonl", "conditions.safetensors", "encoder/encoder.json"}
    assert names >= expected | {"lowest.safetensors", "checkpoints/000004/state.json"}
    for file in files:
        flip(file, len(file.read_bytes()) // 2)
        changed = Run(run, Run.open(request.getfixturevalue(kind)).record)
        found = guarded("hashes", lambda changed=changed: check_hashes(changed))  # type: ignore[misc]
        assert found.passed is False and file.name in found.detail, (file, found)
        flip(file, len(file.read_bytes()) // 2)
    assert check_hashes(Run.open(run)).passed


@pytest.mark.parametrize("name", ["/dev/zero", "/etc/passwd", "../other/run.json", "samples/../../x", "notes.txt"])
def test_the_list_of_hashes_names_files_of_the_run_alone(copied: Path, name: str) -> None:
    listed = copied / "SHA256SUMS"
    listed.write_text(f"{listed.read_text()}{'0' * 64}  {name}\n")
    found = guarded("hashes", lambda: check_hashes(Run.open(copied)))
    assert found.passed is False and f"{name} is not a file that a run consists of" in found.detail


def test_what_took_the_place_of_a_listed_file_is_not_read(copied: Path) -> None:
    run = Run.open(copied)
    for name, make in (("metrics.jsonl", os.mkfifo), ("report.html", lambda path: path.symlink_to("/dev/zero"))):
        (copied / name).unlink(missing_ok=True)
        make(copied / name)
    listed = copied / "SHA256SUMS"
    listed.write_text(f"{listed.read_text()}{'0' * 64}  report.html\n")
    found = "; ".join(manifest_faults(run.path))
    assert "metrics.jsonl cannot be read: it is not a regular file" in found and "report.html cannot be read" in found


def test_weights_that_somebody_adds_or_replaces_with_their_hash_are_found(copied: Path) -> None:
    other = save({"velocity.weight": torch.zeros(3)})
    for name in ("lowest", "averaged"):
        (copied / f"{name}.safetensors").write_bytes(other)
        (copied / f"{name}.sha256").write_text(hashlib.sha256(other).hexdigest())
    found = check_hashes(Run.open(copied))
    assert found.passed is False
    assert "lowest.safetensors does not match" in found.detail and "averaged.safetensors is not in" in found.detail


def test_a_window_that_was_changed_is_found(texts_run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(texts_run, tmp_path / "run"))
    record = json.loads((copy / "run.json").read_bytes())
    (copy / "run.json").write_text(json.dumps(record | {"window": 16}))
    assert verdicts(copy)["hashes"] is False


def test_a_run_of_an_earlier_version_has_no_list_and_is_sound(copied: Path) -> None:
    (copied / "SHA256SUMS").unlink()
    checks = {c.name: c for c in verify(Run.open(copied))}
    assert all(c.passed is not False for c in checks.values())
    assert "has no SHA256SUMS, so its other files cannot be checked" in checks["hashes"].detail


def test_conditions_that_are_cut_short_fail(copied: Path, invoke: Invoke) -> None:
    file = copied / "conditions.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    code, printed, _ = invoke("verify", copied)
    assert code == 1 and "FAIL samples" in printed and "conditions.safetensors" in printed


def test_damage_to_every_checkpoint_leaves_nothing_to_look_at(copied: Path) -> None:
    for file in (copied / "checkpoints").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:100])
    found = verdicts(copied)
    assert found["hashes"] is False and found["weights"] is None and found["resume"] is None


def test_weights_that_are_not_finite_fail_though_their_hash_is_right(copied: Path) -> None:
    root = copied / "checkpoints"
    saved = checkpoint.read(root / "000004")
    tensors = {group: dict(named) for group, named in saved.tensors.items()}
    name = next(iter(tensors["model"]))
    tensors["model"][name] = torch.full_like(tensors["model"][name], torch.nan)
    checkpoint.save(root, checkpoint.Checkpoint(saved.step, tensors, saved.scalars))
    found = verdicts(copied)
    assert found["hashes"] is True and found["weights"] is False


def test_a_record_that_does_not_describe_the_weights_fails(copied: Path) -> None:
    record = json.loads((copied / "run.json").read_bytes())
    record["config"]["widths"] = [8, 24]
    (copied / "run.json").write_text(json.dumps(record))
    found = verdicts(copied)
    assert found["record"] is False and found["samples"] is False and found["hashes"] is False


def test_a_tokenizer_that_does_not_fit_the_weights_is_said(texts_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    copy = Path(shutil.copytree(texts_run, tmp_path / "run"))
    Tokenizer.all_bytes().save(copy / "encoder" / "tokenizer.json")
    code, _, said = invoke("sample", copy, "-n", 1)
    assert code == 2 and "do not fit its other files (run.json, tokenizer" in said and "embedding" in said


def test_data_that_is_gone_is_said_and_does_not_fail(copied: Path, tmp_path: Path, invoke: Invoke) -> None:
    record = json.loads((copied / "run.json").read_bytes())
    record["data"]["path"] = str(tmp_path / "gone")
    (copied / "run.json").write_text(json.dumps(record))
    correct_hashes(copied)
    code, printed, _ = invoke("verify", copied, "--json")
    found = {c["name"]: c["passed"] for c in parsed(printed)["checks"]}
    assert code == 0 and found["data"] is None and found["resume"] is None and found["samples"] is True


def test_data_that_changed_fails(copied: Path, digits: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(digits, tmp_path / "other"))
    next((other / "d3").iterdir()).unlink()
    record = json.loads((copied / "run.json").read_bytes())
    record["data"]["path"] = str(other)
    (copied / "run.json").write_text(json.dumps(record))
    assert verdicts(copied)["data"] is False


def test_a_saved_run_is_a_verified_copy(pictures_run: Path, tmp_path: Path) -> None:
    run = afresh.load(pictures_run)
    copy = run.save(tmp_path / "kept" / "digits")
    for file in pictures_run.rglob("*"):
        if file.is_file():
            assert (copy.path / file.relative_to(pictures_run)).read_bytes() == file.read_bytes()
    assert torch.equal(copy.sample(2, steps=1).x, run.sample(2, steps=1).x)
    with pytest.raises(UserError, match="exists"):
        run.save(copy.path)
    with pytest.raises(UserError, match="is inside the run itself"):
        run.save(pictures_run / "copy")


def test_a_damaged_run_is_not_copied(copied: Path, tmp_path: Path) -> None:
    flip(copied / "checkpoints" / "000004" / "model.safetensors")
    with pytest.raises(UserError, match="The copy is damaged"):
        afresh.load(copied).save(tmp_path / "kept")
    assert not list(tmp_path.glob("*kept*")), "nothing half-made is left"
