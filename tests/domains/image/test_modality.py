"""Images: reading folders, archives and arrays, and encoding to fields and back."""

from __future__ import annotations

import csv
import io
import json
import os
import stat
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from afresh.core import Corpus, Item, UserError
from afresh.data import conditions
from afresh.data.image.kind import IMAGE
from afresh.domains.image.modality import MODALITY, ImageOptions
from tests.data.image.test_images import png as raw_png
from tests.heard import heard

PLAIN = ImageOptions()


def pixels(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def png(seed: int = 0, shape: tuple[int, ...] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed, *shape)).save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    return raw_png(50_000, 50_000, 8, 2, b"\0" * 9999)


def folder(root: Path, names: list[str], shape: tuple[int, ...] = (8, 8)) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(i, shape))
    return root


def read(path: Path, **options: Any) -> Corpus:
    return MODALITY.read(path, ImageOptions(**options))


def labels(corpus: Corpus, name: str = "label") -> dict[str, str | None]:
    return {i.source: i.labels.get(name) for i in corpus.items}


def reasons(corpus: Corpus) -> dict[str, str]:
    return {r.source: r.reason for r in corpus.refused}


def noted(corpus: Corpus, words: str) -> bool:
    return any(words in n for n in corpus.notes)


# --------------------------------------------------------------------------- folders


def test_class_folders_are_labels(tmp_path: Path) -> None:
    corpus = read(folder(tmp_path, ["cat/1.png", "cat/2.png", "dog/1.PNG", "dog/2.jpeg"]))
    assert labels(corpus) == {"cat/1.png": "cat", "cat/2.png": "cat", "dog/1.PNG": "dog", "dog/2.jpeg": "dog"}
    assert np.array_equal(corpus.items[0].value[..., 0], pixels(0, 8, 8))
    assert not corpus.refused and {i.split for i in corpus.items} == {None}


def test_one_class_only_is_no_label(tmp_path: Path) -> None:
    corpus = read(folder(tmp_path, ["cat/1.png", "cat/2.png"]))
    assert labels(corpus) == {"cat/1.png": None, "cat/2.png": None}
    assert noted(corpus, "only one class folder (cat)")


def test_images_outside_the_class_folders_have_no_label(tmp_path: Path) -> None:
    corpus = read(folder(tmp_path, ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "stray.png"]))
    assert labels(corpus)["stray.png"] is None
    assert noted(corpus, "label missing: 1 of 5 items, trained without this condition")
    encoder = MODALITY.fit(corpus.items, PLAIN)
    assert encoder.encode(corpus.items).cond.present["label"].tolist() == [True] * 4 + [False]


def test_folders_can_define_the_split(tmp_path: Path) -> None:
    corpus = read(folder(tmp_path, ["x/train/a/1.png", "x/train/b/2.png", "x/val/a/3.png", "x/test/b/4.png"]))
    assert [i.split for i in corpus.items] == ["validation", "train", "train", "validation"]
    assert [i.labels["label"] for i in corpus.items] == ["b", "a", "b", "a"]
    assert noted(corpus, "2 to train, 2 held out")


def test_a_train_folder_alone_is_not_a_split_and_train_may_be_a_class(tmp_path: Path) -> None:
    alone = read(folder(tmp_path / "1", ["train/a/1.png", "train/b/2.png"]))
    assert {i.split for i in alone.items} == {None} and set(labels(alone).values()) == {"a", "b"}
    vehicles = read(folder(tmp_path / "2", ["train/1.png", "train/2.png", "bus/1.png", "bus/2.png"]))
    assert {i.split for i in vehicles.items} == {None} and set(labels(vehicles).values()) == {"train", "bus"}


def test_deeper_folders_give_the_outermost_as_label(tmp_path: Path) -> None:
    corpus = read(folder(tmp_path, ["greek/x/1.png", "greek/y/2.png", "latin/x/3.png", "latin/y/4.png"]))
    assert Counter(labels(corpus).values()) == {"greek": 2, "latin": 2}
    assert noted(corpus, "outermost")


