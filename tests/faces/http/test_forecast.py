"""Forecasts of series over HTTP, by programs and on a page."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import afresh
from afresh.faces.http.app import ServeSettings
from tests.domains.series.tables import CONTEXT, HORIZON, times, train, waves, write, write_waves
from tests.faces.http.conftest import serving

COUNT = 200
STAMPS = times(COUNT + HORIZON)
START = {"time": STAMPS[:COUNT], **{k: v.tolist() for k, v in waves(COUNT).items()}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs named `waves` and `shops`; the table of the second has a series for each of two shops."""
    made = tmp_path_factory.mktemp("forecast")
    train(write_waves(made / "waves.csv", COUNT), made / "runs" / "waves", steps=20)
    shops = [shop for shop in ("north", "south") for _ in range(COUNT)]
    both = {k: [*v, *(v + 1)] for k, v in waves(COUNT).items()}
    table = write(made / "shops.csv", time=STAMPS[:COUNT] * 2, shop=shops, **both)
    train(table, made / "runs" / "shops", steps=2)
    return made


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[httpx.Client]:
    for address in serving(ServeSettings([folder / "runs"], memory=2**30)):
        with httpx.Client(base_url=address, timeout=60, headers={"origin": address}) as client:
            yield client


def ask(web: httpx.Client, **form: Any) -> httpx.Response:
    return web.post("/afresh/v1/forecast", json={"model": "waves", "members": 8, **form})


def read(web: httpx.Client, run: str = "waves", file: Path | None = None, **form: Any) -> httpx.Response:
    files = None if file is None else {"table": (f"what/../{file.name}", file.read_bytes())}
    return web.post("/studio/forecast/table", data={"run": run, "horizon": HORIZON, **form}, files=files)


def test_a_forecast_is_that_of_python_and_comes_with_its_table(web: httpx.Client, folder: Path) -> None:
    own = afresh.load(folder / "runs" / "waves").forecast(start=folder / "waves.csv", members=8).json()
    made = ask(web, start=START).json()
    (mine,), (found,) = own["series"], made["series"]
    assert found["time"] == mine["time"] == STAMPS[COUNT:]
    for name, columns in mine["columns"].items():
        for level, values in columns.items():
            assert found["columns"][name][level] == pytest.approx(values, rel=1e-4)
    table = base64.b64decode(made["files"]["forecast.csv"]).decode().splitlines()
    assert len(table) == 1 + 2 * HORIZON and table[0].startswith('"time","column","q0.05"')


def test_a_scenario_is_kept_and_changes_what_is_not_given(web: httpx.Client) -> None:
    given = {"time": STAMPS[COUNT:], "load": [20.0] * 6 + [None] * (HORIZON - 6)}
    plain, found = (ask(web, start=START, **g).json()["series"][0]["columns"] for g in ({}, {"given": given}))
    assert all(values[:6] == [20.0] * 6 and values[6] != 20.0 for values in found["load"].values())
    assert found["heat"]["q0.5"] != plain["heat"]["q0.5"]


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({"start": {"time": STAMPS[:2], "load": [1.0]}}, "as many values in each"),
        ({"start": {"time": STAMPS[:COUNT], "load": START["load"]}}, "`start` is not like the table"),
        ({"start": START, "given": {"time": STAMPS[:3], "load": [1.0] * 3}}, "`given` says nothing of the 12 steps"),
        ({"start": "/etc/passwd"}, "start"),
        ({"start": START, "members": 1}, "members"),
        ({"start": START, "colour": "blue"}, "colour"),
    ],
)
def test_wrong_requests_say_what_is_wrong(web: httpx.Client, form: dict[str, Any], said: str) -> None:
    answer = ask(web, **form)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"], answer.text


def test_the_page_shows_where_the_data_of_the_run_ends(web: httpx.Client) -> None:
    page = web.get("/studio/create", params={"run": "waves"}, follow_redirects=True)
    assert page.url.path == "/studio/forecast" and "static/forecast/fan.css" in page.text
    found = read(web).json()
    past = max(CONTEXT, 2 * HORIZON)
    assert found["past"] == past and found["times"] == STAMPS[COUNT - past :] and found["names"] == [""]
    assert found["values"]["load"] == pytest.approx(START["load"][COUNT - past :], rel=1e-6)


def test_another_table_is_gone_on_from_and_a_wrong_one_is_refused(web: httpx.Client, tmp_path: Path) -> None:
    found = read(web, file=write_waves(tmp_path / "own.CSV", 60, {"heat": [59]})).json()
    assert found["times"][found["past"]] == STAMPS[60] and found["values"]["heat"][-1] is None
    other = tmp_path / "other.csv"
    other.write_text("when,cold\n" + "".join(f"2024-01-{d:02d},{d}\n" for d in range(1, 29)))
    answer = read(web, file=other)
    assert answer.status_code == 400 and "is not like the table that the run learnt from" in answer.text
    assert "tmp" not in answer.text
    assert read(web, horizon=0).status_code == 400


def test_a_series_is_chosen_by_its_name(web: httpx.Client) -> None:
    assert read(web, "shops").json()["names"] == ["north", "south"]
    found = read(web, "shops", series="south").json()
    assert found["name"] == "south" and found["values"]["load"][-1] == pytest.approx(START["load"][-1] + 1, rel=1e-5)
    start = {found["time"]: found["times"][: found["past"]], **found["values"]}
    assert ask(web, model="shops", start=start).status_code == 200
    assert "No series west" in read(web, "shops", series="west").text


def test_where_the_data_of_the_run_is_gone_another_table_is_asked_for(web: httpx.Client, folder: Path) -> None:
    (folder / "waves.csv").rename(folder / "moved.csv")
    try:
        answer = read(web)
        assert answer.status_code == 400 and "Choose or drop the one that is to go on" in answer.text
        assert read(web, file=folder / "moved.csv").status_code == 200
    finally:
        (folder / "moved.csv").rename(folder / "waves.csv")


def test_the_page_stands_in_place_of_the_form_of_its_verb(web: httpx.Client) -> None:
    page = web.get("/studio/run", params={"run": "waves"}).text
    assert 'href="/studio/forecast?run=waves"' in page and "verb=forecast" not in page
    assert web.get("/studio/verb/forecast", params={"run": "waves"}).status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("forecast/forecast.js", 200),
        ("chat/chat.css", 200),
        ("studio.js", 200),
        ("forecast/../page.py", 404),
        ("forecast/%2e%2e/page.py", 404),
        ("forecast/", 404),
        ("forecast", 404),
        ("forecast/studio.js", 404),
    ],
)
def test_pages_of_domains_have_files_of_their_own(web: httpx.Client, path: str, status: int) -> None:
    assert web.get(f"/studio/static/{path}").status_code == status
