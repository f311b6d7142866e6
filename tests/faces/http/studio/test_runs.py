"""The models of a server as a table, as a tree, each by itself, and two beside each other."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from afresh.core import Score, UserError
from afresh.core.plural import age, size
from afresh.faces.http.app import ServeSettings
from afresh.faces.http.keys import Keys
from afresh.faces.http.loaded_runs import Library
from afresh.faces.http.rights import Holder
from afresh.faces.studio.page_words import plain_words
from afresh.faces.studio.run_card import RunCard
from afresh.faces.studio.runs import thrown_away, tree
from afresh.faces.studio.train import measured_words
from afresh.runs.about import AboutRun
from afresh.runs.run import Run
from afresh.runs.trash import throw
from afresh.verbs import jobs
from afresh.verbs.measuring import measure_run
from afresh.verbs.report import write_run_report
from afresh.verbs.run_comparison import better, compare_runs
from tests.faces.http.conftest import OWNER, serving

ODD = "<img src=x onerror=alert(1)>"
SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def measured(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`digits`, measured; the same with an odd name, tuned from it as its record says; one of a newer version."""
    folder = tmp_path_factory.mktemp("measured")
    shutil.copytree(runs / "digits", folder / "digits")
    shutil.copytree(runs / "stories", folder / "stories")
    run = Run.open(folder / "digits")
    write_run_report(run, measure_run(run))
    shutil.copytree(folder / "digits", folder / ODD)
    record = json.loads((folder / ODD / "run.json").read_text())
    (folder / ODD / "run.json").write_text(json.dumps(record | {"base_model": str(folder / "digits")}))
    shutil.copytree(runs / "digits", folder / "newer")
    (folder / "newer" / "run.json").write_text(json.dumps(record | {SCRIPT: 1}))
    return folder


@pytest.fixture
def folder(measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_jobs: None) -> Path:
    monkeypatch.setenv("AFRESH_JOBS_FOLDER", str(tmp_path / "jobs"))
    return Path(shutil.copytree(measured, tmp_path / "runs"))


@pytest.fixture
def web(folder: Path) -> Iterator[httpx.Client]:
    server = serving(ServeSettings([folder], memory=2**30, keys=OWNER))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        yield client
    next(server, None)


def names(page: str) -> list[str]:
    return re.findall(r'<th scope="row"><a href="[^"]*">([^<]*)', page)


def test_every_run_is_in_the_table_and_the_broken_one_says_why(web: httpx.Client) -> None:
    page = web.get("/studio/runs").text
    assert sorted(names(page)) == ["&lt;img src=x onerror=alert(1)&gt;", "digits", "newer", "stories"]
    assert "It cannot be read" in page and SCRIPT not in page and ODD not in page
    assert "tuned from digits" in page


def test_the_table_is_sorted_both_ways(web: httpx.Client) -> None:
    up = names(web.get("/studio/runs", params={"by": "name"}).text)
    down = names(web.get("/studio/runs", params={"by": "name", "down": True}).text)
    assert up == down[::-1] and up[-1] == "stories"
    assert 'aria-sort="descending"' in web.get("/studio/runs", params={"by": "disk", "down": True}).text
    assert web.get("/studio/runs", params={"by": SCRIPT}).status_code == 400


def test_a_run_shows_its_measures_beside_those_of_real_data(web: httpx.Client) -> None:
    page = web.get("/studio/run", params={"run": "digits"}).text
    assert "Does it look real?" in page and "Real data" in page and "Tuned into" in page and "onnx" in page
    assert "hf" not in re.findall(r'name="to" value="(\w+)"', page)
    report = web.get("/studio/run/report", params={"run": "digits"})
    assert "sandbox" in report.headers["content-security-policy"] and "script-src" not in report.text
    sample = re.search(r'<img src="(/studio/run/samples[^"]*)"', page)
    assert sample and web.get(sample[1].replace("&amp;", "&")).content.startswith(b"\x89PNG")


def test_a_run_that_cannot_be_read_says_what_to_do(web: httpx.Client) -> None:
    page = web.get("/studio/run", params={"run": "newer"}).text
    assert "This model cannot be used" in page and "pip install --upgrade afresh" in page and SCRIPT not in page


