"""Many sounds: folders, archives, folders of archives; labels from folders, metadata and file names."""

from __future__ import annotations

import io
import json
import os
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile

from afresh.core import UserError
from afresh.data.audio.sound_folder import SOUND_FILES, columns_from_names, map_sounds, open_sounds, sound_names
from afresh.data.audio.sounds import DecodedSound, Source, decode_sound
from afresh.data.columns import describe
from afresh.data.media_folder import MOST_COLUMNS, attributes, layout

RATE = 8_000


def sound(seed: int, rate: int = RATE, channels: int = 1, kind: str = "WAV") -> bytes:
    x = np.random.default_rng(seed).normal(size=(rate // 10, channels)) * 0.1
    buffer = io.BytesIO()
    soundfile.write(buffer, x, rate, format=kind)
    return buffer.getvalue()


def folder(root: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


def archive(path: Path, files: Mapping[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as out:
        for name, content in files.items():
            out.writestr(name, content)
    return path


def heard(source: Source) -> DecodedSound:
    return decode_sound(source, RATE, 1)


FILES = {f"{split}/{kind}/{i}.{suffix}": sound(i + 10 * (kind == "cat")) for i in range(4)
         for kind in ("cat", "dog") for split in ("train", "test") for suffix in ("wav",)}  # fmt: skip


@pytest.mark.parametrize("zipped", [False, True])
def test_class_and_split_folders(tmp_path: Path, zipped: bool) -> None:
    path = archive(tmp_path / "sounds.zip", FILES) if zipped else folder(tmp_path / "sounds", FILES)
    found = open_sounds(path)
    read = dict(map_sounds(heard, found))
    assert set(read) == set(FILES) == set(sound_names(path)) and found.refused == []
    said = layout(list(read), SOUND_FILES)
    assert said.labels == {n: n.split("/")[1] for n in FILES}
    assert said.splits == {n: "train" if n.startswith("train") else "validation" for n in FILES}


def test_several_archives_count_as_folders(tmp_path: Path) -> None:
    for name in ("anna", "ben"):
        rows = "\n".join(json.dumps({"file_name": f"{i}_x.wav", "digit": str(i)}) for i in range(3))
        content = {f"{i}_x.wav": sound(i) for i in range(3)}
        archive(tmp_path / f"{name}.zip", content | {"metadata.jsonl": rows, "notes.txt": "?"})
    (tmp_path / "SOURCE.md").write_text("where it is from")
    found = open_sounds(tmp_path)
    for _ in range(2):  # it can be gone through again
        read = dict(map_sounds(heard, found))
        assert set(read) == {f"{a}/{i}_x.wav" for a in ("anna", "ben") for i in range(3)}
        assert layout(list(read), SOUND_FILES).labels["ben/2_x.wav"] == "ben"
        table = attributes(found.tables, list(read), SOUND_FILES)
        assert dict(zip(read, table.columns["digit"], strict=True))["ben/2_x.wav"] == "2" and not table.refused
        reasons = {r.source: r.reason for r in found.refused}
        assert set(reasons) == {"SOURCE.md", "anna.zip: notes.txt", "ben.zip: notes.txt"}
        assert reasons["SOURCE.md"] == "unsupported sound format (.md); supported are WAV, FLAC, OGG, MP3 and AIFF"
    assert {n for n in sound_names(tmp_path) if n.endswith(".wav")} == {f"{a}.zip/{i}_x.wav"
            for a in ("anna", "ben") for i in range(3)}  # fmt: skip


def test_a_single_archive_in_a_folder_is_read_like_its_path(tmp_path: Path) -> None:
    archive(tmp_path / "drums.zip", {f"bd_{i}.flac": sound(i, kind="FLAC") for i in range(3)})
    found = open_sounds(tmp_path)
    assert [n for n, _ in map_sounds(heard, found)] == ["bd_0.flac", "bd_1.flac", "bd_2.flac"]
    assert found.refused == []


def test_archives_in_a_folder_with_sounds_are_refused(tmp_path: Path) -> None:
    archive(tmp_path / "more.zip", {"b.wav": sound(1)})
    found = open_sounds(folder(tmp_path, {"a.wav": sound(0)}))
    assert [n for n, _ in map_sounds(heard, found)] == ["a.wav"]
    assert [r.source for r in found.refused] == ["more.zip"]


def test_metadata_of_an_audiofolder(tmp_path: Path) -> None:
    rows = [
        {"file_name": "a/0.wav", "transcription": "zero", "speaker": "anna", "audio_before": "1.wav"},
        {"file_name": "1.wav", "transcription": "one", "speaker": "ben", "audio_before": None},
        {"file_name": "2.wav", "transcription": "two"},
        {"file_name": "../up.wav"},
        {"speaker": "nobody"},
    ]
    files = {"a/0.wav": sound(0), "1.wav": sound(1), "metadata.jsonl": "\n".join(map(json.dumps, rows))}
    found = open_sounds(folder(tmp_path, files))
    names = [n for n, _ in map_sounds(heard, found)]
    table = attributes(found.tables, names, SOUND_FILES)
    assert names == ["1.wav", "a/0.wav"]
    assert table.columns == {
        "transcription": ["one", "zero"], "speaker": ["ben", "anna"], "audio_before": [None, "1.wav"]
    }  # fmt: skip
    reasons = {r.source: r.reason for r in table.refused}
    assert reasons["metadata.jsonl, row 3"] == "file_name '2.wav' is not a usable sound"
    assert "leads out of the folder" in reasons["metadata.jsonl, row 4"] and len(reasons) == 3


def test_odd_metadata_is_refused_row_by_row() -> None:
    rows = ['{"file_name": "."}', f'{{"file_name": "a.wav", "n": {"1" * 5000}}}', '{"file_name": ""}']
    found = attributes({"metadata.jsonl": "\n".join(rows).encode()}, ["a.wav"], SOUND_FILES)
    assert {r.source[-1]: r.reason.split(" (")[0] for r in found.refused} == {
        "1": "file_name '.' is not a usable sound",
        "2": "not usable JSON: a number of more than 4,300 digits",
        "3": "no file_name",
    }


def test_metadata_with_times_and_huge_numbers_is_read(tmp_path: Path) -> None:
    table = {"file_name": ["a.wav"], "when": pyarrow.array([2**60], pyarrow.timestamp("ms"))}
    pyarrow.parquet.write_table(pyarrow.table(table), tmp_path / "metadata.parquet")
    found = attributes({"metadata.parquet": (tmp_path / "metadata.parquet").read_bytes()}, ["a.wav"], SOUND_FILES)
    assert isinstance(found.columns["when"][0], str) and not found.refused
    values = describe({"n": [10**400, 10**401, 10**402, 3]}, 4)
    assert not values.names  # neither numbers nor few classes


def test_metadata_of_thousands_of_columns_is_refused() -> None:
    header = ",".join(f"c{i}" for i in range(MOST_COLUMNS + 1))
    content = f"file_name,{header}\na.wav{',1' * (MOST_COLUMNS + 1)}\n".encode()
    with pytest.raises(UserError, match="more than 1,000 columns"):
        attributes({"metadata.csv": content}, ["a.wav"], SOUND_FILES)


def test_unusable_files_are_refused_and_the_others_read(tmp_path: Path) -> None:
    files = {
        "stereo.flac": sound(1, 44_100, 2, "FLAC"),
        "text.wav": "not a sound",
        "empty.wav": b"",
        "folder.wav/inner.wav": sound(2),
        "notes.txt": "?",
    }
    found = open_sounds(folder(tmp_path, files))
    read = dict(map_sounds(heard, found))
    assert "not a supported sound" in str(read.pop("text.wav"))
    headers = {n: (h.header.rate, h.header.channels) for n, h in read.items() if isinstance(h, DecodedSound)}
    assert headers == {"stereo.flac": (44_100, 2), "folder.wav/inner.wav": (RATE, 1)} and len(headers) == len(read)
    assert {r.source for r in found.refused} == {"empty.wav", "notes.txt"}


def test_paths_without_sounds_are_refused(tmp_path: Path) -> None:
    one = folder(tmp_path, {"one.wav": sound(0), "bad.zip": b"no archive"})
    with pytest.raises(UserError, match="does not exist"):
        open_sounds(tmp_path / "away")
    with pytest.raises(UserError, match="is a single file"):
        open_sounds(one / "one.wav")
    with pytest.raises(UserError, match="archive that can be read"):
        list(open_sounds(one / "bad.zip").files())
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="is empty"):
        open_sounds(tmp_path / "empty")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.wav", "wb") as f:  # noqa: PTH123
        f.write(sound(0))
    ((name, read),) = map_sounds(heard, open_sounds(tmp_path))
    assert isinstance(read, DecodedSound) and name.encode()


def test_sounds_are_yielded_in_order_and_few_are_held_in_memory(tmp_path: Path) -> None:
    """The archive's bytes are asked for only as sounds are taken."""
    asked = []
    found = open_sounds(archive(tmp_path / "a.zip", {f"{i:03}.wav": sound(i) for i in range(100)}))

    def watched(source: Source) -> int:
        asked.append(1)
        time.sleep(0.001 * (len(asked) % 3))
        return len(source) if isinstance(source, bytes) else 0

    reading = map_sounds(watched, found)
    first = next(reading)
    assert first[0] == "000.wav" and len(asked) <= 16
    assert [n for n, _ in reading] == [f"{i:03}.wav" for i in range(1, 100)]


# --------------------------------------------------------------------------- file names

DIGITS = [f"{split}/{d}_{who}_{i}.wav" for split in "ab" for d in range(10) for who in ("anna", "ben") for i in (1, 2)]


def test_columns_by_pattern() -> None:
    found = columns_from_names(DIGITS, "digit,speaker,-")
    assert list(found) == ["digit", "speaker"]
    assert found["digit"]["a/7_ben_2.wav"] == "7" and found["speaker"]["a/7_ben_2.wav"] == "ben"
    drums = ["bd_808.flac", "drum_snare_hard.flac", "sn.flac"]
    assert columns_from_names(drums, "class,...") == {"class": dict(zip(drums, ("bd", "drum", "sn"), strict=True))}


def test_files_that_do_not_match_the_pattern_are_listed() -> None:
    with pytest.raises(UserError, match=r"2 of 42 file names.*odd\.wav, 7_anna_1_b\.wav\."):
        columns_from_names([*DIGITS[:40], "odd.wav", "7_anna_1_b.wav"], "digit,speaker,-")
    with pytest.raises(UserError, match="and 75 more"):
        columns_from_names(DIGITS, "digit,speaker")
    with pytest.raises(UserError, match="do not match"):
        columns_from_names(["7__1.wav"], "digit,speaker,-")


@pytest.mark.parametrize("pattern", ["", "-", "-,...", "...", "a,a", "a,,b", "...,a", "a b,c"])
def test_patterns_that_name_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(UserError, match=r"is not a pattern.*names=digit,speaker,-"):
        columns_from_names(DIGITS, pattern)
