"""Tables of datasets on disk: images and sounds are learnt as such and classes by name; text is not chosen instead."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from afresh.core import Sound, UserError, events
from afresh.data import arrow
from afresh.data.arrow import look, named_rows
from afresh.data.audio.views import wav_bytes
from afresh.data.files import MB, DataFile, FileError
from afresh.data.image.kind import png_bytes
from afresh.data.prepare import Prepared, prepare
from afresh.data.sources import readable

N = 30
IMAGE, AUDIO = {"_type": "Image"}, {"_type": "Audio", "sampling_rate": 8000}
KIND = {"_type": "ClassLabel", "names": ["cat", "dog"]}


def image(i: int) -> bytes:
    return png_bytes(np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8))


def sound(i: int) -> bytes:
    wave = np.random.default_rng(i).uniform(-0.5, 0.5, (4000, 1))
    return wav_bytes(Sound(wave.astype(np.float32), 8000))


def media(make: Any, n: int = N, first: int = 0) -> list[dict[str, Any]]:
    return [{"bytes": make(first + i), "path": f"{i}"} for i in range(n)]


def table(features: dict[str, Any] | None, **columns: Any) -> pa.Table:
    made = pa.table(columns)
    if features is None:
        return made
    return made.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})


def labelled(features: bool = True, n: int = N, first: int = 0) -> pa.Table:
    return table(
        {"image": IMAGE, "label": KIND} if features else None,
        image=media(image, n, first),
        label=[i % 2 for i in range(n)],
        text=[f"a sentence about picture number {i}" for i in range(n)],
    )


def write_stream(made: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, made.schema) as writer:
        writer.write_table(made)


def write_file(made: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, made.schema) as writer:
        writer.write_table(made)


WRITERS = {
    "a.parquet": pyarrow.parquet.write_table,
    "a.feather": pyarrow.feather.write_feather,
    "stream.arrow": write_stream,
    "file.arrow": write_file,
}


def labels(data: Prepared) -> dict[str, int]:
    names = [i.labels["label"] for i in (*data.train_items, *data.heldout_items)]
    return {name: names.count(name) for name in sorted(set(names))}


@pytest.mark.parametrize("name", WRITERS)
def test_images_with_classes_and_captions(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](labelled(), path)
    data = prepare(path)
    assert (data.path, data.modality, labels(data)) == (path, "image", {"cat": 15, "dog": 15})
    assert sum(i.caption is not None for i in (*data.train_items, *data.heldout_items)) == N
    again = prepare(path, "image", data.options.model_dump(), encoder=data.encoder)
    assert again.split_hash == data.split_hash


def test_a_zip_of_tables_reads_as_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for split in ("train", "validation"):
            file = folder / f"{split}.parquet"
            pyarrow.parquet.write_table(labelled(first=N * (split == "train")), file)
            archive.write(file, file.name)
        archive.writestr("README.md", "about")
    plain, packed = prepare(folder), prepare(tmp_path / "in.zip")
    assert (packed.modality, labels(packed), packed.split_hash) == ("image", labels(plain), plain.split_hash)
    assert len(packed.heldout_items) == N


def test_texts_in_a_zip_of_tables_are_read_where_they_are(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"text": [f"a text of number {i}" for i in range(N)]}), tmp_path / "a.parquet")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "a.parquet", "a.parquet")
    assert readable(tmp_path / "a.zip", None) == tmp_path / "a.zip"
    assert prepare(tmp_path / "a.zip").modality == "text"


def test_images_are_recognised_without_the_library_s_metadata(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(labelled(features=False), tmp_path / "a.parquet")
    pyarrow.parquet.write_table(table(None, photo=[image(i) for i in range(N)]), tmp_path / "b.parquet")
    assert labels(prepare(tmp_path / "a.parquet")) == {"0": 15, "1": 15}
    assert prepare(tmp_path / "b.parquet").modality == "image"


def test_sounds(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(
        table({"audio": AUDIO, "kind": KIND}, audio=media(sound), kind=[0, 1] * 15), tmp_path / "a.parquet"
    )
    data = prepare(tmp_path / "a.parquet")
    assert data.modality == "audio" and {i.labels["kind"] for i in data.train_items} == {"cat", "dog"}


def test_a_saved_dataset_of_two_splits(tmp_path: Path) -> None:
    for split, n, first in (("train", 24, 0), ("test", 6, 100)):
        folder = tmp_path / split
        folder.mkdir()
        write_stream(labelled(n=n, first=first), folder / "data-00000-of-00001.arrow")
        write_stream(labelled(n=3, first=200), folder / "cache-1234.arrow")  # what the library leaves there
        (folder / "state.json").write_text("{}")
        (folder / "dataset_info.json").write_text("{}")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    data = prepare(tmp_path)
    assert (data.modality, len(data.train_items), len(data.heldout_items)) == ("image", 24, 6)


def test_a_second_image_is_what_the_first_is_made_from(tmp_path: Path) -> None:
    made = table({"image": IMAGE, "edges": IMAGE}, edges=media(image, first=500), image=media(image))
    pyarrow.parquet.write_table(made, tmp_path / "a.parquet")
    data = prepare(tmp_path / "a.parquet")
    assert len(data.train_items) + len(data.heldout_items) == N
    assert {tuple(i.images) for i in data.train_items} == {("edges_image",)}


def test_texts_in_arrow_files_have_the_names_of_their_classes(tmp_path: Path) -> None:
    made = table({"label": KIND}, text=[f"once upon a time there were {i} kings" for i in range(N)], label=[0, 1] * 15)
    for name, write in WRITERS.items():
        write(made, tmp_path / name)
        data = prepare(tmp_path / name, options={"label_column": "label"})
        assert (data.modality, labels(data)) == ("text", {"cat": 15, "dog": 15})


def test_plain_texts_in_parquet_are_read_where_they_are(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(table(None, text=["a"] * 4), tmp_path / "a.parquet")
    assert readable(tmp_path / "a.parquet", None) == tmp_path / "a.parquet"


def test_text_beside_images_is_learnt_when_it_is_asked_for(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(labelled(), tmp_path / "a.parquet")
    data = prepare(tmp_path / "a.parquet", "text", {"text_column": "text"})
    assert data.modality == "text" and "picture number" in data.train_items[0].value


def test_what_cannot_be_chosen_is_refused(tmp_path: Path) -> None:
    both = table({"image": IMAGE, "audio": AUDIO}, image=media(image, 4), audio=media(sound, 4))
    pyarrow.parquet.write_table(both, tmp_path / "both.parquet")
    with pytest.raises(UserError, match=r"images \(image\) and of sounds \(audio\).*`modality=image`"):
        prepare(tmp_path / "both.parquet")
    several = table(
        {"pages": {"_type": "List", "feature": IMAGE}}, pages=[media(image, 2)] * 4, text=["some words"] * 4
    )
    pyarrow.parquet.write_table(several, tmp_path / "several.parquet")
    with pytest.raises(UserError, match=r"in the columns pages\. .*`modality=text`"):
        prepare(tmp_path / "several.parquet")
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "a.png").write_bytes(image(0))
    pyarrow.parquet.write_table(labelled(), beside / "b.parquet")
    with pytest.raises(UserError, match=r"image or sound files \(a\.png, \.\.\.\) and also tables that hold images"):
        prepare(beside)


def test_a_path_without_bytes_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(image(0))
    rows = [*media(image), {"bytes": None, "path": str(tmp_path / "secret.png")}]
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(table({"image": IMAGE}, image=rows), path)
    data = prepare(path)
    assert len(data.train_items) + len(data.heldout_items) == N
    rows = [{"bytes": None, "path": str(tmp_path / "secret.png")}] * 4
    pyarrow.parquet.write_table(table({"image": IMAGE}, image=pa.array(rows, arrow_type())), path)
    with pytest.raises(UserError, match="No image in the data"):
        prepare(path)


def arrow_type() -> Any:
    return pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files_are_refused_by_name(name: str, tmp_path: Path) -> None:
    out = io.BytesIO()
    WRITERS[name](labelled(), tmp_path / name)
    out.write((tmp_path / name).read_bytes())
    whole = out.getvalue()
    for size in (0, 3, 40, len(whole) // 2, len(whole) - 9):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(UserError, match=rf"{name} (is empty|cannot be used: .*damaged)|no usable text in .*{name}"):
            prepare(tmp_path / name)


def equal(count: int, value: Any) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


ZSTD = pa.ipc.IpcWriteOptions(compression="zstd")
BOMBS: dict[str, tuple[Callable[[], pa.Array], str]] = {
    "packed": (lambda: pa.array(["\0" * 20 * MB]), "bomb"),
    "without content": (lambda: pa.nulls(1 << 30), "items"),
    "equal texts": (lambda: equal(100_000, "x" * 100_000), "1,024 MB"),
    "equal lists": (lambda: equal(100_000, ["x"] * 1000), "not read"),
    "a row without end": (lambda: pa.FixedSizeListArray.from_arrays(pa.nulls(1 << 30), 1 << 30), "a row takes"),
    "runs": (lambda: pa.RunEndEncodedArray.from_arrays(pa.array([1 << 30]), pa.array(["x"])), "not read"),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("form", ["file.arrow", "stream.arrow"])
def test_a_small_file_never_becomes_a_large_one(
    name: str, form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(arrow, "UNPACKED", 16 * MB)
    made, reason = BOMBS[name]
    table = pa.table({"a": made()})
    new = pa.ipc.new_file if form == "file.arrow" else pa.ipc.new_stream
    with new(tmp_path / form, table.schema, options=ZSTD) as writer:
        writer.write_table(table)
    del table
    size = (tmp_path / form).stat().st_size
    assert size < 200_000
    held = pa.total_allocated_bytes()
    with pytest.raises(FileError, match=reason):
        for _ in named_rows(look(DataFile(tmp_path / form, form, size))):
            assert pa.total_allocated_bytes() - held < 600 * MB


def test_texts_as_views_are_read(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array(["short", "a longer text than a view holds"] * 3).cast(pa.string_view())})
    with pa.ipc.new_file(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    file = DataFile(tmp_path / "a.arrow", "a.arrow", 1000)
    assert [row["a"] for row in named_rows(look(file))] == table["a"].to_pylist()


def test_a_damaged_table_leaves_the_others(tmp_path: Path) -> None:
    for name in ("a.arrow", "b.arrow"):
        WRITERS["file.arrow"](labelled(), tmp_path / name)
    (tmp_path / "b.arrow").write_bytes((tmp_path / "b.arrow").read_bytes()[:-9])
    given: list[events.Event] = []
    with events.listening(given.append):
        assert prepare(tmp_path).modality == "image"
    assert any("b.arrow" in e.text for e in given)
