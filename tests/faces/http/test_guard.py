"""Who may ask: names, origins, keys, and sizes."""

from __future__ import annotations

import contextlib
import http.client
import select
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from afresh.core import UserError
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.guard import REST_SECONDS
from afresh.faces.http.keys import Keys, read_keys
from afresh.faces.http.listen import bound
from afresh.faces.http.rights import LOCAL, OWN, TRAIN, USE, Holder
from tests.faces.http.conftest import serving

KEY = "k" * 20


@pytest.fixture(scope="module")
def guarded(runs: Path) -> Iterator[httpx.Client]:
    server = serving(ServeSettings([runs], memory=2**30, keys=Keys({KEY: Holder("ann")}), most_bytes=1000))
    with httpx.Client(base_url=next(server)) as client:
        yield client
    next(server, None)


@pytest.mark.parametrize("headers", [{"authorization": f"Bearer {KEY}"}, {"x-api-key": KEY}])
def test_a_key_opens(guarded: httpx.Client, headers: dict[str, str]) -> None:
    assert guarded.get("/v1/models", headers=headers).status_code == 200


NO_KEY = [{}, {"authorization": "Bearer kk"}, {"authorization": KEY}, {"x-api-key": "\xff"}]
NO_KEY += [{"cookie": f"{name}={KEY}"} for name in ("afresh_key", "afresh_session")]


@pytest.mark.parametrize("headers", NO_KEY)
def test_without_it_nothing_is_shown(guarded: httpx.Client, headers: dict[str, str]) -> None:
    answer = guarded.get("/v1/models", headers={k: v.encode("latin-1") for k, v in headers.items()})
    assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
    assert guarded.get("/health").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "[", "localhost:80@evil.example"])
def test_only_its_own_names(guarded: httpx.Client, host: str) -> None:
    answer = guarded.get("/health", headers={"host": host})
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "wrong_host"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://localhost:1"])
def test_pages_of_others_change_nothing(guarded: httpx.Client, origin: str) -> None:
    headers = {"origin": origin, "x-api-key": KEY}
    answer = guarded.post("/v1/completions", headers=headers, json={})
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "wrong_origin"


def test_large_bodies_are_refused(guarded: httpx.Client) -> None:
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    assert guarded.post("/v1/completions", headers=headers, content=b"x" * 2000).status_code == 413
    pieces = (b"x" * 100 for _ in range(20))
    assert guarded.post("/v1/completions", headers=headers, content=pieces).status_code == 413


def test_a_refusal_reads_the_rest_of_a_body(guarded: httpx.Client) -> None:
    """Before it is sent: proxies written in Go lose an answer that comes earlier."""
    at = guarded.base_url
    with contextlib.closing(http.client.HTTPConnection(at.host, at.port or 80, timeout=30)) as web:
        web.putrequest("POST", "/v1/completions")
        web.putheader("content-length", "900")
        begun = time.monotonic()
        web.endheaders(b"x" * 450)
        early = bool(select.select([web.sock], [], [], 0.2)[0])
        assert not early or time.monotonic() - begun > REST_SECONDS
        web.send(b"x" * 450)
        answer = web.getresponse()
        assert answer.status == 401 and b"needs a key" in answer.read()


def test_a_body_that_never_comes_is_not_waited_for(guarded: httpx.Client) -> None:
    at = guarded.base_url
    with contextlib.closing(http.client.HTTPConnection(at.host, at.port or 80, timeout=30)) as web:
        web.putrequest("POST", "/v1/completions")
        web.putheader("content-length", "900")
        web.endheaders(b"x")
        assert web.getresponse().status == 401
        web.close()
        web.putrequest("POST", "/v1/completions")
        web.putheader("content-length", "900")
        web.putheader("expect", "100-continue")
        web.endheaders()
        assert web.getresponse().status == 401


def test_every_answer_has_an_id(guarded: httpx.Client) -> None:
    assert len(guarded.get("/health").headers["x-request-id"]) == 16
    assert guarded.get("/nothing", headers={"x-request-id": "mine", "x-api-key": KEY}).headers["x-request-id"] == "mine"


def test_keys_are_read(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"# ours\nann {KEY}\n{'b' * 16}\n")
    assert read_keys(tmp_path / "keys").holders == {KEY: Holder("ann", TRAIN), "b" * 16: Holder("key 2", TRAIN)}
    wrong = {"": "No key in", "short": "Line 1 of", "a b c": "Line 1 of", f"a {KEY} own x": "Line 1 of"}
    wrong |= {f"a {KEY} root": "no role 'root'. Known: use, train, own", f"a {KEY} own\nb {KEY}": "an earlier line"}
    for text, message in wrong.items():
        (tmp_path / "keys").write_text(text)
        with pytest.raises(UserError, match=message):
            read_keys(tmp_path / "keys")


def test_a_port_in_use() -> None:
    sock = bound("127.0.0.1", 0)
    with pytest.raises(UserError, match=r"Port \d+ is in use. Choose another: `port="):
        bound("127.0.0.1", sock.getsockname()[1])
    sock.close()


def test_a_key_has_so_many_requests_a_minute(runs: Path) -> None:
    server = serving(
        ServeSettings([runs], memory=2**30, keys=Keys({KEY: Holder("ann"), "b" * 20: Holder("bob")}), rate=3)
    )
    with httpx.Client(base_url=next(server)) as client:

        def ask(key: str) -> httpx.Response:
            return client.post("/v1/completions", json={}, headers={"authorization": f"Bearer {key}"})

        assert [ask(KEY).status_code for _ in range(3)] == [400, 400, 400]
        refused = ask(KEY)
        assert refused.status_code == 429 and 1 <= int(refused.headers["retry-after"]) <= 20
        assert ask("b" * 20).status_code == 400
        assert client.get("/v1/models", headers={"authorization": f"Bearer {KEY}"}).status_code == 200
    server.close()


def test_a_key_has_the_role_of_its_line(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"una {'u' * 16} use\ntom {'t' * 16} train\nona {'o' * 16} own\n")
    for local_files, most in ((False, OWN), (True, LOCAL)):
        found = read_keys(tmp_path / "keys", local_files).holders.values()
        assert list(found) == [Holder("una", USE), Holder("tom", TRAIN), Holder("ona", most)]


def test_another_port_of_this_host_is_another_site(guarded: httpx.Client) -> None:
    """What another program of this machine serves cannot send requests with the cookies of this one."""
    host = guarded.base_url.netloc.decode()
    for origin, status in ((f"http://{host}", 415), ("http://127.0.0.1:1", 403), ("http://127.0.0.1", 403)):
        headers = {"origin": origin, "x-api-key": KEY}
        answer = guarded.post("/v1/completions", headers=headers)
        assert answer.status_code == status, (origin, answer.text)


def test_wrong_sign_ins_do_not_use_up_what_others_may_send(runs: Path) -> None:
    server = serving(ServeSettings([runs], memory=2**30, keys=Keys({KEY: Holder("ann")}), rate=3))
    with httpx.Client(base_url=next(server)) as client:
        assert [client.post("/studio/sign-in", data={"key": "x" * 20}).status_code for _ in range(6)] == [401] * 6
        assert client.post("/studio/sign-in", data={"key": KEY}).status_code == 303
        assert client.post("/v1/completions", json={}, headers={"x-api-key": KEY}).status_code == 400
    server.close()