@pytest.mark.parametrize("run", ["none", "../runs/digits", "/etc", "", SCRIPT])
def test_a_run_that_is_none_is_refused(web: httpx.Client, run: str) -> None:
    for path in ("run", "run/report", "run/samples?name=000001.png"):
        answer = web.get(f"/studio/{path}", params={"run": run, "name": "000001.png"})
        assert answer.status_code == 404 and SCRIPT not in answer.text


@pytest.mark.parametrize("name", ["../run.json", "run.json", "000001.svg", "%2e%2e/run.json"])
def test_only_pictures_of_training_are_given(web: httpx.Client, name: str) -> None:
    assert web.get("/studio/run/samples", params={"run": "digits", "name": name}).status_code == 404


def test_runs_that_were_measured_alike_are_compared(web: httpx.Client) -> None:
    page = web.get("/studio/runs/compare", params={"run": ["digits", ODD]}).text
    assert "Measured alike" in page and ODD not in page
    page = web.get("/studio/runs/compare", params={"run": ["digits", "stories"]}).text
    assert "cannot be compared" in page and "Measured alike" not in page
    assert web.get("/studio/runs/compare", params={"run": ["digits"]}).status_code == 400
    assert web.get("/studio/runs/compare").status_code == 400


def test_cards_that_differ_are_not_compared(measured: Path) -> None:
    known = AboutRun(Run.open(measured / "digits")).json()
    other = {**known, "card": {**known["card"], "split": "another"}}
    with pytest.raises(UserError, match="measured in different ways") as error:
        compare_runs(known, other)
    assert "split" in str(error.value)
    assert compare_runs(known, {**known, "card": {**known["card"], "sampling": {"x": 1}}, "family": "another"})


def test_a_score_is_better_only_beyond_both_intervals() -> None:
    low, high = Score("kid", 1.0, 0.5, 1.5, 9, "lower"), Score("kid", 3.0, 2.5, 3.5, 9, "lower")
    near = Score("kid", 1.6, 1.2, 2.0, 9, "lower")
    assert (better(low, high), better(high, low), better(low, near)) == ("first", "second", "")
    assert better(Score("kid", 1.0, None, None, 9, "lower"), high) == ""


def test_a_run_goes_to_the_bin_and_comes_back(web: httpx.Client, folder: Path) -> None:
    origin = {"origin": "http://elsewhere.example"}
    assert web.post("/studio/run/remove", data={"run": "digits"}, headers=origin).status_code == 403
    before = contents(folder / "digits")
    assert web.post("/studio/run/remove", data={"run": "digits"}).headers["location"] == "/studio/runs/bin"
    assert not (folder / "digits").exists() and (folder / "stories").is_dir()
    assert "digits" not in names(web.get("/studio/runs").text)
    page = web.get("/studio/runs/bin").text
    assert "removed just now" in page and "Restore" in page
    (id,) = re.findall(r'name="id" value="([^"]+)"', page)
    for wrong in ("../digits", SCRIPT, "20260101-000000-00000000"):
        assert web.post("/studio/runs/bin/restore", data={"id": wrong}).status_code == 404
    assert web.post("/studio/runs/bin/restore", data={"id": id}).headers["location"] == "/studio/run?run=digits"
    assert contents(folder / "digits") == before and "The bin is empty" in web.get("/studio/runs/bin").text


def test_a_run_is_removed_and_restored_with_the_keyboard_on_a_telephone(
    browser: Any, folder: Path, tmp_path: Path
) -> None:
    server = serving(ServeSettings([folder], memory=2**30, keys=OWNER))
    context = browser.new_context(base_url=next(server), viewport={"width": 360, "height": 740}, color_scheme="dark")
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.goto("/studio/run?run=digits")
    page.focus("details.removal summary")
    for key in ("Enter", "Tab", "Enter"):
        page.keyboard.press(key)
    page.wait_for_url("**/runs/bin")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360 and not (folder / "digits").exists()
    page.screenshot(path=tmp_path / "bin.png")
    page.focus("text=Restore")
    page.keyboard.press("Enter")
    page.wait_for_url("**/run?run=digits")
    context.close()
    next(server, None)
    assert (folder / "digits" / "run.json").is_file()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_broken_run_goes_to_the_bin_too_and_the_bin_is_emptied(web: httpx.Client, folder: Path) -> None:
    (folder / "stories" / "diary.txt").write_text("mine")
    for name in ("newer", ODD, "stories"):
        assert web.post("/studio/run/remove", data={"run": name}).status_code == 303
    assert ODD not in web.get("/studio/runs/bin").text
    assert web.post("/studio/runs/bin/empty").status_code == 400
    answer = web.post("/studio/runs/bin/empty", data={"sure": "true"})
    assert answer.status_code == 409 and "diary.txt" in answer.text
    assert [p.name for p in (folder / ".bin").rglob("*") if p.is_file()] == ["diary.txt"]
    assert web.post("/studio/runs/bin/empty", data={"sure": "true"}).status_code == 303
    assert (folder / "digits").is_dir()


