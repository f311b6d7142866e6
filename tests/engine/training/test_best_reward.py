"""Sampling uses the weights of the best evaluation by the held-out reward if the last ones have fallen, also if the run
was killed on the way; a reward that fails loses nothing of what was learnt."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from afresh.core import RewardError, UserError
from afresh.engine.training import checkpoint
from afresh.engine.training.best_checkpoint import CheckpointChoice, best_by_reward
from afresh.engine.training.looks import MonitorLook
from afresh.engine.training.weights import forget_chosen, read_weights
from afresh.faces.cli import run as command
from afresh.faces.cli.train import show
from afresh.runs.run import Run, metrics_rows
from afresh.verbs.align import AlignSpec, start
from afresh.verbs.report import chosen_weights, final_record, stopped
from afresh.verbs.resume import resume
from afresh.verbs.training_job import learn
from tests.named_settings import with_named

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat and the dog ran to the red barn where a hen had laid one egg\n"
# `many`: vowels. `few`: the opposite, so that the base is best. `some`: most at a third of vowels.
REWARDS = """
from pathlib import Path
def share(text):
    return sum(c in 'aeiou' for c in text) / max(1, len(text))
def many(text):
    return share(text)
def few(text):
    return 1 - share(text)
def some(text):
    return 1 - abs(share(text) - 0.45)
def failing(texts: list):
    flag = Path(__file__).with_name('left')
    left = int(flag.read_text()) if flag.exists() else 10**6
    if left == 0:
        raise RuntimeError('the judge went away')
    flag.write_text(str(left - 1))
    return [share(t) for t in texts]
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("highest")
    (root / "text.txt").write_text(TEXT * 60)
    (root / "r.py").write_text(REWARDS)
    argv = ["train", root / "text.txt", "--family", "transformer", "--steps", "60", "--out", root / "base"]
    argv += ["--no-measure", "--data", "context=32", "--set", "train.batch=16"]
    argv += [a for k in ("width=32", "layers=2", "heads=2", "kv_heads=2") for a in ("--set", f"family.{k}")]
    assert command([str(a) for a in argv]) == 0
    return root / "base"


def spec(base: Path, out: Path, heldout: str | None = "few", **more: Any) -> AlignSpec:
    reward = f"{base.parent / 'r.py'}:"
    train = {"batch": 16, "lr": 3e-3, "eval_every": 2, "save_every": 2}
    given: dict[str, Any] = {"reward": f"{reward}many", "steps": 40, "set_train": train, "set_align": {"beta": 0.0}}
    given |= {
        "heldout_reward": None if heldout is None else f"{reward}{heldout}",
        "settings": {"length": 12},
        "out": out,
    }
    return AlignSpec(base, **with_named({**given, **more}))


def begin(base: Path, out: Path, heldout: str | None = "few", **more: Any) -> Any:
    return start(spec(base, out, heldout, **more))


def seen(run: Run) -> dict[int, float]:
    return {int(row["step"]): row["heldout_reward"] for row in metrics_rows(run) if "heldout_reward" in row}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return dict(run.modules["decoder"].state_dict())


@pytest.fixture(scope="module")
def fallen(base: Path) -> Run:
    job = begin(base, base.parent / "fallen")
    learn(job)
    return Run.open(job.run.path)


def test_where_the_base_was_best_sampling_uses_it(base: Path, fallen: Run, capsys: pytest.CaptureFixture[str]) -> None:
    looks = seen(fallen)
    assert stopped(fallen) and max(looks) < 40 and max(looks, key=lambda s: looks[s]) == 0
    assert all(torch.equal(v, weights(Run.open(base))[k]) for k, v in weights(fallen).items())
    show(resume(fallen.path), 1.0, None)
    said = " ".join(capsys.readouterr().out.split())
    assert "held-out reward 0." in said and "similarity to the data 0." in said
    begun = re.search(r"nats from the reference (\S+) →", said)
    assert begun is not None and abs(float(begun[1])) < 0.01  # two ways of computing one model, in bfloat16
    record = json.loads((fallen.path / "averaged.json").read_text())
    assert record == {"metric": "heldout_reward", "step": 0, "value": looks[0], "last": looks[max(looks)]}
    (note,) = chosen_weights(fallen)
    assert "uses the weights of step 0, which are the base's" in note and f"{looks[0]:.4g}" in note
    assert final_record(fallen, 1.0, None)["sampling"] == record


