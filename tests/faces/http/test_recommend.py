"""Recommendations over HTTP: those of Python, for histories that are sent, and errors that teach."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape, unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

import afresh
from afresh.faces.http.app import ServeSettings
from tests.faces.http.conftest import serving


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shops")
    events = [f"u{u},i{(u + e) % 9},{1_700_000_000 + 1000 * e + u}" for u in range(40) for e in range(6)]
    (folder / "log").mkdir()
    (folder / "log" / "log.csv").write_text("\n".join(["user,item,time", *events, ""]))
    rows = [f"i{i},Thing <{i}>,{('red', 'blue')[i % 2]}" for i in range(9)]
    (folder / "log" / "items.csv").write_text("\n".join(["item,title,colour", *rows, ""]))
    settings = {f"family.{k}": v for k, v in {"width": 16, "layers": 1, "heads": 1, "kv_heads": 1}.items()}
    afresh.train(folder / "log", steps=30, out=folder / "runs" / "shop", settings=settings)
    return folder / "runs"


@pytest.fixture(scope="module")
def address(shop: Path) -> Iterator[str]:
    yield from serving(ServeSettings([shop], memory=2**30))


def ask(address: str, **form: Any) -> httpx.Response:
    return httpx.post(f"{address}/afresh/v1/recommend", json={"model": "shop", **form}, timeout=60)


def test_lists_are_those_of_python(shop: Path, address: str) -> None:
    model = afresh.load(shop / "shop")
    histories = [["i1", "i2"], [], ["i5"]]
    own = model.recommend(histories=histories, k=4, because=1)
    made = ask(address, histories=histories, k=4, because=1).json()["lists"]
    made = [row["items"] for row in made]
    assert [[r["item"] for r in found] for found in made] == [[r.item for r in found] for found in own]
    for found, mine in zip(made, own, strict=True):
        assert [r["probability"] for r in found] == pytest.approx([r.probability for r in mine], abs=1e-5)
    alone = ask(address, histories=[["i1", "i2"]], k=4).json()["lists"]
    assert [r["item"] for r in alone[0]["items"]] == [r["item"] for r in made[0]]


def test_the_same_seed_explores_alike_and_says_how_likely_it_was(address: str) -> None:
    first, second, other = (ask(address, histories=[["i1"]], explore=3, seed=s).json() for s in (1, 1, 2))
    unseeded = {ask(address, histories=[["i1"]], explore=3).json()["seed"] for _ in range(2)}
    assert len(unseeded) == 2 and first == second and first["lists"] != other["lists"]
    assert all(0 < r["drawn"] <= 1 for r in first["lists"][0]["items"])


def test_sessions_are_those_of_python(shop: Path, address: str) -> None:
    own = afresh.load(shop / "shop").recommend(sessions=[["i1", "i2"]], k=3)[0]
    for form in ({"sessions": [["i1", "i2"]]}, {"histories": [["i1"]], "sessions": [["i2"]]}):
        made = ask(address, k=3, **form).json()["lists"][0]["items"]
        assert [r["item"] for r in made] == [r.item for r in own]


@pytest.mark.parametrize(
    ("form", "status", "said"),
    [
        ({}, 400, "Say for whom"),
        ({"histories": [["i1"]], "where": {"size": "L"}}, 400, "no feature 'size'"),
        ({"histories": [["i1"]], "only": ["nothing"]}, 400, "No item of the catalogue fits"),
        ({"histories": [["i1"]], "k": 0}, 400, "k"),
        ({"histories": [["i1"]], "colour": 1}, 400, "colour"),
        ({"model": "none", "histories": [[]]}, 404, "none"),
    ],
)
def test_wrong_requests_say_what_is_wrong(address: str, form: dict[str, Any], status: int, said: str) -> None:
    answer = ask(address, **form)
    assert answer.status_code == status and said in answer.text


@pytest.fixture
def web(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=60, headers={"origin": address}) as client:
        yield client


def state(page: str) -> dict[str, str]:
    """What the form of a page holds and does not show."""
    return {name: unescape(value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page)}


def test_a_person_chooses_on_a_page_and_sees_what_is_next_and_why(web: httpx.Client, shop: Path) -> None:
    page = web.get("/studio/create", params={"run": "shop"}, follow_redirects=True)
    assert page.url.path == "/studio/recommend" and "Thing &lt;1&gt;" in page.text and "<1>" not in page.text
    assert 'href="/studio/recommend?run=shop"' in web.get("/studio/").text
    page = web.post("/studio/recommend", data={**state(page.text), "add": "i1"})
    page = web.post("/studio/recommend", data={**state(page.text), "add": "i2"})
    assert state(page.text)["chosen"] == '["i1", "i2"]'
    own = afresh.load(shop / "shop").recommend(histories=[["i1", "i2"]], k=10, because=1)[0]
    shown = re.findall(r'name="add" value="(\w+)" aria-label', page.text)
    assert shown == [r.item for r in own]
    reasons = [escape(r.because[0].title) for r in own if r.because]
    assert re.findall(r"because of (.*)</p>", page.text) == reasons
    page = web.post("/studio/recommend", data={**state(page.text), "hide": shown[0]})
    assert f'value="{shown[0]}" aria-label' not in page.text and "left out (1)" in page.text
    page = web.post("/studio/recommend", data={**state(page.text), "drop": "0", "again": "1"})
    assert state(page.text)["chosen"] == '["i2"]' and state(page.text)["hidden"] == "[]"


def test_filters_and_searches_on_the_page(web: httpx.Client) -> None:
    form = {"run": "shop", "chosen": '["i1"]', "k": "5"}
    page = web.post("/studio/recommend", data={**form, "where:colour": "red"}).text
    assert set(re.findall(r'name="add" value="(\w+)" aria-label', page)) <= {"i0", "i2", "i4", "i6", "i8"}
    page = web.post("/studio/recommend", data={**form, "search": "thing <7>"}).text
    assert re.findall(r'class="plain" name="add" value="(\w+)"', page) == ["i7"]
    assert "No item is called" in web.post("/studio/recommend", data={**form, "search": "zzz"}).text


@pytest.mark.parametrize("wrong", [{"chosen": "[1]"}, {"chosen": "{"}, {"k": "many"}, {"k": "101"}, {"run": "no"}])
def test_forms_that_no_page_sends_are_refused_as_pages(web: httpx.Client, wrong: dict[str, str]) -> None:
    answer = web.post("/studio/recommend", data={"run": "shop", **wrong})
    assert answer.status_code in (400, 404) and "<html" in answer.text
