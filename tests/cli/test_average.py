"""`afresh average`: another length is what it says it is, is used, is refused where it cannot be, and goes back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from afresh.cli import run
from afresh.runs.run import Run
from afresh.tasks.average import combine, steps_of
from afresh.tasks.train import again, learn
from afresh.training import checkpoint
from afresh.training.loop import under
from afresh.training.weights import forget_snapshots
from tests.cli.conftest import FLOW, Invoke, parsed

STEPS, COUNT = 24, 6


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("averages") / "run"
    more = ("--steps", str(STEPS), "--set", f"train.posthoc={COUNT}", "--set", "train.memorisation_limit=0")
    assert run(["train", str(digits), "--out", str(out), "--no-measure", *FLOW, *more]) == 0
    return out


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(Run.open(path).modules["velocity"].state_dict())


def test_snapshots_are_kept_and_combine_to_what_was_tracked(whole: Path) -> None:
    opened = Run.open(whole)
    assert steps_of(opened) == [4, 8, 12, 16, 20, 24]
    saved = checkpoint.newest(whole / "checkpoints")
    assert saved is not None
    for length in (0.05, 0.1):
        made, error = combine(opened, steps_of(opened), length)
        tracked = under(saved.tensors["power"], f"{length:g}")
        assert error < 1e-5 and made.keys() == tracked.keys()
        for name, tensor in made.items():
            torch.testing.assert_close(tensor, tracked[name], rtol=1e-5, atol=1e-6)


def test_a_length_is_used_and_none_goes_back(folder: Path, invoke: Invoke) -> None:
    before = weights(folder)
    code, out, _ = invoke("average", folder, "--length", "0.12", "--json")
    made = parsed(out)
    assert code == 0 and made["length"] == 0.12 and made["step"] == STEPS and made["snapshots"] == COUNT
    assert made["tried"][0]["error"] < 0.15
    other, (wanted, _) = weights(folder), combine(Run.open(folder), steps_of(Run.open(folder)), 0.12)
    assert all(torch.equal(other[k], wanted[f"velocity.{k}"]) for k in other)
    assert any(not torch.equal(other[k], before[k]) for k in other)
    code, out, _ = invoke("average", folder, "--length", "none")
    assert code == 0 and "as it was trained" in out
    assert all(torch.equal(v, before[k]) for k, v in weights(folder).items())
    assert not list(folder.glob("averaged.*"))


def test_auto_takes_the_lowest_held_out_loss(folder: Path, invoke: Invoke) -> None:
    code, out, _ = invoke("average", folder, "--json")
    made = parsed(out)
    assert code == 0 and made["tried"][0]["length"] is None and len(made["tried"]) >= 4
    best = min(made["tried"], key=lambda t: t["loss"])
    assert made["length"] == best["length"]
    assert (folder / "averaged.json").exists() == (best["length"] is not None)
    assert "held-out loss" in invoke("average", folder)[1]


@pytest.mark.parametrize(
    "length,said", [("0.01", "cannot be made of 6 snapshots"), ("0.5", "from 0.01 to 0.28"), ("long", "auto, none")]
)
def test_lengths_that_cannot_be(folder: Path, invoke: Invoke, length: str, said: str) -> None:
    code, _, err = invoke("average", folder, "--length", length)
    assert code == 2 and said in err and not (folder / "averaged.json").exists()


def test_a_run_without_snapshots_says_how_to_have_some(pictures_run: Path, invoke: Invoke) -> None:
    code, _, err = invoke("average", pictures_run)
    assert code == 2 and "train.posthoc=8" in err


def test_a_damaged_snapshot_is_named(folder: Path, invoke: Invoke) -> None:
    file = folder / "averages" / "000012.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    code, _, err = invoke("average", folder, "--length", "0.1")
    assert code == 2 and "000012.safetensors is damaged" in err


def test_going_on_drops_the_choice_and_later_snapshots(folder: Path, invoke: Invoke) -> None:
    assert invoke("average", folder, "--length", "0.1")[0] == 0
    checkpoint.go_back(folder / "checkpoints", STEPS - 1)  # as after a crash
    assert int(checkpoint.steps_in(folder / "checkpoints")[-1]) < STEPS
    kept = {p.name: p.read_bytes() for p in (folder / "averages").iterdir()}
    with pytest.warns(UserWarning, match="dropped: training goes on"):
        learn(again(folder), "quiet")
    assert not (folder / "averaged.json").exists()
    assert {p.name: p.read_bytes() for p in (folder / "averages").iterdir()} == kept  # the same, to the bit
    forget_snapshots(folder, 8)
    assert steps_of(Run.open(folder)) == [4, 8]
