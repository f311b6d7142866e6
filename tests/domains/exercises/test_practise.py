"""What a learner knows, and which exercise is next."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import afresh
from afresh.core import UserError
from afresh.core.verb import Table
from afresh.domains.exercises import knowledge_filter
from afresh.domains.exercises.history import AnswerHistory
from afresh.domains.exercises.practise import (
    Tracer,
    choose,
    class_view,
    history_from,
    history_in,
    history_of,
    interval,
    knowledge,
    learners_of,
    practice_for,
    right_of_ten,
    trust_in,
)
from afresh.faces.cli import run as command
from afresh.runs.data import run_data
from afresh.runs.run import Run
from afresh.verbs.use_command import use_command
from tests.domains.exercises.learners import train_practice
from tests.faces.cli.conftest import lines_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run.open(train_practice(tmp_path_factory.mktemp("practise") / "runs", steps=30) / "practice")


def test_what_is_next_is_practice_of_a_learner_of_the_data(run: Run) -> None:
    said = use_command(run)
    assert said.startswith(f"afresh practise {run.path} --learner L") and history_of(run, said.split()[-1]).answers


def test_chances_are_the_softmax_of_the_two_outcomes_after_the_whole_history(run: Run) -> None:
    tracer, history = Tracer(run), history_of(run, "L3")
    assert tracer.teaching is not None
    tracer.teaching.weights = torch.tensor([1.0, 0.0, 0.0])  # the network alone, as it is
    encoder = tracer.encoder
    found = tracer.of_items([history], [0, 4], gap=1)[0]
    net: Any = run.modules["decoder"]
    for i, chance in zip((0, 4), found, strict=True):
        ids = [*encoder.tokens(history.answers), *tracer.question(i, 1)]
        logits = net(torch.tensor([ids]), None)[0, -1]
        wrong = tracer.wrong([i])[0]
        expected = float(logits[wrong : wrong + 2].softmax(0)[1])
        assert chance == pytest.approx(expected, abs=0.01)  # training and this may differ in precision


def test_histories_of_all_lengths_together_are_as_each_alone(run: Run) -> None:
    tracer = Tracer(run)
    histories = [AnswerHistory(()), history_of(run, "L1"), AnswerHistory(history_of(run, "L2").answers * 4)]
    both = tracer.of_items(histories, [0, 1, 2], gap=0)
    for row, history in zip(both, histories, strict=True):
        np.testing.assert_allclose(row, tracer.of_items([history], [0, 1, 2], gap=0)[0], atol=1e-5)


def test_what_is_known_has_an_interval_around_its_chance(run: Run) -> None:
    (found,) = knowledge(Tracer(run), [history_of(run, "L3")], gap=0)
    assert [k.skill for k in found] == ["add", "divide"] and sum(k.answers for k in found) == 12
    assert all(0 <= k.low <= k.chance <= k.high <= 1 for k in found)
    for k in found:  # what a teacher sees of ten exercises varies at least by luck
        least, most = k.of_ten
        assert 0 <= least <= 10 * k.chance <= most <= 10
        luck = right_of_ten(k.chance, 0.0)
        assert least <= luck[0] and luck[1] <= most


def test_the_doubt_is_whether_a_skill_is_known(run: Run) -> None:
    tracer, history = Tracer(run), history_of(run, "L3")
    assert tracer.teaching is not None
    tracer.teaching.weights = torch.tensor([0.0, 1.0, 0.0])  # the filter alone
    known, right, wrong = (x[0, 0] for x in tracer.teaching.states([history], [0], 1))
    (found,) = tracer.teaching.doubt(np.array([[0.5]]), [history], [0], 1)[0]
    mean = known * right + (1 - known) * wrong
    assert found == pytest.approx(known * (right - mean) ** 2 + (1 - known) * (wrong - mean) ** 2, rel=1e-4)
    assert found > 0


def test_of_ten_is_a_predictive_interval() -> None:
    assert right_of_ten(0.5, 1 / 12) == (0, 10)  # a uniform chance: every number is as likely
    assert right_of_ten(0.95, 0.0) == (8, 10) and right_of_ten(1.0, 0.1) == (10, 10)


def test_the_interval_is_that_of_a_beta_distribution() -> None:
    low, high = interval(0.5, 1 / 12)  # of the uniform distribution
    assert (low, high) == (pytest.approx(0.025), pytest.approx(0.975))
    assert interval(0.3, 0.0) == (0.3, 0.3) and interval(1.0, 0.1) == (1.0, 1.0)


def test_the_next_exercise_is_the_nearest_to_the_wanted_success(run: Run) -> None:
    tracer, history = Tracer(run), history_of(run, "L3")
    items = list(range(len(tracer.encoder.items)))
    recent = {a.item for a in history.answers[-3:]}
    chances = tracer.of_items([history], items, gap=1)[0]
    fresh = [i for i in items if tracer.encoder.items[i] not in recent]
    best = min(fresh, key=lambda i: abs(chances[i] - 0.6))
    assert choose(tracer, [history], "success", 0.6, gap=1).tolist() == [best]
    assert practice_for(run, history, policy="success", success=0.6).next[0].item == tracer.encoder.items[best]


def test_what_is_known_later_orders_the_exercises_and_a_skill_can_be_asked_for(run: Run) -> None:
    tracer, history = Tracer(run), history_of(run, "L3")
    found = practice_for(run, history, k=2)
    assert tracer.teaching is not None
    gain, later = (x[0] for x in tracer.teaching.gains([history], [0, 1], tracer.gap(60.0)))
    assert [n.skill for n in found.next] == [tracer.groups[i][0] for i in np.argsort(-later)]
    assert {n.skill: n.gain for n in found.next} == {"add": gain[0], "divide": gain[1]}
    added = [n.later for n in found.next]
    assert added == sorted(added, reverse=True) and all(a is not None and a > 0 for a in added)
    assert added[0] == pytest.approx(later.max() - tracer.teaching.known([history], tracer.gap(60.0))[0])
    assert [f"({a:+.2%})" in n.why for n, a in zip(found.next, added, strict=True)] == [True, True]
    assert "are expected to add most" in found.next[0].why and "most" not in found.next[1].why
    tables = [line for line in found.lines() if isinstance(line, Table)]
    assert tables[0].columns[2] == "of the next 10" and tables[1].columns[3] == "in 6 answers"
    assert [row[3] for row in tables[1].rows] == [f"{a:+.2%}" for a in added]
    assert [n.skill for n in practice_for(run, AnswerHistory(()), skill="divide").next] == ["divide"]
    with pytest.raises(UserError, match="No skill 'subtract'"):
        practice_for(run, AnswerHistory(()), skill="subtract")


def test_histories_in_words_and_tables(run: Run, tmp_path: Path) -> None:
    history = history_in(run, "add-1:right, divide-0:wrong, new:1")
    assert [(a.item, a.correct, a.skill) for a in history.answers] == [
        ("add-1", True, "add"), ("divide-0", False, "divide"), ("new", True, "")
    ]  # fmt: skip
    assert "1 of 3 answers are to exercises" in practice_for(run, history).notes[0]
    table = tmp_path / "a.csv"
    table.write_text("student,exercise,correct\n1,add-1,1\n1,add-2,0\n")
    assert [a.item for a in history_in(run, str(table)).answers] == ["add-1", "add-2"]
    for wrong, message in (("add-1:perhaps", "is not an answer"), (":right", "is not an answer")):
        with pytest.raises(UserError, match=message):
            history_in(run, wrong)
    with pytest.raises(UserError, match="No learner 'L99'"):
        history_of(run, "L99")


def test_longer_histories_than_the_window_are_cut_and_said(run: Run) -> None:
    history = history_from(run, [("add-1", True)] * 50)
    assert "only the last 18 of 50 answers" in practice_for(run, history).notes[0]


def test_on_the_command_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    def invoke(*argv: object) -> tuple[int, str, str]:
        code = command(list(map(str, argv)))
        return code, *capsys.readouterr()

    code, out, err = invoke("practise", run.path, "--learner", "L3", "-k", "1")
    assert (
        code == 0
        and "add" in out
        and "are expected to add" in " ".join(out.split())
        and "from 12 answers: learner L3" in err
    )
    code, out, _ = invoke("practise", run.path, "--history", "add-1:right", "--set", "policy=success", "--json")
    result = lines_of(out)[-1]
    assert code == 0 and result["answers"] == 1 and len(result["known"]) == 2 and len(result["next"]) == 2
    code, _, err = invoke("practise", run.path, "--learner", "L3", "--history", "add-1:right")
    assert code == 2 and "--learner or --history" in err


def test_a_class_is_seen_at_once(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Each learner as alone, those first of whom it is surest that they are stuck; and the chances with their error."""
    seen = class_view(run)
    told = seen.json()
    assert json.dumps(told) and {row["learner"] for row in told["learners"]} == set(learners_of(run))
    tracer = Tracer(run)
    for learner, answers, known in seen.learners[:3]:
        (alone,) = knowledge(tracer, [history_of(run, learner)], tracer.gap(60))
        assert answers == len(history_of(run, learner)) and {k.skill for k in known} == {k.skill for k in alone}
        chances = {k.skill: k.chance for k in alone}
        assert all(k.chance == pytest.approx(chances[k.skill], abs=1e-4) for k in known)
    sure = [known[0].below_half if known[0].stuck else -1.0 for _, _, known in seen.learners]
    assert [s for s in sure if s >= 0] == sorted((s for s in sure if s >= 0), reverse=True)
    first_free = sure.index(-1.0) if -1.0 in sure else len(sure)
    assert all(s == -1.0 for s in sure[first_free:])
    stuck = {(row["learner"], skill) for row in told["learners"] for skill in row["stuck"]}
    assert stuck == {(who, row["skill"]) for row in told["skills"] for who in row["stuck"]}
    assert command(["practise", str(run.path), "--learner", "all"]) == 0
    out, err = capsys.readouterr()
    assert all(name in out for name in learners_of(run)) and "stuck" in err
    assert command(["practise", str(run.path), "--learner", "nobody"]) != 0
    assert "--learner all lists them" in capsys.readouterr().err


