"""Data in memory: each form is written aside so that it is read as the same files would be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from afresh.core import Sound, UserError
from afresh.data.in_memory import as_path
from afresh.data.prepare import Prepared, prepare

N = 24
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3), dtype=np.uint8)
LABELS = [i % 2 for i in range(N)]
TEXTS = [f"once upon a time there were {i} kings" for i in range(N)]


class Dataset:
    """What datasets.Dataset offers: features, and rows as dictionaries."""

    class Classes:
        names = ("cat", "dog")

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.features: Mapping[str, Any] = {"image": object(), "label": self.Classes()}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


class Loader:
    """What a DataLoader offers: batches of two tensors."""

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        floats = torch.from_numpy(PIXELS).permute(0, 3, 1, 2).float() / 255
        for i in range(0, N, 10):
            yield [floats[i : i + 10], torch.tensor(LABELS[i : i + 10])]


def rows() -> list[dict[str, Any]]:
    return [{"image": Image.fromarray(p), "label": n} for p, n in zip(PIXELS, LABELS, strict=True)]


def names(data: Prepared) -> set[str]:
    return {i.labels["label"] for i in data.train_items}


def pixels(data: Prepared) -> set[bytes]:
    return {i.value.tobytes() for i in (*data.train_items, *data.heldout_items)}


IMAGES: dict[str, Callable[[], Any]] = {
    "array": lambda: PIXELS,
    "tensor, channels first": lambda: torch.from_numpy(PIXELS).permute(0, 3, 1, 2),
    "floats": lambda: PIXELS / 255,
    "list of arrays": lambda: list(PIXELS),
    "list of PIL": lambda: [Image.fromarray(p) for p in PIXELS],
    "iterable": lambda: (p for p in PIXELS),
}
LABELLED: dict[str, Callable[[], Any]] = {
    "pairs": lambda: list(zip(PIXELS, LABELS, strict=True)),
    "(arrays, labels)": lambda: (PIXELS, np.array(LABELS)),
    "columns": lambda: {"image": PIXELS, "label": LABELS},
    "rows": rows,
    "loader": Loader,
    "loader of columns": lambda: [{"image": PIXELS[i : i + 8], "label": LABELS[i : i + 8]} for i in (0, 8, 16)],
}


@pytest.mark.parametrize("form", [*IMAGES, *LABELLED])
def test_images_are_the_same_in_every_form(form: str) -> None:
    data = prepare(as_path((IMAGES | LABELLED)[form]()))
    assert data.modality == "image" and pixels(data) == {p.tobytes() for p in PIXELS}
    assert form in IMAGES or names(data) == {"0", "1"}


def test_a_dataset_has_the_names_of_its_classes_and_its_splits() -> None:
    assert names(prepare(as_path(Dataset(rows())))) == {"cat", "dog"}
    data = prepare(as_path({"train": Dataset(rows()[:18]), "test": Dataset(rows()[18:])}))
    assert (len(data.train_items), len(data.heldout_items)) == (18, 6)


def test_grey_arrays_without_channels() -> None:
    data = prepare(as_path((PIXELS[..., 0], LABELS)))
    assert data.encoder.space.shape == (1, 8, 8) and names(data) == {"0", "1"}


@pytest.mark.parametrize("make", [list, tuple, np.array, iter, lambda t: [{"text": x} for x in t]])
def test_texts(make: Callable[[list[str]], Any]) -> None:
    data = prepare(as_path(make(TEXTS)))
    assert data.modality == "text"
    assert sorted(i.value for i in (*data.train_items, *data.heldout_items)) == sorted(TEXTS)


def test_texts_with_labels_and_conversations() -> None:
    data = prepare(as_path(list(zip(TEXTS, LABELS, strict=True))), options={"label_column": "label"})
    assert names(data) == {"0", "1"}
    talk = [{"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": t}]} for t in TEXTS]
    assert all(i.turns for i in prepare(as_path(talk)).train_items)


def test_sounds_in_two_forms_are_the_same_sounds() -> None:
    waves = [np.random.default_rng(i).uniform(-0.5, 0.5, 4000).astype(np.float32) for i in range(N)]
    ours = as_path([Sound(w[:, None], 8000) for w in waves])
    theirs = as_path([{"array": w, "sampling_rate": 8000, "path": None} for w in waves])
    assert prepare(ours).modality == prepare(theirs).modality == "audio"
    assert prepare(ours).split_hash == prepare(theirs).split_hash


def test_frames(tmp_path: Path) -> None:
    columns = {"text": TEXTS, "label": LABELS}
    frames = [pa.table(columns)]
    for library in ("pandas", "polars"):
        try:
            frames.append(pytest.importorskip(library).DataFrame(columns))
        except pytest.skip.Exception:
            continue
    for frame in frames:
        assert names(prepare(as_path(frame), options={"label_column": "label"})) == {"0", "1"}


class PandasFrame:
    """What a frame of pandas offers."""

    columns = ("text",)

    def to_dict(self, orient: str) -> list[dict[str, Any]]:
        assert orient == "records"
        return [{"text": t, "score": float("nan")} for t in TEXTS]


class PolarsFrame:
    """What a frame of polars offers."""

    columns = ("text",)

    def iter_rows(self, *, named: bool) -> Iterator[dict[str, Any]]:
        assert named
        return iter([{"text": t} for t in TEXTS])


@pytest.mark.parametrize("frame", [PandasFrame, PolarsFrame])
def test_what_frames_offer(frame: Callable[[], Any]) -> None:
    assert prepare(as_path(frame())).modality == "text"


def test_equal_data_is_kept_once_and_a_path_stays_itself(tmp_path: Path) -> None:
    assert as_path(TEXTS) == as_path(iter(TEXTS)) != as_path(TEXTS[1:])
    assert as_path(str(tmp_path)) == as_path(tmp_path) == tmp_path


def fails() -> Iterator[Any]:
    yield TEXTS[0]
    raise RuntimeError("the caller's own")


def test_nothing_is_left_of_data_that_fails() -> None:
    root = as_path(TEXTS).parent.parent
    before = set(root.iterdir())
    with pytest.raises(RuntimeError, match="the caller's own"):
        as_path(fails())
    assert set(root.iterdir()) == before


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (5, r"of the type int, which is not read\. Accepted: the path of a file"),
        (None, "of the type NoneType"),
        (b"text", "of the type bytes"),
        ([], "has no examples"),
        (np.zeros((4, 64)), r"shape \(4, 64\) and type float64\. Accepted are images"),
        (np.full((4, 8, 8), -1.0), r"values from -1 to -1.*`\(x \+ 1\) / 2`"),
        (np.full((4, 8, 8), np.nan), "values from nan to nan"),
        (np.full((4, 8, 8), 300), "integers from 0 to 255"),
        ((PIXELS, LABELS[1:]), "24 examples but 23 labels"),
        ({"image": PIXELS, "label": LABELS[1:]}, "differ in length"),
        ({"a": 1}, "Accepted: columns"),
        ([TEXTS[0], PIXELS[0]], "kind text, but example 2 is of the kind image"),
        ([Path("missing.png")], r"missing\.png, which the data names, cannot be read"),
        ([Sound(np.zeros((0, 1)), 8000)], "A sound has the shape"),
    ],
)
def test_what_is_not_data_is_refused_with_what_is_accepted(data: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        as_path(data)
