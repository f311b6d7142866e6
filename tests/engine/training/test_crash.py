"""Training that is killed, interrupted or out of disk space at any point ends with the same result when resumed.

"As if nothing": every file of the last checkpoint (weights, averages, moments, state, counters) is equal byte for
byte to that of a run that was left in peace, and so is metrics.jsonl apart from its times.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from afresh.core import UserError
from afresh.engine.training import checkpoint
from afresh.engine.training.weights import read_weights
from afresh.runs.deletion import end_interrupted
from afresh.runs.manifest import STORED, manifest_faults
from afresh.runs.run import Run
from afresh.runs.signature import made_here
from tests.engine.training.killed import EARLY_ENDS, STEPS, Whole, Zygote
from tests.engine.training.zygote import EVERY, PERSON, TURN, can_fill

FAMILIES = ["transformer", "gan"]
# The files of both families are written by the same code: with the second, fewer points are tried.
KILLS = {"transformer": 20, "gan": 15}  # as many as there are in MUST, at least
INTERRUPTS = {"transformer": 8, "gan": 4}
FULL = {"transformer": 99, "gan": 8}  # at most
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork: Linux or macOS")]


@pytest.fixture(scope="module")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    zygote = Zygote(tmp_path_factory.mktemp("zygote"))
    yield zygote
    zygote.close()


@pytest.fixture(scope="module", params=FAMILIES)
def whole(request: pytest.FixtureRequest, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(zygote, tmp_path_factory.mktemp(request.param), request.param)


MUST = (  # a kill at one point of each kind, whatever the seed
    "step: before",
    "step: after",
    "make .0000",  # the folder aside
    "write model.safetensors: before",
    "write optimizer.safetensors: half",
    "write ema.safetensors: after",  # before it is synced
    "write state.json: half",
    "write SHA256SUMS: half",
    "rename to 0000",  # a folder under its name
    "rename to latest: before",
    "rename to latest: after",
    "remove 0000",  # rotation
    "unlink state.json",  # half of an old checkpoint
    "write metrics.jsonl: half",
    "rename to 000004.",  # a preview
)


def seeded_points(points: list[str], kills: int, seed: int) -> list[int]:
    """So many points: one of each kind in MUST, and others anywhere."""
    rng = random.Random(seed)
    chosen = [rng.choice([i for i, p in enumerate(points) if p.startswith(kind)]) for kind in MUST]
    others = rng.sample([i for i in range(len(points)) if i not in chosen], kills - len(chosen))
    return sorted({*chosen, *others})


def test_a_run_killed_at_any_point_ends_like_an_undisturbed_one(whole: Whole) -> None:
    kills = KILLS[whole.family]
    points = seeded_points(whole.points, kills, seed=20)
    assert len(points) == kills
    for at in points:
        run = whole.copy(f"kill{at}")
        assert whole.go_on(run, fault="kill", at=at) == -signal.SIGKILL, whole.points[at]
        passed = (run.parent / "trace").read_text().splitlines()
        assert passed == whole.points[: at + 1]  # and until then it did the same
        assert not manifest_faults(run), "a killed run looks as sound as it is"
        for name in STORED:
            read_weights(run, name)  # raises UserError if it does not match its hash
        saved = checkpoint.newest(run / "checkpoints")
        done = passed.count("step: after")
        if saved is None:
            assert done == 0
        else:
            assert done - saved.step <= EVERY["save_every"], whole.points[at]
        whole.check(run)
        shutil.rmtree(run.parent)


def test_checkpoints_that_are_written_while_training_goes_on_lose_one_more_at_most(
    zygote: Zygote, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The end is that of a run whose checkpoints are written at once, too."""
    at_once = Whole(zygote, tmp_path_factory.mktemp("once"), "transformer")
    whole = Whole(zygote, tmp_path_factory.mktemp("late"), "transformer", late=True)
    assert whole.end == at_once.end and whole.metrics == at_once.metrics and whole.points != at_once.points
    for at in sorted(random.Random(21).sample(range(len(whole.points)), 6)):
        run = whole.copy(f"kill{at}")
        assert whole.go_on(run, fault="kill", at=at) == -signal.SIGKILL, whole.points[at]
        assert not manifest_faults(run), "a killed run looks as sound as it is"
        for name in STORED:
            read_weights(run, name)
        saved = checkpoint.newest(run / "checkpoints")
        done = (run.parent / "trace").read_text().splitlines().count("step: after")
        assert done - (0 if saved is None else saved.step) <= 2 * EVERY["save_every"], whole.points[at]
        whole.check(run)
        shutil.rmtree(run.parent)
    for at in random.Random(6).sample(range(len(whole.points)), 2):
        run = whole.copy(f"int{at}")
        whole.go_on(run, fault="interrupt", at=at)
        done = (run.parent / "trace").read_text().splitlines().count("step: after")
        assert checkpoint.steps_in(run / "checkpoints")[-1] == f"{done:06d}"  # it waited until all was written
        whole.check(run)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("kind", "early"), EARLY_ENDS)
