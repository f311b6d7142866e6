"""Data that is computed: settings, what is written, and that it is learnt from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import afresh
from afresh.core import UserError, registry
from afresh.domains.field.systems import SYSTEMS

FEW = {"trajectories": 3, "steps": 4, "points": 32}


@pytest.mark.parametrize("name", registry.makers())
def test_every_kind_of_data_is_read_again(name: str, tmp_path: Path) -> None:
    few = {"trajectories": 3, "steps": 4} | ({"points": 32} if SYSTEMS[name].dimensions > 1 else {})
    made = afresh.make_data(name, settings=few, out=tmp_path / "data")
    found = afresh.inspect_data(made.path)
    assert found.prepared.modality == "field"
    assert found.prepared.encoder.space.periodic and all(found.prepared.encoder.space.periodic)
    assert len(found.prepared.train_items) + len(found.prepared.heldout_items) == 3 * 4


def test_the_same_seed_gives_the_same_and_another_one_other_data(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    for name, seed in zip(names, (0, 0, 1), strict=True):
        afresh.make_data("burgers", settings=FEW, out=tmp_path / name, seed=seed)
    a, b, c = (np.load(tmp_path / name / "states.npz")["velocity"] for name in names)
    assert np.array_equal(a, b) and not np.array_equal(a, c)


def test_other_trajectories_follow_the_first(tmp_path: Path) -> None:
    afresh.make_data("burgers", settings={**FEW, "trajectories": 4}, out=tmp_path / "all")
    afresh.make_data("burgers", settings={**FEW, "trajectories": 2, "first": 2}, out=tmp_path / "last")
    both = [np.load(tmp_path / name / "states.npz")["velocity"] for name in ("all", "last")]
    assert np.array_equal(both[0][2:], both[1])


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("burgesr", {}, "Did you mean burgers"),
        ("burgers", {"nu": 1}, "no setting nu. Accepted: trajectories"),
        ("burgers", {"steps": "many"}, "a whole number from 1"),
        ("burgers", {"points": 33.5}, "a whole number"),
        ("burgers", {"viscosity": -1}, "viscosity"),
    ],
)
def test_what_cannot_be_computed_is_said(name: str, settings: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        afresh.make_data(name, settings=settings, out=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match=r"exists\. Choose another place"):
        afresh.make_data("burgers", settings=FEW, out=tmp_path / "data")
    assert (tmp_path / "data" / "mine.txt").read_text() == "mine"


def test_the_command_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    from afresh.faces.cli import run

    assert run(["demo", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["makers"]
    assert run(["demo", "burgers", "--quick"]) == 2 and run(["demo", "--seed", "3"]) == 2
    assert "--quick" in capsys.readouterr().err
    assert set(listed) == set(registry.makers()) and "viscosity" in listed["burgers"]["settings"]
