"""A package of a third party adds two modalities through entry points, and every verb works on them.

Its items are neither texts, nor arrays, nor sounds, and no line of afresh refers to them. A family and a method of
alignment come from the package as well.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

import afresh
from afresh.core import registry
from afresh.core.events import Event, listening
from afresh.core.plugin import Plugin
from afresh.core.plugins import forget
from afresh.faces.cli import run
from afresh.faces.http.app import ServeSettings, make_app
from afresh.faces.studio.pages import templates
from afresh.faces.studio.run_card import card_of
from afresh.runs.about import AboutRun
from afresh.runs.run import Run
from afresh.verbs.run_comparison import compare_runs
from tests.faces.cli.conftest import Invoke, drawn, invoke, parsed
from tests.voting import Voter, page_votes

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).with_name("package")
SMALL = ("--family", "transformer", "--set", "family.layers=1", "--set", "family.width=32", "--set", "family.heads=2")
SMALL = (*SMALL, "--set", "family.kv_heads=2", "--set", "train.batch=16")
FLOW = ("--modality", "chart", "--family", "flow", "--set", "family.widths=[8, 16]", "--set", "train.batch=16")
__all__ = ["invoke"]


def install(package: Path, target: Path, name: str = "") -> None:
    """Put a package and its metadata into a folder, as pip does; `name` takes the place of its own."""
    about = tomllib.loads((package / "pyproject.toml").read_text())["project"]
    for file in (*package.glob("*.py"), *package.glob("*.html")):
        (target / file.name).write_bytes(file.read_bytes())
    info = target / f"{(name or about['name']).replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    metadata = f"Metadata-Version: 2.1\nName: {name or about['name']}\nVersion: {about['version']}\n"
    (info / "METADATA").write_text(metadata)
    lines = []
    for group, entries in about["entry-points"].items():
        lines += [f"[{group}]", *(f"{key} = {value}" for key, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the package, on the path of this process."""
    target = tmp_path_factory.mktemp("site")
    install(PACKAGE, target)
    sys.path.insert(0, str(target))
    forget()
    templates.cache_clear()  # pages that were shown before had no template of the package
    yield target
    sys.path.remove(str(target))
    for module in ("afresh_walks", "afresh_walkers", "afresh_walk_page"):
        sys.modules.pop(module, None)
    forget()
    templates.cache_clear()


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 walks in two class folders, one copied, one damaged."""
    root, draw = tmp_path_factory.mktemp("walks"), np.random.default_rng(0)
    for i in range(240):
        name = "up" if i % 2 else "down"
        (root / name).mkdir(exist_ok=True)
        steps = draw.choice([-1, 0, 1], 8, p=[0.2, 0.2, 0.6] if i % 2 else [0.6, 0.2, 0.2])
        (root / name / f"{i:03d}.walk").write_text(" ".join(map(str, steps)))
    (root / "up" / "copy.walk").write_bytes((root / "up" / "001.walk").read_bytes())
    (root / "up" / "broken.walk").write_text("1 2 3")
    return root


@pytest.fixture(scope="module")
def walk_run(site: Path, walks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "walks"
    assert run(["train", str(walks), "--steps", "30", "--out", str(out), "--no-measure", *SMALL]) == 0
    return out


@pytest.fixture(scope="module")
def chart_run(site: Path, walks: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "charts"
    assert run(["train", str(walks), "--steps", "4", "--out", str(out), "--no-measure", *FLOW]) == 0
    return out


def answered(monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))


# --------------------------------------------------------------------------- the proof


def test_another_process_finds_the_modality_and_shows_the_data(site: Path, walks: Path) -> None:
    code = [sys.executable, "-m", "afresh", "data", str(walks)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    done = subprocess.run(code, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr
    assert ": walk (242 of 242 files are walks)" in done.stdout, done.stdout
    assert "sizes: 8 to 8 steps, median 8" in done.stdout and re.search("[↑→↓]{8}", done.stdout)


def test_data_is_read_and_searched_for_duplicates(site: Path, walks: Path, tmp_path: Path, invoke: Invoke) -> None:
    page = tmp_path / "data.html"
    code, printed, _ = invoke("data", walks, "--json", "--out", page)
    facts = parsed(printed)
    assert code == 0 and facts["modality"] == "walk" and facts["sizes"]["steps"]["median"] == 8
    assert facts["train"] + facts["heldout"] < 241 and len(facts["exact_duplicates"]) > 0
    assert [r["source"] for r in facts["refused"]] == ["up/broken.walk"]
    assert set(facts["labels"]) == {"label"} and re.search("[↑→↓]{8}", page.read_text())


def test_a_source_makes_files_that_readers_know(site: Path, walks: Path, tmp_path: Path, invoke: Invoke) -> None:
    lines = [f.read_text() for f in sorted(walks.rglob("*.walk")) if f.stem.isdigit()]
    (tmp_path / "all.steps").write_text("\n".join(lines))
    code, printed, _ = invoke("data", tmp_path / "all.steps", "--json")
    facts = parsed(printed)
    assert code == 0 and facts["modality"] == "walk" and facts["train"] + facts["heldout"] > 200


def test_walks_are_sampled_and_written(walk_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "out"
    code, printed, _ = invoke("sample", walk_run, "-n", 5, "--label", "up", "--out", out, "--json")
    records = drawn(printed)
    assert code == 0 and all(len(r["text"].split()) == 8 and r["label"] == "up" for r in records)
    assert records == [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    code, printed, _ = invoke("sample", walk_run, "-n", 2)
    assert code == 0 and len(re.findall("[↑→↓]{8}", printed)) == 2
    assert re.search("[↑→↓]{8}", (next(iter((walk_run / "samples").glob("*.txt")))).read_text())


def test_a_hook_of_the_package_sees_every_result(
    walk_run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AFRESH_MARK_WORKS")
    assert invoke("sample", walk_run, "-n", 2, "--seed", 7, "--out", tmp_path / "out")[0] == 0
    recipe = json.loads((tmp_path / "out" / "samples.jsonl.recipe").read_text())
    assert recipe == {"seed": 7, "samples": 2}
    assert (tmp_path / "out" / "samples.jsonl.provenance.json").exists(), "signed as without the package"
    assert invoke("sample", walk_run, "-n", 2, "--out", tmp_path / "plain", "--no-marks")[0] == 0
    assert [f.name for f in (tmp_path / "plain").iterdir()] == ["samples.jsonl"]


def test_walks_are_measured_and_reported(walk_run: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke("measure", walk_run, "--json")
    scores = {m["name"]: m for m in parsed(printed)["metrics"]}
    assert code == 0
    assert {"items_valid", "items_kid", "items_diversity", "items_near_copies", "bits_per_token"} <= set(scores)
    assert scores["items_valid"]["value"] == 1.0 and 0 < scores["bits_per_token"]["value"] < 2
    assert scores["bits_per_token"]["control"] == pytest.approx(1.5, abs=0.1)
    assert "walks_level" in scores, "a metric of the package"
    assert "bits_per_byte" not in scores and "frechet" not in scores
    report = (walk_run / "report.html").read_text()
    assert re.search("[↑→↓]{8}", report) and "items_kid" in report


def test_a_metric_of_the_package_has_words_and_a_verdict(walk_run: Path, invoke: Invoke) -> None:
    code, printed, _ = invoke("measure", walk_run, "--json")
    facts = parsed(printed)
    level = next(m["value"] for m in facts["metrics"] if m["name"] == "walks_level")
    sentence = f"{level:.0%} of the walks end where they began."
    assert (
        code == 0 and facts["verdict"]["word"] == "recognisable" and facts["verdict"]["sentence"].startswith(sentence)
    )
    report = (walk_run / "report.html").read_text()
    assert "walks that end level" in report and "The share that ends where it began." in report and sentence in report
    assert f"**Verdict: recognisable.** {sentence}" in (walk_run / "card.md").read_text()
    card = card_of("walks", Run.open(walk_run))
    assert card.about is not None and card.about.verdict == "recognisable"
    assert (card.about.report.verdict or {})["sentence"].startswith(sentence)
    assert card.place is not None and card.place.invitation == "Go for a walk"
    assert card.about.run.family.how == registry.family("transformer").how != ""
    (pair,) = (p for p in compare_runs(*[AboutRun(Run.open(walk_run)).json()] * 2) if p.first.name == "walks_level")
    assert pair.name == "walks that end level"


@pytest.mark.parametrize("reward", ["FILE", "climb", "class:up"])
def test_walks_are_aligned_by_a_reward(
    reward: str, walk_run: Path, walks: Path, tmp_path: Path, invoke: Invoke
) -> None:
    (tmp_path / "mine.py").write_text("def rising(walk):\n    return sum(s == 1 for s in walk.steps)\n")
    reward, out = reward.replace("FILE", f"{tmp_path}/mine.py:rising"), tmp_path / "aligned"
    argv = ("align", walk_run, "--reward", reward, "--steps", 2, "--out", out, "--set", "train.batch=16")
    code, _, err = invoke(*argv, "--set", "align.group=8")
    assert code == 0, err
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    looks = [r for r in rows if "data_similarity" in r]
    assert looks and all(0 < r["data_similarity"] <= 1 and 0 < r["diversity"] < 1 for r in looks)
    code, _, err = invoke("align", walk_run, "--reward", "brightness", "--out", tmp_path / "no")
    assert code != 0 and "brightness is for images and sounds, not for walks" in err and "climb" in err


def test_walks_are_compared_in_the_terminal_and_teach(
    walk_run: Path, tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes = tmp_path / "votes.jsonl"
    answered(monkeypatch, "a\nb\n" * 60)
    code, _, err = invoke("compare", walk_run, "-n", 60, "--set", "active=no", "--out", votes)
    assert code == 0 and re.search("[↑→↓]{8}", err), err
    rows = [json.loads(line) for line in votes.read_text().splitlines()]
    assert len(rows) > 40 and all(re.fullmatch(r"(-?[01] ?){8}", r[side]) for r in rows for side in "ab")
    code, printed, _ = invoke("compare", walk_run, "--out", votes, "--summary")
    assert code == 0 and f"{len(rows)} votes" in printed and "strongest" in printed
    out = tmp_path / "aligned"
    code, _, err = invoke("align", walk_run, "--preferences", votes, "--steps", 2, "--out", out)
    assert code == 0, err
    # A reward model of votes that say the same everywhere: the more steps up, the better.
    for row in rows:
        height = {side: sum(map(int, row[side].split())) for side in "ab"}
        row["winner"] = "tie" if height["a"] == height["b"] else max("ab", key=lambda side: height[side])
    votes.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "rewarded"
    argv = ("align", walk_run, "--preferences", votes, "--method", "grpo", "--steps", 2, "--out", out)
    code, _, err = invoke(*argv, "--set", "train.batch=16", "--set", "align.group=8")
    assert code == 0, err
    saved = json.loads((out / "reward-model" / "model.json").read_text())
    assert saved["items"] == "walk" and saved["features"] == 8


def test_charts_are_sampled_as_files_and_shown_as_images(chart_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    out = tmp_path / "out"
    code, printed, _ = invoke("sample", chart_run, "-n", 4, "--set", "steps=2", "--out", out, "--json")
    assert code == 0 and [r["file"] for r in drawn(printed)] == [f"{i}.walk" for i in range(4)]
    assert all(len((out / f"{i}.walk").read_text().split()) == 8 for i in range(4))
    with Image.open(out / "grid.png") as grid:
        assert min(grid.size) > 100
    code, _, _ = invoke("sample", chart_run, "-n", 4, "--set", "steps=2", "--out", tmp_path / "all.png")
    assert code == 0 and (tmp_path / "all.png").is_file()
    code, printed, err = invoke("sample", chart_run, "-n", 2, "--set", "steps=2", "--json")
    assert code != 0 and "makes charts, which JSON cannot hold" in err
    code, printed, _ = invoke("measure", chart_run, "--json")
    assert code == 0 and "items_kid" in {m["name"] for m in parsed(printed)["metrics"]}
    report = (chart_run / "report.html").read_text()
    assert "data:image/png;base64," in report and re.search("[↑→↓]{8}", report)


def test_charts_are_compared_on_the_page(chart_run: Path, tmp_path: Path) -> None:
    votes, seen = tmp_path / "votes.jsonl", list[bytes]()

    def act(voter: Voter) -> None:
        while voter.pair is not None:
            seen.extend(voter.items())
            voter.vote("a")

    with page_votes(act):
        assert run(["compare", str(chart_run), "-n", "3", "--set", "steps=2", "--out", str(votes)]) == 0
    rows = [json.loads(line) for line in votes.read_text().splitlines()]
    assert rows and all(r["a"].endswith(".walk") and (tmp_path / r["a"]).is_file() for r in rows)
    assert seen and all(raw.startswith(b"\x89PNG") for raw in seen)


def test_a_codec_of_the_package_brings_charts_to_a_family_of_tokens(
    site: Path, walks: Path, tmp_path: Path, invoke: Invoke
) -> None:
    out = tmp_path / "run"
    argv = ["train", str(walks), "--modality", "chart", "--steps", "2", "--out", str(out), "--no-measure"]
    assert run([*argv, *SMALL]) == 0
    assert Run.open(out).record.codec == "step" and Run.open(out).space.kind == "tokens"
    code, _, _ = invoke("sample", out, "-n", 2, "--out", tmp_path / "drawn")
    assert code == 0 and len((tmp_path / "drawn" / "0.walk").read_text().split()) == 8


# --------------------------------------------------------------------------- the registry


def test_the_registry_lists_what_the_package_adds(site: Path) -> None:
    assert {"walk", "chart"} <= set(registry.modality_names()) and {"walk", "chart"} <= set(registry.kinds())
    assert list(registry.rewards()["walk"]) == ["climb"]
    assert registry.modality("walk").kind is registry.kind("walk")
    assert not {"walk", "chart"} & set(registry.own_modalities())


def test_a_family_and_a_method_of_the_package_are_used_by_name(walks: Path, site: Path, tmp_path: Path) -> None:
    base, out = tmp_path / "walker", tmp_path / "aligned"
    small = ["walker" if word == "transformer" else word for word in SMALL]
    assert run(["train", str(walks), "--steps", "2", "--out", str(base), "--no-measure", *small]) == 0
    assert json.loads((base / "run.json").read_bytes())["family"] == "walker"
    argv = ["align", str(base), "--reward", "climb", "--method", "climber", "--steps", "1", "--out", str(out)]
    assert run([*argv, "--set", "train.batch=16", "--set", "align.group=8"]) == 0
    assert registry.aligner("climber", registry.family("walker")).name == "climber"
    assert "walker" in registry.family_names() and "walker" in [f.name for f in registry.families()]


RECORD = "from afresh.core.plugin import Plugin\n\nPLUGIN = Plugin({})\n"


def package(folder: Path, code: str, *entries: str) -> Path:
    """A package `walks-again` whose modules are `walks_again` and `walks_again_record`, with modalities by name."""
    folder.mkdir()
    (folder / "walks_again.py").write_text(code)
    modalities = dict.fromkeys(entries, "walks_again:MODALITY")
    (folder / "walks_again_record.py").write_text(RECORD.format(f"modalities={modalities}"))
    lines = ["[project]", 'name = "walks-again"', 'version = "1.0"', '[project.entry-points."afresh.plugins"]']
    (folder / "pyproject.toml").write_text("\n".join([*lines, 'walks-again = "walks_again_record:PLUGIN"']) + "\n")
    return folder


@pytest.fixture
def add(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Installs a package beside that of `site`, for one test."""

    def installed(code: str, *entries: str) -> None:
        target = tmp_path / "site"
        target.mkdir()
        install(package(tmp_path / "package", code, *entries), target)
        monkeypatch.syspath_prepend(target)
        forget()

    yield installed
    for module in ("walks_again", "walks_again_record"):
        sys.modules.pop(module, None)
    forget()


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        ("absent", "import no_such_module\nMODALITY = 1", "cannot be loaded: ModuleNotFoundError"),
        ("empty", "MODALITY = object()", "lacks name, kind, options, sniff, read, fit, load"),
        (
            "misnamed",
            "from afresh_walks import WALKS as MODALITY",
            "has the name 'walk', which must be the name under which it is registered",
        ),
    ],
)
def test_a_broken_package_is_named_and_disturbs_no_other(
    name: str, code: str, says: str, add: Any, walks: Path, invoke: Invoke
) -> None:
    add(code, name)
    exit_code, printed, err = invoke("data", walks, "--json")
    assert exit_code == 0 and parsed(printed)["modality"] == "walk"
    assert f"{name!r} of modalities, from a plug-in of the package walks-again" in err and says in err
    exit_code, _, err = invoke("data", walks, "--modality", name)
    assert exit_code == 2 and "walks-again" in err and says in err


