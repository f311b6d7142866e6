"""A data set as a person looks at it: the numbers add up, names are text, and the page loads nothing."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from afresh.core import Sound
from afresh.data.audio.kind import SOUND
from afresh.faces.cli import run as command
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.rules import rules
from afresh.verbs.collected.map import map_of, of_texts
from afresh.verbs.collected.page import differences, histogram, percent, render, write_page
from afresh.verbs.collected.survey import STAGES, survey

EVIL = "<img src=x onerror=alert(1)>"
NOUNS = [
    "river",
    "mountain",
    "cloud",
    "bridge",
    "window",
    "garden",
    "letter",
    "winter",
    "orchard",
    "lantern",
    "harbour",
    "meadow",
]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stories of which one is nearly repeated, one is equal to another, one has broken characters; and rubbish."""
    root = tmp_path_factory.mktemp("data")
    stories, rng = root / "stories", np.random.default_rng(0)
    stories.mkdir()
    for i in range(14):
        words = [NOUNS[k] for k in rng.integers(0, len(NOUNS), 40)]
        told = ", and then ".join(
            f"the {a} of the {b} was seen in the {c}"
            for a, b, c in zip(words[::3], words[1::3], words[2::3], strict=False)
        )
        (stories / f"{i:02d}.txt").write_text(f"This is story {i}. We say that {told}. It is the end of it.\n")
    text = (stories / "03.txt").read_text()
    (stories / "20 copy.txt").write_text(text)
    (stories / "21 near.txt").write_text(text.replace("It is the end", "That was the end"))
    (stories / "22.txt").write_text(
        f"{EVIL} is no more than the name of a thing that was in the text.\r\nAnd so it is.\r\n"
    )
    (stories / "23.txt").write_text(" \n")
    (stories / f"{EVIL.replace('/', '')}.xyz").write_bytes(b"\0")
    off = [r.name for r in rules() if r.name not in ("no_text", "line_ends")]  # which judge texts of words at random
    gather([place_of(str(stories), about={"licence": "CC0-1.0", "licence_from": EVIL})], root / "set", off=off)
    return root / "set"


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Elements()
    parser.feed(page)
    return parser.found


def test_the_funnel_adds_up(dataset: Path) -> None:
    found = survey(dataset)
    stages = found.stages
    assert stages[0].remain - sum(s.left_out for s in stages) == stages[-1].remain == found.facts.items
    assert [s.name for s in stages[1:]] == [n for n in STAGES if n in {s.name for s in stages}]
    assert sum(found.manifest["left_out"].values()) == sum(j.left_out for j in found.judged)


def test_duplicates_stand_beside_what_they_repeat(dataset: Path) -> None:
    near, exact = survey(dataset).pairs
    assert (near.rule, exact.rule) == ("near", "exact")
    assert near.first["where"] == exact.first["where"] == "03.txt" and exact.second["where"] == "20 copy.txt"
    before, after = differences(near.first["text"], near.second["text"])
    assert [t for t, d in before if d] == ["It", "is"] and [t for t, d in after if d] == ["That", "was"]


def test_names_and_texts_are_never_elements(dataset: Path, tmp_path: Path) -> None:
    page = write_page(dataset, tmp_path / "page.html").read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    for tag, attributes in elements(page):
        assert tag != "script" and not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith(("data:", "#")), (tag, attributes)
    assert "default-src 'none'" in page and "http" not in page.replace("http-equiv", "")


def test_the_page_shows_rules_with_what_they_kept_left_out_and_changed(dataset: Path) -> None:
    page = render(survey(dataset))
    for words in ("no_text", "line_ends", "before", "after", "left out", "CC0-1.0", "Map", "Farthest", "near"):
        assert words in page, words
    assert f"afresh collect --into {dataset} --no-rule line_ends" in page


def test_pictures_and_sounds_are_shown_and_played(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for i in range(6):
        pixels = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((80, 60)))
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i}.png")
    Image.open(tmp_path / "in" / "2.png").save(tmp_path / "in" / "2 again.bmp")
    for name, pitch in (("a", 220.0), ("b", 221.0)):
        wave = np.sin(np.arange(16_000) * pitch * 2 * np.pi / 8_000)[:, None].astype(np.float32) / 2
        (tmp_path / "in" / f"{name}.wav").write_bytes(SOUND.encode(Sound(wave, 8_000)))
    gather([place_of(str(tmp_path / "in"))], tmp_path / "set")
    found = survey(tmp_path / "set")
    assert ("image" in found.facts.kinds) and found.facts.ledger.unknown is not None
    tags = elements(render(found))
    assert sum(t == "image" for t, _ in tags) >= 6
    assert any(t == "img" and (a["src"] or "").startswith("data:image/webp") for t, a in tags)


def test_the_command_shows_it(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["data", str(dataset), "--out", str(tmp_path / "page.html")]) == 0
    out = capsys.readouterr().out
    assert "a data set of" in out and "licences: 100% CC0-1.0" in out and "left out: 1 by clean/no_text" in out
    assert (tmp_path / "page.html").is_file()
    assert command(["data", str(dataset), "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["stages"][-1]["remain"] == sum(found["items"].values())
    assert command(["data", str(dataset), "--modality", "text", "--json"]) == 0
    assert '"modality": "text"' in capsys.readouterr().out


def test_collecting_ends_with_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("There was one story, and it is the only one of them that was told.\n")
    assert command(["collect", str(tmp_path / "in"), "--into", str(tmp_path / "set")]) == 0
    assert (tmp_path / "set" / "report.html").is_file()
    assert "report.html" in capsys.readouterr().err


def test_an_empty_data_set_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(" ")
    gather([place_of(str(tmp_path / "in"))], tmp_path / "set")
    assert "no_text" in write_page(tmp_path / "set").read_text()


def test_what_is_alike_lies_close_together(tmp_path: Path) -> None:
    texts = [f"the sea and the ships of harbour {i}" for i in range(20)] + [
        f"a forest of oaks and birches number {i}" for i in range(20)
    ]
    rows = [{"kind": "text", "text": t, "where": str(i)} for i, t in enumerate([*texts, "quantum chromodynamics"])]
    found = map_of(tmp_path, rows, [])
    assert found is not None
    sea, wood = found.points[:20], found.points[20:40]
    within = np.linalg.norm(sea - sea.mean(0), axis=1).mean() + np.linalg.norm(wood - wood.mean(0), axis=1).mean()
    assert np.linalg.norm(sea.mean(0) - wood.mean(0)) > within
    assert found.rows[found.outliers[0][0]]["text"] == "quantum chromodynamics"
    assert map_of(tmp_path, rows[:3], []) is None and of_texts(["...", "!!!"]) is None


def test_what_is_equal_in_two_texts_is_shortened_alike() -> None:
    long = " ".join(f"word{i}" for i in range(60))
    before, after = differences(long, f"{long} and more")
    assert [t for t, d in before] == [t for t, d in after if not d] and "".join(t for t, d in after if d) == " and more"
    before, after = differences(f"a {long} b", f"c {long} d")
    assert [t for t, d in before if d] == ["a", "b"] and len(before[1][0]) < 200


def test_numbers_of_the_page() -> None:
    assert (percent(1, 3), percent(1, 100), percent(1, 300), percent(0, 0)) == ("33%", "1%", "0.3%", "0%")
    chart = histogram("x", [1.0, 2.0, 3.0])
    assert sum(count > 0 for count in chart["counts"]) == 3 and chart["middle"] == "2"
    assert histogram("same", [5.0, 5.0])["middle"] == "5"
