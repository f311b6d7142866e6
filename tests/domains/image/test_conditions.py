"""Conditions of images: captions by a text encoder, conditioning images, and requests in these terms."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from afresh.api import Model
from afresh.core import Cond, CondSpec, Corpus, Item, Part, UserError, registry
from afresh.data import conditions
from afresh.domains.image.modality import MODALITY, ImageEncoder, ImageOptions
from afresh.engine.sampling.request import Request, check_negative, describe_parts, make_cond, several_labels, unwanted
from afresh.engine.sampling.settings import of_guidance, of_sampling
from afresh.faces import cli
from afresh.runs.run import Run
from tests.data.tiny_encoder import CAPTIONS, tiny
from tests.heard import heard, silence

SIDE = 8


def pixels(seed: int, channels: int = 1, side: int = SIDE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, channels), np.uint8)


def png(value: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(value[..., 0] if value.shape[-1] == 1 else value).save(buffer, "PNG")
    return buffer.getvalue()


def write(root: Path, images: Mapping[str, np.ndarray], rows: Sequence[Mapping[str, Any]], table: str = "") -> Path:
    """Write images by name, and metadata.jsonl in the folder `table`."""
    for name, value in images.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(value))
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    (root / table / "metadata.jsonl").write_text(lines)
    return root


def pairs(root: Path, n: int = 6, **row: Any) -> Path:
    """n images in RGB, each with a greyscale conditioning image in another folder."""
    images = {f"{i}.png": pixels(i, 3) for i in range(n)} | {f"edges/{i}.png": pixels(100 + i) for i in range(n)}
    return write(
        root, images, [{"file_name": f"{i}.png", "conditioning_image": f"edges/{i}.png", **row} for i in range(n)]
    )


def read(path: Path, **options: Any) -> Corpus:
    return MODALITY.read(path, ImageOptions(**options))


def noted(notes: Sequence[str], words: str) -> bool:
    return any(words in n for n in notes)


def captioned(texts: Sequence[str | None]) -> list[Item]:
    return [Item(pixels(i), str(i), caption=text) for i, text in enumerate(texts)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("models") / "tiny")


# --------------------------------------------------------------------------- captions


def test_captions_become_vectors_and_missing_ones_are_absent(folder: Path, tmp_path: Path) -> None:
    items = captioned([*CAPTIONS, None, None])
    encoder = MODALITY.fit(items, ImageOptions(captions=str(folder)))
    part = encoder.conds["caption"]
    assert (part.kind, part.shape) == ("vector", (12,))
    cond = encoder.encode(items).cond
    assert cond.present["caption"].tolist() == [True] * len(CAPTIONS) + [False] * 2
    assert not cond.parts["caption"][len(CAPTIONS) :].any()
    encoder.save(tmp_path)
    again = MODALITY.load(tmp_path)
    assert again.options.captions == str(folder) and again.settled["captions"] == str(folder)
    torch.testing.assert_close(again.encode(items).cond.parts["caption"], cond.parts["caption"], rtol=0, atol=1e-5)


def test_a_model_without_captions_needs_no_text_encoder(folder: Path, tmp_path: Path) -> None:
    """Opened, and used for all that is not a caption, while its text encoder is gone."""
    gone = tiny(tmp_path / "gone")
    MODALITY.fit(captioned(CAPTIONS), ImageOptions(captions=str(gone))).save(tmp_path / "encoder")
    for file in gone.iterdir():
        file.unlink()
    gone.rmdir()
    encoder = MODALITY.load(tmp_path / "encoder")
    assert not encoder.encode(captioned([None] * 3)).cond.present["caption"].any()
    with pytest.raises(UserError, match="No folder"):
        encoder.encode(captioned(["red cat"]))


def test_missing_empty_and_invalid_captions_are_reported(tmp_path: Path) -> None:
    texts = ["a red cat", "", None, 7, "a red dog", "a red cat"]
    rows = [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(texts)]
    corpus = read(write(tmp_path, {f"{i}.png": pixels(i) for i in range(6)}, rows))
    assert [i.caption for i in corpus.items] == ["a red cat", None, None, None, "a red dog", "a red cat"]
    assert noted(corpus.notes, "column 'text': 1 values are not text and are not used as captions")
    assert noted(corpus.notes, "caption missing: 3 of 6 items, trained without this condition")


def test_labels_and_captions_are_separate_conditions(folder: Path) -> None:
    items = [replace(i, labels={"label": "ab"[k % 2]}, numbers={"age": k}) for k, i in enumerate(captioned(CAPTIONS))]
    encoder = MODALITY.fit(items, ImageOptions(captions=str(folder)))
    assert {k: p.kind for k, p in encoder.conds.items()} == {"label": "label", "age": "number", "caption": "vector"}


@pytest.mark.parametrize("how", ["auto", "words", "tiny"])
def test_captions_that_are_all_the_same_are_left_out(how: str, folder: Path) -> None:
    encoder = MODALITY.fit(captioned(["a red cat"] * 5), ImageOptions(captions=str(folder) if how == "tiny" else how))
    assert not encoder.conds and noted(encoder.notes, "captions are left out: every caption is 'a red cat'")


def test_attributes_of_one_value_are_left_out(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.png", "season": "winter", "weight": 2.5, "age": i / 3} for i in range(4)]
    corpus = read(write(tmp_path, {f"{i}.png": pixels(i) for i in range(4)}, rows))
    assert noted(corpus.notes, "column 'season' is not used: its only value is 'winter'")
    assert noted(corpus.notes, "column 'weight' is not used: its only value is '2.5'")
    assert set(MODALITY.fit(corpus.items, ImageOptions()).conds) == {"age"}


# --------------------------------------------------------------------------- conditioning images


def test_conditioning_images_are_not_examples(tmp_path: Path) -> None:
    corpus = read(pairs(tmp_path))
    assert [i.source for i in corpus.items] == [f"{i}.png" for i in range(6)] and not corpus.refused
    assert all(np.array_equal(i.images["conditioning_image"], pixels(100 + k)) for k, i in enumerate(corpus.items))
    assert not any(i.labels for i in corpus.items), "a folder of conditioning images is not a class"
    assert noted(corpus.notes, "conditioning_image: 6 images have a conditioning image (6 of these are not")
    encoder = MODALITY.fit(corpus.items, ImageOptions())
    part = encoder.conds["conditioning_image"]
    assert (part.kind, part.shape) == ("aligned", (1, SIDE, SIDE))
    cond = encoder.encode([*corpus.items, Item(pixels(3, 3))]).cond
    field = cond.parts["conditioning_image"]
    expected = torch.from_numpy(pixels(102)[None, ..., 0]).float() * 2 / 255 - 1
    torch.testing.assert_close(field[2], expected, rtol=0, atol=1e-6)
    assert cond.present["conditioning_image"].tolist() == [True] * 6 + [False] and not field[6].any()


def test_conditioning_images_are_cropped_and_resized_like_the_image(tmp_path: Path) -> None:
    wide = np.concatenate([pixels(7), np.zeros((SIDE, 4, 1), np.uint8)], 1)
    root = write(
        tmp_path,
        {"a.png": wide, "b.png": pixels(1), "beside/a.png": wide, "beside/b.png": pixels(2, side=2 * SIDE)},
        [{"file_name": f"{k}.png", "input_image": f"beside/{k}.png"} for k in "ab"],
    )
    corpus = read(root, size=SIDE)
    a, b = corpus.items
    assert np.array_equal(a.images["input_image"], a.value) and b.images["input_image"].shape == (SIDE, SIDE, 1)


def test_images_without_a_usable_conditioning_image_are_refused(tmp_path: Path) -> None:
    root = pairs(tmp_path)
    (root / "edges" / "2.png").unlink()
    (root / "edges" / "3.png").write_bytes(b"not an image")
    corpus = read(root)
    assert [i.source for i in corpus.items] == ["0.png", "1.png", "4.png", "5.png"]
    reasons = {r.source: r.reason for r in corpus.refused}
    assert reasons["2.png"] == "conditioning_image 'edges/2.png' is not a usable image"
    assert "edges/3.png" in reasons and "3.png" in reasons


def test_data_without_a_usable_pair_is_refused_with_the_reasons(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {f"{i}.png": pixels(i) for i in range(2)},
        [{"file_name": f"{i}.png", "conditioning_image": f"../away/{i}.png"} for i in range(2)],
    )
    with pytest.raises(UserError, match=r"No usable image[^$]*'\.\./away/0\.png' is not a usable image"):
        read(root)


def test_the_conditioning_image_may_be_missing_for_some_images(tmp_path: Path) -> None:
    rows = [
        {"file_name": "0.png", "conditioning_image": "e0.png"},
        {"file_name": "1.png", "conditioning_image": None},
        {"file_name": "2.png", "conditioning_image": "e2.png"},
    ]
    corpus = read(write(tmp_path, {f"{k}.png": pixels(i) for i, k in enumerate(("0", "1", "2", "e0", "e2"))}, rows))
    assert [sorted(i.images) for i in corpus.items] == [["conditioning_image"], [], ["conditioning_image"]]
    assert noted(corpus.notes, "conditioning_image missing: 1 of 3 items")


def test_an_image_may_be_an_example_and_condition_another(tmp_path: Path) -> None:
    """The next image from the previous one: all have rows of their own."""
    rows: list[dict[str, Any]] = [{"file_name": "0.png"}]
    rows += [{"file_name": f"{i}.png", "image_before": f"{i - 1}.png"} for i in range(1, 4)]
    corpus = read(write(tmp_path, {f"{i}.png": pixels(i) for i in range(4)}, rows))
    assert len(corpus.items) == 4
    assert np.array_equal(corpus.items[2].images["image_before"], corpus.items[1].value)


def test_names_are_relative_to_their_table_also_in_an_archive(tmp_path: Path) -> None:
    root = write(
        tmp_path / "data",
        {f"in/{k}.png": pixels(i, 3) for i, k in enumerate("abcd")},
        [{"file_name": "a.png", "cond_image": "c.png"}, {"file_name": "b.png", "cond_image": "d.png"}],
        "in",
    )
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root).as_posix())
    for path in (root, tmp_path / "data.zip"):
        corpus = read(path)
        assert [i.source for i in corpus.items] == ["in/a.png", "in/b.png"] and not corpus.refused
        assert np.array_equal(corpus.items[1].images["cond_image"], pixels(3, 3))


def test_columns_with_names_like_images_but_other_values_are_not_images(tmp_path: Path) -> None:
    rows = [
        {
            "file_name": f"{i}.png",
            "image_id": i % 2,
            "image_url": f"https://example.org/{i}.png",
            "image_kind": "ab"[i % 2],
            "own_image": f"{i}.png",
        }
        for i in range(6)
    ]
    corpus = read(write(tmp_path, {f"{i}.png": pixels(i) for i in range(6)}, rows))
    assert len(corpus.items) == 6 and not any(i.images for i in corpus.items)
    assert set(corpus.items[0].labels) == {"image_id", "image_kind"}
    assert noted(corpus.notes, "column 'own_image' is not used: it names the image itself")
    assert noted(corpus.notes, "column 'image_url' is not used")


def test_a_conditioning_image_that_is_equal_everywhere_is_left_out(tmp_path: Path) -> None:
    rows = [{"file_name": f"{i}.png", "style_image": "style.png"} for i in range(3)]
    corpus = read(write(tmp_path, {f"{k}.png": pixels(i) for i, k in enumerate((0, 1, 2, "style"))}, rows))
    encoder = MODALITY.fit(corpus.items, ImageOptions())
    assert not encoder.conds and noted(encoder.notes, "style_image is left out: every item has the same image")


def test_image_conditions_are_saved_and_loaded(tmp_path: Path) -> None:
    items = read(pairs(tmp_path / "data")).items
    encoder = MODALITY.fit(items, ImageOptions())
    encoder.save(tmp_path)
    again = MODALITY.load(tmp_path)
    assert dict(again.conds) == dict(encoder.conds)
    first, second = encoder.encode(items).cond, again.encode(items).cond
    conditions.save_conditions(tmp_path / "c.safetensors", first)
    kept = conditions.load_conditions(tmp_path / "c.safetensors", again.conds)
    for cond in (second, kept):
        torch.testing.assert_close(cond.parts["conditioning_image"], first.parts["conditioning_image"])


def test_fewer_requests_are_saved_if_they_are_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = read(pairs(tmp_path / "data")).items
    encoder = MODALITY.fit(items, ImageOptions())
    monkeypatch.setattr(conditions, "MAX_BYTES", 2 * SIDE * SIDE * 4)
    conditions.save_conditions(tmp_path / "c.safetensors", encoder.encode(items).cond)
    assert conditions.load_conditions(tmp_path / "c.safetensors", encoder.conds).size == 2


def test_families_without_image_conditions_refuse_them(tmp_path: Path) -> None:
    encoder = MODALITY.fit(read(pairs(tmp_path)).items, ImageOptions())
    vae = registry.family("vae")
    with pytest.raises(UserError, match=r"cannot be conditioned on another image \(conditioning_image\)"):
        vae.build(vae.plan.sizes(encoder.space)[0], encoder.space, encoder.conds)


# --------------------------------------------------------------------------- requests


@pytest.fixture(scope="module")
def encoder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> ImageEncoder:
    """An encoder of images with a caption, a label, a number and a conditioning image."""
    items = [
        replace(item, labels={"label": "ab"[i % 2]}, numbers={"age": float(i)}, images={"edges": pixels(50 + i)})
        for i, item in enumerate(captioned(CAPTIONS))
    ]
    return MODALITY.fit(items, ImageOptions(captions=str(folder)))


def asked(encoder: ImageEncoder, request: Request, n: int = 3) -> Cond:
    return make_cond(encoder.conds, Cond.unconditional(encoder.conds, n), request, encoder)


def test_captions_and_images_of_requests_are_encoded_as_in_training(encoder: ImageEncoder, tmp_path: Path) -> None:
    (tmp_path / "e.png").write_bytes(png(pixels(52)))
    item = Item(pixels(2), caption=CAPTIONS[2], images={"edges": pixels(52)})
    trained = encoder.encode([item]).cond
    for image in (str(tmp_path / "e.png"), f"edges={tmp_path / 'e.png'}", {"edges": pixels(52)}, tmp_path / "e.png"):
        cond = asked(encoder, Request(caption=CAPTIONS[2], image=image))
        for name in ("caption", "edges"):
            torch.testing.assert_close(cond.parts[name], trained.parts[name].expand_as(cond.parts[name]))
            assert cond.present[name].all()
        assert not cond.present["label"].any()


def test_a_negative_request_is_separate_from_the_request(encoder: ImageEncoder) -> None:
    request = Request(label="a", number={"age": 3.0}, negative=unwanted("b", CAPTIONS[0]))
    cond = asked(encoder, request)
    away = cond.negative_or_null()
    assert {k for k, v in away.present.items() if v.all()} == {"label", "caption"}
    assert {k for k, v in cond.present.items() if v.all()} == {"label", "age"}
    assert cond.parts["label"].tolist() == [0] * 3 and away.parts["label"].tolist() == [1] * 3
    told = describe_parts(encoder.conds, cond, request)[0]
    assert told["label"] == "a" and told["negative"] == {"label": "b", "caption": CAPTIONS[0]}
    assert told["age"] == pytest.approx(3.0)


@pytest.mark.parametrize(
    "request_,message",
    [
        (Request(caption="  "), "The caption is empty"),
        (Request(image="no/such.png"), r"no/such\.png cannot be used as an image"),
        (Request(image={"photo": "x.png"}), "No image condition named 'photo'. Known: edges"),
        (Request(negative=Request(label="c")), "'c' was never seen"),
    ],
)
def test_impossible_requests_are_refused(encoder: ImageEncoder, request_: Request, message: str) -> None:
    with pytest.raises(UserError, match=message):
        asked(encoder, request_)


SHAPES: CondSpec = {
    "colour": Part("label", classes=("blue", "red")),
    "shape": Part("label", classes=("disc", "square")),
    "caption": Part("prompt", classes=("a", "disc", "red"), length=8),
}


def test_several_labels_are_recognised_by_their_classes() -> None:
    assert several_labels(SHAPES, ["red", "disc"]) == {"colour": "red", "shape": "disc"}
    assert several_labels(SHAPES, ["shape=disc", "red"]) == {"colour": "red", "shape": "disc"}
    with pytest.raises(UserError, match="colour is given twice: 'red' and 'blue'"):
        several_labels(SHAPES, ["red", "blue"])
    with pytest.raises(UserError, match=r"No label .green. was seen.*colour: .*red.*; shape: disc, square"):
        several_labels(SHAPES, ["red", "green"])


def test_unknown_words_of_a_caption_are_reported() -> None:
    with heard("have no effect: big, zebra$"):
        make_cond(SHAPES, Cond.unconditional(SHAPES, 1), Request(caption="a big red zebra, a disc".replace(",", "")))
    with silence():
        make_cond(SHAPES, Cond.unconditional(SHAPES, 1), Request(caption="a red disc"))


def test_a_negative_equal_to_the_request_is_reported() -> None:
    settings = registry.family("flow").sampling.settings(guidance=2.0)
    with heard("so it has no effect"):
        check_negative(Request(label="red", negative=unwanted("red", None)), settings)
    with silence():
        check_negative(Request(label="red", negative=unwanted("blue", None)), settings)


def test_an_image_for_a_model_with_no_or_several_image_conditions() -> None:
    plain = MODALITY.fit(captioned([None] * 3), ImageOptions())
    with pytest.raises(UserError, match="learnt neither to start from an image nor to follow a curve"):
        asked(plain, Request(image="x.png"))
    items = [Item(pixels(i), images={"one": pixels(9 + i), "two": pixels(20 + i)}) for i in range(3)]
    both = MODALITY.fit(items, ImageOptions())
    with pytest.raises(UserError, match="`image=NAME=FILE`, with NAME one of: one, two"):
        asked(both, Request(image="x.png"))
    assert asked(both, Request(image={"two": pixels(1)})).present["one"].tolist() == [False] * 3


def test_captions_as_words_report_unknown_words() -> None:
    words = MODALITY.fit(captioned(CAPTIONS), ImageOptions())
    assert words.conds["caption"].kind == "prompt"
    cond = asked(words, Request(caption="red cat", negative=unwanted(None, "blue dog")))
    assert cond.present["caption"].all() and not torch.equal(
        cond.parts["caption"], cond.negative_or_null().parts["caption"]
    )
    with pytest.raises(UserError, match="None of the words of 'xyz'"):
        asked(words, Request(caption="xyz"))


# --------------------------------------------------------------------------- guidance by part


def test_guidance_without_names_is_one_number(encoder: ImageEncoder) -> None:
    flow = registry.family("flow")
    assert of_guidance(flow, encoder.conds, {"guidance": 2.0, "steps": 3}) == {"guidance": 2.0, "steps": 3}
    assert of_guidance(flow, encoder.conds, {"guidance": {"": 2.0}}) == {"guidance": 2.0}
    by_part = {"guidance": {"caption": 3.0, "label": 1.5, "": 2.0}}
    found = of_guidance(flow, encoder.conds, by_part)
    assert found == {"guidance": 2.0, "part_guidance": {"caption": 3.0, "label": 1.5}}
    assert of_sampling(flow, found, True).part_guidance["caption"] == 3.0
    words = {"prompt": Part("prompt", classes=("red",), length=2)}  # as it is named in older runs
    assert of_guidance(flow, words, {"guidance": {"caption": 3.0}}) == {"part_guidance": {"prompt": 3.0}}
    with pytest.raises(UserError, match="unconditional"):
        of_sampling(flow, found, False)
    with pytest.raises(UserError, match=r"No part named colour to guide towards. Known: .*label.*caption"):
        of_guidance(flow, encoder.conds, {"guidance": {"colour": 2.0}})
    with pytest.raises(UserError, match="vae has one guidance weight for all parts"):
        of_guidance(registry.family("vae"), encoder.conds, {"guidance": {"label": 2.0}})


def test_a_negative_request_without_guidance_is_refused() -> None:
    flow = registry.family("flow")
    request = Request(negative=unwanted("a", None))
    with pytest.raises(UserError, match=r"without guidance it has no effect. Add `guidance=2`"):
        check_negative(request, of_sampling(flow, {}, True))
    check_negative(request, of_sampling(flow, {"guidance": 2.0}, True))
    check_negative(request, of_sampling(flow, {"part_guidance": {"label": 3.0}}, True))
    check_negative(Request(), of_sampling(flow, {}, True))
    assert unwanted(None, None) is None


# --------------------------------------------------------------------------- from data to samples


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flow of two steps on captions and labels; its last layer is not zero any more."""
    root = tmp_path_factory.mktemp("trained")
    rows = [{"file_name": f"{i}.png", "text": CAPTIONS[i % 12], "label": "ab"[i % 2]} for i in range(24)]
    data = write(root, {f"{i}.png": pixels(i) for i in range(24)}, rows)
    argv = ["train", str(data), "--family", "flow", "--steps", "3", "--no-measure", "--out", str(root / "run")]
    argv += ["--data", f"captions={folder}", "--set", "family.widths=[8]", "--set", "train.batch=8"]
    assert cli.run(argv) == 0
    return root / "run"


