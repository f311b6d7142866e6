"""The demonstration: data made on the spot is reproducible and judged correctly, and the page has everything."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from afresh.api import load
from afresh.core import UserError
from afresh.demo import drawings, sounds, tales
from afresh.demo.show import check_folder, run_demo


@pytest.mark.parametrize("label", drawings.SCENES)
def test_drawings_are_reproducible_and_vary(label: str) -> None:
    first, again, other = drawings.draw(label, 0, 0), drawings.draw(label, 0, 0), drawings.draw(label, 1, 0)
    assert first.shape == (drawings.SIDE, drawings.SIDE, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("label", sounds.INSTRUMENTS)
def test_sounds_are_reproducible_vary_and_do_not_clip(label: str) -> None:
    first, again, other = (sounds.play(label, seed, 0).samples for seed in (0, 0, 1))
    assert first.shape == (round(sounds.SECONDS * sounds.RATE), 1)
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert 0.5 <= np.abs(first).max() <= 0.81 and abs(first[0, 0]) < 1e-3 and abs(first[-1, 0]) < 1e-2


def test_tales_of_the_grammar_keep_hero_and_colour() -> None:
    told = [tales.tale(0, i) for i in range(500)]
    assert all(map(tales.keeps_hero, told)) and all(map(tales.keeps_colour, told))
    assert told == [tales.tale(0, i) for i in range(500)] and len(set(told)) > 490


@pytest.mark.parametrize(
    ("text", "hero", "colour"),
    [
        ("Anna finds a red boat. At sunset the red boat brings her home.", True, True),
        ("Anna finds a red boat. At sunset the red boat brings him home.", False, True),
        ("Anna finds a red boat. At sunset the blue boat brings her home.", True, False),
        ("Anna meets Karl. She finds a red boat.", False, False),
    ],
)
def test_tales_that_forget_are_noticed(text: str, hero: bool, colour: bool) -> None:
    assert tales.keeps_hero(text) is hero
    assert tales.keeps_colour(text) is colour


def test_folder_of_other_things_is_refused(tmp_path: Path) -> None:
    check_folder(tmp_path / "new", force=False)
    (tmp_path / "data").mkdir()
    check_folder(tmp_path, force=False)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds other things"):
        check_folder(tmp_path, force=False)
    check_folder(tmp_path, force=True)
    with pytest.raises(UserError, match="is a file"):
        check_folder(tmp_path / "thesis.tex", force=True)


@pytest.mark.slow
def test_short_demonstration_ends_with_a_page_and_three_runs(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo", scale=0.05, commands=[("More fish", "afresh sample R")])
    page = Path(result["page"]).read_text("utf-8")
    assert page.count("data:image/png;base64,") > 60 and page.count("data:audio/wav;base64,") > 30
    assert "More fish" in page and "afresh sample R" in page
    assert "http://" not in page and "https://" not in page, "the page loads something"
    for name, family in {"drawings": "vae", "tales": "transformer", "sounds": "vae"}.items():
        assert load(tmp_path / "demo" / "runs" / name).run.record.family == family
