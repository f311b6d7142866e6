"""Adapters of persons: small, in the folder of their base, as good as any tuned run, and deleted with a proof."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import afresh
from afresh.core import UserError
from afresh.data.imported import data_folder
from afresh.data.storage.files import bytes_on_disk
from afresh.engine.training import checkpoint
from afresh.runs.run import Run
from afresh.runs.trash import throw
from afresh.verbs.verify import verify
from tests.faces.cli.conftest import Invoke, parsed

HOW = ("--steps", 3, "--rank", 2, "--lr", 0.02, "--set", "train.batch=8", "--set", "train.precision=float32")


@pytest.fixture
def base(texts_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run runs/base of a working directory, and texts of a person beside it."""
    shutil.copytree(texts_run, tmp_path / "runs" / "base")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hers").mkdir()
    for i in range(12):
        (tmp_path / "hers" / f"{i}.txt").write_text(f"a cat and a cat slept on {'the mat ' * (i + 3)}\n")
    return tmp_path / "runs" / "base"


@pytest.fixture
def anna(base: Path, invoke: Invoke) -> Path:
    code, _, err = invoke("tune", "base", "hers", "--adapter", "anna", *HOW, "--no-measure")
    assert code == 0, err
    return base / "adapters" / "anna"


def proof_of(base: Path) -> dict[str, Any]:
    (file,) = (base / "deletions").iterdir()
    return dict(json.loads(file.read_text()))


def test_an_adapter_is_a_run_without_a_copy_of_its_base(anna: Path, base: Path, invoke: Invoke) -> None:
    assert not (anna / "base.safetensors").exists()
    assert bytes_on_disk(anna / "checkpoints" / "000003") < bytes_on_disk(base / "checkpoints" / "000004") / 4
    assert all(c.passed is not False for c in verify(Run.open(anna)))
    invoke("tune", base, "hers", *HOW, "--no-measure", "--out", "copy")
    own, copy = Run.open(anna), Run.open("copy")
    assert copy.record.base_sha256 == own.record.base_sha256 == Run.open(base).weights_sha256
    weights = [dict(run.modules["decoder"].state_dict()) for run in (own, copy)]
    assert all(torch.equal(v, weights[1][k]) for k, v in weights[0].items()), "the same as with a copy of the base"


def test_it_is_named_after_its_base(anna: Path, invoke: Invoke) -> None:
    _, out, _ = invoke("show", "--json")
    assert [row["run"] for row in parsed(out)["runs"]] == ["runs/base", "runs/base/adapters/anna"]
    for name in ("base:anna", "runs/base:anna", "runs/base/adapters/anna"):
        code, out, err = invoke("show", name, "--json")
        assert code == 0 and parsed(out)["run"] == "runs/base/adapters/anna", err
    assert "adapters:     anna" in invoke("show", "base")[1]
    code, _, err = invoke("sample", "base:eve")
    assert code == 2 and "base:eve is not a run" in err


def test_it_stands_over_the_loaded_weights_of_its_base(anna: Path, base: Path) -> None:
    merged, shared, loaded = Run.open(anna), Run.open(anna), Run.open(base)
    shared.share(loaded)
    names = dict(loaded.modules["decoder"].named_parameters())
    own = dict(shared.modules["decoder"].named_parameters())
    assert {p.data_ptr() for p in names.values()} <= {p.data_ptr() for p in own.values()}, "nothing is copied"
    tokens = torch.arange(12)[None] % loaded.space.vocab[0]
    outputs = [r.modules["decoder"](tokens[:, :-1], None, tokens[:, 1:]) for r in (merged, shared, loaded)]
    assert torch.allclose(outputs[0], outputs[1], atol=1e-4) and not torch.allclose(outputs[0], outputs[2], atol=1e-3)


def test_weights_that_changed_are_not_used_with_it(anna: Path, base: Path, texts: Path) -> None:
    afresh.train(texts, steps=2, out=base.parent / "other", quiet=True, settings={"family.layers": 1})
    shutil.rmtree(base / "checkpoints")
    shutil.copytree(base.parent / "other" / "checkpoints", base / "checkpoints")
    with pytest.raises(UserError, match=r"are not those that .* was tuned from"):
        _ = Run.open(anna).modules
    shutil.move(anna, base.parent / "anna")
    with pytest.raises(UserError, match="an adapter without its base"):
        _ = Run.open(base.parent / "anna").modules


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--adapter", "../eve"), "is named with letters"),
        (("--adapter", "eve:2"), "is named with letters"),
        (("--adapter", ""), "is named with letters"),
        (("--adapter", "eve", "--full"), "leave it out with --full"),
        (("--adapter", "eve", "--out", "x"), "leave out --out"),
        (("--adapter", "anna"), "already holds a run"),
    ],
)
def test_what_cannot_be_an_adapter(anna: Path, invoke: Invoke, more: tuple[str, ...], said: str) -> None:
    code, _, err = invoke("tune", "base", "hers", *HOW, *more)
    assert code == 2 and said in err, err


def test_only_runs_have_adapters(anna: Path, invoke: Invoke) -> None:
    code, _, err = invoke("tune", "base:anna", "hers", "--adapter", "eve", *HOW)
    assert code == 2 and "Only runs have adapters of persons" in err


# ----------------------------------------------------------------------------------------------------------- deletion


