"""Searches: the best item of a small world is found, the budget of calls is kept, nothing is asked twice, and a search
that was killed goes on to the same end."""

from __future__ import annotations

import ast
import csv
import json
import random
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from afresh.core import UserError
from afresh.core.rng import Rng
from afresh.data.text.kind import TEXT
from afresh.engine.alignment.methods.search import SearchBatches, SearchConfig
from afresh.engine.alignment.reward_cache import ASKED, AskedMemory, area
from afresh.engine.alignment.search_space import rows_of
from afresh.engine.alignment.surrogate.screening import screening_of
from afresh.faces.cli import run as command
from afresh.runs.run import Run
from afresh.verbs.align import AlignSpec, start
from tests.warm import Warm

LETTERS, LENGTH = "abcd", 5  # 1,024 words
TARGET = "dbacd"
REWARD = f"""
from pathlib import Path

def alike(texts: list[str]) -> list[float]:
    with Path(__file__).with_name("calls.txt").open("a") as calls:
        calls.writelines(repr(t) + "\\n" for t in texts)
    return [sum(a == b for a, b in zip(t, {TARGET!r})) / {LENGTH} for t in texts]
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on random letters without line breaks, whose samples of five tokens are words."""
    root, rng = tmp_path_factory.mktemp("search"), random.Random(0)
    (root / "letters.txt").write_text("".join(rng.choice(LETTERS) for _ in range(4_000)))
    argv = ["train", root / "letters.txt", "--family", "transformer", "--steps", "30", "--out", root / "run"]
    argv += ["--data", "context=8", "--no-measure", "--set", "train.batch=16", "--set", "train.precision=float32"]
    for setting in ("width=16", "layers=1", "heads=1", "kv_heads=1"):
        argv += ["--set", f"family.{setting}"]
    assert command([str(a) for a in argv]) == 0
    return root / "run"


def searched(run: Path, folder: Path, *more: str) -> list[str]:
    """The words of a command that searches, whose reward notes what it is asked in calls.txt."""
    folder.mkdir(exist_ok=True)
    (folder / "reward.py").write_text(REWARD)
    argv = ["align", str(run), "--reward", f"{folder / 'reward.py'}:alike", "--length", str(LENGTH), "--no-measure"]
    return [*argv, "--calls", "150", "--steps", "20", "--set", "train.batch=16", "--out", str(folder / "out"), *more]


def calls(folder: Path) -> list[str]:
    return [ast.literal_eval(line) for line in (folder / "calls.txt").read_text().splitlines()]


def test_the_best_word_is_found_within_the_budget_and_nothing_is_asked_twice(words: Path, tmp_path: Path) -> None:
    assert command(searched(words, tmp_path)) == 0
    asked = calls(tmp_path)
    assert len(asked) == 150 and max(Counter(asked).values()) == 1
    noted = [json.loads(line) for line in (tmp_path / "out" / ASKED).read_text().splitlines()]
    assert [row["item"] for row in noted] == asked
    with (tmp_path / "out" / "best" / "best.csv").open() as file:
        best = list(csv.DictReader(file))
    assert best[0]["text"] == TARGET and float(best[0]["reward"]) == 1 and len(best) == 100
    assert [float(b["reward"]) for b in best] == sorted((float(b["reward"]) for b in best), reverse=True)


def test_a_killed_search_goes_on_to_the_same_end_and_asks_nothing_again(
    words: Path, tmp_path: Path, warm: Warm
) -> None:
    """It is killed between the answers and the step that learns from them."""
    assert command(searched(words, tmp_path / "whole")) == 0
    kill = (
        "import os, signal, sys\nfrom afresh.engine.alignment.reward_cache import AskedMemory\n"
        "from afresh.faces.cli import run\nwrite = AskedMemory.write\n"
        "def strike(self, answers):\n"
        "    write(self, answers)\n"
        "    if len(self.paid) > 70:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "AskedMemory.write = strike\nrun(sys.argv[1:])\n"
    )
    argv = searched(words, tmp_path / "killed")
    assert warm.start("-c", kill, *argv, stdout=DEVNULL, stderr=DEVNULL).wait() == -signal.SIGKILL
    assert command(["train", "--resume", str(tmp_path / "killed" / "out"), "--no-measure"]) == 0
    assert calls(tmp_path / "killed") == calls(tmp_path / "whole")
    ends = []
    for name in ("whole", "killed"):
        (last,) = sorted((tmp_path / name / "out" / "checkpoints").iterdir())[-1:]
        ends.append({p.name: p.read_bytes() for p in last.iterdir()})
    assert ends[0] == ends[1]


