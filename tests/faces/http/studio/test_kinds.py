"""Each kind of data on each page: a work is shown by an element that fits it, and each verb has its form."""

from __future__ import annotations

import ast
import io
import json
import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

import afresh
from afresh import domains
from afresh.core import registry
from afresh.faces import studio
from afresh.faces.http.app import ServeSettings
from afresh.faces.studio.page_words import plain_words
from afresh.runs.run import Run
from afresh.verbs import jobs
from tests.domains.exercises.learners import train_practice
from tests.domains.interactions.shop import shop
from tests.domains.series.tables import train as train_series
from tests.domains.series.tables import write_waves
from tests.faces.http.conftest import OWNER, serving

IMAGE = re.compile(r'<img [^>]*src="([^"]+)"')
TEXT = re.compile(r"<(blockquote|pre|p|div)(?: [^>]*)?>([^<]*)</\1>")
STREAMED = re.compile(r"^data: ?(.*)$", re.M)
PEOPLE = "age,city,joined,member\n" + "".join(
    f"{20 + i % 50},{('Köln', 'Bonn')[i % 2]},20{10 + i % 14}-0{1 + i % 9}-1{i % 9},{'yes' if i % 3 else 'no'}\n"
    for i in range(120)
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `waves`, `people` and `hours`, beside those of others."""
    root = tmp_path_factory.mktemp("kinds")
    at, made = np.arange(16) / 16 * 2 * np.pi, {"steps": 2, "quiet": True}
    k, s = np.arange(6).reshape(-1, 1, 1, 1), np.arange(8).reshape(-1, 1, 1)
    channels = np.sin(at[:, None] + k + s) * np.cos(at), np.cos(at + s + 0 * k) + 0 * at[:, None]
    np.save(root / "waves.npy", np.stack(channels, 2).astype(np.float32))
    axes = {"axes": "sample,time,channel,x,y"}
    for name, family in (("waves", None), ("flows", "flow")):
        out = root / "runs" / name
        afresh.train(root / "waves.npy", modality="field", data=axes, family=family, out=out, **made)
    (root / "people.csv").write_text(PEOPLE)
    small = {"family.width": 32, "family.layers": 1}
    afresh.train(root / "people.csv", modality="table", out=root / "runs" / "people", settings=small, **made)
    return root


@pytest.fixture(scope="module")
def served(root: Path, runs: Path, more: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    table = write_waves(root / "hours.csv")
    train_series(table, root / "runs" / "hours", steps=2)
    folder = tmp_path_factory.mktemp("next")
    shop(folder, steps=2)
    places = [root / "runs", runs, more, folder, train_practice(folder / "practice")]
    for address in serving(ServeSettings(places, memory=2**30, keys=OWNER, works=root / "works")):
        with httpx.Client(base_url=address, timeout=120, follow_redirects=True) as client:
            yield client


def wrong(served: httpx.Client, page: str) -> list[str]:
    """What is shown by an element that cannot show it: pictures that are none, raw JSON as a text."""
    out = []
    for source in map(unescape, IMAGE.findall(page)):
        if source.startswith("data:"):
            assert source.startswith("data:image/"), source[:40]
            continue
        answer = served.get(source)
        try:
            Image.open(io.BytesIO(answer.content)).verify()
        except OSError:
            out.append(f"{source} is {answer.headers.get('content-type')}, not a picture")
    for _, text in TEXT.findall(page):
        try:
            raw = json.loads(unescape(text))
        except ValueError:
            continue
        if isinstance(raw, dict | list):
            out.append(f"raw JSON: {text[:60]}")
    return out


def names(served: httpx.Client) -> list[str]:
    return sorted(set(re.findall(r'href="[^"]*/studio/run\?run=([^"&]+)"', served.get("/studio/").text)))


def created(served: httpx.Client, run: str) -> str:
    """What the page of creation shows of two works; empty for runs that are used on a page of their own."""
    if "/studio/create" not in str(served.get("/studio/create", params={"run": run}).url):
        return ""
    answer = served.post("/studio/create", params={"run": run}, data={"n": "2", "seed": "1"}, files={"x": b""})
    assert answer.status_code == 200, answer.text
    connect = re.search(r'sse-connect="([^"]+)"', answer.text)
    assert connect is not None
    streamed = served.get(unescape(connect[1])).text
    return "\n".join(STREAMED.findall(streamed))


def test_every_kind_on_every_page(served: httpx.Client) -> None:
    found: dict[str, list[str]] = {}
    runs = names(served)
    assert {"waves", "people", "hours", "digits", "stories", "chat", "tunes", "code", "sounds"} <= set(runs)
    for run in runs:
        shown = created(served, run)
        assert not shown or shown.count("<article") == 2, f"{run}: {shown[:400]}"
        pages = {"as it is made": shown}
        for path in (f"create?run={run}", f"run?run={run}", f"gallery?run={run}", f"vote?run={run}", f"chat?run={run}"):
            pages[path] = served.get(f"/studio/{path}").text
        for work in re.findall(r'id="w([0-9a-f-]+)"', shown)[:1]:
            pages["item"] = served.get(f"/studio/works/{work}").text
        found |= {f"{run}, {path}": faults for path, page in pages.items() if (faults := wrong(served, page))}
    assert not found


def test_every_verb_of_a_run_has_a_form(served: httpx.Client) -> None:
    own = {name for page in registry.pages() for name in page.verbs}
    asked = set()
    for run in names(served):
        page = served.get("/studio/run", params={"run": run}).text
        for verb in set(re.findall(r"/studio/verb/([a-z]+)\?", page)):
            form = served.get(f"/studio/verb/{verb}", params={"run": run})
            assert form.status_code == 200 and "<form" in form.text
            assert not re.search(r"<textarea[^>]*>\s*</textarea>\s*<p[^>]*>[^<]*counted from 0", form.text)
            asked.add(verb)
    assert {"rollout", "assimilate", "anomalies", "fill", "score", "propose", "rows", "impute"} <= asked | own


def test_a_field_is_a_picture_of_each_channel_and_a_spectrum(served: httpx.Client) -> None:
    (work, *_) = re.findall(r'id="w([0-9a-f-]+)"', created(served, "waves"))
    page = served.get(f"/studio/works/{work}").text
    titles = re.findall(r"<figcaption[^>]*>([^<]+)", page)
    assert len(titles) == 3 and titles[-1] == "energy by wavenumber" and " to " in titles[0]
    picture = served.get(f"/studio/works/{work}/picture")
    assert picture.headers["content-type"] == "image/png"


def test_rows_are_a_table_with_given_values_to_save_as_csv_and_parquet(served: httpx.Client) -> None:
    page = served.get("/studio/create", params={"run": "people"})
    assert "verb/rows" in str(page.url) and re.search(r'<select[^>]*name="given.city"', page.text)
    form = {"n": "5", "given.city": "Bonn", "given.age": "", "format": "csv", "seed": "0"}
    answer = served.post("/studio/verb/rows", params={"run": "people"}, data=form).text
    rows = re.findall(r'data-label="city">([^<]*)</td>', answer)
    assert rows == ["Bonn"] * 5
    saved = set(re.findall(r'download="([^"]+)"', answer))
    assert {"rows.csv", "rows.parquet"} <= saved


def test_a_table_that_is_sent_is_filled_and_named_in_errors(served: httpx.Client) -> None:
    ask = {"params": {"run": "people"}, "data": {"draws": "2", "seed": "0"}}
    gaps = b"age,city,joined,member\n,Bonn,2012-03-12,yes\n30,,2013-04-11,no\n"
    answer = served.post("/studio/verb/impute", files={"file": ("gaps.csv", gaps)}, **ask).text
    assert "1 missing value of &#39;age&#39; filled" in answer and "filled.csv" in answer
    refused = served.post("/studio/verb/impute", files={"file": ("whole.csv", PEOPLE.encode())}, **ask)
    assert (
        refused.status_code == 400 and "whole.csv has no missing value" in refused.text and "/tmp" not in refused.text
    )


def test_a_rollout_is_an_animation(served: httpx.Client) -> None:
    form = {"steps": "3", "members": "2", "at": "0", "trajectory": "0", "format": "npz", "keep": "", "seed": "0"}
    answer = served.post("/studio/verb/rollout", params={"run": "waves"}, data=form).text
    assert 'src="data:image/gif;base64,' in answer and {"rollout.npz", "spectra.json"} <= set(
        re.findall(r'download="([^"]+)"', answer)
    )
    assert 'data-curves="{&#34;' in answer and "&#34;step&#34;: [" in answer, "the spectrum is drawn"
    many = served.post("/studio/verb/rollout", params={"run": "waves"}, data={**form, "steps": "100000"})
    assert many.status_code == 400 and "1 to 1000" in many.text.replace(",", "")


def looked(served: httpx.Client, address: str) -> str:
    """The page of what was found, once it is found."""
    for _ in range(600):
        page = served.get(address).text
        if "data-live" not in page:
            return page
        time.sleep(0.1)
    raise AssertionError(page)


def test_data_of_two_kinds_is_a_choice_and_each_of_them_can_be_learnt(served: httpx.Client, root: Path) -> None:
    """A table with a column of years may be rows or a series, which needs the column named."""
    harvest = "year,rain,wheat\n" + "".join(f"{1850 + i},{600 + i * 7 % 50},{i * 3 % 11}\n" for i in range(160))
    id = served.post("/studio/train/files").json()["id"]
    served.post(f"/studio/train/files/{id}", files={"file": ("harvest.csv", harvest.encode())})
    address = served.post(f"/studio/train/files/{id}/end").json()["next"]
    page = looked(served, address)
    assert re.findall(r'type="radio" name="modality" value="([a-z]+)"', page) == ["series", "table"]
    assert (
        "learns windows: times in year, values in rain, wheat" in page and "learns rows: a table of 3 columns" in page
    )
    assert "harvest.csv can be learnt" in page and str(root.parent) not in page
    for kind, heading in (("series", "windows"), ("table", "160 rows")):
        again = served.post(f"{address}/again", data={"modality": kind})
        page = looked(served, str(again.url))
        assert re.search(rf"<h1>[^<]*{heading}</h1>", page), page
        assert f"read as {kind}, as you chose" in page and "<summary>It is something else</summary>" in page
        job = jobs.read(str(again.url).rpartition("/")[2])
        assert job is not None and job.about["data"] == (["time=year"] if kind == "series" else [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/srv/runs/a/data.csv has no rows.", "data.csv has no rows."),
        ("The data of /srv/runs/a is in `/mnt/x y.csv`.", "The data of a is in x y.csv."),
        ("Read https://example.org/a/b.csv instead.", "Read https://example.org/a/b.csv instead."),
        ("Name a folder, such as /home/you/photos.", "Name a folder, such as /home/you/photos."),
        ("1/2 of them, and/or none.", "1/2 of them, and/or none."),
    ],
)
def test_a_page_shows_no_path_of_the_server(text: str, said: str) -> None:
    assert plain_words(text) == said


def test_a_run_of_rows_draws_them_as_cells(root: Path) -> None:
    run = Run.open(root / "runs" / "people")
    preview = run.encoder.kind.preview(run.encoder.kind.decode(b'{"age": 31, "city": null}'))
    assert preview.cells == [("age", "31"), ("city", "")]


def test_pages_of_domains_and_plug_ins_import_the_public_names_alone() -> None:
    tests = Path(__file__).parents[3]
    files = [*Path(domains.__path__[0]).rglob("*.py"), *(tests / "plugin" / "package").rglob("*.py")]
    asked, imported = set(), set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.ImportFrom(module=str(module), names=names) if module.startswith("afresh.faces"):
                    imported |= {(file.name, f"{module}.{alias.name}") for alias in names}
                case ast.Attribute(value=ast.Name("studio"), attr=name):
                    asked.add((file.name, f"afresh.faces.studio.{name}"))
    assert {"afresh_walk_page.py", "chat_page.py"} <= {file for file, _ in imported}
    public = {f"afresh.faces.studio.{name}" for name in studio.__all__}
    assert not {one for one in imported | asked if one[1] not in public | {"afresh.faces.studio"}}
    assert all(hasattr(studio, name) for name in studio.__all__)