def test_a_deletion_is_proved(anna: Path, base: Path, invoke: Invoke) -> None:
    files = {p.relative_to(anna).as_posix(): p.read_bytes() for p in anna.rglob("*") if p.is_file()}
    before = Run.open(base).weights_sha256
    code, out, err = invoke("rm", "base:anna", "--yes")
    assert code == 0 and out == "removed runs/base/adapters/anna\n", err
    assert not (base / "adapters").exists() and "hers, which it learnt from, stays" in err
    proof = proof_of(base)
    assert proof["files"] == {k: hashlib.sha256(v).hexdigest() for k, v in files.items()}
    assert proof["base_weights"] == {"sha256_when_tuned": before, "sha256": before, "unchanged": True}
    assert proof["base_data"] == [{"run": "base", "seen": 0, "of": 12, "among": proof["base_data"][0]["among"]}]
    assert proof["ended"] and Path("hers").is_dir()
    assert Run.open(base).weights_sha256 == before


def test_its_data_goes_too_where_it_is_hers_alone(anna: Path, base: Path, invoke: Invoke) -> None:
    code, _, err = invoke("rm", "base:anna", "--yes", "--with-data")
    assert code == 0 and not Path("hers").exists(), err
    data = proof_of(base)["data"]
    assert isinstance(data, dict) and data["deleted"] and len(data["files"]) == 12


def test_data_of_others_is_kept(anna: Path, base: Path, invoke: Invoke) -> None:
    invoke("tune", "base", "hers/3.txt", "--adapter", "ben", *HOW, "--no-measure")
    code, _, err = invoke("rm", "base:anna", "--yes", "--with-data")
    assert code == 2 and "from which" in err and "ben has learnt too" in err
    assert anna.is_dir() and not (base / "deletions").exists()


def test_what_the_base_itself_has_learnt_is_said(base: Path, texts: Path, invoke: Invoke) -> None:
    invoke("tune", "base", texts, "--adapter", "anna", *HOW, "--no-measure")
    code, _, err = invoke("rm", "base:anna", "--yes")
    assert code == 0 and "of its data itself, which is not undone" in err
    (row,) = proof_of(base)["base_data"]
    assert row["seen"] == row["among"] > 40


def test_data_that_is_gone_is_not_known_to_be_unseen(anna: Path, base: Path, invoke: Invoke) -> None:
    shutil.rmtree("hers")
    assert invoke("rm", "base:anna", "--yes")[0] == 0
    (row,) = proof_of(base)["base_data"]
    assert row["seen"] is None and "is missing" in row["why"]


def test_a_base_with_adapters_stays(anna: Path, base: Path, invoke: Invoke) -> None:
    code, _, err = invoke("rm", "base", "--yes")
    assert code == 2 and "has the adapters of persons (anna)" in err and (base / "run.json").is_file()
    code, _, err = invoke("train", "hers", "--steps", 1, "--out", base, "--force")
    assert code == 2 and "cannot be replaced" in err
    with pytest.raises(UserError, match="has the adapters of persons"):
        throw(base)
    with pytest.raises(UserError, match="not kept in a bin"):
        throw(anna)


def test_forgetting_from_a_data_set_names_the_adapters_that_have_seen_it(
    base: Path, tmp_path: Path, invoke: Invoke
) -> None:
    rows = [{"text": f"a cat and a cat slept on the mat {i} times", "person": "anna"} for i in range(30)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert invoke("collect", "rows.jsonl", "--into", "set")[0] == 0
    code, _, err = invoke("tune", "base", "set", "--adapter", "anna", *HOW, "--no-measure")
    assert code == 0, err
    code, out, err = invoke("rm", "--data", "set", "--source", "rows.jsonl", "--yes")
    assert code == 0 and "has seen it: runs/base/adapters/anna" in out, out + err


def test_data_from_memory_is_deleted_too(base: Path, invoke: Invoke) -> None:
    texts = [f"a cat and a cat slept {'on the mat ' * (i + 3)}" for i in range(12)]
    small = {"train.batch": 8, "train.precision": "float32"}
    made = afresh.tune(base, texts, adapter="anna", steps=2, rank=2, quiet=True, settings=small)
    data = Path(made.run.record.data.path)
    assert data.is_relative_to(data_folder())
    assert invoke("rm", "base:anna", "--yes", "--with-data")[0] == 0 and not data.exists()


# -------------------------------------------------------------------------------------------------- not finite


@pytest.mark.parametrize("value", [float("nan"), 1e30])
def test_an_adapter_of_numbers_that_are_not_finite_is_refused_everywhere(
    value: float, anna: Path, base: Path, invoke: Invoke
) -> None:
    """Whether they are so themselves, or make the weights of the base so."""
    saved = checkpoint.newest(anna / "checkpoints")
    assert saved is not None
    tensors = {
        group: {k: torch.full_like(v, value) if group in ("model", "ema") else v for k, v in named.items()}
        for group, named in saved.tensors.items()
    }
    checkpoint.save(anna / "checkpoints", checkpoint.Checkpoint(saved.step, tensors, saved.scalars))
    file = anna / "adapter" / "adapter_model.safetensors"
    save_file({k: torch.full_like(v, value) for k, v in load_file(file).items()}, file)
    for words in (
        ("sample", "base:anna", "-n", 1),
        ("sample", "base", "-n", 1, "--adapter", anna),
        ("sample", "base", "-n", 1, "--adapter", anna / "adapter"),
        ("tune", anna / "adapter", "hers", "--steps", 1, "--out", "merged", "--no-measure"),
    ):
        code, _, err = invoke(*words)
        assert code == 2 and "not finite" in err, (words, err)
    shared = Run.open(anna)
    with pytest.raises(UserError, match="not finite"):
        shared.share(Run.open(base))
