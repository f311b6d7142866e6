"""Collecting from folders: what is kept, what is left out, and that interruptions change nothing."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from afresh.core import UserError, events
from afresh.data.collected import REJECTED, manifest, of_collected, rows
from afresh.data.prepare import prepare
from afresh.runs.data_lineage import collected_record
from afresh.services.collect import assemble
from afresh.services.collect import gather as module
from afresh.services.collect.dataset_store import SourceParts
from afresh.services.collect.gather import CollectLimits, gather, place_of, places
from tests import needs

WORDS = [
    "river",
    "mountain",
    "cloud",
    "stone",
    "bridge",
    "window",
    "garden",
    "letter",
    "winter",
    "orchard",
    "lantern",
    "harbour",
]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A folder of stories with one copy, one that is empty, one with the line ends of Windows, and an image."""
    folder, rng = tmp_path / "texts", np.random.default_rng(0)
    folder.mkdir()
    for i in range(30):
        (folder / f"{i:02d}.txt").write_text(f"Story {i}. {' '.join(rng.choice(WORDS, 40))}.\n")
    (folder / "copy.txt").write_bytes((folder / "03.txt").read_bytes())
    (folder / "empty.txt").write_text(" \n")
    (folder / "windows.txt").write_bytes(b"One line\r\nand another\r\n")
    (folder / "strange.xyz").write_bytes(b"\x00\x01")
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / "picture.png")
    return folder


def items(dataset: Path) -> list[dict]:
    return list(rows(dataset))


def left_out(dataset: Path) -> dict[str, str]:
    return {r["where"]: f"{r['stage']}/{r['rule']}" for r in pq.read_table(dataset / REJECTED).to_pylist()}


def test_everything_is_kept_or_listed_with_the_reason(texts: Path, tmp_path: Path) -> None:
    made = gather([place_of(str(texts))], tmp_path / "set")
    assert made["items"] == {"text": 31, "image": 1}
    assert left_out(tmp_path / "set") == {
        "empty.txt": "clean/no_text",
        "copy.txt": "duplicates/exact",
        "strange.xyz": "extract/format",
    }
    by_name = {r["where"]: r for r in items(tmp_path / "set")}
    assert by_name["windows.txt"]["text"] == "One line\nand another\n"
    assert by_name["windows.txt"]["changed"] == ["line_ends"]
    file = tmp_path / "set" / by_name["picture.png"]["file"]
    assert file.read_bytes() == (texts / "picture.png").read_bytes()


def test_what_is_said_of_all_does_not_replace_what_is_known(texts: Path, tmp_path: Path) -> None:
    gather([place_of(str(texts), about={"licence": "CC0-1.0", "person": "ann"})], tmp_path / "set")
    assert {(r["licence"], r["person"]) for r in items(tmp_path / "set")} == {("CC0-1.0", "ann")}