def test_the_last_ones_can_be_taken_after_all(fallen: Run, tmp_path: Path) -> None:
    from afresh.verbs.verify import copy_run

    copied = copy_run(fallen, tmp_path / "copy")
    assert forget_chosen(copied.path)
    saved = checkpoint.newest(copied.path / "checkpoints")
    assert saved is not None
    last = weights(Run.open(copied.path))
    assert all(torch.equal(v, saved.tensors["model"][f"decoder.{k}"]) for k, v in last.items())
    assert chosen_weights(Run.open(copied.path)) == []


@pytest.fixture(scope="module")
def peaked(base: Path) -> Run:
    """Best on the way: the held-out reward wants some vowels, the reward all of them."""
    job = begin(base, base.parent / "peaked", "some")
    learn(job)
    return Run.open(job.run.path)


def test_the_best_on_the_way_is_kept_longer_than_its_checkpoint(peaked: Run) -> None:
    looks = seen(peaked)
    best = max(looks, key=lambda s: looks[s])
    assert 0 < best < max(looks) < 40
    assert f"{best:06d}" not in checkpoint.steps_in(peaked.path / "checkpoints")
    kept = read_weights(peaked.path, "highest")
    assert kept is not None and int(kept.pop("step")) == best
    assert all(torch.equal(kept[f"decoder.{k}"], v) for k, v in weights(peaked).items())


def test_killed_and_resumed_it_takes_the_same(base: Path, peaked: Run, tmp_path: Path) -> None:
    """Killed right after the best was kept and before it was saved: weights of a step that is yet to come again."""
    looks = seen(peaked)
    best = max(looks, key=lambda s: looks[s])
    job = begin(base, tmp_path / "killed", "some")
    save = checkpoint.save

    class Killed(Exception):
        pass

    def at_best(root: Path, made: checkpoint.Checkpoint, rotating: bool = True) -> Path:
        if made.step == best:
            raise Killed
        return save(root, made, rotating)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoint, "save", at_best)
        learn(job)
    kept = read_weights(tmp_path / "killed", "highest")
    assert kept is not None and int(kept["step"]) == best
    learn(resume(tmp_path / "killed"))
    other = Run.open(tmp_path / "killed")
    assert seen(other) == looks
    assert all(torch.equal(v, weights(other)[k]) for k, v in weights(peaked).items())
    for name in checkpoint.steps_in(peaked.path / "checkpoints"):
        one, two = (checkpoint.sums_of(r.path / "checkpoints" / name) for r in (peaked, other))
        assert one == two


def test_of_an_adapter_the_best_is_taken_too(base: Path, tmp_path: Path) -> None:
    train = {"batch": 16, "lr": 3e-2, "eval_every": 2, "save_every": 2}
    job = begin(base, tmp_path / "run", lora=True, rank=4, set_train=train)
    learn(job)
    run = Run.open(tmp_path / "run")
    assert json.loads((run.path / "averaged.json").read_text())["step"] == 0
    for k, v in weights(run).items():
        torch.testing.assert_close(v, weights(Run.open(base))[k])


def test_what_has_not_fallen_clearly_stays(tmp_path: Path) -> None:
    class Now:
        step = 4

        def __init__(self, *seen: MonitorLook) -> None:
            self.looks = {"heldout_reward": list(seen)}

    def replacement(*seen: MonitorLook) -> Any:
        now: Any = Now(*seen)
        return best_by_reward(tmp_path, now, ()).replacement(now)

    assert replacement() is None
    assert replacement(MonitorLook(0, 0.5, 0.1), MonitorLook(4, 0.3, 0.1)) is None  # 1.4 errors
    assert replacement(MonitorLook(0, 0.5, 0.1), MonitorLook(2, 0.1, 0.01)) is None  # no last evaluation
    nothing: Any = Now()
    best = best_by_reward(tmp_path, nothing, ()).best(
        [MonitorLook(0, 0.5, 0.1), MonitorLook(2, 0.5, 0.1), MonitorLook(4, 0.3, 0.1)]
    )
    assert best.step == 0  # of equals the nearest to the base
    assert "of step 2," in CheckpointChoice(metric="heldout_reward", step=2, value=0.9, last=0.5).described


