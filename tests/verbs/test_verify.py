"""A sound run of every kind passes `verify`: each family, runs that were made of others, and each method of alignment,
while training has steps left, and after it was resumed and ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tools.fuzz.runs import COMMON, MADE, RUNS, TRAINED, make_runs

from afresh.core import registry
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from afresh.verbs.resume import resume
from afresh.verbs.training_job import learn
from afresh.verbs.verify import verify

pytestmark = pytest.mark.slow
OTHER_METHODS = sorted(registry.aligners().keys() - MADE.keys())


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    make_runs(root, ["transformer"])
    votes = [{"a": "the cat sat", "b": "mat on and", "winner": "a"}, {"a": "on on", "b": "a cat", "winner": "b"}]
    (root / "votes.jsonl").write_text("".join(json.dumps(v) + "\n" for v in votes))
    return root


def check_sound(path: Path) -> None:
    found = verify(Run.open(path))
    assert all(c.passed is not False for c in found), found
    done = {c.name for c in found if c.passed}
    assert done >= {"record", "hashes", "data", "weights", "samples"}
    assert ("resume" in done) is (Run.open(path).record.align is None)


def test_every_family_is_among_the_runs() -> None:
    assert {*registry.FAMILIES} <= {*TRAINED}


@pytest.mark.parametrize("kind", RUNS)
def test_a_sound_run_passes_before_and_after_it_is_resumed(kind: str, root: Path) -> None:
    make_runs(root, [kind])
    check_sound(root / kind)
    learn(resume(root / kind, trust=True))
    check_sound(root / kind)


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_a_run_of_any_other_method_passes(method: str, root: Path, tmp_path: Path) -> None:
    votes = registry.aligners()[method].feeds == "preferences"
    wanted = ("--preferences", str(root / "votes.jsonl"), "--set", "anyway=yes") if votes else ("--reward", "length")
    argv = ("align", str(root / "transformer"), "--method", method, *wanted, "--length", "4")
    assert command([*argv, *COMMON, str(tmp_path / "run")]) == 0
    check_sound(tmp_path / "run")
