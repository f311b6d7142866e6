"""What a server makes is marked and signed by default, in every dialect and in the studio, and it says where files come
from."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

import afresh
from afresh.core import UserError
from afresh.faces.http.app import ServeSettings
from afresh.runs.run import Run
from afresh.services.provenance.layers import Status
from afresh.services.provenance.read import read
from afresh.verbs.creation_request import CreationRequest, make
from afresh.verbs.gallery import Works
from afresh.verbs.verify_works import verify_work
from tests.faces.http.conftest import TINY, serving


@pytest.fixture(autouse=True)
def works_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AFRESH_MARK_WORKS")


@pytest.fixture(scope="module")
def tales(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server of a run that writes letters, of which each is as likely as others, so that each bears much
    of a mark."""
    folder = tmp_path_factory.mktemp("tales")
    lines = np.random.default_rng(0).choice([*"abcdefghijklmnopqrstuvwxyz   "], (400, 120))
    (folder / "tales.txt").write_text("\n\n".join("".join(line) for line in lines))
    afresh.train(folder / "tales.txt", steps=60, out=folder / "tales", data={"context": 64}, settings=TINY, quiet=True)
    server = serving(ServeSettings([folder / "tales"], memory=2**30))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield client
    next(server, None)


def post(http: httpx.Client, path: str, **body: object) -> httpx.Response:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp"])
def test_images_of_the_api_are_signed(http: httpx.Client, kind: str) -> None:
    made = post(http, "/v1/images/generations", model="digits", prompt="", n=2, output_format=kind).json()
    for image in made["data"]:
        assert read(base64.b64decode(image["b64_json"])).status is Status.VALID


def test_sounds_of_the_api_are_signed(media_address: str) -> None:
    with httpx.Client(base_url=media_address, timeout=60) as http:
        asked = {"model": "sounds", "input": "beep", "voice": "default"}
        for kind in ("wav", "flac", "mp3"):
            made = post(http, "/v1/audio/speech", **asked, response_format=kind)
            assert read(made.content).status is Status.VALID
        made = post(http, "/v1/audio/speech", **asked, response_format="opus")
        assert read(made.content, base64.b64decode(made.headers["x-afresh-provenance"])).status is Status.VALID


def test_samples_come_with_their_provenance(tales: httpx.Client, http: httpx.Client) -> None:
    made = post(tales, "/afresh/v1/samples", model="tales", n=2, seed=1, prompt="Once").json()["samples"]
    for row in made:
        found = read(row["text"].encode(), json.dumps(row["provenance"]).encode())
        assert found.status is Status.VALID
        assert "prompt" not in str(found.layers[0].origins[0].work.recipe.values()), "a prompt stays with its author"
    texts = "\n".join(json.dumps({"text": row["text"]}) for row in made)
    assert verify_work(texts.encode(), "texts.jsonl").layers[-1].status is Status.MARKED
    image = post(http, "/afresh/v1/samples", model="digits", n=1).json()["samples"][0]
    assert read(base64.b64decode(image["base64"])).status is Status.VALID


@pytest.mark.parametrize("kind", ["afresh-catalogue", "afresh-receipt"])
def test_a_text_that_a_client_dictates_is_no_statement_of_the_owner(
    tales: httpx.Client, tmp_path: Path, kind: str
) -> None:
    listing = {"id": "x", "kind": "data", "sha256": "0" * 64, "size": 9, "bundle": "x.csv"}
    index = {"format": kind, "version": 1, "made": "2026-12-02T00:00:00Z", "listings": [listing]}
    dictated = json.dumps(index, separators=(",", ":"))
    pattern = "".join(f"\\{c}" if c in "{}[]." else c for c in dictated)
    asked = {"model": "tales", "n": 1, "seed": 1, "regex": pattern, "settings": {"length": 600}}
    (row,) = post(tales, "/afresh/v1/samples", **asked).json()["samples"]
    assert row["text"] == dictated and row["provenance"]
    (tmp_path / "catalogue.json").write_text(row["text"])
    (tmp_path / "catalogue.json.provenance.json").write_text(json.dumps(row["provenance"]))
    assert read(tmp_path / "catalogue.json").status is Status.DAMAGED
    with pytest.raises(UserError, match=r"signed as a generated work, and not as|its format is not"):
        afresh.get(tmp_path / "catalogue.json", listing="x", out=tmp_path / "out")