def test_sources_that_are_added_later_only_add(texts: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    more.mkdir()
    (more / "new.txt").write_text("Another story of a river.")
    (more / "again.txt").write_bytes((texts / "05.txt").read_bytes())
    gather([place_of(str(texts))], tmp_path / "set")
    before = items(tmp_path / "set")
    gather([place_of(str(more))], tmp_path / "set")
    after = items(tmp_path / "set")
    assert after[: len(before)] == before and [r["where"] for r in after[len(before) :]] == ["new.txt"]


@pytest.mark.parametrize("at", [1, 4, 7])
def test_an_interrupted_collection_goes_on_to_the_same_digest(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    whole = gather([place_of(str(texts))], tmp_path / "whole")["digest"]
    write, count = SourceParts.write, 0

    def dies(self: SourceParts, *args: object) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise KeyboardInterrupt
        write(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(SourceParts, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            gather([place_of(str(texts))], tmp_path / "set")
    with pytest.raises(UserError, match="Go on with `resume`"):
        gather([place_of(str(tmp_path))], tmp_path / "set")
    assert gather([], tmp_path / "set", resume=True)["digest"] == whole


def test_a_limit_stops_and_the_rest_follows(texts: Path, tmp_path: Path) -> None:
    whole = gather([place_of(str(texts))], tmp_path / "whole")["digest"]
    part = gather([place_of(str(texts))], tmp_path / "set", limits=CollectLimits(items=7))
    assert sum(part["items"].values()) == 7
    assert set(gather([], tmp_path / "set", resume=True)["items"]) == {"text", "image"}
    assert len(items(tmp_path / "set")) == len(items(tmp_path / "whole"))
    assert gather([], tmp_path / "set", resume=True)["digest"] == whole


def test_after_a_limit_no_other_source_is_begun_and_it_is_said(texts: Path, tmp_path: Path) -> None:
    told: list[str] = []
    other = tmp_path / "other.jsonl"
    other.write_text('{"text": "A text in a table."}\n')
    with events.listening(lambda event: told.append(event.text)):
        gather([place_of(str(texts)), place_of(str(other))], tmp_path / "set", limits=CollectLimits(items=7))
    assert any("limit was reached before the end of 2 sources. Go on with `resume`" in text for text in told)
    assert not [text for text in told if "text is 'text'" in text]
    assert "row 1" in {r["where"].rpartition(", ")[2] for r in items_after(tmp_path / "set")}


def items_after(dataset: Path) -> list[dict]:
    gather([], dataset, resume=True)
    return items(dataset)


def test_a_source_that_is_wrong_is_named_and_the_others_are_collected(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "unclear.jsonl").write_text('{"one": "first", "two": "second"}\n')
    places = [place_of(str(tmp_path / "unclear.jsonl")), place_of(str(texts))]
    made = gather(places, tmp_path / "set")
    assert "option text=COLUMN" in made["failures"][places[0].place] and made["items"] == {"text": 31, "image": 1}
    assert "failures" not in manifest(tmp_path / "set") and len(manifest(tmp_path / "set")["sources"]) == 1


def test_a_place_that_is_given_with_another_licence_is_read_again(texts: Path, tmp_path: Path) -> None:
    gather([place_of(str(texts))], tmp_path / "set")
    made = gather([place_of(str(texts), about={"licence": "CC0-1.0"})], tmp_path / "set")
    assert {r["licence"] for r in items(tmp_path / "set")} == {"CC0-1.0"}
    assert made["items"] == {"text": 31, "image": 1} and len(made["sources"]) == 1


def test_an_option_goes_to_the_sources_that_have_it(texts: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"one": "first", "two": "second"}\n')
    found = places([str(texts), str(tmp_path / "a.jsonl")], {"text": "two", "max_file_mb": "5"})
    assert [place.json()["options"] for place in found] == [{"max_file_mb": 5}, {"text": "two", "max_file_mb": 5}]
    with pytest.raises(UserError, match=r"No source has the option body.* folder: max_file_mb, group; tables: text"):
        places([str(texts), str(tmp_path / "a.jsonl")], {"body": "two"})
    with pytest.raises(UserError, match=r"no grupp \(did you mean group\?\)\. Its options are: max_file_mb, group"):
        places([str(texts)], {"grupp": "yes"})
    with pytest.raises(UserError, match=r"'drop' or 'keep', given 'maybe'. Give an accepted value, or leave it out"):
        gather(found, tmp_path / "set", assembly={"near": "maybe"})


def test_any_number_of_processes_gives_the_same(texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 5)
    digests = {gather([place_of(str(texts))], tmp_path / str(n), processes=n)["digest"] for n in (1, 2)}
    assert len(digests) == 1


def test_other_rules_clean_everything_again(texts: Path, tmp_path: Path) -> None:
    gather([place_of(str(texts))], tmp_path / "set")
    made = gather([], tmp_path / "set", off=["line_ends"])
    assert {r["where"]: r["changed"] for r in items(tmp_path / "set")}["windows.txt"] == []
    assert made["items"] == {"text": 31, "image": 1}
    with pytest.raises(UserError, match="No rule 'line_end'"):
        gather([], tmp_path / "set", off=["line_end"])


@pytest.mark.parametrize("rule", [["words_few=30"], []])
def test_cleaning_again_that_is_interrupted_mixes_no_rules(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: list[str]
) -> None:
    """Killed while it removes what other rules made: both those and the ones of before give all that they give."""
    monkeypatch.setattr(module, "BATCH", 10)
    whole = gather([place_of(str(texts))], tmp_path / "whole", on=rule)["digest"]
    gather([place_of(str(texts))], tmp_path / "set")
    clear = SourceParts.clear

    def killed(parts: SourceParts) -> None:
        (parts.folder / f"{parts.names()[-1]}.json").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(SourceParts, "clear", killed)
    with pytest.raises(KeyboardInterrupt):
        gather([], tmp_path / "set", on=["words_few=30"])
    monkeypatch.setattr(SourceParts, "clear", clear)
    assert gather([], tmp_path / "set", on=rule, resume=True)["digest"] == whole


def test_a_data_set_is_learnt(texts: Path, tmp_path: Path) -> None:
    gather([place_of(str(texts))], tmp_path / "set")
    assert of_collected(tmp_path / "set", None) == tmp_path / "set" / "items.parquet"
    held = [i.value for i in prepare(tmp_path / "set").heldout_items]
    assert held == [r["text"] for r in items(tmp_path / "set") if r["split"] == "validation"]
    images = of_collected(tmp_path / "set", "image")
    assert images is not None and [p.suffix for p in sorted(images.rglob("*.*"))] == [".jsonl", ".png"]
    with pytest.raises(UserError, match="has no items of the kind music"):
        of_collected(tmp_path / "set", "music")
    (kept,) = (tmp_path / "set" / "blobs").rglob("*.png")
    (read,) = images.rglob("*.png")
    assert read.samefile(kept), "no second copy of what is learnt"


def test_a_data_set_of_texts_conversations_and_images_is_learnt_a_kind_at_a_time(texts: Path, tmp_path: Path) -> None:
    talks = [
        {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"A {w}, {n}."}]}
        for n, w in enumerate(WORDS)
    ]
    (texts / "talks.jsonl").write_text("".join(json.dumps(talk) + "\n" for talk in talks))
    made = gather([place_of(str(texts))], tmp_path / "set")
    assert made["items"] == {"text": 31, "conversation": 12, "image": 1}
    told: list[str] = []
    with events.listening(lambda event: told.append(event.text)):
        read = prepare(tmp_path / "set")
    assert read.modality == "text" and len(read.train_items) + len(read.heldout_items) == 31
    assert any("left out is image" in text and "`modality=NAME` takes another" in text for text in told)
    assert any("12 conversations" in text and "`data.learn=conversations`" in text for text in read.notes)
    assert read.options.learn == "texts"
    talked = prepare(tmp_path / "set", options={"learn": "conversations"})
    assert {bool(i.turns) for i in (*talked.train_items, *talked.heldout_items)} == {True}
    record = collected_record(tmp_path / "set", "text", talked.options.model_dump())
    assert record is not None and sum(share.items for share in record.licences) == 12


@pytest.mark.parametrize("name", ["../secret.png", "/etc/hostname", "blobs/link.png", "blobs/pipe.png", "blobs/no.png"])
def test_a_data_set_of_somebody_else_names_no_file_outside_of_it(texts: Path, tmp_path: Path, name: str) -> None:
    gather([place_of(str(texts))], tmp_path / "set")
    (tmp_path / "secret.png").write_bytes((texts / "picture.png").read_bytes())
    (tmp_path / "set" / "blobs" / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(tmp_path / "set" / "blobs" / "pipe.png")
    table = pq.read_table(tmp_path / "set" / "items.parquet")
    column = [name if row["file"] else row["file"] for row in table.to_pylist()]
    table = table.set_column(table.schema.get_field_index("file"), table.schema.field("file"), [column])
    pq.write_table(table, tmp_path / "set" / "items.parquet")
    warned: list[str] = []
    with events.listening(lambda event: warned.append(event.text)), pytest.raises(UserError, match="No image"):
        of_collected(tmp_path / "set", "image")
    assert any("1 item" in text and name in text for text in warned)


@needs.sandbox
def test_scores_are_collected_and_learnt_with_their_split(tmp_path: Path) -> None:
    pytest.importorskip("symusic")
    (tmp_path / "tunes").mkdir()
    for i in range(12):
        tune = f"X:1\nT:{i}\nM:4/4\nL:1/4\nK:C\n{' '.join('CDEFGAB'[(i + k * (i + 1)) % 7] for k in range(8))}|\n"
        (tmp_path / "tunes" / f"{i}.abc").write_text(tune)
    (tmp_path / "tunes" / "broken.mid").write_bytes(b"MThd and no more")
    made = gather([place_of(str(tmp_path / "tunes"))], tmp_path / "set", assembly={"heldout": 0.2})
    assert made["items"] == {"music": 12} and left_out(tmp_path / "set") == {"broken.mid": "extract/format"}
    folder = of_collected(tmp_path / "set", None)
    assert folder is not None and {p.suffix for p in folder.rglob("*.*")} == {".abc"}
    sides = {r["split"] for r in items(tmp_path / "set")}
    assert {p.parent.name for p in folder.rglob("*.abc")} == sides == {"train", "validation"}
    read = prepare(tmp_path / "set", "music")
    assert read.modality == "music" and len(read.heldout_items) == sum(
        r["split"] == "validation" for r in items(tmp_path / "set")
    )


def test_a_folder_that_holds_something_else_is_not_touched(texts: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds something else"):
        gather([place_of(str(texts))], texts)
    with pytest.raises(UserError, match=r"Accepted: .*folder"):
        place_of("nowhere/at/all")
    with pytest.raises(UserError, match="max_file_mb"):
        place_of(str(texts), {"max_file_mb": 0})


def test_a_file_may_hold_several_documents_and_one_may_describe_the_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tales.txt").write_text("A tale of a fox.\n<|endoftext|>\n\n<|endoftext|>\nA tale of a hen.\n")
    (tmp_path / "data" / "README.md").write_text("Two tales that were found in the attic.")
    gather([place_of(str(tmp_path / "data"))], tmp_path / "set")
    assert [r["where"] for r in items(tmp_path / "set")] == ["tales.txt, document 1", "tales.txt, document 2"]
    assert left_out(tmp_path / "set") == {"README.md": "clean/describes_data"}


@pytest.mark.parametrize("zipped", [False, True])
def test_what_a_table_names_is_found_once_with_its_caption(tmp_path: Path, zipped: bool) -> None:
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    lines = [{"file_name": f"{n}.png", "text": f"picture {n}"} for n in ("a", "b", "missing")]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if zipped:
        with zipfile.ZipFile(folder / "all.zip", "w") as archive:
            for path in sorted(folder.glob("*.png")):
                archive.write(path, path.name)
                path.unlink()
    made = gather([place_of(str(folder))], tmp_path / "set")
    assert {r["where"].split(": ")[-1]: r["caption"] for r in items(tmp_path / "set")} == {
        "metadata.jsonl, row 1": "picture a",
        "metadata.jsonl, row 2": "picture b",
        "c.png": "",
    }
    assert made["left_out"] == {"find/rows": 1}


def test_a_text_that_is_not_utf_8_is_read_by_a_guess_that_is_kept(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    text = "Grüße aus Köln: es ist schön hier am Rhein, und im Garten blühen die Äpfel.\n"
    (tmp_path / "data" / "old.txt").write_bytes(text.encode("cp1252"))
    (tmp_path / "data" / "wide.txt").write_bytes(text.replace("Köln", "Mainz").encode("utf-16"))
    gather([place_of(str(tmp_path / "data"))], tmp_path / "set")
    found = {r["where"]: (r["text"], dict(r["extra"])["encoding"]) for r in items(tmp_path / "set")}
    assert found == {"old.txt": (text, "cp1252"), "wide.txt": (text.replace("Köln", "Mainz"), "utf-16")}


def test_the_digest_is_the_same_if_a_few_texts_are_in_memory_at_a_time(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gather([place_of(str(texts))], tmp_path / "whole")
    held: list[int] = []
    monkeypatch.setattr(assemble, "CHARACTERS", 700)
    real = assemble.stretches

    def stretches(tables: list[Path]) -> Iterator[tuple[int, list[dict]]]:
        for number, some in real(tables):
            held.append(sum(len(row["text"] or "") for row in some[:-1]))
            yield number, some

    monkeypatch.setattr(assemble, "stretches", stretches)
    assert gather([place_of(str(texts))], tmp_path / "few")["digest"] == whole["digest"]
    assert len(held) > 5 and max(held) < 700
    assert items(tmp_path / "few") == items(tmp_path / "whole")