def test_one_folder_per_image_is_not_a_class(tmp_path: Path) -> None:
    corpus = read(folder(tmp_path, [f"{i}/photo.png" for i in range(9)]))
    assert set(labels(corpus).values()) == {None} and noted(corpus, "too many to be classes")


def test_every_unused_file_is_reported(tmp_path: Path) -> None:
    folder(tmp_path, ["a/1.png", "b/1.png"])
    (tmp_path / "a/empty.png").touch()
    (tmp_path / "a/cut.png").write_bytes(png()[:60])
    (tmp_path / "a/bomb.png").write_bytes(bomb())
    (tmp_path / "a/lie.jpg").write_text("not an image")
    (tmp_path / "a/scan.psd").write_text("other")
    (tmp_path / "readme.txt").write_text("other")
    (tmp_path / ".hidden.png").write_bytes(png())
    (tmp_path / "b/link.png").symlink_to("/etc/hostname")
    corpus = read(tmp_path)
    why = reasons(corpus)
    assert len(corpus.items) == 2
    assert set(why) == {
        "a/empty.png", "a/cut.png", "a/bomb.png", "a/lie.jpg", "a/scan.psd", "readme.txt", ".hidden.png", "b/link.png",
    }  # fmt: skip
    assert (
        "0 bytes" in why["a/empty.png"]
        and "truncated" in why["a/cut.png"]
        and "2,500,000,000 pixels" in why["a/bomb.png"]
    )
    assert ".psd" in why["a/scan.psd"] and "symbolic link" in why["b/link.png"]


def test_damaged_files_can_stop_reading(tmp_path: Path) -> None:
    folder(tmp_path, ["a/1.png", "b/1.png"])
    for name in ("readme.txt", "empty.txt", ".hidden.png"):
        (tmp_path / name).touch()
    assert len(read(tmp_path, damaged="stop").items) == 2
    (tmp_path / "a/cut.png").write_bytes(png()[:60])
    (tmp_path / "a/empty.png").touch()
    (tmp_path / "metadata.csv").write_text("file_name,age\na/1.png,3\na/gone.png,4\n")
    assert len(read(tmp_path).items) == 2
    with pytest.raises(UserError, match=r"^3 inputs cannot be read") as error:
        read(tmp_path, damaged="stop")
    assert all(f"\n  {name}: " in str(error.value) for name in ("a/cut.png", "a/empty.png", "metadata.csv, row 2"))
    archive = tmp_path / "all.zip"
    with zipfile.ZipFile(archive, "w") as members:
        members.writestr("a.png", png())
        members.writestr("b.png", png()[:60])
    with pytest.raises(UserError, match=r"^1 inputs cannot be read.*\n  b.png: damaged or truncated"):
        read(archive, damaged="stop")


def test_nothing_usable_is_an_error_with_reasons(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="empty"):
        read(tmp_path)
    (tmp_path / "a.png").write_text("not an image")
    with pytest.raises(UserError, match=r"No usable image.*\n.*a\.png: none of PNG"):
        read(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="a single file"):
        read(tmp_path / "a.png")


def test_1797_small_images_are_read_in_seconds(tmp_path: Path) -> None:
    folder(tmp_path, [f"{i % 10}/{i}.png" for i in range(1797)])
    corpus = read(tmp_path)
    encoder = MODALITY.fit(corpus.items, PLAIN)
    assert encoder.space.shape == (1, 8, 8)
    assert encoder.conds["label"].classes == tuple("0123456789")
    assert encoder.encode(corpus.items).bytes == 1797 * 64


# --------------------------------------------------------------------------- options


def test_the_size_comes_from_the_data_and_is_noted(tmp_path: Path) -> None:
    corpus = read(folder(tmp_path, ["1.png", "2.png", "3.png"], (40, 50)))
    assert corpus.items[0].value.shape == (32, 32, 1)
    assert noted(corpus, "size 32, because") and noted(corpus, "not square, cropped to the central square: 3")
    assert read(tmp_path, size=20).items[0].value.shape == (20, 20, 1)


