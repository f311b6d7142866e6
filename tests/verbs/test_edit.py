"""Changing pictures with a run: what is kept is kept to the byte, what is wished for comes nearer, bad wishes teach."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import afresh
from afresh.api import Model
from afresh.core import Cond, Edit, Space, UserError
from afresh.core.cost import at_most
from afresh.domains.image.modality import ImageEncoder, ImageOptions
from afresh.engine.families.codecs.trained import TrainedCodec, copied
from afresh.engine.nets.autoencoder import LatentShape, networks
from afresh.engine.sampling.request import Request
from afresh.engine.sampling.samples import Samples, grid_png
from afresh.faces.cli import run as command
from afresh.runs.data import run_data
from afresh.runs.inputs import as_seen
from afresh.runs.run import Run
from afresh.verbs.edit import changed, edit
from afresh.verbs.editor import Change, Editor, continued, through, window_starts
from afresh.verbs.interpolate import Blender, check_given, slerp
from afresh.verbs.likelihoods import items_of, score_items
from afresh.verbs.outpaint import SIDES, outpainted, sides, windows
from afresh.verbs.sample import Control, Sampler
from tests.contracts.rows import write_pictures
from tests.faces.cli.conftest import drawn
from tests.heard import heard

pytestmark = pytest.mark.slow

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
    return run_data(run).train_items[0].value  # type: ignore[no-any-return]


def editor(run: Run, **settings: object) -> Editor:
    return Editor(run, settings={"steps": 4, **settings})


def half() -> np.ndarray:
    """White on the right half."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[:, SIDE // 2 :] = 255
    return mask