def test_the_bin_of_a_server_of_one_run_holds_no_other(folder: Path) -> None:
    library = Library([folder / "digits"], 2**30)
    throw(folder / "stories")
    assert thrown_away(library) == []
    throw(folder / "digits")
    assert [thrown.origin for thrown in thrown_away(library)] == [folder / "digits"]


def test_only_somebody_at_the_machine_removes_runs(folder: Path) -> None:
    server = serving(ServeSettings([folder], memory=2**30))
    with httpx.Client(base_url=next(server)) as elsewhere:
        assert elsewhere.post("/studio/run/remove", data={"run": "stories"}).status_code == 403
        assert elsewhere.get("/studio/runs/bin").status_code == 403
        for deed in ("restore", "empty"):
            answer = elsewhere.post(f"/studio/runs/bin/{deed}", data={"id": "x", "sure": "true"})
            assert answer.status_code == 403
        assert "Remove this model" not in elsewhere.get("/studio/run", params={"run": "stories"}).text
        assert "runs/bin" not in elsewhere.get("/studio/runs").text
    next(server, None)
    assert (folder / "stories").is_dir()


def test_an_export_is_a_command_whose_end_is_shown(web: httpx.Client, folder: Path) -> None:
    assert web.post("/studio/run/export", data={"run": "digits", "to": SCRIPT}).status_code == 400
    answer = web.post("/studio/run/export", data={"run": "digits", "to": "safetensors"})
    job = jobs.jobs()[0]
    assert answer.status_code == 303 and answer.headers["location"] == f"/studio/train/{job.id}"
    while jobs.is_running(job):
        time.sleep(0.1)
    assert "Export digits to safetensors" in web.get("/studio/run", params={"run": "digits"}).text
    assert jobs.outcome(job).state == "done" and (folder / "digits-safetensors" / "proof.json").is_file()
    page = web.get(f"/studio/train/{job.id}").text
    assert "they agree" in page and "digits-safetensors" in page and "How it learns" not in page
    assert f"/studio/exports/{job.id}" in page
    shown = web.get("/studio/run", params={"run": "digits"}).text
    assert "Download safetensors" in shown and "Export to safetensors again" in shown and f"exports/{job.id}" in shown
    (folder / "digits-safetensors" / "link").symlink_to("/etc/passwd")
    answer = web.get(f"/studio/exports/{job.id}")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''digits-safetensors.zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as taken:
        assert taken.testzip() is None
        content = {name: taken.read(name) for name in taken.namelist()}
    files = [p for p in (folder / "digits-safetensors").rglob("*") if p.is_file() and not p.is_symlink()]
    assert content == {str(p.relative_to(folder)): p.read_bytes() for p in files}
    assert web.get("/studio/exports/0123456789abcdef").status_code == 404
    shutil.rmtree(folder / "digits-safetensors")
    assert "not there any more" in web.get(f"/studio/exports/{job.id}").text
    assert "Download safetensors" not in web.get("/studio/run", params={"run": "digits"}).text