def test_greyscale_only_if_all_images_are(tmp_path: Path) -> None:
    folder(tmp_path, ["1.png", "2.png"])
    assert read(tmp_path).items[0].value.shape == (8, 8, 1)
    assert read(tmp_path, channels="rgb").items[0].value.shape == (8, 8, 3)
    (tmp_path / "3.png").write_bytes(png(3, (8, 8, 3)))
    mixed = read(tmp_path)
    assert {i.value.shape for i in mixed.items} == {(8, 8, 3)}
    assert np.array_equal(mixed.items[0].value, np.repeat(pixels(0, 8, 8)[..., None], 3, 2))
    grey = read(tmp_path, channels="grey")
    assert {i.value.shape for i in grey.items} == {(8, 8, 1)} and noted(grey, "converted to greyscale: 1")


@pytest.mark.parametrize(
    "bad",
    [{"size": 0}, {"size": 10**6}, {"crop": "left"}, {"background": "nocolour"}, {"colour": 1}, {"channels": "cmyk"}],
)
def test_wrong_options_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ImageOptions(**bad)


# --------------------------------------------------------------------------- metadata

ROWS = [
    {"file_name": f"{i}.png", "text": f"a {'red' if i % 2 else 'blue'} thing", "mood": "glad" if i < 3 else "sad",
     "bright": i % 2 == 0, "stars": i % 3, "weight": i / 4, "id": f"id-{i}"}
    for i in range(6)
]  # fmt: skip


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(map(json.dumps, rows)).encode()


def as_csv(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(("kind", "write"), [("jsonl", as_jsonl), ("csv", as_csv), ("parquet", as_parquet)])
def test_all_metadata_formats_are_equivalent(tmp_path: Path, kind: str, write: Any) -> None:
    folder(tmp_path, [f"{i}.png" for i in range(6)])
    (tmp_path / f"metadata.{kind}").write_bytes(write(ROWS))
    corpus = read(tmp_path)
    assert [i.caption for i in corpus.items] == [r["text"] for r in ROWS]
    assert [dict(i.labels) for i in corpus.items] == [
        {"mood": r["mood"], "bright": str(r["bright"]).lower(), "stars": str(r["stars"])} for r in ROWS
    ]
    assert [dict(i.numbers) for i in corpus.items] == [{"weight": r["weight"]} for r in ROWS]
    assert noted(corpus, "column 'id' is not used: it has 6 different values")
    assert not corpus.refused


def test_metadata_lies_beside_class_folders_and_splits(tmp_path: Path) -> None:
    folder(tmp_path, ["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/b/4.png"])
    rows = [{"file_name": "a/1.png", "caption": "one"}, {"file_name": "b/2.png", "caption": "two"}]
    (tmp_path / "train/metadata.jsonl").write_bytes(as_jsonl(rows))
    corpus = read(tmp_path)
    found = {i.source: (i.labels["label"], i.caption, i.split) for i in corpus.items}
    assert found["train/a/1.png"] == ("a", "one", "train") and found["test/b/4.png"] == ("b", None, "validation")
    assert noted(corpus, "caption missing: 2 of 4")


def test_bad_rows_are_refused_one_by_one(tmp_path: Path) -> None:
    folder(tmp_path / "in", ["a/1.png", "b/2.png"])
    (tmp_path / "secret.png").write_bytes(png())
    lines = [
        '{"file_name": "a/1.png", "text": "one"}',
        '{"file_name": "../secret.png", "text": "two"}',
        '{"file_name": "/etc/hostname", "text": "three"}',
        '{"file_name": "gone.png", "text": "four"}',
        '{"file_name": "a/1.png", "text": "five"}',
        '{"text": "six"}',
        "not JSON",
        "[1]",
        '{"file_name": "C:\\\\x.png", "text": "nine"}',
    ]
    (tmp_path / "in/metadata.jsonl").write_text("\n".join(lines))
    why = reasons(read(tmp_path / "in"))
    assert [i.caption for i in read(tmp_path / "in").items] == ["one", None]
    expected = {2: "leads out", 3: "leads out", 4: "not a usable", 5: "another row", 6: "no file_name", 7: "not JSON",
                8: "neither an object", 9: "leads out"}  # fmt: skip
    assert {k: why[f"metadata.jsonl, row {k}"] for k in expected}.keys() == expected.keys()
    assert all(words in why[f"metadata.jsonl, row {k}"] for k, words in expected.items())
    assert len(why) == len(expected)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metadata.csv", b"image,text\n1.png,hello\n", "has no column 'file_name'"),
        ("metadata.csv", b"file_name,text,text\n1.png,a,b\n", "more than once"),
        ("metadata.csv", b'file_name,text\n1.png,"open\n', "damaged at line 2"),
        ("metadata.jsonl", b'{"file_name": "1.png", "text": "\xff"}', "invalid UTF-8"),
        ("metadata.parquet", b"PAR1 not really", "damaged or unusual Parquet"),
    ],
)
def test_unreadable_metadata_stops_with_instructions(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    folder(tmp_path, ["1.png", "2.png"])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read(tmp_path)


def test_csv_rows_of_another_length_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, ["1.png", "2.png"])
    (tmp_path / "metadata.csv").write_text("file_name,text\n1.png,hello, world\n2.png,fine\n")
    corpus = read(tmp_path)
    assert [i.caption for i in corpus.items] == [None, "fine"]
    assert reasons(corpus) == {"metadata.csv, row 1": "3 fields, but the header has 2"}