def test_a_run_that_ends_early_decides_so_at_the_same_step_after_a_kill(
    kind: str, early: str, late: bool, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Killed where an evaluation is noted that no checkpoint holds, at the decision, and after it."""
    whole = Whole(zygote, tmp_path_factory.mktemp(early), kind, early, late)
    assert TURN < int(whole.last) < STEPS
    noted = [i for i, point in enumerate(whole.points) if point == "write metrics.jsonl: after"]
    saved = max(i for i, point in enumerate(whole.points) if point == "rename to latest: after")
    for at in (noted[-2], noted[-1], saved, len(whole.points) - 1):
        run = whole.copy(f"kill{at}")
        assert whole.go_on(run, fault="kill", at=at) == -signal.SIGKILL, whole.points[at]
        whole.check(run)
        shutil.rmtree(run.parent)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["tuned", "distilled", "wrapped"])
def test_a_run_that_is_made_of_another_ends_the_same_after_a_kill(
    kind: str, zygote: Zygote, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if kind == "wrapped":
        pytest.importorskip("transformers", minversion="5.24")
    whole = Whole(zygote, tmp_path_factory.mktemp(kind), kind)
    for at in sorted(random.Random(5).sample(range(len(whole.points)), 2 if kind == "wrapped" else 4)):
        run = whole.copy(f"kill{at}")
        assert whole.go_on(run, fault="kill", at=at) == -signal.SIGKILL, whole.points[at]
        assert not manifest_faults(run), "a killed run looks as sound as it is"
        whole.check(run)
        shutil.rmtree(run.parent)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_run_killed_repeatedly_ends_like_an_undisturbed_one(whole: Whole, seed: int) -> None:
    rng, run = random.Random(seed), whole.copy(f"again{seed}")
    kills = 0
    while (code := whole.go_on(run, fault="kill", at=rng.randrange(5, 180))) != 0:
        assert code == -signal.SIGKILL, whole.zygote.output.read_text()
        kills += 1
        assert kills < 60
    assert kills >= 3
    whole.check(run)


def test_ctrl_c_saves_at_once_and_loses_nothing(whole: Whole) -> None:
    for at in random.Random(3).sample(range(len(whole.points)), INTERRUPTS[whole.family]):
        run = whole.copy(f"int{at}")
        code = whole.go_on(run, fault="interrupt", at=at)
        output = whole.zygote.output.read_text()
        saved = checkpoint.newest(run / "checkpoints")
        assert saved is not None
        done = (run.parent / "trace").read_text().splitlines().count("step: after")
        assert saved.step == done  # the step in hand was finished and saved
        if done == STEPS:
            assert code == 0, output
        else:
            assert code == 130 and output == f"Interrupted: saved at step {done} of {STEPS}"
        whole.check(run)
        shutil.rmtree(run.parent)


def test_no_space_at_any_point_is_reported_and_the_run_can_be_resumed(whole: Whole) -> None:
    struck = list(filter(can_fill, whole.points))
    kinds: dict[str, list[int]] = {}
    for i, name in enumerate(struck):
        kinds.setdefault(re.sub(r"\d{6}", "STEP", name), []).append(i)
    rng = random.Random(4)
    # Each file and each moment once, at any step. An existing folder is not created.
    once = ("make checkpoints: before", "make samples: before")
    points = [p[0] if k in once else rng.choice(p) for k, p in kinds.items()]
    for at in sorted(rng.sample(points, min(len(points), FULL[whole.family]))):
        run = whole.copy(f"full{at}")
        assert whole.go_on(run, fault="full", at=at) == 2, f"{struck[at]}: {whole.zygote.output.read_text()}"
        output = whole.zygote.output.read_text()
        assert output.startswith("UserError: Could not write") and "No space left" in output and "bytes; " in output
        whole.check(run)
        shutil.rmtree(run.parent)


def test_a_system_limit_on_file_sizes_is_reported_like_a_full_disk(whole: Whole) -> None:
    biggest = max(map(len, whole.end.values()))
    run = whole.copy("limit")
    assert whole.go_on(run, file_limit=biggest - 1) == 2, whole.zygote.output.read_text()
    output = whole.zygote.output.read_text()
    assert "Could not write the checkpoint of step 0" in output and "File too large" in output and "bytes; " in output
    whole.check(run)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_that_cannot_begin_leaves_its_folder_free(zygote: Zygote, family: str, tmp_path: Path) -> None:
    run, limits = tmp_path / "run", (40, 150, 300, 600, 1200)
    for limit in limits:
        code = zygote.order("begin", run, family=family, steps=STEPS, file_limit=limit)
        output = zygote.output.read_text()
        assert code == 2 and output.startswith("UserError: C") and "File too large" in output, output
        assert "bytes are free" in output or "bytes; " in output
    assert zygote.order("begin", run, family=family, steps=STEPS) == 0, zygote.output.read_text()


# ------------------------------------------------------------------------------------------------ before the first step


@pytest.mark.parametrize(
    ("kind", "every"), [("transformer", 1), ("tuned", 7), ("aligned", 7), ("distilled", 7), ("person", 5)]
)
def test_a_command_that_is_killed_while_it_makes_a_run_loses_nothing_and_blocks_nothing(
    kind: str, every: int, zygote: Zygote, tmp_path: Path
) -> None:
    """Until run.json is there, the command is repeated or what it left removed; from then on, the run is resumed."""
    run = tmp_path / "base" / "adapters" / "anna" if kind == PERSON else tmp_path / "run"
    order = {"family": kind, "steps": 3, "early": None}
    trace = zygote.output.with_name("trace")
    trace.unlink(missing_ok=True)
    assert zygote.order("begin", run, fault=None, **order) == 0, zygote.output.read_text()
    points, whole = trace.read_text().splitlines(), {p.relative_to(run) for p in run.rglob("*")}
    assert points[-2] == "rename to run.json: after" and len(whole) > 4
    shutil.rmtree(run)
    for at in range(0, len(points), every):
        assert zygote.order("begin", run, fault="kill", at=at, **order) == -signal.SIGKILL
        if (run / "run.json").exists():
            assert made_here(Run.open(run)) and manifest_faults(run) == [] and at >= len(points) - 2
        else:
            with pytest.raises(UserError, match=r"not finished\. If it was killed, give its command again, or rem"):
                Run.open(run)
            if at % 2:
                assert end_interrupted(run) and not run.exists()
            assert zygote.order("begin", run, **order) == 0, zygote.output.read_text()
        assert {p.relative_to(run) for p in run.rglob("*")} | {Path(".lock")} == whole
        if at < len(points) - every:
            shutil.rmtree(run)
    assert zygote.order("go on", run) == 0, zygote.output.read_text()