def test_what_an_earlier_search_asked_is_known_and_not_asked_again(words: Path, tmp_path: Path) -> None:
    assert command(searched(words, tmp_path)) == 0
    first = calls(tmp_path)
    argv = searched(words, tmp_path, "--set", f"known={tmp_path / 'out'}")
    argv[argv.index("--out") + 1] = str(tmp_path / "again")
    argv[argv.index("--calls") + 1] = "40"
    assert command(argv) == 0
    asked = calls(tmp_path)[len(first) :]
    assert 30 < len(asked) <= 40 and not {*asked} & {*first}
    noted = [json.loads(line) for line in (tmp_path / "again" / ASKED).read_text().splitlines()]
    assert [r["step"] for r in noted[:150]] == [-1] * 150 and len(noted) == 150 + len(asked)
    with pytest.raises(UserError, match=r"asked another reward .*alike"):
        start(AlignSpec(words, reward="length:min=5", calls=40, known=tmp_path / "out"))
    with pytest.raises(UserError, match=r"did not search within a budget"):
        start(AlignSpec(words, reward="length:min=5", calls=40, known=words))


def test_a_limit_of_alike_items_is_kept_in_what_is_learnt(words: Path, tmp_path: Path) -> None:
    more = ("--set", "align.most=3", "--set", "align.alike=0.8", "--set", "align.sampled=0.5")
    assert command(searched(words, tmp_path, *more)) == 0
    assert len(calls(tmp_path)) == 150


def test_what_a_search_cannot_do_is_said(words: Path) -> None:
    with pytest.raises(UserError, match=r"grpo has no budget of calls.*search"):
        start(AlignSpec(words, method="grpo", reward="length:min=5", calls=100))
    with pytest.raises(UserError, match=r"give `calls` instead of `minutes`"):
        start(AlignSpec(words, method="search", reward="length:min=5", minutes=1))
    with pytest.raises(UserError, match=r"looks for whole items"):
        start(AlignSpec(words, reward="length:min=5", calls=100, prompts=("ab",)))


# ------------------------------------------------------------------------------------------------------- generations


class Matches:
    """A model of answers that knows the reward: the letters of TARGET four times that a word has at their places."""

    def learn(self, items: Sequence[str], rewards: Sequence[float], seed: int) -> None:
        pass

    def bounds(self, items: Sequence[str], optimism: float) -> np.ndarray:
        return np.array([sum(a == b for a, b in zip(i, TARGET * 4, strict=True)) for i in items], dtype=np.float64)


def bred(generations: int, tmp_path: Path) -> tuple[float, int]:
    """The mean reward of ten words that are picked of 60 proposals, and how many words were asked before."""
    rng = random.Random(0)
    words = ["".join(rng.choice(LETTERS) for _ in range(4 * LENGTH)) for _ in range(80)]
    asked = list[str]()

    def crossed(pairs: Sequence[tuple[str, str]], seed: int) -> list[str]:
        at = random.Random(seed)
        return [a[:i] + b[i:] for a, b in pairs for i in [at.randrange(1, len(a))]]

    def reward(items: list[str]) -> list[float]:
        asked.extend(items)
        return Matches().bounds(items, 0).tolist()

    space = SimpleNamespace(
        kind=TEXT,
        valid=lambda item: True,
        offspring=crossed,
        memory=lambda calls: AskedMemory(TEXT, reward, calls, tmp_path / f"{generations}.jsonl"),
    )
    context = SimpleNamespace(search=space, reward=reward, rng=Rng(0))
    batches = SearchBatches(SearchConfig(calls=40, generations=generations), context)  # type: ignore[arg-type]
    batches.screening = Matches()  # type: ignore[assignment]
    batches.memory.begin(0)
    batches.memory.ask(words[:20], 0)
    return float(Matches().bounds(batches.promising(words[20:], 10, 1), 0).mean()), len(asked)