def test_label_column_and_what_it_replaces(tmp_path: Path) -> None:
    folder(tmp_path, ["a/1.png", "a/2.png", "b/3.png", "b/4.png"])
    rows = [
        {"file_name": f, "mood": m} for f, m in [("a/1.png", "x"), ("a/2.png", "y"), ("b/3.png", "x"), ("b/4.png", "y")]
    ]
    (tmp_path / "metadata.jsonl").write_bytes(as_jsonl(rows))
    chosen = read(tmp_path, label_column="mood")
    assert list(labels(chosen).values()) == ["x", "y", "x", "y"] and noted(chosen, "folders' names are not used")
    both = read(tmp_path)
    assert list(labels(both).values()) == ["a", "a", "b", "b"]
    assert list(labels(both, "mood").values()) == ["x", "y", "x", "y"]
    with pytest.raises(UserError, match=r"No column 'colour'.*Columns found: mood"):
        read(tmp_path, label_column="colour")


def test_missing_values_mean_no_condition(tmp_path: Path) -> None:
    folder(tmp_path, ["1.png", "2.png", "3.png", "4.png"])
    (tmp_path / "metadata.csv").write_text("file_name,mood,weight\n1.png,x,1.5\n2.png,,2.5\n3.png,y,\n4.png,x,nan\n")
    corpus = read(tmp_path)
    assert [dict(i.labels) for i in corpus.items] == [{"mood": "x"}, {}, {"mood": "y"}, {"mood": "x"}]
    encoder = MODALITY.fit(corpus.items, PLAIN)
    cond = encoder.encode(corpus.items).cond
    assert cond.present["mood"].tolist() == [True, False, True, True]
    assert cond.present["mood"].dtype == torch.bool


# --------------------------------------------------------------------------- archives


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def test_an_archive_reads_as_its_folder(tmp_path: Path) -> None:
    folder(tmp_path / "in", ["a/1.png", "a/2.png", "b/3.png", "b/4.png"])
    rows = [{"file_name": "a/1.png", "text": "one"}, {"file_name": "b/3.png", "text": "three"}]
    (tmp_path / "in/metadata.jsonl").write_bytes(as_jsonl(rows))
    members = {f"in/{p.relative_to(tmp_path / 'in').as_posix()}": p.read_bytes()
               for p in (tmp_path / "in").rglob("*") if p.is_file()}  # fmt: skip
    packed, plain = read(archive(tmp_path / "in.zip", members)), read(tmp_path / "in")
    assert [IMAGE.digest(i.value) for i in packed.items] == [IMAGE.digest(i.value) for i in plain.items]
    assert [(i.labels, i.caption) for i in packed.items] == [(i.labels, i.caption) for i in plain.items]


