"""The configurations of nginx and Caddy in the guide, as they stand there, with a server behind them."""

from __future__ import annotations

import getpass
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import StreamingResponse

from afresh.faces.http.app import ServeSettings
from afresh.faces.http.keys import Keys
from afresh.faces.http.rights import OWN, TRAIN, Holder
from tests.faces.http.conftest import serving
from tests.ports import free_port

GUIDE = (Path(__file__).parents[3] / "docs/guides/serving.md").read_text()
NAME, KEY = "models.example.org", "k" * 20
CASES = [
    pytest.param((program, block, root), id=f"{program}-{root.strip('/') or 'root'}")
    for program in ("nginx", "caddy")
    for block, root in zip(re.findall(rf"```{program}\n(.*?)```", GUIDE, re.DOTALL), ("", "/models"), strict=True)
]


@dataclass(frozen=True)
class Behind:
    """A client of the proxy; the path at which it shows the server; what lets a stream of the server go on."""

    web: httpx.Client
    root: str
    go_on: threading.Event


def nginx(block: str, folder: Path, port: int, plain: int, pem: Path, key: Path) -> list[str]:
    for given, here in (
        ("listen 80;", f"listen 127.0.0.1:{plain};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (f"/etc/ssl/{NAME}.pem", str(pem)),
        (f"/etc/ssl/{NAME}.key", str(key)),
    ):
        assert given in block
        block = block.replace(given, here)
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi"))
    (folder / "nginx.conf").write_text(
        f"user {getpass.getuser()}; daemon off; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; scgi_temp_path {folder}/scgi; {temporary}\n{block} }}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def caddy(block: str, folder: Path, port: int, plain: int, pem: Path, key: Path) -> list[str]:
    block = block.replace(f"{NAME} {{", f"https://{NAME}:{port} {{\n    bind 127.0.0.1\n    tls {pem} {key}", 1)
    options = f"{{\n    admin off\n    auto_https off\n    storage file_system {folder}\n}}\n"
    (folder / "Caddyfile").write_text(options + block)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


@contextmanager
def running(words: list[str], folder: Path, port: int) -> Iterator[None]:
    """A program that listens at a port, and ends with the block."""
    home = {"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"}
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(words, stdout=said, stderr=said, env=home)
    try:
        until = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < until, (folder / "said.txt").read_text()
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    pem, key = folder / "pem", folder / "key"
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    subprocess.run([*words, *names, "-keyout", key, "-out", pem], check=True, capture_output=True)
    return pem, key


@pytest.fixture(scope="module", params=CASES)
def behind(
    request: pytest.FixtureRequest, certificate: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    program, block, root = request.param
    if shutil.which(program, path="/usr/sbin:/usr/bin:/usr/local/bin") is None:
        pytest.skip(f"there is no {program}: apt-get install {program}")
    folder, go_on = tmp_path_factory.mktemp(program), threading.Event()
    (folder / "runs").mkdir()

    def pieces() -> Iterator[bytes]:
        yield b"first"
        go_on.wait(20)
        yield b"second"

    def prepare(app: Any) -> None:
        app.add_api_route("/stream", lambda: StreamingResponse(pieces(), media_type="text/event-stream"))

    keys = Keys({KEY: Holder("tom", TRAIN), "o" * 20: Holder("ona", OWN)})
    hosts = ("127.0.0.1", "localhost", "::1", NAME)
    settings = ServeSettings(
        [folder / "runs"], 2**20, hosts, keys, root_path=root, proxies=["127.0.0.1"], works=folder / "works"
    )
    server = serving(settings, prepare)
    port, plain = free_port(), free_port()
    block = block.replace("127.0.0.1:8080", next(server).removeprefix("http://"))
    words = {"nginx": nginx, "caddy": caddy}[program](block, folder, port, plain, *certificate)
    trusted = ssl.create_default_context(cafile=str(certificate[0]))
    trusted.check_hostname = False  # the certificate is that of the name, not of the loopback

    def asked(request: httpx.Request) -> None:
        request.extensions["sni_hostname"] = NAME

    with (
        running(words, folder, port),
        httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            headers={"host": NAME},
            verify=trusted,
            timeout=20,
            event_hooks={"request": [asked]},
        ) as web,
    ):
        yield Behind(web, root, go_on)
    go_on.set()
    next(server, None)


def test_the_cookie_is_secure_and_of_the_path(behind: Behind) -> None:
    own = {"origin": f"https://{NAME}"}
    answer = behind.web.post(f"{behind.root}/studio/sign-in", data={"key": KEY}, headers=own)
    assert answer.status_code == 303 and answer.headers["location"] == f"{behind.root}/studio/"
    (cookie,) = SimpleCookie(answer.headers["set-cookie"]).values()
    assert cookie["secure"] and cookie["httponly"] and cookie["path"] == (behind.root or "/")
    assert cookie.key == "afresh_session" and "max-age" in answer.headers["strict-transport-security"]
    signed_in = {"cookie": f"{cookie.key}={cookie.value}"}
    page = behind.web.get(f"{behind.root}/studio/runs", headers=signed_in)
    assert page.status_code == 200 and f'action="{behind.root}/studio/sign-out"' in page.text
    for style in re.findall(r'rel="stylesheet" href="([^"]+)"', page.text):
        assert behind.web.get(style).status_code == 200


def denied(answer: httpx.Response) -> bool:
    """Whether nothing was answered: by the server, or by Caddy, which has empty pages under other names."""
    return answer.status_code in (401, 403) or not answer.content


def test_pages_of_others_and_other_names_are_refused(behind: Behind) -> None:
    sent = {"origin": "https://elsewhere.example", "x-api-key": KEY}
    answer = behind.web.post(f"{behind.root}/v1/completions", json={}, headers=sent)
    assert answer.json()["error"]["code"] == "wrong_origin"
    assert denied(behind.web.get(f"{behind.root}/v1/models", headers={"host": "elsewhere.example", "x-api-key": KEY}))


def test_streams_arrive_in_pieces(behind: Behind) -> None:
    behind.go_on.clear()
    with behind.web.stream("GET", f"{behind.root}/stream", headers={"x-api-key": KEY}) as stream:
        arriving = stream.iter_raw()
        assert next(arriving) == b"first"  # before the second is written
        behind.go_on.set()
        assert b"".join(arriving) == b"second"


@pytest.mark.parametrize("headers", [{}, {"x-forwarded-for": "127.0.0.1"}, {"host": "127.0.0.1"}])
def test_nobody_gets_the_rights_of_the_machine(behind: Behind, headers: dict[str, str]) -> None:
    for key, paths in ((KEY, ("train/look", "run/remove", "runs/bin/empty")), ("o" * 20, ("train/look",))):
        for path in paths:
            sent = headers | {"x-api-key": key}
            answer = behind.web.post(f"{behind.root}/studio/{path}", data={"path": "/etc/passwd"}, headers=sent)
            assert denied(answer), path
    behind.web.cookies.clear()
    assert denied(behind.web.get(f"{behind.root}/v1/models", headers=headers))


def test_a_body_may_be_as_large_as_the_server_takes(behind: Behind) -> None:
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    large = behind.web.post(f"{behind.root}/v1/completions", content=b" " * (20 * 2**20) + b"{}", headers=headers)
    assert large.status_code == 400 and large.json()["error"]["param"] == "model"