# ------------------------------------------------------------------------------------------- rewards that fail


def test_a_reward_that_fails_on_the_way_loses_nothing(base: Path, tmp_path: Path) -> None:
    train = {"batch": 16, "lr": 3e-3, "eval_every": 100, "save_every": 100}
    failing = f"{base.parent / 'r.py'}:failing"
    ends = []
    for name, left in (("whole", 1000), ("failed", 6)):  # one look, five steps
        (base.parent / "left").write_text(str(left))
        job = begin(base, tmp_path / name, None, reward=failing, steps=8, set_train=train)
        if name == "failed":
            with pytest.raises(RewardError, match=r"went away.* The run is saved up to step 5.*afresh.resume.*failed"):
                learn(job)
            assert checkpoint.steps_in(tmp_path / name / "checkpoints")[-1] == "000005"
            (base.parent / "left").unlink()
            job = resume(tmp_path / name)
        learn(job)
        ends.append(checkpoint.sums_of(tmp_path / name / "checkpoints" / "000008"))
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("return float('nan')", "returned nan"),
        ("return 1 / 0", "ZeroDivisionError"),
        ("import time; time.sleep(60)", "not finish within 1 s"),
    ],
)
def test_a_reward_that_fails_at_once_leaves_everything_as_it_was(
    base: Path, tmp_path: Path, code: str, said: str
) -> None:
    (tmp_path / "bad.py").write_text(f"def bad(text: str):\n    {code}\n")
    out = tmp_path / "run"
    with pytest.raises(UserError, match=said):
        begin(base, out, None, reward=f"{tmp_path / 'bad.py'}:bad", reward_seconds=1.0)
    assert not out.exists()
    out.mkdir()
    (out / "run.json").write_text("old")
    with pytest.raises(UserError, match=said):
        begin(base, out, None, reward=f"{tmp_path / 'bad.py'}:bad", reward_seconds=1.0, force=True)
    assert (out / "run.json").read_text() == "old" and {p.name for p in tmp_path.iterdir()} - {"__pycache__"} == {
        "bad.py",
        "run",
    }


@pytest.mark.parametrize(
    ("votes", "method", "said"),
    [
        ('{"a": "aa", "b": "bb", "winner": "a"}\n', "grpo", "at least 20 decided votes"),
        ('{"a": "aa", "b": "bb", "winner": "tie"}\n', "dpo", "All votes are ties"),
        ('{"a": "aa", "b": "bb", "winner": "a", "label": "cat"}\n', "dpo", "trained without labels"),
    ],
)
def test_votes_that_cannot_be_used_leave_what_force_would_replace(
    base: Path, tmp_path: Path, votes: str, method: str, said: str
) -> None:
    (tmp_path / "votes.jsonl").write_text(votes)
    out = tmp_path / "run"
    out.mkdir()
    (out / "run.json").write_text("old")
    with pytest.raises(UserError, match=said):
        begin(
            base, out, None, reward=None, preferences=tmp_path / "votes.jsonl", method=method, set_align={}, force=True
        )
    assert (out / "run.json").read_text() == "old" and [p.name for p in out.iterdir()] == ["run.json"]


@pytest.mark.parametrize("verb", ["align", "tune", "distill"])
def test_the_base_is_not_replaced(base: Path, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    before = {p: p.read_bytes() for p in base.rglob("*") if p.is_file()}
    given: dict[str, list[Any]] = {"align": ["--reward", "length"], "tune": [base.parent / "text.txt"], "distill": []}
    assert command([str(a) for a in (verb, base, *given[verb], "--out", base, "--force", "--steps", 1)]) == 2
    assert "is an input of the new run" in " ".join(capsys.readouterr().err.split())
    assert {p: p.read_bytes() for p in base.rglob("*") if p.is_file()} == before