def test_archives_cannot_lead_out_or_blow_up(tmp_path: Path) -> None:
    path = tmp_path / "evil.zip"
    archive(path, {"1.png": png(1), "../up.png": png(2), "/abs.png": png(3), "bomb.png": bomb(), "notes.txt": b"hello"})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(link, "/etc/hostname")
        file.writestr("zeros.png", b"\0" * 20_000_000)
    corpus = read(path)
    why = reasons(corpus)
    assert [i.source for i in corpus.items] == ["1.png"]
    assert "leads out" in why["evil.zip: ../up.png"] and "leads out" in why["evil.zip: /abs.png"]
    assert "symbolic link" in why["evil.zip: link.png"] and "times its size" in why["evil.zip: zeros.png"]
    assert "2,500,000,000 pixels" in why["bomb.png"] and "evil.zip: notes.txt" in why
    assert not (tmp_path.parent / "up.png").exists()


def test_a_damaged_archive_is_an_error_and_a_damaged_member_a_line(tmp_path: Path) -> None:
    (tmp_path / "no.zip").write_bytes(b"PK not an archive")
    with pytest.raises(UserError, match=r"not a \.zip"):
        read(tmp_path / "no.zip")
    path = archive(tmp_path / "half.zip", {"1.png": png(1), "2.png": png(2)})
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"IDAT") + 8] ^= 255
    path.write_bytes(raw)
    corpus = read(path, size=8)
    assert [i.source for i in corpus.items] == ["2.png"]
    assert "damaged" in reasons(corpus)["half.zip: 1.png"]


def test_the_only_archive_in_a_folder_is_read(tmp_path: Path) -> None:
    archive(tmp_path / "a.zip", {"1.png": png(1), "2.png": png(2)})
    (tmp_path / "SOURCE.md").write_text("from there")
    corpus = read(tmp_path)
    assert len(corpus.items) == 2 and set(reasons(corpus)) == {"SOURCE.md"} and noted(corpus, "read from a.zip")
    archive(tmp_path / "b.zip", {"1.png": png(1)})
    with pytest.raises(UserError, match=r"a\.zip, b\.zip\. Give one"):
        read(tmp_path)


# --------------------------------------------------------------------------- arrays