def test_captions_and_negative_captions_guide(trained: Path) -> None:
    run = Run.open(trained)

    def drawn(**asked: Any) -> np.ndarray:
        return Model(run).sample(2, seed=1, steps=2, solver="euler", label="a", **asked).x.numpy()

    plain = drawn(caption="big red cat")
    for other in (
        drawn(caption="small blue dog"),
        drawn(caption="big red cat", guidance=3.0),
        drawn(caption="big red cat", guidance={"caption": 3.0}),
        drawn(caption="big red cat", guidance={"caption": 3.0, "": 2.0}),
    ):
        assert np.abs(plain - other).max() > 1e-6
    steered = drawn(caption="big red cat", guidance=3.0)
    away = drawn(caption="big red cat", guidance=3.0, negative_caption="small blue dog", negative_label="b")
    assert np.abs(steered - away).max() > 1e-6
    same = drawn(caption="big red cat", guidance=3.0, negative_caption="big red cat", negative_label="a")
    np.testing.assert_allclose(same, plain, atol=1e-5)  # asked for and not at once: as without guidance


@pytest.mark.parametrize(
    "words,message",
    [
        ("--caption cat --guidance colour=2", "No part named colour to guide towards. Known: label, caption"),
        ("--caption cat --guidance caption=x", "--guidance takes a number, or PART=NUMBER"),
        ("--caption cat --guidance 2 --guidance 3", "--guidance 3 is given twice"),
        ("--negative-caption cat", "without guidance it has no effect. Add --guidance 2"),
        ("--negative-label c --guidance 2", "'c' was never seen"),
        ("--image x.png", "learnt neither to start from an image nor to follow a curve"),
        ("--caption=", "The caption is empty"),
    ],
)
def test_usage(trained: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sample", str(trained), "-n", "1", "--steps", "1", *words.split()]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_records_contain_the_request(trained: Path, tmp_path: Path) -> None:
    words = "--caption cat --negative-caption dog --guidance 2 --guidance caption=3 --steps 1 -n 1"
    assert cli.run(["sample", str(trained), *words.split(), "--out", str(tmp_path / "s")]) == 0
    (record,) = json.loads((tmp_path / "s" / "samples.json").read_bytes())
    assert record["caption"] == "cat" and record["negative"] == {"caption": "dog"}
