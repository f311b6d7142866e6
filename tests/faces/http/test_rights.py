"""Who may do what: every route declares the right that it needs, and rights come from secrets alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastapi.routing
import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from afresh.faces.http.app import ServeSettings, make_app
from afresh.faces.http.guard import OPEN, OPEN_BELOW
from afresh.faces.http.keys import NO_KEYS, Keys
from afresh.faces.http.rights import CHECKS, LOCAL, NOTHING, OWN, TRAIN, USE, Holder, Right
from tests.faces.http.conftest import serving

HOLDERS = {"u" * 20: Holder("una", USE), "t" * 20: Holder("tom", TRAIN), "o" * 20: Holder("ona", OWN)}
HOLDERS |= {"l" * 20: Holder("lea", LOCAL)}
# Every route that needs something else than the right to use the models.
TABLE = {
    NOTHING: {
        "GET /health",
        "GET /studio/enter",
        "GET /studio/sign-in",
        "POST /studio/sign-in",
        "POST /studio/sign-out",
        "GET /studio/static/{path:path}",
    },
    TRAIN: {
        "GET /studio/train",
        "GET /studio/train/{id}",
        "GET /studio/train/{id}/examples/{name}",
        "GET /studio/train/{id}/live",
        "POST /studio/run/measure",
        "POST /studio/train/demo",
        "GET /studio/train/{id}/page",
        "GET /studio/train/{id}/report",
        "GET /studio/train/{id}/samples/{name}",
        "POST /studio/train/{id}/again",
        "POST /studio/train/{id}/start",
        "POST /studio/train/{id}/stop",
        "POST /studio/train/{id}/resume",
        "POST /studio/train/files",
        "POST /studio/train/files/{id}",
        "POST /studio/train/files/{id}/end",
        "POST /studio/run/resume",
        "POST /studio/run/export",
        "GET /studio/exports/{id}",
        "POST /studio/vote/{id_}/learn",
        "GET /studio/vote/learnt/{id_}",
        "POST /studio/vote/learnt/{id_}/anyway",
        "GET /studio/vote/learnt/{id_}/after",
        "GET /studio/vote/learnt/{id_}/state",
        "POST /studio/vote/learnt/{id_}/stop",
    },
    OWN: {
        "POST /studio/run/remove",
        "GET /studio/runs/bin",
        "POST /studio/runs/bin/restore",
        "POST /studio/runs/bin/empty",
    },
    LOCAL: {"POST /studio/train/look"},
}


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FastAPI]:
    monkeypatch.setenv("AFRESH_JOBS_FOLDER", str(tmp_path / "jobs"))
    monkeypatch.setenv("AFRESH_DATA_FOLDER", str(tmp_path / "data"))
    (tmp_path / "runs").mkdir()
    settings = ServeSettings([tmp_path / "runs"], 2**20, keys=Keys(HOLDERS), works=tmp_path / "works")
    made = make_app(settings)
    yield made
    made.state.desk.close()


@pytest.fixture
def web(app: FastAPI) -> TestClient:
    return TestClient(app, "http://127.0.0.1", follow_redirects=False)


def declared(app: FastAPI) -> dict[str, Right]:
    """The right that each route needs, by method and path. Raises AssertionError for a route that declares none."""
    app.openapi()  # adds the dialects, which wait for a first request
    walk: Any = getattr(fastapi.routing, "iter_route_contexts", list)  # newer versions keep included routers whole
    found = {}
    for route in walk(app.routes):
        if route.path == "/openapi.json":  # FastAPI's own; the guard asks for a key
            continue
        calls = [d.call for d in route.dependant.dependencies]
        rights = [right for right, check in CHECKS.items() if check in calls]
        assert rights, f"{route.path} declares no right: add `needs(...)` to its router"
        found |= {f"{method} {route.path}": max(rights) for method in route.methods if method != "HEAD"}
    return found


def test_every_route_declares_a_right(app: FastAPI) -> None:
    found = declared(app)
    assert len(found) > 80
    special = {name: right for right, names in TABLE.items() for name in names}
    assert {n: r for n, r in found.items() if r != USE} == special


def test_the_guard_lets_through_without_a_key_what_declares_no_right(app: FastAPI) -> None:
    free = {name.partition(" ")[2] for name, right in declared(app).items() if right == NOTHING}
    assert free == {*OPEN, f"{OPEN_BELOW}{{path:path}}"}


def refused(answer: httpx.Response) -> bool:
    """Whether it was refused for want of a right."""
    return answer.status_code == 403 and "This needs the right to" in answer.text


@pytest.mark.parametrize("key", HOLDERS, ids=[h.name for h in HOLDERS.values()])
def test_each_role_may_ask_for_what_it_has_the_right_to(app: FastAPI, web: TestClient, key: str) -> None:
    for name, right in declared(app).items():
        method, path = name.split(" ")
        answer = web.request(method, re.sub(r"\{\w+(:path)?\}", "0", path), headers={"x-api-key": key})
        assert refused(answer) == (HOLDERS[key].right < right), f"{name}: {answer.status_code} {answer.text[:200]}"
        assert answer.status_code != 500, name


def test_without_a_secret_nothing_is_answered_but_how_to_sign_in(app: FastAPI, web: TestClient) -> None:
    for name, right in declared(app).items():
        method, path = name.split(" ")
        answer = web.request(method, re.sub(r"\{\w+(:path)?\}", "0", path))
        to_sign_in = answer.status_code == 303 and answer.headers["location"] == "/studio/sign-in"
        assert (answer.status_code == 401 or to_sign_in) or right == NOTHING, f"{name}: {answer.status_code}"


ADDRESSES = [
    {},
    {"x-forwarded-for": "127.0.0.1"},
    {"x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1;proto=https"},
    {"host": "localhost", "x-forwarded-host": "localhost"},
]


@pytest.mark.parametrize("headers", ADDRESSES, ids=[",".join(h) or "loopback" for h in ADDRESSES])
@pytest.mark.parametrize("keys", [NO_KEYS, Keys(HOLDERS)], ids=["no keys", "keys"])
def test_the_loopback_is_nobody(tmp_path: Path, keys: Keys, headers: dict[str, str]) -> None:
    """Behind a proxy everybody comes from the loopback, with whatever headers they like."""
    (tmp_path / "secret.txt").write_text("secret")
    server = serving(ServeSettings([tmp_path], 2**20, keys=keys))
    sent = headers | ({} if keys is NO_KEYS else {"x-api-key": "t" * 20})
    with httpx.Client(base_url=next(server), headers=sent) as web:
        assert refused(web.post("/studio/train/look", data={"path": str(tmp_path / "secret.txt")}))
        for deed in ("run/remove", "runs/bin/restore", "runs/bin/empty"):
            assert refused(web.post(f"/studio/{deed}", data={"run": "x", "id": "x", "sure": "true"}))
        assert refused(web.get("/studio/runs/bin"))
    next(server, None)


def test_a_refusal_says_how_to_get_the_right(web: TestClient) -> None:
    said = web.post("/studio/train/files", headers={"x-api-key": "u" * 20}).json()["error"]
    assert said["code"] == "not_permitted" and "`NAME KEY train`" in said["message"]
    page = web.post("/studio/train/look", headers={"x-api-key": "o" * 20}).text
    assert "afresh open gives it to the browser" in page and "send the files themselves" in page