def test_texts_of_other_dialects_are_marked(tales: httpx.Client) -> None:
    asked = {"model": "tales", "prompt": "the cat", "max_tokens": 100, "seed": 3}
    made = post(tales, "/v1/completions", **asked).json()["choices"][0]["text"]
    assert verify_work(made.encode(), "a.txt").status is Status.MARKED
    pieces = tales.post("/v1/completions", json={**asked, "stream": True}).text.split("\n\n")
    said = [json.loads(p.removeprefix("data: "))["choices"] for p in pieces if p.startswith("data: {")]
    assert "".join(c[0]["text"] for c in said if c) == made


def test_verify_over_http(tales: httpx.Client, http: httpx.Client) -> None:
    image = base64.b64decode(
        post(http, "/v1/images/generations", model="digits", prompt="").json()["data"][0]["b64_json"]
    )
    made = http.post("/afresh/v1/verify", files={"file": ("a.png", image)}).json()
    assert made["name"] == "a.png" and made["status"] == "valid"
    changed = image[:-40] + bytes([image[-40] ^ 1]) + image[-39:]
    assert http.post("/afresh/v1/verify", files={"file": ("a.png", changed)}).json()["status"] in ("changed", "damaged")
    text = post(tales, "/afresh/v1/samples", model="tales", n=1, seed=1, prompt="Once").json()["samples"][0]
    beside = json.dumps(text["provenance"]).encode()
    both = [("file", ("a.txt", text["text"].encode())), ("file", ("a.txt.provenance.json", beside))]
    made = http.post("/afresh/v1/verify", files=both).json()
    assert [layer["status"] for layer in made["layers"]] == ["valid", "mark found"]
    assert http.post("/afresh/v1/verify", files={"file": ("b.txt", b"nothing")}).json()["status"] == "nothing found"
    answer = http.post("/afresh/v1/verify", files=[("file", ("a", b"1")), ("file", ("b", b"2"))])
    assert answer.status_code == 400 and "2 files" in answer.json()["error"]["message"]
    page = http.post("/studio/verify", files={"file": ("<b>.png", image)}).text
    assert "&lt;b&gt;.png: valid" in page and "<b>" not in page


def test_downloads_of_the_studio_are_signed(runs: Path, tmp_path: Path) -> None:
    shelf = Works(tmp_path / "works")
    for name in ("digits", "stories"):
        run = Run.open(runs / name)
        wish = CreationRequest(settings={"length": 60} if name == "stories" else {})
        for made in make(run, wish, {}):
            shelf.keep(run, name, "8", wish, {}, made)
    server = serving(ServeSettings([runs], memory=2**30, works=tmp_path / "works"))
    with httpx.Client(base_url=next(server), timeout=60) as http:
        for work in shelf.find():
            if "work.png" in work.recipe.files:
                for path in ("files/work.png", "download/png"):
                    assert read(http.get(f"/studio/works/{work.id}/{path}").content).status is Status.VALID
            else:
                archive = http.get(f"/studio/works/{work.id}/download/provenance")
                assert archive.headers["content-type"] == "application/zip"
                assert "Signed files" in http.get(f"/studio/works/{work.id}").text
            again = http.post(f"/studio/works/{work.id}/again").text
            assert "same" in again
    next(server, None)


def test_works_that_were_not_to_be_marked_stay_so(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, run, wish = Works(tmp_path / "works"), Run.open(runs / "digits"), CreationRequest()
    run.marked = False
    (made,) = make(run, wish, {})
    work = shelf.keep(run, "digits", "8", wish, {}, made)
    assert work.recipe.run_id is None
