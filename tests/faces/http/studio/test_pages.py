"""The frame of the studio: what it shows of runs, what it loads, and that names stay texts."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from afresh.faces.http.app import ServeSettings
from afresh.faces.studio.pages import STATIC
from tests.faces.http.conftest import OWNER, serving

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def odd(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server of runs with odd names, one of which is damaged."""
    folder = tmp_path_factory.mktemp("odd")
    shutil.copytree(runs / "digits", folder / "<img src=x onerror=alert(1)>")
    shutil.copytree(runs / "digits", folder / "damaged")
    (folder / "damaged" / "run.json").write_text(f'"{SCRIPT}"')
    server = serving(ServeSettings([folder], memory=2**30, keys=OWNER))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield client
    next(server, None)


def test_the_front_leads_to_the_studio(http: httpx.Client) -> None:
    answer = http.get("/", follow_redirects=True)
    assert answer.status_code == 200 and answer.url.path == "/studio/"
    assert all(name in answer.text for name in ("stories", "chat", "digits"))


def test_names_and_faults_are_shown_as_text(odd: httpx.Client) -> None:
    shown = odd.get("/studio/").text
    assert "&lt;img src=x" in shown and "<img src=x" not in shown and SCRIPT not in shown
    assert "This model cannot be used" in shown


def test_pages_load_nothing_from_elsewhere_and_run_no_inline_script(http: httpx.Client) -> None:
    policy = http.get("/studio/").headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy and "script-src" not in policy
    for file in [*STATIC.rglob("*.js"), *STATIC.rglob("*.css"), *STATIC.parent.rglob("*.html")]:
        text = file.read_text()
        if file.suffix == ".html":
            assert " onclick" not in text and "style=" not in text and "http://" not in text and "https://" not in text


def test_vendored_files_are_those_that_are_named() -> None:
    folder = STATIC / "vendored"
    listed = {entry["file"]: entry for entry in json.loads((folder / "files.json").read_text())}
    assert set(listed) == {p.name for p in folder.iterdir() if p.suffix in (".js", ".css")}
    for name, entry in listed.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry["sha256"]


def test_scripts_and_styles_are_small() -> None:
    files = [p for p in STATIC.rglob("*") if p.suffix in (".js", ".css")]
    assert sum(p.stat().st_size for p in files) < 150_000


@pytest.mark.parametrize("path", ["../pages.py", "..%2Fpages.py", "%2Fetc%2Fpasswd", "vendored", ""])
def test_static_files_are_those_of_their_folder(http: httpx.Client, path: str) -> None:
    assert http.get(f"/studio/static/{path}").status_code == 404


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studio/nope", 404),
        ("/studio/exports/0000000000000000", 403),
        ("/studio/static/nope.js", 404),
        ("/studio/create?run=nope", 404),
        ("/studio/runs?by=nope", 400),
    ],
)
def test_errors_are_pages_for_browsers_and_json_for_programs(http: httpx.Client, path: str, status: int) -> None:
    answer = http.get(path, headers={"accept": "text/html,application/xhtml+xml"})
    assert answer.status_code == status and "That did not work" in answer.text and "<main" in answer.text
    assert http.get("/v1/nope", headers={"accept": "text/html"}).json()["error"]["message"]


def test_what_is_refused_at_the_door_is_a_page_for_browsers(http: httpx.Client) -> None:
    answer = http.get("/studio/", headers={"accept": "text/html", "host": "elsewhere.example"})
    assert answer.status_code == 403 and "elsewhere.example" in answer.text and "<main" in answer.text
    assert http.get("/studio/", headers={"host": "elsewhere.example"}).json()["error"]["code"] == "wrong_host"


def test_an_unknown_run_is_a_page_that_says_so(http: httpx.Client) -> None:
    answer = http.get("/studio/preview", params={"run": SCRIPT})
    assert answer.status_code == 404 and "No run named" in answer.text and SCRIPT not in answer.text
