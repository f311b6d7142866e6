"""Changing pictures with a run: what is kept is kept to the byte, what is wished for comes nearer, bad wishes teach."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import afresh
from afresh.blend import Blender, slerp
from afresh.cli import run as command
from afresh.core import Cond, UserError
from afresh.edit import Change, Editor
from afresh.judge import prepared_again
from afresh.outpaint import outpainted, places, sides
from afresh.request import Request
from afresh.run import Run
from tests.contracts.rows import write_pictures

SIDE = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A flow on light and dark pictures of 6x6, trained until it tells them apart."""
    root = tmp_path_factory.mktemp("edit")
    (root / "data").mkdir()
    write_pictures(root / "data")
    argv = ["train", root / "data", "--family", "flow", "--steps", "60", "--out", root / "run", "--no-measure"]
    argv += ["--set", "family.widths=[16]", "--set", "train.batch=16", "--data", "size=6"]
    assert command([str(a) for a in argv]) == 0
    return Run.open(root / "run")


@pytest.fixture(scope="module")
def picture(run: Run) -> np.ndarray:
    return prepared_again(run).train_items[0].value  # type: ignore[no-any-return]


def editor(run: Run, **settings: object) -> Editor:
    return Editor(run, settings={"steps": 4, **settings})


def half() -> np.ndarray:
    """White on the right half."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, SIDE // 2 :] = 255
    return mask


def test_a_hole_is_filled_and_the_rest_stays(run: Run, picture: np.ndarray) -> None:
    made = editor(run).edit([picture], Change(mask=half()), 3).values
    assert len(made) == 3
    for value in made:
        assert np.array_equal(value[:, : SIDE // 2], picture[:, : SIDE // 2])
    assert not np.array_equal(made[0][:, SIDE // 2 :], made[1][:, SIDE // 2 :])


def test_strength_goes_from_nothing_to_everything(run: Run, picture: np.ndarray) -> None:
    def far(strength: float) -> float:
        made = editor(run).edit([picture], Change(strength=strength), 4).values
        return float(np.mean([np.abs(v.astype(float) - picture).mean() for v in made]))

    distances = [far(s) for s in (0.0, 0.3, 1.0)]
    assert distances[0] == 0 < distances[1] < distances[2]


def test_enlarging_agrees_with_the_small_picture(run: Run, picture: np.ndarray) -> None:
    small = picture.reshape(3, 2, 3, 2, -1).mean((1, 3)).round().astype(np.uint8)
    made = editor(run, steps=20).edit([small], Change(upscale=2, weight=4.0), 2).values
    for value in made:
        assert value.shape == picture.shape
        again = value.reshape(3, 2, 3, 2, -1).mean((1, 3))
        assert np.abs(again - small).mean() < 4  # of 255: what is left is by rounding, and by values out of range


def test_wishes_come_nearer(run: Run, picture: np.ndarray) -> None:
    plain = editor(run).edit([picture], Change(strength=1.0), 4)
    for change in (Change(strength=1.0, palette=("black",)), Change(strength=1.0, function="tests.test_edit:dark")):
        made = editor(run).edit([picture], change, 4)
        assert float(made.x.mean()) < float(plain.x.mean()) - 0.1


def dark(x: torch.Tensor) -> torch.Tensor:
    """A user's own wish."""
    return 200 * (x + 1).square().mean((1, 2, 3))