def test_chances_are_shown_with_their_error_and_fewer_exercises_with_the_reason(run: Run) -> None:
    practice = practice_for(run, history_of(run, "L3"), k=6)
    assert len(practice.next) == 2 and any("2 of 6 exercises named" in n for n in practice.notes)
    assert any("on average" in n or "too sure" in n for n in practice.notes) and practice.trust
    tracer = Tracer(run)
    assert tracer.teaching is not None
    tracer.teaching.checked = (60.0, 0.3, 1.2)  # worse than to foresee nothing
    assert trust_in(tracer)[0] == " (too sure)" and "far too sure" in trust_in(tracer)[1]
    tracer.teaching.checked = ()
    assert "not measured" in trust_in(tracer)[1] or "off on average" in trust_in(tracer)[1]


def test_chances_that_are_too_sure_are_moved_towards_even_ones(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of few held-out answers: by the weight of the network's log-odds. Those that are right as they are stay."""
    tracer, held = Tracer(run), run_data(run).heldout_items[:3]
    assert tracer.teaching is not None
    right = np.concatenate([[a.correct for a in i.value.answers] for i in held])
    assert 20 <= len(right) < 200
    for sure, low, high in ((0.999, 0.1, 0.5), (0.75, 0.7, 1.0)):
        says_right = right ^ (np.arange(len(right)) % 4 == 0)  # three of four are as foreseen
        monkeypatch.setattr(knowledge_filter, "foreseen", lambda *_, p=sure, up=says_right: np.where(up, p, 1 - p))
        weights, checked = knowledge_filter.weights_of(run, tracer.teaching, held)
        assert low <= float(weights[0]) <= high and weights[1:].tolist() == [0, 0]
        assert checked[0] == len(right) and checked[1] < 0.15


def test_other_runs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A cat sat on a mat. " * 50)
    model = afresh.train(tmp_path / "a.txt", steps=2, out=tmp_path / "run", data={"context": 32}, quiet=True)
    with pytest.raises(UserError, match="has not learnt how exercises are answered"):
        practice_for(Run.open(model.path), AnswerHistory(()))


def test_what_is_measured(run: Run) -> None:
    from afresh.verbs.measuring import measure_run

    found = measure_run(run, n=2)
    scores = {s.name: s for s in found.scores}
    assert 0 <= scores["answers_auc"].value <= 1 and scores["answers_auc"].control is not None
    assert {"answers_auc/bkt", "answers_auc/pfa", "answers_log_loss", "answers_calibration_error"} <= set(scores)
    assert scores["bits_per_token"].value < 4
    assert json.dumps(found.json())


def test_nothing_is_kept_of_a_tracer_that_is_not_used_any_more(run: Run) -> None:
    """A server makes one for each request; it holds the weights of its run."""
    tracer = Tracer(run)
    assert tracer.cond(2) is tracer.cond(2) and tracer.cond(3) is not tracer.cond(2)
    kept = weakref.ref(tracer)
    del tracer
    gc.collect()
    assert kept() is None