def saved(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def test_npz_with_its_own_split_and_class_names(tmp_path: Path) -> None:
    x = pixels(0, 6, 8, 8)
    corpus = read(
        saved(
            tmp_path / "d.npz",
            x_train=x[:4],
            y_train=[0, 1, 1, 0],
            x_test=x[4:],
            y_test=[1, 0],
            class_names=["cat", "dog"],
        )
    )
    assert [i.split for i in corpus.items] == ["train"] * 4 + ["validation"] * 2
    assert [i.labels["label"] for i in corpus.items] == ["cat", "dog", "dog", "cat", "dog", "cat"]
    assert all(np.array_equal(i.value[..., 0], x[k]) for k, i in enumerate(corpus.items))


@pytest.mark.parametrize("layout", ["NHW", "NHWC", "NCHW"])
@pytest.mark.parametrize("key", ["x", "images", "arr_0"])
def test_npz_layouts_and_keys(tmp_path: Path, layout: str, key: str) -> None:
    x = pixels(0, 5, 8, 8, 3)
    stored = {"NHW": x[..., 0], "NHWC": x, "NCHW": x.transpose(0, 3, 1, 2)}[layout]
    corpus = read(saved(tmp_path / "d.npz", **{key: stored}))
    expected = x[..., :1] if layout == "NHW" else x
    assert all(np.array_equal(i.value, e) for i, e in zip(corpus.items, expected, strict=True))


def test_npy_floats_and_wide_integers_are_scaled(tmp_path: Path) -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(64).reshape(256, 8, 8)
    np.save(tmp_path / "f.npy", levels.astype(np.float32) / 255)
    corpus = read(tmp_path / "f.npy")
    assert [int(i.value[0, 0, 0]) for i in corpus.items] == list(range(256))
    assert noted(corpus, "rounded to 256 levels")
    np.save(tmp_path / "w.npy", levels.astype(np.uint16) * 257)
    assert [int(i.value[0, 0, 0]) for i in read(tmp_path / "w.npy").items] == list(range(256))


def test_only_images_with_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((4, 8, 8))
    x[1, 3, 3], x[2, 0, 0] = np.nan, np.inf
    corpus = read(saved(tmp_path / "d.npz", x=x, y=[0, 1, 0, 1]))
    assert [i.labels["label"] for i in corpus.items] == ["0", "1"]
    assert set(reasons(corpus)) == {"d.npz: x[1]", "d.npz: x[2]"}


def test_other_vectors_are_metadata(tmp_path: Path) -> None:
    corpus = read(
        saved(tmp_path / "d.npz", x=pixels(0, 6, 8, 8), subject=[1, 1, 2, 2, 3, 3], angle=np.arange(6) / 7, odd=[1])
    )
    assert [i.labels["subject"] for i in corpus.items] == list("112233")
    assert corpus.items[3].numbers["angle"] == pytest.approx(3 / 7)
    assert noted(corpus, "arrays not used: odd")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pics": np.zeros((3, 8, 8), np.uint8)}, "has the arrays pics; accepted"),
        ({"x": np.zeros((3, 64), np.uint8)}, r"reshape\(-1, 8, 8\)"),
        ({"x": np.zeros((3, 8, 8, 7), np.uint8)}, "C = 1, 3 or 4"),
        ({"x": np.full((3, 8, 8), 16.0)}, r"values from 16 to 16.*Scale it"),
        ({"x": np.full((3, 8, 8), -1.0)}, "Scale it"),
        ({"x": np.zeros((0, 8, 8), np.uint8)}, "contains no images"),
        ({"x": np.zeros((3, 8, 8), complex)}, "complex"),
        ({"x": np.zeros((3, 8, 8), np.uint8), "y": np.zeros(2, int)}, "3 integers"),
        ({"x": np.zeros((3, 8, 8), np.uint8), "y": np.eye(3)}, "argmax"),
        ({"x": np.zeros((3, 8, 8), np.uint8), "y": [0, 1, 2], "class_names": ["a", "b"]}, "2 names"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_images_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        read(saved(tmp_path / "d.npz", **arrays))


def test_pickles_false_headers_and_bombs_in_numpy_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="never loaded"):
        read(tmp_path / "p.npy")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 100, 100)})
    (tmp_path / "l.npy").write_bytes(header.getvalue() + b"\0" * 100)
    with pytest.raises(UserError, match="declares 10,000,000,000,000 bytes"):
        read(tmp_path / "l.npy")
    with pytest.raises(UserError, match="times its size"):
        read(saved(tmp_path / "b.npz", x=np.zeros((300, 256, 256), np.uint8)))
    (tmp_path / "c.npz").write_bytes(saved(tmp_path / "d.npz", x=pixels(0, 9, 8, 8)).read_bytes()[:300])
    with pytest.raises(UserError, match="cannot be read as a NumPy file"):
        read(tmp_path / "c.npz")


# --------------------------------------------------------------------------- sniffing


