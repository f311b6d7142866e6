"""The benchmark of first results: folders are made with held-out items apart, scores tell real from noise, nothing is
trained twice, and a cell says how the plan stands to the best alternative."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter

from afresh.api import Model
from afresh.core import Score, Sound, registry
from afresh.core.options import pairs
from afresh.engine.training.options import split_by_part
from benchmarks.images.sets import Loaded, Side
from benchmarks.training import first_result as grid
from benchmarks.training import first_result as table
from benchmarks.training import folders
from benchmarks.training.first_result import Key, Result
from benchmarks.training.folders import FOLDERS, SPEECH, Folder
from benchmarks.training.judges import Bits, Images, Judged, Sounds, likelihood, recognised, square

RNG = np.random.default_rng


def as_given(loaded: Loaded, _: Path) -> Loaded:
    return loaded


def result(choice: str, score: float | None, seed: int = 0, floor: float = 0.0, **more: Any) -> Result:
    key = Key(
        more.pop("folder", "photos200"), more.pop("minutes", 1.0), seed, choice, more.pop("half", False), "m, 2 cores"
    )
    return Result(key, more.pop("seconds", 60.0), judged=None if score is None else Judged(score, floor), **more)


# --------------------------------------------------------------------------- folders


def test_the_grid_has_twelve_folders_with_six_alternatives_each() -> None:
    assert len(FOLDERS) == 12
    assert all(len(f.choices) >= 6 and not set(f.choices) & set(grid.FIXED) for f in FOLDERS.values())


@pytest.mark.parametrize("name", sorted(FOLDERS))
def test_every_alternative_is_of_settings_that_exist(name: str) -> None:
    modality = {Images: "image", Sounds: "audio", Bits: "text"}[type(FOLDERS[name].judge)]
    for family, *arguments in (choice[1:] for choice in FOLDERS[name].choices.values()):
        given = list(zip(arguments[::2], arguments[1::2], strict=True))
        settings, data = ([v for k, v in given if k == option] for option in ("--set", "--data"))
        TypeAdapter(registry.family(family).config).validate_python(
            split_by_part(pairs(settings, "--set"), ("family", "train"))["family"]
        )
        TypeAdapter(registry.modality(modality).options).validate_python(pairs(data, "--data"))


def test_photos_are_made_once_and_no_held_out_one_is_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.training.drawn_photos.SIDES", (24, 40))
    made = Folder("few", lambda f: folders.photos(f, 4, fresh=3), Bits(), {}).made(tmp_path)
    sides = [sorted((made / side).rglob("*.jpg")) for side in ("train", "held")]
    assert [Counter(f.parent.name for f in side) for side in sides] == [
        {"fruit": 2, "house": 1, "sunset": 1},
        {"fruit": 1, "house": 1, "sunset": 1},
    ]
    assert not {f.read_bytes() for f in sides[0]} & {f.read_bytes() for f in sides[1]}
    assert Folder("few", lambda f: pytest.fail("made twice"), Bits(), {}).made(tmp_path) == made


def test_images_are_written_with_their_classes_or_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFRESH_DATA", str(tmp_path))
    x, y = np.zeros((2, 8, 8, 1), np.uint8), np.array([1, 0])
    for name, sets in {
        "classes": Loaded("", Side(x, y), Side(x, y), ("bag", "shirt")),
        "captions": Loaded("", Side(x, y, ("a", "b")), Side(x, y, ("c", "d"))),
    }.items():
        made = Folder(name, partial(folders.images, load=partial(as_given, sets)), Bits(), {}).made(tmp_path)
        assert len(list((made / "train").rglob("*.png"))) == 2
    assert (tmp_path / "classes" / "train" / "shirt" / "00000.png").exists()
    lines = (tmp_path / "captions" / "held" / "metadata.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"file_name": "00000.png", "caption": "c"},
        {"file_name": "00001.png", "caption": "d"},
    ]


def test_notes_are_of_the_size_asked_for_and_share_nothing_with_the_held_out_ones(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "books.zip", "w") as z:
        z.writestr("book.txt", "\n\n".join(f"Paragraph {i} says {i * i}. " * 10 for i in range(1_500)))
    for size in (20_000, 40_000):
        make = partial(folders.notes, size=size, books=tmp_path / "books.zip")
        made = Folder(f"notes{size}", make, Bits(), {})
        sides = [list((made.made(tmp_path) / side).iterdir()) for side in ("train", "held")]
        sizes = [sum(len(f.read_bytes()) for f in side) for side in sides]
        assert 0 <= sizes[0] - size < 5_000
        assert 0 <= sizes[1] - folders.HELD_BYTES < 5_000
        assert {f.suffix for f in sides[0]} == {".md", ".txt"}
        assert not {f.name for f in sides[0]} & {f.name for f in sides[1]}
    with pytest.raises(ValueError, match="the books lack"):
        Folder("long", lambda f: folders.notes(f, 10**6, tmp_path / "books.zip"), Bits(), {}).made(tmp_path)


def test_code_has_no_tests_and_holds_out_a_tenth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "PACKAGES", ("email", "json"))
    made = Folder("code", folders.code, Bits(), {}).made(tmp_path)
    sides = [{f.relative_to(made / side) for f in (made / side).rglob("*.py")} for side in ("train", "held")]
    assert 0 < len(sides[1]) < len(sides[0])
    assert not sides[0] & sides[1]
    assert not any("test" in name.parts for name in sides[0] | sides[1])


def test_archives_are_unpacked_into_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.setenv("AFRESH_DATA", str(tmp_path))
    with zipfile.ZipFile(tmp_path / "digits" / "x.zip", "w") as z:
        for name in ("3_theo_4.wav", "3_theo_5.wav", "notes.txt"):
            z.writestr(name, name)
    made = Folder("made", lambda f: folders.unpacked(f, "digits", folders.digit_place), Bits(), {}).made(tmp_path)
    assert {str(f.relative_to(made)) for f in made.rglob("*.*")} == {"train/3/3_theo_5.wav", "held/3/3_theo_4.wav"}
    assert folders.drum_place("README.md") is None
    assert folders.tune_place("MIDI/melody/jigs1.mid") in (("", True), ("", False))


# --------------------------------------------------------------------------- scores


def test_an_image_is_cut_to_its_centre_and_brought_to_the_side() -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 200
    for side in (4, 16):
        assert (square(Image.fromarray(wide), side)[:, side // 4 : -side // 4] == 200).all()
        assert square(Image.fromarray(wide[..., 0]), side).shape == (side, side, 3)


def test_what_is_recognised_is_the_class_that_was_asked_for() -> None:
    x = RNG(0).normal(size=(60, 4))
    labels = tuple("ab"[i % 2] for i in range(60))
    x[1::2, 0] += 8
    assert recognised(x, labels, x, labels) == 1.0
    assert recognised(x, labels, x, tuple("b" if v == "a" else "a" for v in labels)) == 0.0
    assert recognised(x, ("",) * 60, x, labels) is None
    assert recognised(x, labels, x, [None] * 60) is None


def test_tones_score_better_than_noise(tmp_path: Path) -> None:
    import soundfile

    def tone(seed: int) -> Sound:
        wave = np.sin(2 * np.pi * RNG(seed).uniform(300, 500) * np.arange(4_000) / 8_000)
        return Sound((0.3 * wave + 0.01 * RNG(seed).normal(size=4_000)).astype(np.float32)[:, None], 8_000)

    for side, start in (("train", 0), ("held", 100)):
        (tmp_path / side).mkdir()
        for i in range(start, start + 12):
            soundfile.write(tmp_path / side / f"{i}.wav", tone(i).samples, 8_000)
    noise = [Sound(0.1 * RNG(i).normal(size=(8_000, 1)).astype(np.float32), 16_000) for i in range(12)]
    found = {}
    for name, values in {"tones": [tone(200 + i) for i in range(12)], "noise": noise}.items():
        model = cast(Model, SimpleNamespace(sample=lambda n, seed, v=values: SimpleNamespace(values=v)))
        found[name] = Sounds(SPEECH).judge(tmp_path, model)
    assert found["tones"].score < 0.2 * found["noise"].score
    assert found["tones"].floor == found["noise"].floor >= 1.0


def test_bits_are_those_of_the_model_and_not_of_a_compressor() -> None:
    names = ("bits_per_byte/lzma", "bits_per_byte/bound")
    scores = [Score(name, value, None, None, 9, "lower") for name, value in zip(names, (3.0, 2.0), strict=True)]
    assert likelihood(scores) == Judged(2.0)
    with pytest.raises(ValueError, match="no likelihood"):
        likelihood(scores[:1])


# --------------------------------------------------------------------------- running


def test_what_was_trained_is_not_trained_again_and_a_line_cut_off_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AFRESH_BENCH", str(tmp_path))
    asked: list[str] = []

    def trained(key: Key, folder: Folder, root: Path) -> Result:
        asked.append(key.name)
        return Result(key, 60.0, judged=Judged(2.0 if key.choice == "plan" else 1.0, 0.5, 0.9))

    monkeypatch.setattr(grid, "trained", trained)
    part = ["--folders", "faces", "--minutes", "1", "--seeds", "1", "--only", "plan,vae-32"]
    grid.main(*part)
    grid.main(*part)
    assert asked == ["faces-1min-seed0-plan", "faces-1min-seed0-vae-32"]
    file = tmp_path / "first_result" / "results.jsonl"
    whole = table.load(file)
    assert [r.judged for r in whole.values()] == [Judged(2.0, 0.5, 0.9), Judged(1.0, 0.5, 0.9)]
    file.write_text(file.read_text()[:-20])
    grid.main(*part)
    assert asked[2:] == ["faces-1min-seed0-vae-32"]
    grid.main(*part, "--again")
    assert len(asked) == 5
    with pytest.raises(SystemExit):
        grid.main("--folders", "cats")
    assert "there is no folder cats; choose from clothes, code" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choice", "arguments"),
    [("plan", ["--no-measure"]), ("whole", []), ("tiny", ["--family", "x", "--no-measure"])],
)
def test_every_choice_trains_for_the_minutes_by_the_command(
    choice: str, arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], float]] = []

    def command(given: list[str], log: Path, limit: float) -> tuple[float, str]:
        asked.append((given, limit))
        return 3.0, "exit code 3: diverged"

    monkeypatch.setattr(grid, "command", command)
    folder = Folder("folder", lambda _: None, Bits(), {"tiny": ("--family", "x")})
    key = Key("folder", 0.5, 7, choice, False, "m")
    assert grid.trained(key, folder, tmp_path) == Result(key, 3.0, "exit code 3: diverged")
    run = str(tmp_path / "runs" / key.name)
    data = str(tmp_path / "data" / "folder" / "train")
    expected = ["train", data, "--minutes", "0.5", "--seed", "7", "--out", run, "--force", *arguments]
    assert asked == [(expected, 168.0)]


def test_a_command_that_fails_or_takes_too_long_is_a_result(tmp_path: Path) -> None:
    _, error = grid.command(["train", str(tmp_path / "absent")], tmp_path / "log", 60)
    assert error.startswith("exit code 2: ")
    _, error = grid.command(["train", str(tmp_path / "absent")], tmp_path / "log", 0.01)
    assert error.startswith("stopped after")


def test_half_of_the_machine_is_taken_and_given_back() -> None:
    with grid.half_taken(0.0) as busy:
        while not busy:
            pass
        assert all(p.poll() is None for p in busy)
    assert all(p.poll() is not None for p in busy)


def test_the_verdict_is_read_from_the_report_if_there_is_one(tmp_path: Path) -> None:
    assert grid.read_verdict(tmp_path) == ""
    (tmp_path / "report.json").write_text(json.dumps({"sections": [{"verdict": {"word": "blurred"}}]}))
    assert grid.read_verdict(tmp_path) == "blurred"


# --------------------------------------------------------------------------- what the table says


def test_a_cell_holds_the_plan_against_the_best_alternative() -> None:
    seeds = [result("plan", 105, seed=s) for s in (0, 1)] + [
        result("vae-64", v, seed=s) for s, v in enumerate((90, 110))
    ]
    row = table.cell([*seeds, result("flow-64", 10), result("base", 1), result("base", 1, seed=1)])
    assert row is not None
    assert (row.ratio, row.reached, row.n) == (1.05, True, "2 seeds, 2 cores")  # flow-64 was trained on one seed only
    assert row.theirs == "100 (vae-64); base 1, not counted"
    assert table.cell([result("plan", 105)]) is None
    assert table.cell([result("vae-64", 105)]) is None


def test_below_the_floor_one_is_as_good_as_another() -> None:
    row = table.cell([result("plan", 9, floor=10), result("vae-64", -3, floor=10)])
    assert row is not None
    assert (row.ratio, row.reached) == (1.0, True)


def test_a_plan_that_failed_is_worse_than_any() -> None:
    row = table.cell([result("plan", None, error="exit code 3"), result("vae-64", 50)])
    assert row is not None
    assert (row.ours, row.ratio, row.reached) == ("no model", None, False)
    near, worst = table.summary([row])
    assert (near.ours, near.reached, worst.ours, worst.reached) == ("0.00", False, "inf", False)


def test_rows_are_in_the_order_of_the_grid_and_whole_commands_are_held_to_their_minutes() -> None:
    found = [result(c, s, folder=f) for f in ("tunes", "photos40") for c, s in (("plan", 1.0), ("tiny", 1.0))]
    found += [result("whole", 1.0, seconds=64.0), result("whole", 1.0, seconds=70.0, half=True)]
    made = table.rows(found)
    assert [r.benchmark.removeprefix("first result").strip(", ") for r in made] == [
        *("", ""),
        *("photos200", "photos200"),
        *("photos40", "tunes"),
    ]
    assert [(r.ours, r.reached) for r in made[2:4]] == [("64", True), ("70", False)]