def test_more_pictures_than_fit_at_once_are_each_their_own(
    run: Run, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = picture.reshape(3, 2, 3, 2, -1).mean((1, 3)).round().astype(np.uint8)
    other = 255 - small
    whole = editor(run).edit([small, other], Change(upscale=2), 2).x
    monkeypatch.setattr(sys.modules["afresh.edit"], "AT_ONCE", 1)
    torch.testing.assert_close(editor(run).edit([small, other], Change(upscale=2), 2).x, whole, rtol=0, atol=0.02)


@pytest.mark.parametrize(("change", "said"), [
    (Change(), "Nothing is asked for"),
    (Change(mask=np.zeros((5, 5), np.uint8)), "5x5 pixels; this model's pictures have 6x6"),
    (Change(mask=np.zeros((6, 6), np.uint8)), "all black"),
    (Change(mask=np.full((6, 6), 255, np.uint8)), "all white"),
    (Change(strength=1.5), "from 0"),
    (Change(upscale=4), "does not divide"),
    (Change(upscale=2), "Given: 6x6"),
    (Change(palette=("no colour",)), "colours"),
    (Change(function="nowhere:f"), "cannot be loaded"),
    (Change(strength=0.5, palette=("red",), weight=0), "above 0"),
])  # fmt: skip
def test_bad_wishes_teach(run: Run, picture: np.ndarray, change: Change, said: str) -> None:
    with pytest.raises(UserError, match=said):
        editor(run).edit([picture], change)


def test_beyond_the_edges(run: Run, picture: np.ndarray) -> None:
    made = outpainted(editor(run), [picture], {"right": 4, "top": 2}, Change(), 2)
    for value in made.values:
        assert value.shape == (SIDE + 2, SIDE + 4, picture.shape[-1])
        assert np.array_equal(value[2:, :SIDE], picture)


@pytest.mark.parametrize("given", ["up=3", "right", "right=0", "right=-2", "left=x"])
def test_sides_that_make_no_sense(given: str) -> None:
    with pytest.raises(UserError, match="SIDE=PIXELS"):
        sides(given)


def test_windows_cover_every_place() -> None:
    for length in range(6, 30):
        at = places(length, 6)
        assert set().union(*(range(a, a + 6) for a in at)) == set(range(length))


# --------------------------------------------------------------------------- latents


def test_the_circle_keeps_the_length() -> None:
    a, b = torch.tensor([3.0, 0]), torch.tensor([0, 3.0])
    way = slerp(a, b, torch.linspace(0, 1, 5))
    torch.testing.assert_close(way.norm(dim=1), torch.full((5,), 3.0))
    torch.testing.assert_close(way[2], torch.full((2,), 3 / 2**0.5))
    torch.testing.assert_close(slerp(a, 2 * a, torch.tensor([0.5]))[0], 1.5 * a)


def test_the_way_begins_and_ends_at_the_pictures(run: Run) -> None:
    items = prepared_again(run).train_items
    a, b = items[0], next(i for i in items if i.labels != items[0].labels)
    blender = Blender(run, {"steps": 20})
    made = blender.between(a.value, b.value, 5, Request(label=a.labels["label"]), Request(label=b.labels["label"]))
    assert len(made.values) == 5
    for value, item in ((made.values[0], a), (made.values[-1], b)):
        assert np.abs(value.astype(float) - item.value).mean() < 8


def test_towards_an_attribute(run: Run) -> None:
    prepared = prepared_again(run)
    blender = Blender(run)
    way = blender.direction(prepared.train, "light", "dark")
    dark = next(i.value for i in prepared.train_items if i.labels["label"] == "dark")
    made = blender.along([dark], way, [0.0, 1.0])
    assert float(made.x[1].mean()) > float(made.x[0].mean()) + 0.1
    with pytest.raises(UserError, match="Known: dark, light"):
        blender.direction(prepared.train, "grey")


def test_codes_look_like_noise(run: Run) -> None:
    prepared = prepared_again(run)
    x = prepared.train.x.float() * prepared.train.scale + prepared.train.shift
    z = Blender(run).codes(x, Cond.nothing(run.conds, len(x)))
    assert 0.4 < float(z.std()) < 2


# --------------------------------------------------------------------------- the command line


def test_the_verbs(run: Run, picture: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(picture[..., 0]).save(tmp_path / "a.png")
    Image.fromarray(255 - picture[..., 0]).save(tmp_path / "b.png")
    Image.fromarray(half()).save(tmp_path / "mask.png")
    base = [str(run.path), str(tmp_path / "a.png")]
    out = ["--out", str(tmp_path / "out"), "--json"]
    capsys.readouterr()
    mask = ["--mask", str(tmp_path / "mask.png"), "-n", "2", "--set", "steps=3"]
    assert command(["edit", *base, *mask, *out]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [r["variation"] for r in records] == [0, 1]
    assert command(["edit", *base, "--outpaint", "left=3", "-n", "1", "--set", "steps=3", *out]) == 0
    assert command(["blend", *base, str(tmp_path / "b.png"), "-n", "3", *out]) == 0
    assert command(["blend", *base, "--toward", "light", "-n", "3", *out]) == 0
    assert command(["blend", *base, *out]) == 2
    assert command(["edit", *base]) == 2
    assert "Nothing is asked for" in capsys.readouterr().err


# --------------------------------------------------------------------------- a student, and Python


def test_a_student_of_a_flow(run: Run, picture: np.ndarray, tmp_path: Path) -> None:
    student = afresh.distill(run, guidance=2.0, finest=2, steps=20, out=tmp_path / "student", quiet=True)
    assert student.record.parent == str(run.path.resolve()) and student.record.family == "fewstep"
    for steps in (1, 2):
        made = student.sample(4, label="dark", seed=3, steps=steps)
        assert len(made.values) == 4 and bool(torch.isfinite(made.x).all())
    with pytest.raises(UserError, match="steps"):
        student.sample(1, steps=3)
    with pytest.raises(UserError, match="family flow"):
        afresh.distill(student, steps=1, out=tmp_path / "again", quiet=True)
    with pytest.raises(UserError, match="afresh distill RUN"):
        afresh.train(run.record.data.path, family="fewstep", steps=1, out=tmp_path / "none", quiet=True)


def test_a_student_learns_what_its_teacher_does(run: Run, tmp_path: Path) -> None:
    """From the same noise one long step comes nearer to the teacher's picture than the teacher's own long step."""
    student = afresh.distill(run, finest=1, steps=150, out=tmp_path / "one", quiet=True, force=True)
    exact = run.sample(16, label="dark", seed=3, steps=50, solver="heun").x
    ours = student.sample(16, label="dark", seed=3, steps=1).x
    naive = run.sample(16, label="dark", seed=3, steps=1, solver="euler").x
    assert float((ours - exact).square().mean()) < 0.7 * float((naive - exact).square().mean())


def test_from_python(run: Run, picture: np.ndarray) -> None:
    assert len(afresh.edit(run, [picture], strength=0.4, each=2, settings={"steps": 3}).values) == 2
    assert len(afresh.blend(run, picture, 255 - picture, 3, settings={"steps": 3}).values) == 3
    with pytest.raises(UserError, match="Known: edges"):
        afresh.edit(run, [picture], strenght=0.4)