def test_generations_of_proposals_raise_what_is_asked_without_asking(tmp_path: Path) -> None:
    means, asked = zip(*(bred(generations, tmp_path) for generations in (1, 2, 4, 16)), strict=True)
    assert asked == (20,) * 4
    assert means[0] < means[1] < means[2] < means[3]


def test_a_model_of_answers_does_not_depend_on_when_it_learnt_before() -> None:
    """A search that is resumed begins with all answers at once."""
    rng = random.Random(0)
    words = ["".join(rng.choice(LETTERS) for _ in range(4 * LENGTH)) for _ in range(80)]
    rewards = Matches().bounds(words, 0) + np.random.default_rng(0).normal(size=80)
    often, once = screening_of(TEXT), screening_of(TEXT)
    assert often is not None and once is not None
    for count in (20, 30, 47, 60):
        often.learn(words[:count], rewards[:count].tolist(), 0)
    once.learn(words[:60], rewards[:60].tolist(), 0)
    np.testing.assert_array_equal(often.bounds(words[60:], 0.3), once.bounds(words[60:], 0.3))


# ------------------------------------------------------------------------------------------------------------ memory


def test_a_memory_asks_each_item_once_up_to_its_budget_and_knows_only_earlier_steps(tmp_path: Path) -> None:
    asked: list[str] = []

    def score(items: list[str]) -> list[float]:
        asked.extend(items)
        return [float(len(i)) for i in items]

    memory = AskedMemory(TEXT, score, 4, tmp_path / ASKED)  # type: ignore[arg-type]
    memory.ask(["a", "bb", "a"], 0)
    memory.ask(["bb", "ccc"], 1)
    memory.ask(["dddd", "eeeee"], 2)
    assert asked == ["a", "bb", "ccc", "dddd"] and memory.left == 0
    assert memory.best(2)[0].item == "dddd" and memory.summary()["top1"] == 4
    again = AskedMemory(TEXT, score, 4, tmp_path / ASKED)  # type: ignore[arg-type]
    again.begin(1)
    assert again.items == ["a", "bb"] and again.left == 2
    again.ask(["ccc", "dddd"], 1)
    assert asked == ["a", "bb", "ccc", "dddd"] and again.rewards == [1, 2, 3, 4]


def test_a_line_that_a_crash_cut_short_is_removed_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    memory = AskedMemory(TEXT, lambda items: [1.0] * len(items), 9, tmp_path / ASKED)
    memory.ask(["a", "b"], 0)
    whole = memory.file.read_bytes()
    memory.file.write_bytes(whole + b'{"step": 1, "rew')
    assert len(AskedMemory(TEXT, len, 9, memory.file).paid) == 2  # type: ignore[arg-type]
    assert memory.file.read_bytes() == whole
    memory.file.write_bytes(whole + b'{"step": 1}\n')
    with pytest.raises(UserError, match=r"line 3: not an item with its reward"):
        AskedMemory(TEXT, len, 9, memory.file)  # type: ignore[arg-type]


def test_the_area_under_the_best_is_that_of_pmo() -> None:
    assert area([1.0] * 200, 10, 200) == pytest.approx((50 + 100) / 200)  # it rises from 0 over the first 100 calls
    assert area([1.0] * 100, 10, 400) == pytest.approx((50 + 300) / 400)  # and stays where it ended
    assert area([], 10, 100) == 0


def test_items_that_do_not_fit_in_the_context_have_no_rows(words: Path) -> None:
    batch, kept = rows_of(Run.open(words), ["ab" * 5_000], None, 0)
    assert kept == [] and batch.x.dtype == torch.int64 and len(batch.x) == 0
