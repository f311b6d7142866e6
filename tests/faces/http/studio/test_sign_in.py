"""Signing in and out: what lies in the browser, what ends on the server, and who is shown what."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest

from afresh.faces.http.app import ServeSettings
from afresh.faces.http.keys import NO_KEYS, Keys
from afresh.faces.http.rights import LOCAL, OWN, TRAIN, USE, Holder
from afresh.faces.http.sessions import SECONDS
from tests.faces.http.conftest import serving

KEY = "k" * 20
KEYS = Keys({KEY: Holder("ann", USE), "t" * 20: Holder("tom", TRAIN), "o" * 20: Holder("ona", LOCAL)})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., httpx.Client]]:
    """Starts servers of no runs, and gives a client of each."""
    started: list[tuple[Any, httpx.Client]] = []

    def start(**settings: Any) -> httpx.Client:
        (tmp_path / "runs").mkdir(exist_ok=True)
        made = serving(ServeSettings([tmp_path / "runs"], 2**20, **{"works": tmp_path / "works", **settings}))
        started.append((made, httpx.Client(base_url=next(made))))
        return started[-1][1]

    yield start
    for made, client in started:
        client.close()
        next(made, None)


def cookie(answer: httpx.Response) -> Morsel[str]:
    (found,) = SimpleCookie(answer.headers["set-cookie"]).values()
    return found


def sign_in(client: httpx.Client, key: str = KEY, **headers: str) -> httpx.Response:
    answer = client.post("/studio/sign-in", data={"key": key}, headers=headers)
    assert answer.status_code == 303, answer.text
    return answer


def test_what_lies_in_the_browser_is_not_the_key(server: Callable[..., httpx.Client]) -> None:
    client = server(keys=KEYS)
    first, second = cookie(sign_in(client)), cookie(sign_in(client))
    assert first.value != second.value and len(first.value) >= 40 and KEY not in first.OutputString()
    assert first.key == f"afresh_session_{client.base_url.port}"
    assert first["httponly"] and first["samesite"].lower() == "strict" and first["path"] == "/"
    assert int(first["max-age"]) == SECONDS and not first["secure"]
    for header in ({"authorization": f"Bearer {first.value}"}, {"cookie": f"{first.key}={KEY}"}):
        with httpx.Client(base_url=client.base_url) as other:
            assert other.get("/v1/models", headers=header).status_code == 401


def test_signing_out_ends_the_session_on_the_server(server: Callable[..., httpx.Client]) -> None:
    client = server(keys=KEYS)
    kept = cookie(sign_in(client))
    page = client.get("/studio/runs").text
    assert 'action="/studio/sign-out"' in page
    copied = {"cookie": f"{kept.key}={kept.value}"}
    with httpx.Client(base_url=client.base_url, headers=copied) as thief:
        assert thief.get("/v1/models").status_code == 200
        elsewhere = client.post("/studio/sign-out", headers={"origin": "http://elsewhere.example"})
        assert elsewhere.status_code == 403 and thief.get("/v1/models").status_code == 200
        answer = client.post("/studio/sign-out")
        assert answer.headers["location"] == "/studio/sign-in" and cookie(answer)["max-age"] == "0"
        assert thief.get("/v1/models").status_code == 401
        assert thief.get("/studio/").headers["location"] == "/studio/sign-in"
    assert client.post("/studio/sign-out").status_code == 303  # again, without a session


TRUSTED, OTHER = ("127.0.0.1",), ("192.0.2.1",)


@pytest.mark.parametrize(
    ("proxies", "headers", "secure"),
    [
        (TRUSTED, {"x-forwarded-proto": "https"}, True),
        (TRUSTED, {"x-forwarded-proto": "http"}, False),
        ((), {"x-forwarded-proto": "https"}, False),
        (OTHER, {"x-forwarded-proto": "https"}, False),
    ],
)
def test_the_cookie_is_secure_where_a_proxy_that_is_believed_says_https(
    server: Callable[..., httpx.Client], proxies: tuple[str, ...], headers: dict[str, str], secure: bool
) -> None:
    client = server(keys=KEYS, proxies=proxies)
    assert bool(cookie(sign_in(client, **headers))["secure"]) == secure
    assert bool(cookie(client.post("/studio/sign-out", headers=headers))["secure"]) == secure


def test_a_browser_on_a_page_of_https_keeps_the_cookie_there(server: Callable[..., httpx.Client]) -> None:
    client = server(keys=KEYS, hosts=["models.example.org"])
    own = {"host": "models.example.org", "origin": "https://models.example.org"}
    kept = cookie(sign_in(client, **own))
    assert kept["secure"] and kept.key == "afresh_session"


def test_below_a_path_the_cookie_is_for_that_path(server: Callable[..., httpx.Client]) -> None:
    client = server(keys=KEYS, root_path="/models")
    answer = client.post("/studio/sign-in", data={"key": KEY})
    assert answer.headers["location"] == "/models/studio/" and cookie(answer)["path"] == "/models"


def test_the_address_of_a_terminal_lets_one_browser_in_once(server: Callable[..., httpx.Client]) -> None:
    settings = ServeSettings([], 2**20)
    client = server(keys=Keys(), sessions=settings.sessions)
    ticket = {"ticket": settings.sessions.ticket(Holder("", LOCAL)), "to": "create", "run": "my pets"}
    with httpx.Client(base_url=client.base_url) as first:
        answer = first.get("/studio/enter", params=ticket)
        assert answer.headers["location"] == "/studio/create?run=my+pets" and not cookie(answer)["max-age"]
        assert first.get("/studio/runs").status_code == 200
        assert first.get("/studio/enter", params=ticket).status_code == 303  # the same browser again
    refused = client.get("/studio/enter", params=ticket)
    assert refused.status_code == 401 and "set-cookie" not in refused.headers
    assert client.get("/v1/models").status_code == 401
    assert "no keys" in client.get("/studio/sign-in").text and 'name="key"' not in client.get("/studio/sign-in").text


def test_a_server_without_keys_lets_everybody_use_and_its_starter_train_and_remove(
    server: Callable[..., httpx.Client],
) -> None:
    settings = ServeSettings([], 2**20)
    client = server(keys=NO_KEYS, sessions=settings.sessions)
    assert client.get("/studio/runs").status_code == 200 and client.get("/studio/train").status_code == 403
    assert "Sign in" in client.get("/studio/").text
    assert client.get("/v1/models", headers={"authorization": "Bearer none"}).status_code == 200
    client.get("/studio/enter", params={"ticket": settings.sessions.ticket(Holder("", OWN))})
    page = client.get("/studio/train").text
    assert "Sign out" in page and "on this machine</label>" not in page
    assert client.get("/studio/runs/bin").status_code == 200


@pytest.mark.parametrize(
    ("key", "there", "missing"),
    [
        (KEY, [], ["studio/train", "studio/runs/bin", 'name="path"']),
        ("t" * 20, ["studio/train"], ["studio/runs/bin", 'name="path"']),
        ("o" * 20, ["studio/train", "studio/runs/bin", 'name="path"'], []),
    ],
)
def test_pages_show_what_their_reader_may_do(
    server: Callable[..., httpx.Client], key: str, there: list[str], missing: list[str]
) -> None:
    client = server(keys=KEYS)
    sign_in(client, key)
    shown = client.get("/studio/").text + client.get("/studio/runs").text + client.get("/studio/train").text
    assert all(words in shown for words in there) and not any(words in shown for words in missing)


@pytest.mark.parametrize("width", [360, 1200])
def test_one_signs_in_and_out_in_a_browser(browser: Any, server: Callable[..., httpx.Client], width: int) -> None:
    client = server(keys=KEYS)
    context = browser.new_context(base_url=str(client.base_url), viewport={"width": width, "height": 740})
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto("/studio/train")
    page.fill("#key", "o" * 20)
    page.press("#key", "Enter")
    page.wait_for_url("**/studio/")
    page.goto("/studio/train")
    assert page.locator("#path").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert all(c["httpOnly"] and c["value"] != "o" * 20 for c in context.cookies())
    page.click("text=Sign out")
    page.wait_for_url("**/studio/sign-in")
    assert context.cookies() == []
    page.goto("/studio/train")
    assert page.url.endswith("/studio/sign-in")
    context.close()