def test_sniffing_gives_a_score_and_a_reason(tmp_path: Path) -> None:
    folder(tmp_path / "all", ["1.png", "2.jpg"])
    (tmp_path / "all/metadata.csv").write_text("file_name\n")
    assert MODALITY.sniff(tmp_path / "all").score == 1
    (tmp_path / "all/a.txt").write_text("x")
    (tmp_path / "all/b.txt").write_text("x")
    half = MODALITY.sniff(tmp_path / "all")
    assert half.score == 0.5 and "2 of 4" in half.reason
    assert MODALITY.sniff(saved(tmp_path / "d.npz", x=pixels(0, 3, 8, 8))).score > 0.8
    assert MODALITY.sniff(saved(tmp_path / "e.npz", x=np.zeros((3, 8)))).score == 0
    assert MODALITY.sniff(archive(tmp_path / "a.zip", {"1.png": png(), "2.png": png()})).score == 1
    assert MODALITY.sniff(archive(tmp_path / "t.zip", {"1.txt": b"x"})).score == 0
    assert MODALITY.sniff(tmp_path / "nowhere").score == 0
    (tmp_path / "text.txt").write_text("x")
    assert MODALITY.sniff(tmp_path / "text.txt").score == 0


# --------------------------------------------------------------------------- encoder


def items(n: int, channels: int = 1, **more: Any) -> list[Item]:
    return [Item(pixels(i, 8, 8, channels), str(i), **{k: f(i) for k, f in more.items()}) for i in range(n)]


@pytest.mark.parametrize("channels", [1, 3])
def test_encoding_and_decoding_is_exact(tmp_path: Path, channels: int) -> None:
    data = items(5, channels)
    encoder = MODALITY.fit(data, PLAIN)
    out = encoder.encode(data)
    field = out.x * out.scale + out.shift
    assert field.shape == (5, channels, 8, 8) and field.min() >= -1 and field.max() <= 1
    assert out.bytes == 5 * channels * 64
    for item, value, file in zip(
        data, encoder.decode(field), encoder.write(encoder.decode(field), tmp_path, list("abcde")), strict=True
    ):
        assert value.dtype == np.uint8 and np.array_equal(value, item.value) and encoder.valid(value)
        assert np.array_equal(np.asarray(Image.open(tmp_path / file)).reshape(8, 8, channels), value)


def test_std_is_that_of_all_training_values() -> None:
    data = items(7, 3)
    values = np.stack([i.value for i in data]) * (2 / 255) - 1
    assert MODALITY.fit(data, PLAIN).space.std == pytest.approx(values.std(), rel=1e-12)


def test_decoding_rounds_and_clamps() -> None:
    encoder = MODALITY.fit(items(2), PLAIN)
    x = torch.tensor([-9.0, -1.0, 1 / 255 * 0.9 - 1, 1 / 255 * 1.1 - 1, 1.0, 9.0, float("nan"), float("inf")])
    out = encoder.decode(x.repeat(8).view(1, 1, 8, 8))[0][0, :, 0]
    assert out.tolist() == [0, 0, 0, 1, 255, 255, 0, 255]


def test_valid_requires_the_shape_and_finite_numbers() -> None:
    encoder = MODALITY.fit(items(2), PLAIN)
    good = np.zeros((8, 8, 1))
    assert encoder.valid(good) and not encoder.valid(good[:7]) and not encoder.valid(good[..., 0])
    assert not encoder.valid(np.full((8, 8, 1), np.nan)) and not encoder.valid("text") and not encoder.valid(None)


def test_integer_labels_are_sorted_by_value() -> None:
    data = items(12, labels=lambda i: {"label": str(11 - i)})
    encoder = MODALITY.fit(data, PLAIN)
    assert encoder.conds["label"].classes == tuple(map(str, range(12)))
    assert encoder.encode(data).cond.parts["label"].tolist() == list(range(11, -1, -1))


def test_unknown_labels_are_refused_with_the_closest_known_label_first() -> None:
    encoder = MODALITY.fit(items(4, labels=lambda i: {"label": "cat" if i % 2 else "zebra"}), PLAIN)
    with pytest.raises(UserError, match=r"'zebre' was never seen in training\. Known: zebra, cat\."):
        encoder.encode(items(1, labels=lambda i: {"label": "zebre"}))


