"""What practice teaches, beside a run."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from afresh.core import UserError
from afresh.domains.exercises import knowledge_filter
from afresh.domains.exercises.history import AnswerHistory
from afresh.domains.exercises.knowledge.learning import fit
from afresh.domains.exercises.knowledge_filter import FILE, foreseen, pooled, teaching_of
from afresh.domains.exercises.practise import Tracer, history_of, practice_for
from afresh.runs.data import run_data
from afresh.runs.remove import remove_run
from afresh.runs.run import Run
from tests.domains.exercises.learners import train_practice


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_practice(tmp_path_factory.mktemp("teaching") / "runs", steps=10) / "practice"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(knowledge_filter, "fit", partial(fit, steps=5))


def test_it_is_fitted_once_and_kept_beside_the_run(folder: Path) -> None:
    run = Run.open(folder)
    first = teaching_of(run)
    assert first is not None and (folder / FILE).is_file()
    second = teaching_of(Run.open(folder))
    assert second is not None
    histories = [history_of(run, "L3"), AnswerHistory(())]
    for a, b in zip(first.gains(histories, [0, 1], 1), second.gains(histories, [0, 1], 1), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [n.skill for n in practice_for(run, histories[0], k=2).next] in (["add", "divide"], ["divide", "add"])


def test_it_is_removed_with_its_run(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert teaching_of(Run.open(copy)) is not None and (copy / FILE).is_file()
    assert remove_run(Run.open(copy)) == [] and not copy.exists()


def test_histories_that_go_on_are_as_whole_ones(folder: Path) -> None:
    run = Run.open(folder)
    one, two = teaching_of(run), teaching_of(run)
    assert one is not None and two is not None
    whole = [history_of(run, "L3"), history_of(run, "L5")]
    for n in (0, 4, 4, 12, 7):
        histories = [AnswerHistory(h.answers[:n]) for h in whole]
        two.last = [], None
        for a, b in zip(one.gains(histories, [0, 1], 3), two.gains(histories, [0, 1], 3), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4)


def test_a_file_of_another_run_is_refused(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / FILE).parent.mkdir(exist_ok=True)
    (copy / FILE).write_bytes(b"nothing")
    with pytest.raises(UserError, match="not a valid safetensors file"):
        teaching_of(Run.open(copy))


def test_without_the_data_the_network_alone_tells(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    shutil.rmtree((copy / FILE).parent, ignore_errors=True)
    record = (copy / "run.json").read_text()
    (copy / "run.json").write_text(record.replace("runs-answers.csv", "gone.csv"))
    run = Run.open(copy)
    assert teaching_of(run) is None
    assert practice_for(run, AnswerHistory(())).next[0].gain is not None


def test_the_network_foresees_what_it_says_before_each_answer(folder: Path) -> None:
    run = Run.open(folder)
    item = run_data(run).heldout_items[0]
    found = foreseen(run, [item])
    assert found is not None and len(found) == len(item.value)
    encoder, answers = Tracer(run).encoder, item.value.answers
    ids = encoder.tokens(answers[:6])
    net: Any = run.modules["decoder"]
    p = float(net(torch.tensor([ids[:-1]]), None)[0, -1].softmax(0)[ids[-1]])
    assert found[5] == pytest.approx(p if answers[5].correct else 1 - p, abs=0.02)  # both may differ in precision


def test_two_chances_as_one() -> None:
    p, q = np.array([0.2, 0.5, 1.0]), np.array([0.2, 0.9, 0.5])
    np.testing.assert_allclose(pooled(p, q, torch.tensor([1.0, 0.0, 0.0])), p, atol=1e-5)
    np.testing.assert_allclose(pooled(p, p, torch.tensor([0.5, 0.5, 0.0])), p, atol=1e-5)
    assert pooled(p, q, torch.tensor([0.0, 1.0, 0.0]))[1] == pytest.approx(0.9)
