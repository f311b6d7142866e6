"""Pages of other sites (CORS): none may ask, unless its origin is named; and none acts for who is signed in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from afresh.core import UserError
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.guard import cookie_name
from afresh.faces.http.keys import NO_KEYS, Keys
from afresh.faces.http.origins import origin_of
from afresh.faces.http.rights import OWN, USE, Holder
from afresh.faces.http.sessions import Sessions
from tests.faces.http.conftest import serving

APP, EVIL = "https://app.example.org", "https://evil.example"
KEY = "k" * 20
ASKED = {"model": "stories", "prompt": "Once", "max_tokens": 2}


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return Sessions()


@pytest.fixture(scope="module")
def shared(runs: Path, sessions: Sessions) -> Iterator[httpx.Client]:
    """A client of a server with keys, whose API the pages of two origins may use."""
    keys, origins = Keys({KEY: Holder("ann", USE)}), (APP, "http://localhost:3000")
    settings = ServeSettings([runs], memory=2**30, keys=keys, sessions=sessions, origins=origins)
    server = serving(settings)
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield client
    next(server, None)


def preflight(client: httpx.Client, path: str, origin: str) -> httpx.Response:
    """What a browser asks before a page may send a request."""
    wanted = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    return client.options(path, headers={"origin": origin, **wanted})


def test_a_page_of_a_named_origin_uses_the_api_with_a_key(shared: httpx.Client) -> None:
    asked = preflight(shared, "/v1/completions", APP)
    assert asked.status_code == 200 and asked.headers["access-control-allow-origin"] == APP
    assert "authorization" in asked.headers["access-control-allow-headers"]
    assert "POST" in asked.headers["access-control-allow-methods"] and int(asked.headers["access-control-max-age"])
    answer = shared.post("/v1/completions", json=ASKED, headers={"origin": APP, "authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == APP
    assert "origin" in answer.headers["vary"].lower()
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    for reply in (asked, answer):
        assert "access-control-allow-credentials" not in reply.headers
    refused = shared.post("/v1/completions", json=ASKED, headers={"origin": APP})
    assert refused.status_code == 401 and refused.headers["access-control-allow-origin"] == APP  # the page can read it


@pytest.mark.parametrize("path", ["/v1/completions", "/api/chat", "/infill", "/v1/messages", "/afresh/v1/samples"])
def test_every_dialect_may_be_used(shared: httpx.Client, path: str) -> None:
    assert preflight(shared, path, "http://localhost:3000").status_code == 200


@pytest.mark.parametrize("origin", [EVIL, "null", f"{APP}.evil.example", "http://app.example.org", f"{APP}:8443"])
def test_other_origins_stay_outside(shared: httpx.Client, origin: str) -> None:
    asked = preflight(shared, "/v1/completions", origin)
    assert asked.status_code == 400 and "access-control-allow-origin" not in asked.headers
    answer = shared.post("/v1/completions", json=ASKED, headers={"origin": origin, "x-api-key": KEY})
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "wrong_origin"
    assert "access-control-allow-origin" not in answer.headers
    read = shared.get("/v1/models", headers={"origin": origin, "x-api-key": KEY})
    assert "access-control-allow-origin" not in read.headers  # so that the browser does not show it to the page


def test_the_studio_stays_closed(shared: httpx.Client) -> None:
    for path in ("/", "/studio", "/studio/", "/studio/sign-in", "/studio/run/remove", "/studio/static/studio.css"):
        assert "access-control-allow-origin" not in preflight(shared, path, APP).headers
        assert "access-control-allow-origin" not in shared.get(path, headers={"origin": APP}).headers
    for path in ("/studio/sign-in", "/studio/run/remove", "/studio/train/files"):
        assert shared.post(path, headers={"origin": APP, "x-api-key": KEY}).status_code == 403


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_cookie_does_not_count_for_the_page_of_another_origin(
    shared: httpx.Client, sessions: Sessions, method: str
) -> None:
    """Another port of this machine is the same site, so browsers would send the cookie with its requests."""
    host = shared.base_url.netloc.decode()
    cookie = {"cookie": f"{cookie_name(host)}={sessions.begin(Holder('ona', OWN))}"}
    path, body = ("/v1/models", None) if method == "GET" else ("/v1/completions", ASKED)
    for origin, status in ((None, 200), (f"http://{host}", 200), ("http://localhost:3000", 401)):
        headers = {**cookie, **({} if origin is None else {"origin": origin})}
        assert shared.request(method, path, json=body, headers=headers).status_code == status, origin


def test_a_name_that_is_made_to_resolve_here_is_refused(shared: httpx.Client) -> None:
    """DNS rebinding: the page's own origin is that of the request, but the server is not of that name."""
    for origin in ("http://evil.example", APP):
        headers = {"host": "evil.example", "origin": origin, "x-api-key": KEY}
        answer = shared.post("/v1/completions", json=ASKED, headers=headers)
        assert answer.status_code == 403 and answer.json()["error"]["code"] == "wrong_host"


def test_every_origin_may_be_allowed_and_never_with_credentials(runs: Path) -> None:
    sessions = Sessions()
    settings = ServeSettings([runs], memory=2**30, keys=NO_KEYS, sessions=sessions, origins=("*",))
    server = serving(settings)
    with httpx.Client(base_url=next(server), timeout=60) as client:
        for origin in (EVIL, "null"):
            cookie = f"{cookie_name(client.base_url.netloc.decode())}={sessions.begin(Holder('', OWN))}"
            answer = client.post("/v1/completions", json=ASKED, headers={"origin": origin, "cookie": cookie})
            assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] in ("*", origin)
            assert "access-control-allow-credentials" not in answer.headers
            removal = client.post("/studio/run/remove", headers={"origin": origin, "cookie": cookie})
            assert removal.status_code == 403
    next(server, None)


def test_without_the_option_nothing_is_shared(http: httpx.Client) -> None:
    assert preflight(http, "/v1/completions", APP).status_code == 405
    answer = http.post("/v1/completions", json=ASKED, headers={"origin": APP})
    assert answer.status_code == 403 and "--allow-origin" in answer.json()["error"]["message"]
    assert "access-control-allow-origin" not in http.get("/v1/models", headers={"origin": APP}).headers


def test_origins_are_written_as_browsers_send_them() -> None:
    written = {
        "https://App.Example.org/": APP,
        "https://app.example.org:443": APP,
        "http://localhost:80": "http://localhost",
        "http://localhost:3000": "http://localhost:3000",
        "http://[::1]:3000": "http://[::1]:3000",
        "app://obsidian.md": "app://obsidian.md",
        "chrome-extension://abcdef": "chrome-extension://abcdef",
        "*": "*",
    }
    assert {given: origin_of(given) for given in written} == written
    for wrong in ("", "null", "app.example.org", "https://", f"{APP}/path", "https://*.example.org", "http://a@b"):
        with pytest.raises(UserError, match="not the origin of a page"):
            origin_of(wrong)