def test_numbers_are_standardised() -> None:
    data = items(5, numbers=lambda i: {"age": 10.0 * i})
    encoder = MODALITY.fit(data, PLAIN)
    z = encoder.encode(data).cond.parts["age"]
    assert float(z.mean()) == pytest.approx(0, abs=1e-6) and float(z.std(correction=0)) == pytest.approx(1)


CAPTIONS = ["a red Bird", "a red ball", "A BLUE bird", "once"]


def test_every_word_of_few_captions_is_learnt() -> None:
    part = MODALITY.fit(items(4, caption=lambda i: CAPTIONS[i]), PLAIN).conds["caption"]
    assert part.classes == ("a", "bird", "red", "ball", "blue", "once")


def test_captions_become_ids_of_frequent_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditions, "FEW", 3)
    data = items(4, caption=lambda i: CAPTIONS[i] if i < 4 else None)
    encoder = MODALITY.fit(data, PLAIN)
    part = encoder.conds["caption"]
    assert part.classes == ("a", "bird", "red") and part.length == 3
    cond = encoder.encode([*data, Item(data[0].value)]).cond
    assert cond.parts["caption"].tolist() == [[2, 4, 3], [2, 4, 1], [2, 1, 3], [1, 0, 0], [0, 0, 0]]
    assert cond.present["caption"].tolist() == [True] * 4 + [False]


def test_long_captions_are_truncated_and_reported() -> None:
    data = items(40, caption=lambda i: "word " * (100 if i == 0 else 5))
    encoder = MODALITY.fit(data, PLAIN)
    assert encoder.conds["caption"].length == 5
    assert any("1 caption truncated to 5 words" in n for n in encoder.notes)


def test_items_are_converted_to_the_encoders_size_and_channels() -> None:
    encoder = MODALITY.fit(items(2, 3), PLAIN)
    with heard("cropped to the central square: an array"):
        out = encoder.encode([Item(np.full((30, 40, 1), 77, np.uint8))])
    assert out.x.shape == (1, 3, 8, 8) and (out.x == 77).all()


def test_save_and_load(tmp_path: Path) -> None:
    data = items(
        6,
        3,
        labels=lambda i: {"label": "ab"[i % 2]},
        numbers=lambda i: {"age": i / 3},
        caption=lambda i: f"a {i % 3} thing",
    )
    encoder = MODALITY.fit(data, ImageOptions(crop="pad"))
    encoder.save(tmp_path)
    again = MODALITY.load(tmp_path)
    assert (again.space, dict(again.conds), again.options) == (encoder.space, encoder.conds, encoder.options)
    assert again.options.size == 8 and again.options.channels == "rgb" and again.options.crop == "pad"
    first, second = encoder.encode(data), again.encode(data)
    assert torch.equal(first.x, second.x) and torch.equal(first.cond.parts["caption"], second.cond.parts["caption"])


@pytest.mark.parametrize("where", [[], ["options"], ["conds", "label"]])
def test_unknown_fields_in_a_saved_encoder_are_refused(tmp_path: Path, where: list[str]) -> None:
    MODALITY.fit(items(4, labels=lambda i: {"label": "ab"[i % 2]}), PLAIN).save(tmp_path)
    content = json.loads((tmp_path / "encoder.json").read_text())
    inner = content
    for key in where:
        inner = inner[key]
    inner["surprise"] = 1
    (tmp_path / "encoder.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="surprise"):
        MODALITY.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"format": "afresh.text"}, {"std": 0}, {"std": float("nan")}, {"channels": 2}, {"side": -8}],
)
def test_saved_encoders_of_another_kind_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    MODALITY.fit(items(2), PLAIN).save(tmp_path)
    content = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps(content | change))
    with pytest.raises(UserError, match="not an encoder of images"):
        MODALITY.load(tmp_path)
    os.truncate(tmp_path / "encoder.json", 20)
    with pytest.raises(UserError, match="not an encoder of images"):
        MODALITY.load(tmp_path)


def test_fitting_nothing_is_an_error() -> None:
    with pytest.raises(UserError, match="training split is empty"):
        MODALITY.fit([], PLAIN)