def test_a_hole_is_filled_and_the_rest_stays(run: Run, picture: np.ndarray) -> None:
    made = edit(editor(run), [picture], Change(mask=half()), 3).values
    assert len(made) == 3
    for value in made:
        assert np.array_equal(value[:, : SIDE // 2], picture[:, : SIDE // 2])
    assert not np.array_equal(made[0][:, SIDE // 2 :], made[1][:, SIDE // 2 :])


def test_strength_goes_from_nothing_to_everything(run: Run, picture: np.ndarray) -> None:
    def far(strength: float) -> float:
        made = edit(editor(run), [picture], Change(strength=strength), 4).values
        return float(np.mean([np.abs(v.astype(float) - picture).mean() for v in made]))

    distances = [far(s) for s in (0.0, 0.3, 1.0)]
    assert distances[0] == 0 < distances[1] < distances[2]


def test_enlarging_agrees_with_the_small_picture(run: Run, picture: np.ndarray) -> None:
    small = picture.reshape(3, 2, 3, 2, -1).mean((1, 3)).round().astype(np.uint8)
    made = edit(editor(run, steps=20), [small], Change(upscale=2, weight=4.0), 2).values
    for value in made:
        assert value.shape == picture.shape
        again = value.reshape(3, 2, 3, 2, -1).mean((1, 3))
        assert np.abs(again - small).mean() < 4  # of 255: what is left is by rounding, and by values out of range


def test_wishes_come_nearer(run: Run, picture: np.ndarray) -> None:
    plain = edit(editor(run), [picture], Change(strength=1.0), 4)
    for change in (
        Change(strength=1.0, palette=("black",)),
        Change(strength=1.0, function="tests.verbs.test_edit:dark"),
    ):
        made = edit(editor(run), [picture], change, 4)
        assert float(made.x.mean()) < float(plain.x.mean()) - 0.1


def dark(x: torch.Tensor) -> torch.Tensor:
    """A user's own wish."""
    return 200 * (x + 1).square().mean((1, 2, 3))


def scalar(x: torch.Tensor) -> torch.Tensor:
    """A mistake: one number for all rows."""
    return x.square().sum()


def test_a_function_of_a_file(run: Run, picture: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "shade.py").write_text("LEVEL = -1\n")
    (tmp_path / "mine.py").write_text(
        "import shade\n\ndef darker(x):\n    return 200 * (x - shade.LEVEL).square().mean((1, 2, 3))\n"
    )
    plain = edit(editor(run), [picture], Change(strength=1.0), 4)
    made = edit(editor(run), [picture], Change(strength=1.0, function=f"{tmp_path / 'mine.py'}:darker"), 4)
    assert float(made.x.mean()) < float(plain.x.mean()) - 0.1
    with pytest.raises(UserError, match="does not exist"):
        edit(editor(run), [picture], Change(strength=1.0, function=f"{tmp_path / 'gone.py'}:darker"))


def test_early_weights_steer_edits_and_blends(run: Run, picture: np.ndarray) -> None:
    plain = edit(editor(run), [picture], Change(strength=0.5)).x
    assert not torch.equal(edit(editor(run, autoguidance=3.0), [picture], Change(strength=0.5)).x, plain)
    way = [
        Blender(run, {"steps": 4, "autoguidance": g}).between(picture, 255 - picture, 3, Request(), Request()).x
        for g in (1.0, 3.0)
    ]
    assert not torch.equal(*way)


def wide(width: int = 12) -> np.ndarray:
    """A grey ramp of 6 rows."""
    return np.tile(np.linspace(0, 255, width).astype(np.uint8), (SIDE, 1))


def test_what_is_cut_from_a_picture_is_told_and_its_mask_cut_alike(run: Run, tmp_path: Path) -> None:
    ramp, mask = wide(), np.zeros((SIDE, 12), np.uint8)
    mask[:, 6:] = 255
    Image.fromarray(ramp).save(tmp_path / "wide.png")
    with heard("cropped to the central square: wide.png"):
        made = edit(editor(run), [tmp_path / "wide.png"], Change(mask=mask)).values[0]
    assert np.array_equal(made[:, :3, 0], ramp[:, 3:6])
    assert not np.array_equal(made[:, 3:, 0], ramp[:, 6:9])
    with pytest.raises(UserError, match="6x6 and the given ones 12x6"):
        edit(editor(run), [ramp], Change(mask=mask[:, :9]))


def test_what_is_padded_stays(run: Run) -> None:
    """A mask over pictures of another shape, where the run pads them."""
    padding = SimpleNamespace(encoder=ImageEncoder(run.encoder.space, {}, ImageOptions(size=SIDE, crop="pad")))
    seen = as_seen(cast(Run, padding), np.ones((SIDE, 12), bool))[0, 0]
    assert bool(seen[2:4].all()) and not bool(seen[[0, 5]].any())


@pytest.mark.parametrize("kind", ["16 bit", "transparent"])
def test_masks_of_any_kind(run: Run, picture: np.ndarray, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mask.png"
    if kind == "16 bit":
        Image.fromarray(half().astype(np.uint16) * 100 + 3000).save(path)  # 3,000 to 28,500 of 65,535: all black
        with pytest.raises(UserError, match="all black"):
            edit(editor(run), [picture], Change(mask=path))
        Image.fromarray(half().astype(np.uint16) * 257).save(path)
    else:
        shown = np.full((SIDE, SIDE, 4), 255, np.uint8)
        shown[..., 3] = half()
        Image.fromarray(shown).save(path)
    made = edit(editor(run), [picture], Change(mask=path)).values[0]
    assert np.array_equal(made[:, : SIDE // 2], picture[:, : SIDE // 2])
    assert not np.array_equal(made[:, SIDE // 2 :], picture[:, SIDE // 2 :])


def test_pictures_of_16_bits_are_not_clipped(run: Run, tmp_path: Path) -> None:
    small = np.array([[0, 90, 180], [40, 130, 220], [255, 10, 100]], np.uint8)
    Image.fromarray(small.astype(np.uint16) * 257).save(tmp_path / "small.png")
    made = edit(editor(run), [tmp_path / "small.png"], Change(upscale=2)).x
    known = edit(editor(run), [small], Change(upscale=2)).x
    assert torch.equal(made, known)


@pytest.mark.parametrize(("side", "factor"), [(30, 4), (20, 8), (10, 4), (8, 4)])
def test_a_place_of_a_codec_is_kept_where_all_it_stands_for_is(side: int, factor: int) -> None:
    space, net = (
        Space("field", (1, side, side)),
        LatentShape(bottleneck="kl", factor=factor, channels=2, levels=(8,), codes=2, width=8, blocks=1, most=1),
    )
    states = {k: m.state_dict() for k, m in networks(space.shape, net).items()}
    codec = TrainedCodec(space, net, copied(space, net, states), torch.zeros(2), torch.ones(2))
    keep = torch.ones(1, 1, side, side, dtype=torch.bool)
    keep[..., side - 1, 0] = False
    window_starts = -(-side // factor)
    found = through(codec, Edit(torch.zeros(1, 1, side, side), keep=keep)).keep
    wanted = torch.ones(1, 2, window_starts, window_starts, dtype=torch.bool)
    wanted[..., window_starts - 1, 0] = False
    assert found is not None and torch.equal(found, wanted)


def test_what_a_codec_decodes_goes_on_from_what_is_kept_without_a_seam() -> None:
    """A smooth image that a codec decodes too bright by a half: beside what is kept it has the kept brightness, and far
    from it that of the codec."""
    side, reach, offset = 96, 8, 0.5
    start = torch.linspace(-1, 1, side).expand(1, 3, side, side)
    keep = torch.ones(1, 3, side, side, dtype=torch.bool)
    keep[..., 24:88, 24:88] = False
    made = torch.where(keep, start, continued(start + offset, start, keep, reach))
    assert torch.equal(made[keep], start[keep])
    slope = float(start[0, 0, 0, 1] - start[0, 0, 0, 0])
    seam = (made[..., 56, 24] - made[..., 56, 23] - slope).abs().max()  # .5 without it
    inner = (made[..., 56, 25:56].diff(dim=-1) - slope).abs().max()
    assert seam < 0.2 * offset and inner < 0.2 * offset
    torch.testing.assert_close(made[..., 56, 56], start[..., 56, 56] + offset, atol=1e-5, rtol=0)
    tokens = torch.zeros(1, 4, dtype=torch.int64)
    assert continued(tokens, tokens, tokens > 0, reach) is tokens


def test_what_was_asked_for_is_told(run: Run, picture: np.ndarray) -> None:
    asking = Editor(run, Request(label="dark"), {"steps": 4, "guidance": 2.0})
    (record,) = edit(asking, [picture], Change(strength=0.5)).described
    assert record == {"picture": 0, "variation": 0, "strength": 0.5, "label": "dark", "steps": 4, "guidance": 2.0}
    (record,) = outpainted(asking, [picture], {"right": 2}, Change(), 1).described
    assert record["label"] == "dark" and record["guidance"] == 2.0


def test_an_image_of_any_size_is_cropped_before_it_is_enlarged(run: Run, picture: np.ndarray) -> None:
    small = picture.reshape(3, 2, 3, 2, -1).mean((1, 3)).round().astype(np.uint8)
    wide = np.concatenate([np.zeros_like(small[:, :1]), small, np.zeros_like(small[:, :1])], 1)  # 5 x 3 pixels
    known = edit(editor(run), [small], Change(upscale=2)).x
    with heard("cropped"):
        assert torch.equal(edit(editor(run), [wide], Change(upscale=2)).x, known)
    with heard("An image has 6x6 pixels and is first reduced to 3x3"):
        assert edit(editor(run), [picture], Change(upscale=2)).x.shape == known.shape


def test_more_pictures_than_fit_at_once_are_each_their_own(
    run: Run, picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = picture.reshape(3, 2, 3, 2, -1).mean((1, 3)).round().astype(np.uint8)
    other = 255 - small
    whole = edit(editor(run), [small, other], Change(upscale=2), 2).x
    monkeypatch.setattr(sys.modules["afresh.verbs.editor"], "BATCH_SIZE", 1)
    torch.testing.assert_close(edit(editor(run), [small, other], Change(upscale=2), 2).x, whole, rtol=0, atol=0.02)


@pytest.mark.parametrize(("change", "said"), [
    (Change(), "No change is requested"),
    (Change(mask=np.zeros((5, 5), np.uint8)), "5x5 pixels; this model's images have 6x6"),
    (Change(upscale=0), "It takes 2, 3, 6"),
    (Change(upscale=-2), "It takes 2, 3, 6"),
    (Change(strength=0.5, weight=3), "Give one of them"),
    (Change(strength=0.5, function="tests.verbs.test_edit:scalar"), r"returned a tensor of shape"),
    (Change(mask=np.zeros((6, 6), np.uint8)), "all black"),
    (Change(mask=np.full((6, 6), 255, np.uint8)), "all white"),
    (Change(strength=1.5), "from 0"),
    (Change(upscale=4), "It takes 2, 3, 6"),
    (Change(palette=("no colour",)), "colours"),
    (Change(function="nowhere:f"), "cannot be loaded"),
    (Change(strength=0.5, palette=("red",), weight=0), "above 0"),
])  # fmt: skip
def test_bad_wishes_teach(run: Run, picture: np.ndarray, change: Change, said: str) -> None:
    with pytest.raises(UserError, match=said):
        edit(editor(run), [picture], change)


def test_beyond_the_edges(run: Run, picture: np.ndarray) -> None:
    made = outpainted(editor(run), [picture], {"right": 4, "top": 2}, Change(), 2)
    for value in made.values:
        assert value.shape == (SIDE + 2, SIDE + 4, picture.shape[-1])
        assert np.array_equal(value[2:, :SIDE], picture)


def test_a_side_is_named_once() -> None:
    assert sides("right=4, top=2") == {"right": 4, "top": 2}
    with pytest.raises(UserError, match="right twice: 8 and 4"):
        sides("right=8,right=4")


@pytest.mark.parametrize("given", ["up=3", "right", "right=0", "right=-2", "left=x"])
def test_sides_that_make_no_sense(given: str) -> None:
    with pytest.raises(UserError, match="SIDE=PIXELS"):
        sides(given)


def test_windows_cover_every_place() -> None:
    for length in range(6, 30):
        at = window_starts(length, 6)
        assert set().union(*(range(a, a + 6) for a in at)) == set(range(length))


# --------------------------------------------------------------------------- latents


def test_the_circle_keeps_the_length() -> None:
    a, b = torch.tensor([3.0, 0]), torch.tensor([0, 3.0])
    way = slerp(a, b, torch.linspace(0, 1, 5))
    torch.testing.assert_close(way.norm(dim=1), torch.full((5,), 3.0))
    torch.testing.assert_close(way[2], torch.full((2,), 3 / 2**0.5))
    torch.testing.assert_close(slerp(a, 2 * a, torch.tensor([0.5]))[0], 1.5 * a)


def test_the_way_begins_and_ends_at_the_pictures(run: Run) -> None:
    items = run_data(run).train_items
    a, b = items[0], next(i for i in items if i.labels != items[0].labels)
    blender = Blender(run, {"steps": 20})
    made = blender.between(a.value, b.value, 5, Request(label=a.labels["label"]), Request(label=b.labels["label"]))
    assert len(made.values) == 5
    for value, item in ((made.values[0], a), (made.values[-1], b)):
        assert np.abs(value.astype(float) - item.value).mean() < 8


def test_the_way_between_labels_has_no_jump(run: Run, picture: np.ndarray) -> None:
    """From a picture to itself only the label changes, and what is drawn with it little by little."""
    made = Blender(run, {"steps": 8}).between(picture, picture, 9, Request(label="dark"), Request(label="light"))
    steps = made.x.diff(dim=0).flatten(1).norm(dim=1)
    assert float(steps.max()) < 0.4 * float(steps.sum()) and float(steps.min()) > 0
    assert made.described[3] == {"from_first": 0.625, "from_label": "dark", "to_label": "light"}
    same = Blender(run, {"steps": 8}).between(picture, picture, 3, Request(label="dark"), Request(label="dark"))
    torch.testing.assert_close(same.x[0], same.x[2])
    torch.testing.assert_close(same.x[0], made.x[0], rtol=0, atol=1e-4)
    guided = Blender(run, {"steps": 8, "guidance": 2.0}).between(picture, picture, 5, Request(label="dark"), Request())
    steps = guided.x.diff(dim=0).flatten(1).norm(dim=1)
    assert float(steps.max()) < 0.7 * float(steps.sum()) and float(steps.min()) > 0


def test_what_belongs_to_the_other_way_is_refused() -> None:
    none: dict[str, object] = {"label": None}
    check_given("b.png", None, {"label": ["dark"]}, none)
    check_given(None, "light", none, {"most": 2.0})
    with pytest.raises(UserError, match="`most`: only with `toward"):
        check_given("b.png", None, none, {"away": None, "most": 7.0})
    with pytest.raises(UserError, match="only with a second file"):
        check_given(None, "light", {"to-label": ["dark"]}, none)


def test_towards_an_attribute(run: Run) -> None:
    prepared = run_data(run)
    blender = Blender(run)
    way = blender.direction(prepared.train, "light", "dark")
    dark = next(i.value for i in prepared.train_items if i.labels["label"] == "dark")
    made = blender.along([dark], way, [0.0, 1.0])
    assert float(made.x[1].mean()) > float(made.x[0].mean()) + 0.1
    with pytest.raises(UserError, match="Known: dark, light"):
        blender.direction(prepared.train, "grey")


def size_of(samples: Samples) -> tuple[int, int]:
    """Columns and rows of the grid, of pictures that it enlarges to 60 pixels with a gap of 10."""
    width, height = Image.open(io.BytesIO(grid_png(samples))).size
    return width // 70, height // 70


def test_a_transition_is_one_row_and_versions_of_a_picture_are_one(run: Run, picture: np.ndarray) -> None:
    fast, other = {"steps": 2, "captions": False, "scale": 10}, 255 - picture
    assert size_of(Blender(run, fast).between(picture, other, 7, Request(), Request())) == (7, 1)
    assert size_of(Blender(run, fast).towards(picture, 5, "light", None, None)) == (5, 1)
    assert size_of(edit(editor(run, **fast), [picture, other], Change(strength=0.5), 3)) == (3, 2)
    assert size_of(edit(editor(run, **fast), [picture], Change(strength=0.5), 4)) == (2, 2)
    assert size_of(Sampler(run, 6, Request(), 0, fast)()) == (3, 2)
    assert size_of(Sampler(run, 6, Request(), 0, {**fast, "columns": 6})()) == (6, 1)
    assert size_of(Blender(run, {**fast, "columns": 4}).between(picture, other, 8, Request(), Request())) == (4, 2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"columns": 0}, "columns"),
        ({"scale": 1000}, "scale"),
        ({"captions": "perhaps"}, "captions"),
        ({"rows": 2}, "columns, scale, captions, full_size"),
    ],
)
def test_settings_of_grids_are_checked_before_anything_is_drawn(run: Run, given: dict[str, object], said: str) -> None:
    for begin in (
        lambda: Sampler(run, 1, Request(), 0, given),
        lambda: editor(run, **given),
        lambda: Blender(run, given),
    ):
        with pytest.raises(UserError, match=said):
            made = begin()
            edit(made, [wide()], Change(strength=0.5)) if isinstance(made, Editor) else None


def test_an_edit_is_pasted_back_at_the_pictures_own_size(run: Run, tmp_path: Path) -> None:
    picture = np.random.default_rng(3).integers(0, 256, (40, 60, 1), np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    made = edit(editor(run, full_size=True), [picture, 255 - picture], Change(mask=mask), 2).values
    assert [v.shape for v in made] == [picture.shape] * 4
    for value, given in zip(made, (picture, picture, 255 - picture, 255 - picture), strict=True):
        assert np.array_equal(value[mask == 0], given[mask == 0]) and not np.array_equal(value, given)
    varied = edit(editor(run, full_size=True), [picture], Change(strength=0.5)).values[0]
    assert np.array_equal(varied[:, :10], picture[:, :10]) and not np.array_equal(varied, picture)
    with pytest.raises(UserError, match=r"`full_size` pastes .* Leave one out"):
        edit(editor(run, full_size=True), [picture], Change(upscale=2))
    files = [tmp_path / name for name in ("a.png", "mask.png")]
    Image.fromarray(picture[..., 0]).save(files[0])
    Image.fromarray(mask).save(files[1])
    argv = ["edit", run.path, files[0], "--mask", files[1], "--set", "steps=2", "--set", "full_size=true"]
    assert command([str(a) for a in [*argv, "--out", tmp_path / "out"]]) == 0
    written = np.asarray(Image.open(tmp_path / "out" / "0.png"))
    assert written.shape == (40, 60)
    unmarked = afresh.load(run.path).edit([files[0]], mask=files[1], settings={"steps": 2, "full_size": True})[0]
    assert np.array_equal(unmarked[..., 0][mask == 0], picture[..., 0][mask == 0])


def test_codes_look_like_noise(run: Run) -> None:
    prepared = run_data(run)
    x = prepared.train.x.float() * prepared.train.scale + prepared.train.shift
    z = Blender(run).codes(x, Cond.unconditional(run.conds, len(x)))
    assert 0.4 < float(z.std()) < 2


# --------------------------------------------------------------------------- the command line


def test_the_verbs(run: Run, picture: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(picture[..., 0]).save(tmp_path / "a.png")
    Image.fromarray(255 - picture[..., 0]).save(tmp_path / "b.png")
    Image.fromarray(half()).save(tmp_path / "mask.png")
    base = [str(run.path), str(tmp_path / "a.png")]
    out = ["--out", str(tmp_path / "out"), "--force", "--json"]
    capsys.readouterr()
    mask = ["--mask", str(tmp_path / "mask.png"), "-n", "2", "--set", "steps=3"]
    assert command(["edit", *base, *mask, *out]) == 0
    records = drawn(capsys.readouterr().out)
    assert [r["variation"] for r in records] == [0, 1]
    assert command(["edit", *base, "--outpaint", "left=3", "-n", "1", "--set", "steps=3", *out]) == 0
    assert command(["blend", *base, str(tmp_path / "b.png"), "-n", "3", *out]) == 0
    assert command(["blend", *base, "--toward", "light", "-n", "3", *out]) == 0
    assert command(["blend", *base, *out]) == 2
    assert command(["blend", *base, str(tmp_path / "b.png"), "--away", "dark", *out]) == 2
    assert "--away: only with --toward" in capsys.readouterr().err
    assert command(["edit", *base, "--strength", "0.5", "--guidance", "2", "--set", "guidance=1", *out]) == 2
    assert "guidance is given twice" in capsys.readouterr().err
    assert command(["edit", *base, "--strength", "0.5", "--set", "guidance_low=0.5", *out]) == 2
    assert "times of guidance" in capsys.readouterr().err
    assert command(["edit", str(run.path), str(tmp_path / "gone.png"), "--strength", "0.5", *out]) == 2
    assert "gone.png cannot be used as an image: there is no such file" in capsys.readouterr().err
    assert command(["edit", *base]) == 2
    assert "No change is requested" in capsys.readouterr().err


# --------------------------------------------------------------------------- a student, and Python


def test_a_student_of_a_flow(run: Run, picture: np.ndarray, tmp_path: Path) -> None:
    student = Model(run).distill(guidance=2.0, finest=2, steps=20, out=tmp_path / "student", quiet=True)
    assert student.run.record.base_model == str(run.path.resolve()) and student.run.record.family == "fewstep"
    for steps in (1, 2):
        made = student.sample(4, label="dark", seed=3, steps=steps)
        assert len(made.values) == 4 and bool(torch.isfinite(made.x).all())
    with pytest.raises(UserError, match="steps"):
        student.sample(1, steps=3)
    with pytest.raises(UserError, match=r"finest. must be one of 1, 2, 4, 8, 16, 32, 64.* Given: 3"):
        Model(run).distill(finest=3, steps=1, out=tmp_path / "three", quiet=True)
    with pytest.raises(UserError, match="family flow"):
        student.distill(steps=1, out=tmp_path / "again", quiet=True)
    with pytest.raises(UserError, match="verb distill"):
        afresh.train(run.record.data.path, family="fewstep", steps=1, out=tmp_path / "none", quiet=True)


def test_a_student_learns_what_its_teacher_does(run: Run, tmp_path: Path) -> None:
    """From the same noise one long step comes nearer to the teacher's picture than the teacher's own long step."""
    student = Model(run).distill(finest=1, steps=150, out=tmp_path / "one", quiet=True, force=True)
    exact = Model(run).sample(16, label="dark", seed=3, steps=50, solver="heun").x
    ours = student.sample(16, label="dark", seed=3, steps=1).x
    naive = Model(run).sample(16, label="dark", seed=3, steps=1, solver="euler").x
    assert float((ours - exact).square().mean()) < 0.7 * float((naive - exact).square().mean())


def test_from_python(run: Run, picture: np.ndarray) -> None:
    assert len(Model(run).edit([picture], strength=0.4, each=2, settings={"steps": 3}).values) == 2
    assert len(Model(run).interpolate(picture, 255 - picture, 3, settings={"steps": 3}).values) == 3
    with pytest.raises(UserError, match="cannot be combined with each other"):
        Model(run).edit([picture], strength=0.4, extend=1.0)


# --------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("added", [{"left": 1}, {"right": 7, "top": 5}, {"top": 3, "bottom": 4, "left": 9, "right": 2}])
def test_the_windows_of_an_extension_are_counted_before_it_begins(
    run: Run, picture: np.ndarray, added: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = []

    def apply(self: Editor, start: Tensor, *rest: object) -> Tensor:
        edited.append(len(start))
        return start

    monkeypatch.setattr(Editor, "apply", apply)
    outpainted(editor(run), [picture], added, Change(), 3)
    assert len(edited) == windows((SIDE, SIDE), added) and set(edited) == {3}


def test_what_costs_too_much_is_refused_before_anything_is_computed(run: Run, picture: np.ndarray) -> None:
    def refuse(evaluations: int, work: Callable[[], object]) -> None:
        with at_most(evaluations), pytest.raises(UserError) as error:
            work()
        assert error.value.code == "too_costly" and error.value.fields["evaluations"] > evaluations

    computed = run.modules["velocity"].register_forward_pre_hook(lambda *_: pytest.fail("the network was evaluated"))
    around = dict.fromkeys(SIDES, 4096)
    refuse(100_000, lambda: changed(editor(run), [picture], Change(), outpaint=around))
    refuse(100_000, lambda: changed(editor(run, steps=1000, solver="heun"), [picture], Change(strength=0.5), 60))
    refuse(100_000, lambda: Sampler(run, 600, Request(label="dark"), 0, {"steps": 100, "guidance": 2.0}))
    refuse(100_000, lambda: Sampler(run, 20, Request(), 0, {"steps": 100}, control=Control(80, reward="brightness")))
    refuse(1_000, lambda: Blender(run, {"steps": 100}).between(picture, picture, 4, Request(), Request()))
    refuse(1_000, lambda: score_items(run, items_of(run, [picture]), draws=20))
    with at_most(60):
        refuse(59, lambda: editor(run, steps=30).apply(torch.zeros(2, *run.space.shape), 1.0, None, lambda _: None, 1))
    computed.remove()
    with at_most(8):
        assert len(edit(editor(run), [picture], Change(strength=0.5), 2)) == 2
