"""Practising over HTTP, by programs and on a page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import pytest

from afresh.domains.exercises.knowledge_filter import FILE
from afresh.domains.exercises.practise import history_from, practice_for
from afresh.faces.http.app import ServeSettings
from afresh.runs.run import Run
from tests.domains.exercises.learners import train_practice
from tests.faces.http.conftest import OWNER, serving


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_practice(tmp_path_factory.mktemp("practise") / "runs")


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[httpx.Client]:
    settings = ServeSettings([folder], memory=2**30, keys=OWNER, works=folder.parent / "works")
    for address in serving(settings):
        with httpx.Client(base_url=address, timeout=60) as client:
            yield client


def test_the_answer_is_that_of_the_command_line(web: httpx.Client, folder: Path) -> None:
    history = [{"item": "add-1", "correct": True}, {"item": "divide-2", "correct": False, "after": 4000}]
    answer = web.post("/afresh/v1/practise", json={"model": "practice", "history": history, "k": 2})
    run = Run.open(folder / "practice")
    expected = practice_for(run, history_from(run, history), k=2).json()
    assert answer.status_code == 200 and answer.json()["answers"] == 2
    assert [n["item"] for n in answer.json()["next"]] == [n["item"] for n in expected["next"]]
    assert [k["chance"] for k in answer.json()["known"]] == pytest.approx(
        [k["chance"] for k in expected["known"]], abs=1e-4
    )


@pytest.mark.parametrize(
    "body",
    [
        {"history": []},
        {"model": "practice", "success": 2},
        {"model": "practice", "colour": "blue"},
        {"model": "practice", "history": [{"item": "", "correct": True}]},
        {"model": "practice", "skill": "nothing"},
    ],
)
def test_wrong_requests_are_refused(web: httpx.Client, body: dict[str, object]) -> None:
    answer = web.post("/afresh/v1/practise", json=body)
    assert answer.status_code in (400, 404, 422) and answer.json()["error"]["message"]


def hidden(page: str, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None
    return unescape(found[1])


def test_the_first_visit_shows_at_once_what_it_waits_for(web: httpx.Client, folder: Path) -> None:
    kept = folder / "practice" / FILE
    kept.unlink(missing_ok=True)
    page = web.get("/studio/practise", params={"run": "practice"}).text
    assert "<progress" in page and "wait=True" in page and not kept.exists()
    assert (
        "What is known" in web.get("/studio/practise", params={"run": "practice", "wait": True}).text and kept.exists()
    )
    assert "What is known" in web.get("/studio/practise", params={"run": "practice"}).text


def test_a_person_practises_on_a_page(web: httpx.Client) -> None:
    assert "Practise" in web.get("/studio/run", params={"run": "practice"}).text
    page = web.get("/studio/practise", params={"run": "practice", "wait": True})
    assert page.status_code == 200 and "Why this next" in page.text and "What is known" in page.text
    form = {name: hidden(page.text, name) for name in ("run", "item")}
    after = web.post("/studio/practise", data={**form, "outcome": "right"}, headers={"origin": str(web.base_url)})
    assert after.status_code == 200 and f"{form['item']}: right" in after.text and "1 answer so far" in after.text
    again = web.get("/studio/practise", params={"run": "practice"})
    assert "1 answer so far" in again.text, "answers are kept when the page is loaded again"
    forgot = web.post("/studio/practise", data={"run": "practice", "outcome": "forget"}, follow_redirects=True)
    assert "0 answers so far" in forgot.text


def test_a_teacher_sees_who_is_stuck_and_practises_with_a_learner(web: httpx.Client) -> None:
    shown = web.get("/studio/practise/class", params={"run": "practice"})
    learners = re.findall(r"learner=(L\d+)", shown.text)
    assert shown.status_code == 200 and len(set(learners)) > 5 and "Of the next 10" in shown.text
    page = web.get("/studio/practise", params={"run": "practice", "learner": learners[0]}).text
    before = int(re.findall(r"(\d+) answers so far", page)[0])
    form = {"run": "practice", "learner": learners[0], "item": hidden(page, "item"), "outcome": "wrong"}
    assert f"{before + 1} answers so far" in web.post("/studio/practise", data=form).text
    assert "0 answers so far" in web.get("/studio/practise", params={"run": "practice"}).text
    missing = web.get("/studio/practise", params={"run": "practice", "learner": "nobody"})
    assert missing.status_code == 404 and "No learner nobody" in missing.text


def test_learners_are_shown_to_the_owner_alone(folder: Path, tmp_path: Path) -> None:
    server = serving(ServeSettings([folder], memory=2**30, works=tmp_path))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        for path in ("practise/class?run=practice", "practise?run=practice&learner=L1"):
            assert client.get(f"/studio/{path}").status_code == 403
    next(server, None)
