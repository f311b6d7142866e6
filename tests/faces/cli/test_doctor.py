"""`afresh doctor`: what follows from what was measured."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from afresh.engine.training.budget import Machine
from afresh.faces.cli.doctor import extra_finding
from afresh.faces.cli.extras import EXTRAS, Extra
from afresh.verbs import doctor
from afresh.verbs.doctor import compiler_finding, disk_finding, memory_finding, products_finding, threads_finding
from tests.faces.cli.conftest import Invoke, parsed


def machine(float32: float, bfloat16: float, compiler: bool = True) -> Machine:
    return Machine("cpu", "a processor", 2, float32, bfloat16, compiler, "2.9", "3.12.1")


def test_this_machine_is_described(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "compile_fault", lambda device: None)  # which takes some seconds
    code, printed, _ = invoke("doctor", tmp_path, "--device", "cpu", "--json")
    seen = parsed(printed)
    names = [f["name"] for f in seen["findings"] if f["name"] != "kept data"]  # of other tests of this process
    assert code == 0
    machine_names = ["python", "torch", "device", "threads", "products", "compiler", "kernels", "memory", "disk"]
    assert names == [*machine_names, *(f"extra {e.name}" for e in EXTRAS)]
    assert all(f["value"] and f["follows"] for f in seen["findings"])
    assert seen["machine"]["float32"] > 0 and seen["machine"]["precision"] in ("float32", "bfloat16")
    shown = invoke("doctor", tmp_path, "--device", "cpu")[1]
    assert "GFLOP/s" in shown


def test_python_versions_are_those_of_the_package_and_of_its_pages() -> None:
    (root,) = [p for p in Path(__file__).parents if (p / "pyproject.toml").is_file()][:1]
    needed = tomllib.loads((root / "pyproject.toml").read_text())["project"]["requires-python"]
    (_, oldest), (_, newest) = doctor.supported_python()
    assert needed == f">=3.{oldest},<3.{newest + 1}"
    assert doctor.python_finding().follows == f"3.{oldest} to 3.{newest} are supported"
    for page in ("README.md", "CONTRIBUTING.md", "docs/start.md"):
        assert f"Python 3.{oldest} to 3.{newest}" in (root / page).read_text(), page


def test_the_faster_precision_is_named() -> None:
    assert "bfloat16 is 4.0 times as fast" in products_finding(machine(100, 400)).follows
    assert "training uses float32" in products_finding(machine(100, 120)).follows


def test_an_extra_says_what_it_opens_and_how_it_is_installed() -> None:
    music = Extra("music", ("a_module_that_nobody_has",), "scores: `afresh compose`")
    found = extra_finding(music)
    assert (found.name, found.value, found.fine) == ("extra music", "not installed", True)
    assert found.follows == "pip install 'afresh[music]' opens scores: afresh compose"
    assert extra_finding(Extra("all", ("json",), "all")).value == "installed"
    assert extra_finding(Extra("half", ("json", "a_module_that_nobody_has"), "")).value.startswith("lacks a_module")


@pytest.mark.parametrize(
    ("threads", "processors", "fine", "words"),
    [
        (2, 2, True, "all are used"),
        (4, 2, False, "make training slower"),
        (1, 8, False, "idle"),
        (8, 1.5, False, "slow"),
    ],
)
def test_threads_against_processors(threads: int, processors: float, fine: bool, words: str) -> None:
    found = threads_finding(threads, processors)
    assert found.fine is fine and words in found.follows


def test_too_little_is_marked() -> None:
    assert not memory_finding(1e9).fine and memory_finding(16e9).fine
    assert "400M" in memory_finding(16e9).follows
    assert memory_finding(None).fine


def test_the_compiler_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not compiler_finding(machine(1, 1, compiler=False)).fine
    monkeypatch.setattr(doctor, "compile_fault", lambda device: None)
    assert compiler_finding(machine(1, 1)).fine
    monkeypatch.setattr(doctor, "compile_fault", lambda device: "no Python.h")
    assert not compiler_finding(machine(1, 1)).fine and "no Python.h" in compiler_finding(machine(1, 1)).follows


def test_the_disk_is_that_of_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert str(tmp_path) in disk_finding(tmp_path / "a" / "b").value
