"""The demonstration: its data is the same every time, its verdicts see what they claim to see, its page is whole."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from afresh.api import Model, load
from afresh.core import UserError
from afresh.core.events import Event
from afresh.faces.cli.demo import commands
from afresh.services.demo import drawings, sounds, tales
from afresh.services.demo.page import DemoPart, DemoVerdict, ShownPart, write_page
from afresh.services.demo.show import (
    DRAWINGS,
    JUDGED,
    LEARNT,
    PARTS,
    PROMPTS,
    SOUNDS,
    STORIES,
    arranged,
    brief,
    check_folder,
    compared,
    run_demo,
    side_by_side,
    write_once,
)

pytestmark = pytest.mark.slow

# ------------------------------------------------------------------------------------------------ data


@pytest.mark.parametrize("label", drawings.SCENES)
def test_a_drawing_depends_on_its_seed_and_index_only(label: str) -> None:
    one = drawings.draw(label, 0, 3)
    assert one.shape == (drawings.SIDE, drawings.SIDE, 3) and one.dtype == np.uint8
    assert np.array_equal(one, drawings.draw(label, 0, 3))
    assert not np.array_equal(one, drawings.draw(label, 0, 4)) and not np.array_equal(one, drawings.draw(label, 1, 3))


def test_a_drawing_is_smooth_at_its_edges_and_has_no_hole() -> None:
    for label in drawings.SCENES:
        pixels = drawings.draw(label, 0, 0)
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 60, label  # a drawing without smoothing has few colours
        assert not (pixels == 0).all(2).any(), f"{label}: a part of the canvas was left black"


@pytest.mark.parametrize("label", sounds.INSTRUMENTS)
def test_a_sound_depends_on_its_seed_and_index_only(label: str) -> None:
    one = sounds.play(label, 0, 3).samples
    assert one.shape == (6000, 1) and one.dtype == np.float32
    assert 0.4 < np.abs(one).max() < 0.85 and abs(one[0, 0]) < 0.01 and abs(one[-1, 0]) < 0.01
    assert np.array_equal(one, sounds.play(label, 0, 3).samples)
    assert not np.array_equal(one, sounds.play(label, 0, 4).samples)


def test_bells_differ_from_strings_in_their_partials() -> None:
    """A string's spectrum has its peaks at multiples of one pitch; a bell's does not."""

    def misfit(label: str) -> float:
        wave = sounds.play(label, 0, 0).samples[:, 0]
        power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 32_768)) ** 2
        high = np.flatnonzero(
            (power[1:-1] > power[:-2]) & (power[1:-1] > power[2:]) & (power[1:-1] > power.max() / 300)
        )
        peaks = (high + 1).astype(float)
        return float(np.abs(peaks / peaks[0] - np.round(peaks / peaks[0])).max())

    assert misfit("string") < 0.05 < misfit("bell")


def test_every_tale_keeps_its_hero_and_colour() -> None:
    many = [tales.tale(0, i) for i in range(300)]
    assert many == [tales.tale(0, i) for i in range(300)] and len(set(many)) == 300
    assert all(map(tales.keeps_hero, many)) and all(map(tales.keeps_colour, many))
    assert all(t.count(". ") == 4 and t.endswith(".") and "{" not in t for t in many)
    assert not re.search(r"\ba [aeiou]", " ".join(many))


@pytest.mark.parametrize(
    ("text", "hero", "colour"),
    [
        ("Mira finds a red boat. She sails. At sunset the red boat brings her home.", True, True),
        ("Mira finds a red boat. He sails. At sunset the blue boat brings her home.", False, False),
        ("Mira finds a red boat, and Otto helps her.", False, False),
        ("Otto meets a red fish and a red balloon. He leaves.", True, False),
        ("", False, False),
    ],
)
def test_what_a_tale_forgets_is_seen(text: str, hero: bool, colour: bool) -> None:
    assert (tales.keeps_hero(text), tales.keeps_colour(text)) == (hero, colour)


def test_data_is_written_whole_and_once(tmp_path: Path) -> None:
    counts: list[Path] = []

    def write(folder: Path) -> None:
        counts.append(folder)
        drawings.write_drawings(folder, 2, LEARNT)

    part = DemoPart("few", "", "vae", 1, write)
    write_once(part, tmp_path / "few")
    write_once(part, tmp_path / "few")
    assert len(counts) == 1 and [p.name for p in tmp_path.iterdir()] == ["few"]
    assert sorted(p.name for p in (tmp_path / "few").iterdir()) == sorted(drawings.SCENES)
    with Image.open(tmp_path / "few" / "boat" / "001.png") as image:
        assert np.array_equal(np.asarray(image), drawings.draw("boat", LEARNT, 1))


# ------------------------------------------------------------------------------------------------ verdicts


def numbers(verdicts: list[DemoVerdict]) -> list[float]:
    return [float(v.value.rstrip("%")) for v in verdicts]


@pytest.fixture(scope="module")
def fields() -> dict[str, torch.Tensor]:
    """Fields (N, 3, SIDE, SIDE) of learnt drawings, fresh ones, and others that are fresh as well."""

    def of(seed: int, each: int) -> torch.Tensor:
        pixels = [drawings.draw(label, seed, i) for label in DRAWINGS.labels for i in range(each)]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1

    return {"learnt": of(0, 60), "fresh": of(1, JUDGED), "others": of(2, JUDGED)}


PART = DemoPart("drawings", "", "vae", 1, lambda folder: None, DRAWINGS.labels, drawings.draw, 60)


def test_new_drawings_are_right_not_told_apart_and_no_copies(fields: dict[str, torch.Tensor]) -> None:
    right, apart, copies = numbers(compared(fields["others"], fields["fresh"], fields["learnt"], PART))
    assert right == 100 and 30 < apart < 65 and copies < 8


def test_blurred_drawings_are_told_apart(fields: dict[str, torch.Tensor]) -> None:
    blurred = torch.nn.functional.avg_pool2d(fields["others"], 5, 1, 2)
    right, apart, _ = numbers(compared(blurred, fields["fresh"], fields["learnt"], PART))
    assert right > 95 and apart > 90


def test_copies_and_wrong_labels_are_seen(fields: dict[str, torch.Tensor]) -> None:
    each = fields["learnt"].reshape(len(PART.labels), 60, 3, drawings.SIDE, drawings.SIDE)
    copied = each[:, :JUDGED].flatten(0, 1)
    assert numbers(compared(copied, fields["fresh"], fields["learnt"], PART))[2] == 100
    wrong = each.roll(1, 0)[:, :JUDGED].flatten(0, 1)
    assert numbers(compared(wrong, fields["fresh"], fields["learnt"], PART))[0] < 5


# ------------------------------------------------------------------------------------------------ the page


def shown(part: DemoPart) -> ShownPart:
    """A part as if it had been trained: what is made is data of another seed."""
    record = SimpleNamespace(
        parameters=1_234_567,
        data=SimpleNamespace(train=90, heldout=10),
        machine={"name": "Processor <1>", "threads": 2},
    )
    model = cast(Model, SimpleNamespace(run=SimpleNamespace(record=record)))
    seconds = {"data": 1.0, "training": 30.0, "samples": 4.0}
    verdicts = [DemoVerdict("97%", "are told apart", "50% would be perfect")]
    if part.make is None:
        made = [" & more"] * len(PROMPTS)
        return ShownPart(part, model, {"": [tales.tale(1, 0)]}, {"": made}, verdicts, seconds, PROMPTS)
    real, made = ({label: [part.make(label, s, i) for i in range(6)] for label in part.labels} for s in (1, 2))
    pictures = part is DRAWINGS
    between: list[Any] = [drawings.draw("boat", 1, i) for i in range(9)] if pictures else []
    return ShownPart(part, model, real, made, verdicts, seconds, (), between, None if pictures else arranged(made))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    page = write_page(folder / "index.html", [shown(p) for p in PARTS], 131.4, commands(Path("afresh-demo")))
    return page.read_text("utf-8")


def test_the_page_shows_every_scene_tale_and_instrument(page: str) -> None:
    assert page.count("<h3>") == len(drawings.SCENES) + 1 + len(sounds.INSTRUMENTS) + 1
    assert page.count('src="data:image/png;base64,') == 6 * (6 + 3) + 9 + 5 * (3 + 3) + 1
    assert page.count("data:audio/wav;base64,") == 5 * (3 + 3) + 1
    assert all(prompt in page for prompt in PROMPTS) and "&amp; more" in page
    assert page.count("97%") == 3 and "2 min 11 s" in page and "1.2 million parameters" in page


def test_the_page_needs_nothing_from_elsewhere(page: str) -> None:
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page) and "@import" not in page
    assert "http" not in page.replace("http-equiv", "") and "default-src 'none'" in page
    assert "Processor &lt;1&gt;" in page and "prefers-color-scheme: dark" in page and 'name="viewport"' in page


def test_the_page_says_how_to_go_on(page: str) -> None:
    for verb in ("sample", "train", "measure", "align", "data"):
        assert re.search(rf"<pre[^>]*>\S*afresh {verb} ", page), verb


def test_drawings_stand_beside_the_data(tmp_path: Path) -> None:
    side_by_side(shown(DRAWINGS), tmp_path / "drawings.png")
    with Image.open(tmp_path / "drawings.png") as image:
        assert image.width > 10 * 2 * drawings.SIDE and image.height > 6 * 2 * drawings.SIDE


def test_a_bar_of_samples_is_as_loud_as_can_be_and_not_louder() -> None:
    bars = arranged({label: [sounds.play(label, 0, 0)] for label in sounds.INSTRUMENTS})
    assert bars.seconds == pytest.approx(4.0) and np.abs(bars.samples).max() == pytest.approx(0.9)


# ------------------------------------------------------------------------------------------------ usage


def test_folders_of_other_things_are_left_alone(tmp_path: Path) -> None:
    check_folder(tmp_path / "new", force=False)
    check_folder(tmp_path, force=False)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="exists"):
        check_folder(tmp_path, force=False)
    check_folder(tmp_path, force=True)
    with pytest.raises(UserError, match=r"thesis\.tex is a file"):
        check_folder(tmp_path / "thesis.tex", force=True)


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"Cannot write the demonstration to .*Choose another folder"):
        run_demo(tmp_path / "file" / "demo")
    part = DemoPart("few", "", "vae", 1, lambda folder: drawings.write_drawings(folder, 1, 0))
    with pytest.raises(UserError, match="Cannot write the data of the demonstration"):
        write_once(part, tmp_path / "file" / "few")


def test_plans_are_not_shown_but_progress_and_warnings_are() -> None:
    seen: list[str] = []
    listener = brief(lambda event: seen.append(event.text))
    for kind, code in (("note", "plan"), ("note", "demo"), ("progress", "training"), ("warning", "data")):
        listener(Event(kind, code, f"{kind} {code}"))  # type: ignore[arg-type]
    assert seen == ["note demo", "progress training", "warning data"]


def test_the_parts_fit_into_their_minutes() -> None:
    assert sum(p.minutes for p in PARTS) <= 1.6
    assert PARTS == (DRAWINGS, STORIES, SOUNDS)


def few(part: DemoPart, each: int, write: Callable[[Path, int, int], None]) -> DemoPart:
    """A part with fewer data, `each` of a label or in all: as in the whole one, more than latents are kept of."""
    settings = {**part.settings, **({"family.examples": 100} if part.family == "vae" else {})}
    return replace(part, write=lambda folder: write(folder, each, LEARNT), each=each, settings=settings)


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a short demonstration, and what it returned."""
    out = tmp_path_factory.mktemp("short") / "demo"
    parts = few(DRAWINGS, 50, drawings.write_drawings), few(STORIES, 600, tales.write_tales)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("afresh.services.demo.show.PARTS", (*parts, few(SOUNDS, 40, sounds.write_sounds)))
        return out, run_demo(out, scale=0.02, commands=[("More fish", "afresh sample R")])


def test_a_demonstration_ends_with_its_page_and_three_runs(demonstration: tuple[Path, dict[str, Any]]) -> None:
    out, result = demonstration
    page = Path(result["page"]).read_text("utf-8")
    assert page.count("data:audio/wav;base64,") == 5 * (3 + 3) + 1 and "tales stay with he or she" in page
    assert "More fish" in page and "afresh sample R" in page and Path(result["image"]).is_file()
    for name, family in {"drawings": "vae", "tales": "transformer", "sounds": "vae"}.items():
        assert load(out / "runs" / name).run.record.family == family


@pytest.mark.parametrize(
    ("name", "to"),
    [
        *((name, to) for name in ("drawings", "sounds") for to in ("onnx", "safetensors", "hub-folder")),
        *(("tales", to) for to in ("hf", "gguf", "safetensors", "hub-folder")),
    ],
)
def test_its_runs_export_to_all_that_the_guide_lists(
    name: str, to: str, demonstration: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    proof = load(demonstration[0] / "runs" / name).export(to, tmp_path / "x").proof
    assert proof.passed