def test_an_export_is_given_only_to_the_one_who_made_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = folder / "digits-hf"
    out.mkdir()
    (out / "model.bin").write_bytes(b"weights")
    monkeypatch.setattr(jobs, "_started", lambda place, words: SimpleNamespace(pid=1))
    about = {"to": "hf", "out": str(out)}
    job = jobs.start("export", [folder / "digits"], {}, "Export", folder / "digits", "ann", about)
    (job.folder / "events.jsonl").write_text(json.dumps({"event": "result", "folder": str(out)}) + "\n")
    keys = {"a" * 20: "ann", "b" * 20: "bob"}
    holders = Keys({key: Holder(name) for key, name in keys.items()})
    server = serving(ServeSettings([folder], 2**30, keys=holders, works=tmp_path / "works"))
    with httpx.Client(base_url=next(server), timeout=60) as client:
        answers = [client.get(f"/studio/exports/{job.id}", headers={"x-api-key": key}) for key in keys]
        assert client.get(f"/studio/exports/{job.id}", headers={"accept": "text/html"}).status_code in (303, 401)
    next(server, None)
    assert answers[0].content == b"weights" and 'filename="model.bin"' in answers[0].headers["content-disposition"]
    assert answers[1].status_code == 404


def test_a_run_that_was_changed_goes_on_only_from_a_terminal(web: httpx.Client, folder: Path) -> None:
    file = folder / "digits" / "run.json"
    record = json.loads(file.read_text())
    record["data"]["path"] = "/etc/passwd"
    file.write_text(json.dumps(record))
    place = web.post("/studio/run/resume", data={"run": "digits"}).headers["location"]
    while "sse-connect" in (page := web.get(place).text):
        time.sleep(0.2)
    assert "was not made here" in page and "Not finished" in page and "trust it from a terminal" in page


def test_what_was_made_of_what_ends_even_in_a_circle() -> None:
    def row(name: str, parent: str) -> RunCard:
        return RunCard(name, Path(name), parent=parent, how="tuned" if parent else "")

    rows = [row("a", ""), row("b", "a"), row("c", "b"), row("alone", ""), row("other", "gone")]
    assert [(d, r.name) for d, r in tree(rows)] == [(0, "a"), (1, "b"), (2, "c"), (0, "other")]
    assert tree([row("x", "y"), row("y", "x")]) == []


def test_sizes_and_ages_are_words() -> None:
    assert [size(n) for n in (999, 1_500, 7_490_000)] == ["999 bytes", "1.5 kB", "7.49 MB"]
    assert [age(s) for s in (5, 60, 7_200, 90_000)] == ["just now", "1 minute", "2 hours", "1 day"]


def test_messages_have_no_words_of_a_terminal() -> None:
    assert plain_words("Measure the other one first: `model.measure()`.") == "Measure the other one first."
    assert plain_words("It stops when they are too many (`train.memorisation_limit`); go on") == (
        "It stops when they are too many; go on"
    )
    assert plain_words("No times: the order counts. `data.time` names their column") == "No times: the order counts."
    assert plain_words("more than 512 MB: split it, or raise `data.max_file_mb`") == "more than 512 MB: split it"
    assert (
        plain_words("Of numbers. To learn one all the same: --modality text and --data text_column=NAME.")
        == "Of numbers."
    )
    assert plain_words("a; b (and 4 more notes, what to do: --verbose)") == "a; b"
    assert plain_words("Use `train.lr`.") == "Use train.lr.", "nothing else is said"
    kept = "`hole=9:10` extends beyond it. Give a part, or “data.csv”, or '--x'."
    assert plain_words(kept) == kept.replace("`", "")
    assert measured_words("kid").startswith("Measuring what was learnt: ") and "kid" not in measured_words("kid")
    assert measured_words("samples are drawn") == "Measuring what was learnt: samples are drawn"


def test_models_that_were_not_measured_offer_it(web: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Measure it" in web.get("/studio/run?run=stories").text
    assert "Measure it" not in web.get("/studio/run?run=digits").text
    page = web.get("/studio/runs/compare?run=digits&run=stories").text
    assert "<button>Measure stories" in page and "<button>Measure digits" not in page and "model.measure" not in page
    asked = list[str]()

    def start(verb: str, arguments: list[Path], options: object, title: str, *rest: object) -> jobs.BackgroundJob:
        asked.extend([verb, arguments[0].name])
        return jobs.BackgroundJob("0" * 16, verb, title, None, "", 0.0, 0)

    monkeypatch.setattr(jobs, "start", start)
    assert web.post("/studio/run/measure", data={"run": "stories"}).status_code == 303
    assert asked == ["measure", "stories"]
