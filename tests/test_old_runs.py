"""Runs and a data set that an earlier version made (tests/old_runs/README.md) open, are intact, go on to learn and give
samples as they did in that version."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

import afresh
from afresh.core import Sound
from afresh.faces.cli import run as command

FOLDER = Path(__file__).parent / "old_runs"
REQUESTS: Mapping[str, Mapping[str, Any]] = {  # what is asked of each run
    "text": {"prompt": "the cat", "length": 12},
    "masked": {"length": 12},
    "chat": {"prompt": "what does the cat say", "length": 12},
    "code": {"prompt": "def ", "length": 12},
    "collected": {"length": 12},
    "tuned": {"length": 12},
    "flow": {"label": "light", "guidance": 1.5, "steps": 4},
    "gan": {"label": "dark"},
    "vae": {"label": "grey"},
    "autoencoder": {},
    "palette": {"label": "light"},
    "latent": {"label": "light", "steps": 4},
    "audio": {"label": "b", "steps": 4},
    "music": {"length": 12, "notation": False},
    "molecule": {"number": {"logS": 1.0}},
    "interactions": {"prompt": "i1,i2", "length": 4},
    "bags": {"length": 4},
    "exercises": {"length": 6},
    "fewstep": {"label": "light", "steps": 2},
    "dpo": {"prompt": "the cat", "length": 12},
    "grpo": {"length": 8},
    "draft": {"label": "dark"},
    "search": {},
    "people/adapters/ann": {"prompt": "the cat", "length": 12},
}
SHOWN = 64  # levels of a picture, or values of a sound, that are compared
LEVELS, AMPLITUDE, LOSS = 1, 5e-3, 1e-3  # tolerances: processors add in different orders; the last one is relative
EXACT = "OLD_RUNS_EXACT"  # set on the machine that wrote expected.json: the samples are then equal to the bit


def unpack(root: Path, *names: str) -> None:
    for name in names:
        with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
            archive.extractall(root)


def observe(run: str) -> dict[str, Any]:
    """What a run in the current folder gives: samples before and after it goes on to learn, and its last losses."""
    before = draw(run)
    model = afresh.resume(run, quiet=True)
    lines = [json.loads(line) for line in (model.path / "metrics.jsonl").read_text().splitlines()]
    losses = {k: v for line in lines for k, v in line.items() if k.endswith("loss")}
    return {"before": before, "losses": losses, "after": draw(run)}


def draw(run: str) -> dict[str, Any]:
    """Two samples: tokens or the SHA-256 of numbers, and the texts, levels or amplitudes that they are decoded to."""
    samples = afresh.load(run).sample(2, seed=3, **REQUESTS[run])
    tokens, digest = samples.x.tolist(), hashlib.sha256(samples.x.contiguous().numpy().tobytes()).hexdigest()
    return {
        "drawn": tokens if samples.encoder.space.kind == "tokens" else digest,
        "decoded": [decoded(value) for value in samples],
    }


def decoded(value: Any) -> Any:
    if isinstance(value, Sound):
        return [round(float(x), 5) for x in value.samples.ravel()[:SHOWN]]
    if isinstance(value, np.ndarray):
        return value.ravel()[:SHOWN].tolist()
    return value if isinstance(value, str) else None  # a history, which its tokens stand for


def check_samples(actual: Mapping[str, Any], expected: Mapping[str, Any], tolerance: float) -> None:
    if isinstance(expected["drawn"], list) or os.environ.get(EXACT):
        assert actual == expected
        return
    for values, wanted in zip(actual["decoded"], expected["decoded"], strict=True):
        np.testing.assert_allclose(values, wanted, rtol=0, atol=tolerance)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the data of the runs and the secret of the user who made them."""
    unpack(tmp_path, "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AFRESH_KEY_FOLDER", str(tmp_path / "key"))
    return tmp_path


@pytest.mark.parametrize("run", REQUESTS)
def test_a_run_of_an_earlier_version_works_as_it_did(run: str, folder: Path) -> None:
    unpack(folder, run.split("/")[0], *(["dataset"] if run == "collected" else []))
    expected = json.loads((FOLDER / "expected.json").read_text())[run]
    checks = afresh.load(run).verify()
    assert [check for check in checks if check.passed is False] == []
    assert {"record", "hashes", "data", "weights", "samples"} <= {c.name for c in checks if c.passed}
    actual = observe(run)
    kind = AMPLITUDE if run == "audio" else LEVELS
    check_samples(actual["before"], expected["before"], kind)
    assert actual["losses"] == pytest.approx(expected["losses"], rel=LOSS, abs=LOSS)
    check_samples(actual["after"], expected["after"], 3 * kind)
    assert [check for check in afresh.load(run).verify() if check.passed is False] == []


@pytest.mark.parametrize("run", REQUESTS)
def test_an_encoder_is_written_as_the_earlier_version_wrote_it(run: str, folder: Path) -> None:
    """The same files with the same bytes, whose hashes are in SHA256SUMS."""
    unpack(folder, run.split("/")[0])
    encoder, written = afresh.load(run).run.encoder, folder / "written"
    encoder.save(written)
    kept = Path(run) / "encoder"
    assert sorted(f.name for f in written.iterdir()) == sorted(f.name for f in kept.iterdir())
    assert [f.name for f in kept.iterdir() if f.read_bytes() != (written / f.name).read_bytes()] == []


USES: Mapping[str, Sequence[str]] = {  # what keeps something in the folder of a run
    "interactions": ("recommend", "--user", "u1", "-k", "3"),
    "bags": ("recommend", "--user", "u1", "-k", "3"),
    "exercises": ("practise", "--history", "add-1:right"),
}


@pytest.mark.parametrize("run", [*USES, "search"])
def test_what_an_earlier_version_kept_in_a_run_is_used_and_goes_with_it(
    run: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unpack(folder, run)
    if run in USES:
        verb, *words = USES[run]
        assert command([verb, run, *words, "--json"]) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        expected = json.loads((FOLDER / "expected.json").read_text())["uses"][run]
        chosen = result["lists"][0]["items"] if verb == "recommend" else result["next"]
        assert [item["item"] for item in chosen] == [item["item"] for item in expected]
        chance = "probability" if verb == "recommend" else "chance"
        assert [item[chance] for item in chosen] == pytest.approx([item[chance] for item in expected], rel=1e-3)
    assert [check for check in afresh.load(run).verify() if check.passed is False] == []
    assert command(["rm", run, "--yes"]) == 0 and not (folder / run).exists()


def test_a_data_set_of_an_earlier_version_is_gone_on_with(folder: Path) -> None:
    unpack(folder, "dataset")
    columns = ["id", "text", "split", "licence", "person", "scores"]
    before, rows = json.loads(Path("dataset/dataset.json").read_text()), parquet.read_table("dataset/items.parquet")
    assert before["items"] == {"text": 12}
    ways: tuple[dict[str, Any], ...] = ({"resume": True}, {"refresh": True})
    for way in ways:
        after = afresh.collect_data(into="dataset", trust=True, quiet=True, **way)
        assert after["items"] == before["items"] and after["rules"] == before["rules"]
        assert parquet.read_table("dataset/items.parquet").select(columns) == rows.select(columns)
