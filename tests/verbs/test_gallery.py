"""Works are kept with all that is needed to make them again, and the folders alone are the truth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import afresh
from afresh.core import UserError
from afresh.runs.run import Run
from afresh.verbs.creation_request import CreationRequest, make
from afresh.verbs.gallery import RECIPE, Work, Works, same

SMALL = {"family.widths": [8, 16], "train.batch": 16}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("works")
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / "data" / label).mkdir(parents=True)
        for i in range(16):
            Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / "data" / label / f"{i}.png")
    return afresh.train(folder / "data", family="flow", steps=3, out=folder / "run", settings=SMALL, quiet=True).run


@pytest.fixture
def works(tmp_path: Path) -> Works:
    return Works(tmp_path / "works")


def kept(works: Works, run: Run, wish: CreationRequest, files: dict[str, bytes] | None = None) -> list[Work]:
    return [works.keep(run, "pets", "step-3", wish, files or {}, m) for m in make(run, wish, files or {})]


def test_each_work_of_a_wish_is_made_again_byte_for_byte(run: Run, works: Works) -> None:
    wish = CreationRequest(n=3, seed=5, label={"label": "dog"}, settings={"steps": 4, "guidance": 2.0})
    found = kept(works, run, wish)
    assert [w.recipe.index for w in found] == [0, 1, 2] and len({w.recipe.files["work.png"] for w in found}) == 3
    for work in found:
        stored = works.get(work.id)
        (again,) = make(run, stored.recipe.wish, stored.inputs(), stored.recipe.index)
        assert same(stored, run, again)


def test_they_are_the_samples_of_the_run(run: Run, works: Works) -> None:
    own = afresh.Model(run).sample(1, seed=9, label="cat", steps=4)
    (made,) = make(run, CreationRequest(seed=9, label={"label": "cat"}, settings={"steps": 4}), {})
    assert np.array_equal(own[0], made.value)


def test_an_edit_keeps_its_inputs(run: Run, works: Works) -> None:
    (first,) = kept(works, run, CreationRequest(seed=1))
    white = run.encoder.kind.encode(np.pad(np.full((4, 8, 1), 255, np.uint8), ((0, 4), (0, 0), (0, 0))))
    files = {"input-1.png": first.read("work.png"), "mask.png": white, "other.png": b""}
    wish = CreationRequest(verb="edit", seed=2, n=2, inputs=("input-1.png",), mask="mask.png")
    changed = kept(works, run, wish, files)
    for work in changed:
        assert sorted(p.name for p in work.folder.iterdir()) == ["input-1.png", "mask.png", RECIPE, "work.png"]
        (again,) = make(run, work.recipe.wish, work.inputs(), work.recipe.index)
        assert same(work, run, again)


def test_words_favourites_and_the_bin(run: Run, works: Works) -> None:
    (cat,) = kept(works, run, CreationRequest(seed=1, label={"label": "cat"}))
    (dog,) = kept(works, run, CreationRequest(seed=2, label={"label": "dog"}))
    assert {w.id for w in works.find()} == {cat.id, dog.id}
    assert [w.id for w in works.find("CAT pets")] == [cat.id] and not works.find("c_t")
    works.favour(dog.id, True)
    assert [w.id for w in works.find(favourites=True)] == [dog.id]
    works.move(cat.id, binned=True)
    assert [w.id for w in works.find()] == [dog.id] and [w.id for w in works.find(binned=True)] == [cat.id]
    assert not works.move(cat.id, binned=False).binned and len(works.find()) == 2
    works.move(dog.id, binned=True)
    assert works.empty_bin() == 1 and works.empty_bin() == 0
    with pytest.raises(UserError, match="No work"):
        works.get(dog.id)


def test_works_that_are_copied_into_the_folder_or_removed_from_it_are_noticed(
    run: Run, works: Works, tmp_path: Path
) -> None:
    (one,) = kept(works, run, CreationRequest(seed=1))
    (two,) = kept(works, run, CreationRequest(seed=2))
    shutil.move(one.folder, tmp_path / one.id)
    assert [w.id for w in works.find()] == [two.id]
    shutil.move(tmp_path / one.id, one.folder)
    shutil.move(two.folder, tmp_path / two.id)
    assert [w.id for w in works.find()] == [one.id]
    shutil.move(tmp_path / two.id, two.folder)
    assert {w.id for w in works.find()} == {one.id, two.id}


def test_a_damaged_or_hostile_recipe_hides_only_its_work(run: Run, works: Works) -> None:
    (one,) = kept(works, run, CreationRequest(seed=1))
    (two,) = kept(works, run, CreationRequest(seed=2))
    recipe = json.loads((one.folder / RECIPE).read_text())
    (one.folder / RECIPE).write_text(json.dumps({**recipe, "files": {"../../secret": "0"}}))
    assert [w.id for w in works.find()] == [two.id]
    with pytest.raises(UserError, match="names files that no work has"):
        works.get(one.id)
    for name in ("../recipe.json", "/etc/passwd", "..", "", "work.png/x"):
        with pytest.raises(UserError, match="No file"):
            two.read(name)
    for id_ in ("..", "../x", "20260101-000000-000000000g", ""):
        with pytest.raises(UserError, match="No work"):
            works.get(id_)


def test_a_folder_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "works").write_text("a file")
    with pytest.raises(UserError, match="could not be kept"):
        kept(Works(tmp_path / "works"), run, CreationRequest(seed=1))


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (CreationRequest(label={"label": "cow"}), "cow"),
        (CreationRequest(prompt="Once"), "does not make texts"),
        (CreationRequest(verb="edit"), "0 works were given"),
        (CreationRequest(verb="edit", inputs=("input-1.png",)), "input-1.png is missing"),
        (CreationRequest(verb="blend", inputs=("a.png", "b.png")), "is missing|no latents"),
        (CreationRequest(settings={"speed": 3}), "does not know speed"),
    ],
)
def test_what_a_run_cannot_do_is_said(run: Run, wish: CreationRequest, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(make(run, wish, {}))