@pytest.mark.parametrize("group", ["families", "aligners", "metrics", "rewards", "sources"])
@pytest.mark.parametrize("code", ["import no_such_module", "raise SystemError('no')", "X = 3"])
def test_a_broken_plug_in_of_any_group_is_one_sentence_that_names_the_package(
    group: str, code: str, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Invoke
) -> None:
    target = tmp_path / "site"
    info = target / "broken_walks-1.0.dist-info"
    info.mkdir(parents=True)
    (target / "broken_walks.py").write_text(code)
    parts = {tmp_path.name: "broken_walks:X"} if group == "families" else ("broken_walks:X",)
    (target / "broken_record.py").write_text(RECORD.format(f"{group}={parts}"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-walks\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[afresh.plugins]\n{tmp_path.name} = broken_record:PLUGIN\n")
    monkeypatch.syspath_prepend(target)
    forget()
    events: list[Event] = []
    try:
        with listening(events.append):
            getattr(registry, group)()
        assert [(e.kind, e.fields["package"]) for e in events] == [("warning", "broken-walks")]
        assert f"{tmp_path.name!r} of {group}, from a plug-in of the package broken-walks" in events[0].text
        assert invoke("--help")[0] == 0 and invoke("train", "--help")[0] == 0
    finally:
        for module in ("broken_walks", "broken_record"):
            sys.modules.pop(module, None)
        forget()


def test_a_name_that_is_taken_is_not_replaced(add: Any) -> None:
    add("MODALITY = object()", "text", "walk")
    events: list[Event] = []
    with listening(events.append):
        assert registry.modality("walk").name == "walk" and registry.modality("text").name == "text"
    assert [(e.kind, e.code, e.fields["plugin"]) for e in events] == [
        ("warning", "plugin_ignored", "text"),
        ("warning", "plugin_ignored", "walk"),
    ]


def test_what_a_package_writes_into_a_run_is_removed_with_it(walk_run: Path, tmp_path: Path, invoke: Invoke) -> None:
    run = shutil.copytree(walk_run, tmp_path / "walks")
    (run / "heights-3.json").write_text("[]")
    (run / "thesis.txt").write_text("mine")
    code, printed, _ = invoke("rm", run, "--yes", "--json")
    assert code == 0 and parsed(printed)["removed"][0]["left"] == ["thesis.txt"]


@pytest.mark.parametrize("pattern", ["", "*", "..", "**", "../*", "/etc/passwd", "heights/*"])
def test_a_package_names_no_files_but_its_own(pattern: str) -> None:
    with pytest.raises(ValueError, match="no name of files in the folder of a run"):
        Plugin(run_files=(pattern,))


# --------------------------------------------------------------------------- a verb


def test_a_verb_and_a_command_of_the_package_are_in_the_shell_in_python_over_http_and_in_the_studio(
    walk_run: Path, site: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}

    def shell(*words: str, command: str = "heights") -> str:
        argv = [sys.executable, "-m", "afresh", command, *words]
        return subprocess.run(argv, env=environment, check=True, capture_output=True, text=True).stdout

    assert "how fast a walk is" in shell(command="--help")
    assert shell(str(walk_run), command="pace") == f"{walk_run.name} takes a step at a time\n"
    assert "Which walks" in shell("--help") and "Walks that are drawn" in shell("--help")
    first = parsed(shell(str(walk_run), "-n", "3", "--least", "0", "--json"))["heights"]
    model = afresh.load(walk_run)
    assert first == afresh.verb("heights")(model, 3).json()["heights"]  # type: ignore[attr-defined]

    web = TestClient(make_app(ServeSettings([walk_run], 1 << 30)), "http://127.0.0.1")
    answer = web.post("/afresh/v1/heights", json={"model": "walks", "n": 3})
    assert answer.json()["heights"] == first and answer.json()["files"]["heights.txt"]
    assert web.post("/afresh/v1/heights", json={"model": "walks", "n": 65}).status_code == 400
    assert "heights" in web.get("/afresh/v1/runs/walks").json()["asked"]["verbs"]

    assert "/studio/verb/heights?run=walks" in web.get("/studio/run?run=walks").text
    form = web.get("/studio/verb/heights?run=walks").text
    assert 'name="least"' in form and "Which walks" in form and "Walks that are drawn." in form
    assert "Go for a walk" in web.get("/studio/run?run=walks").text
    assert web.get("/studio/walk?run=walks").text.count('<li class="height">') == 4
    shown = web.post("/studio/verb/heights?run=walks", data={"n": "3", "least": "0"}).text
    assert all(f'data-label="height">{h}</td>' in shown for h in first) and 'download="heights.txt"' in shown
    assert "accepted: 1 to 64" in web.post("/studio/verb/heights?run=walks", data={"n": "65"}).text
