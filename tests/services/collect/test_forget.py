"""What is forgotten leaves every file of a data set, and does not come back."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from afresh.core import UserError
from afresh.data.collected import kept_aside, manifest, rows
from afresh.data.prepare import prepare
from afresh.services.collect import gather as module
from afresh.services.collect.dataset_store import Store
from afresh.services.collect.forget import ForgetRequest, find, forget, versions
from afresh.services.collect.gather import SourcePlace, gather, place_of
from afresh.services.collect.rules import rules

WALKERS = ("Mortimer", "Clementine", "Balthazar", "Philippa", "Octavian", "Roseline", "Ferdinand")
SECRET = "the blue heron of Lake Ymir"


OTHERS = tuple(r.name for r in rules() if r.name not in ("line_ends", "no_text"))  # which judge the texts of this file


def collect(places: list[SourcePlace], into: Path) -> None:
    gather(places, into, off=OTHERS)


def write(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text.encode())
    return folder


def said(topic: str) -> str:
    return f"{topic} walked along the shore for a long while, thinking of nothing but {topic} and the sea.\r\n" * 3


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two sources with a text in common; that of Ann holds the secret, changed by a rule, twice, and left out once."""
    ours = write(tmp_path / "ours", a=said("A fisher"), b=said("A baker"), c=said("A pilot"))
    anns = write(tmp_path / "anns", d=said(SECRET), e=said(SECRET), f=said("A baker"), g=" \n", h=said("A weaver"))
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(anns / "face.png")
    collect([place_of(str(ours)), place_of(str(anns), about={"person": "Ymirdottir"})], tmp_path / "set")
    return tmp_path / "set"


def holding(folder: Path, *words: str) -> list[str]:
    """The files that hold one of these words, in plain or as Parquet has it."""
    import pyarrow.parquet as pq

    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            if path.suffix == ".parquet":
                content += str(pq.read_table(path).to_pylist()).encode()
            found += [path.name] if any(w.encode() in content for w in words) else []
    return found


def texts(dataset: Path) -> list[str]:
    return [r["text"] or r["file"] for r in rows(dataset)]


def test_a_person_is_forgotten_in_every_file(dataset: Path, tmp_path: Path) -> None:
    assert holding(dataset, SECRET) and len(list((dataset / "blobs").rglob("*.png"))) == 1
    found = forget(dataset, ForgetRequest(person="Ymirdottir"))
    assert (found.items, found.left_out) == (5, 1)
    assert holding(dataset, SECRET, "weaver", "Ymirdottir") == []
    assert not list((dataset / "blobs").rglob("*.png"))
    assert sum("baker" in t for t in texts(dataset)) == 1 and len(texts(dataset)) == 3


def test_a_person_in_a_source_of_many_does_not_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from afresh.services.collect.sources import folder as source

    write(tmp_path / "all", a=said("A fisher"), ann=said(SECRET), c=said("A pilot"))
    find_all = source.find

    def with_persons(*given: object):  # type: ignore[no-untyped-def]
        from dataclasses import replace

        for one in find_all(*given):  # type: ignore[arg-type]
            person = "ann" if "ann" in one.where else "bo"
            yield replace(one, about=replace(one.about, person=person))  # type: ignore[union-attr]

    monkeypatch.setattr(source, "SOURCE", source.SOURCE.__class__(**{**vars(source.SOURCE), "find": with_persons}))
    collect([place_of(str(tmp_path / "all"))], tmp_path / "set")
    assert find(tmp_path / "set", ForgetRequest(person="ann")).items == 1
    forget(tmp_path / "set", ForgetRequest(person="ann"))
    assert holding(tmp_path / "set", SECRET) == [] and len(texts(tmp_path / "set")) == 2
    made = gather([], tmp_path / "set", off=["line_ends"])  # reads everything again
    assert holding(tmp_path / "set", SECRET) == [] and len(texts(tmp_path / "set")) == 2
    assert made["left_out"] == {"forgotten/forgotten": 1}


def test_an_item_is_forgotten_wherever_it_came_from(dataset: Path) -> None:
    item = next(r["id"] for r in rows(dataset) if SECRET in (r["text"] or ""))
    found = forget(dataset, ForgetRequest(item=item))
    assert found.items == 2 and found.instead == ()
    assert holding(dataset, SECRET, "d.txt", "e.txt", item) == []
    gather([], dataset, off=["line_ends"])
    assert holding(dataset, SECRET, "d.txt", "e.txt") == []


def test_a_source_is_forgotten_and_may_be_collected_again(dataset: Path, tmp_path: Path) -> None:
    key = manifest(dataset)["sources"][1]["key"]
    forget(dataset, ForgetRequest(source=str(tmp_path / "anns")))
    assert holding(dataset, SECRET, "weaver") == [] and not (dataset / "work" / key).exists()
    assert [s["place"] for s in manifest(dataset)["sources"]] == [str(tmp_path / "ours")]
    collect([place_of(str(tmp_path / "anns"))], dataset)
    assert holding(dataset, SECRET)
    for place in ("ours", "anns"):
        forget(dataset, ForgetRequest(source=str(tmp_path / place)))
    assert texts(dataset) == []


def test_what_was_a_duplicate_of_it_is_named_when_it_takes_its_place(dataset: Path, tmp_path: Path) -> None:
    found = forget(dataset, ForgetRequest(source=str(tmp_path / "ours")))
    assert sum("baker" in t for t in texts(dataset)) == 1
    assert found.instead == ()  # it is the same item, of another source now
    assert {r["source"] for r in rows(dataset)} == {str(tmp_path / "anns")}


def test_tokens_that_were_made_of_it_go_too(dataset: Path) -> None:
    digest = manifest(dataset)["digest"]
    prepare(dataset, "text", {"stream": True})
    (kept,) = kept_aside(digest)
    assert list(kept.path.rglob("*.safetensors"))
    forget(dataset, ForgetRequest(person="Ymirdottir"))
    assert kept_aside(digest) == [] and not kept.path.exists()


def test_what_was_fetched_is_removed(tmp_path: Path) -> None:
    fetched = Store(tmp_path).parts("0123456789ab").fetched
    fetched.put("https://a/1", b"one", {})
    fetched.put("https://a/2", b"two", {})
    fetched.put("https://a/3", b"one", {})
    fetched.forget({"https://a/1"})
    again = Store(tmp_path).parts("0123456789ab").fetched
    assert again.get("https://a/1") is None and again.get("https://a/3") is None
    assert (again.get("https://a/2") or (b"",))[0] == b"two" and len(list(again.raw.iterdir())) == 1
    again.forget({"a row of https://a/2"})
    assert not again.known and not list(again.raw.iterdir())


def test_forgetting_that_was_interrupted_is_repeated(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from afresh.services.collect import forget as forgetting

    item = next(r["id"] for r in rows(dataset) if SECRET in (r["text"] or ""))
    with monkeypatch.context() as patch:
        patch.setattr(forgetting, "put_together", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            forget(dataset, ForgetRequest(item=item))
    assert holding(dataset, SECRET)
    forget(dataset, ForgetRequest(item=item))
    assert holding(dataset, SECRET) == []


def test_it_is_written_into_the_journal(dataset: Path) -> None:
    forget(dataset, ForgetRequest(person="Ymirdottir"))
    journal = (dataset / "work" / "journal.jsonl").read_text()
    assert '"what": "forgotten", "kind": "person", "items": 5' in journal and "Ymirdottir" not in journal
    first, second = versions(dataset)
    assert len(first["parts"]) == 2 and len(second["parts"]) == 1


def test_the_address_of_a_forgotten_source_stands_in_no_file(dataset: Path, tmp_path: Path) -> None:
    place = str(tmp_path / "anns")
    assert "dataset.json" in holding(dataset, place)
    forget(dataset, ForgetRequest(source=place))
    assert holding(dataset, place) == []


def test_nor_in_a_journal_of_an_earlier_version(dataset: Path, tmp_path: Path) -> None:
    place, other, store = str(tmp_path / "anns"), str(tmp_path / "ours"), Store(dataset)
    store.note("begun", source=place)
    store.note("finished", source=other)
    before = (dataset / "work" / "journal.jsonl").read_text().splitlines()
    key = manifest(dataset)["sources"][1]["key"]
    forget(dataset, ForgetRequest(person="Ymirdottir"))
    after = (dataset / "work" / "journal.jsonl").read_text().splitlines()
    assert after[: len(before)] == [line.replace(place, key) for line in before] and other in before[-1]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["source", "person"])
def test_forgetting_that_ends_at_any_change_of_a_file_is_repeated(
    how: str, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wish = ForgetRequest(source=str(tmp_path / "anns")) if how == "source" else ForgetRequest(person="Ymirdottir")
    left = 0

    def ending(change: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return change(*args, **options)

        return counted

    for count in range(100):
        copy = tmp_path / f"copy{count}"
        shutil.copytree(dataset, copy)
        left = count
        with monkeypatch.context() as patch:
            for module, name in ((os, "replace"), (os, "unlink"), (Path, "unlink"), (Path, "replace")):
                patch.setattr(module, name, ending(getattr(module, name)))
            try:
                forget(copy, wish)
            except KeyboardInterrupt:
                ended = False
            else:
                ended = True
        if ended:
            break
        forget(copy, wish)
        assert holding(copy, SECRET, "weaver", "Ymirdottir", str(tmp_path / "anns")) == [], count
        assert len(texts(copy)) == 3 and not list((copy / "blobs").rglob("*.png"))
    assert ended and count > 10


def test_what_is_not_there_is_refused(dataset: Path, tmp_path: Path) -> None:
    before = sorted((p.name, p.read_bytes()) for p in dataset.rglob("*.parquet"))
    for wish, message in (
        (ForgetRequest(person="bo"), "holds nothing of the person bo"),
        (ForgetRequest(item="00"), "holds nothing of the item 00"),
        (ForgetRequest(source="elsewhere"), "has no source 'elsewhere'. Its sources"),
    ):
        with pytest.raises(UserError, match=message):
            forget(dataset, wish)
    with pytest.raises(UserError, match="one of `source`, `person` and `item`"):
        ForgetRequest(person="ann", item="00")
    with pytest.raises(UserError, match="is not a data set"):
        forget(tmp_path / "ours", ForgetRequest(person="ann"))
    assert sorted((p.name, p.read_bytes()) for p in dataset.rglob("*.parquet")) == before
    assert not (tmp_path / "ours" / "work").exists()


def test_any_batch_is_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 2)
    write(tmp_path / "many", **{f"t{i}": said(f"{w} {w[::-1]} {i}") for i, w in enumerate(WALKERS)})
    collect([place_of(str(tmp_path / "many"))], tmp_path / "set")
    item = next(r["id"] for r in rows(tmp_path / "set") if r["where"] == "t5.txt")
    (part,) = find(tmp_path / "set", ForgetRequest(item=item)).parts
    assert part.number == 2 and part.kinds == {"text"}
    forget(tmp_path / "set", ForgetRequest(item=item))
    assert holding(tmp_path / "set", "enilesoR 5") == [] and len(texts(tmp_path / "set")) == 6


def test_who_takes_part_in_a_conversation_is_forgotten_with_it(tmp_path: Path) -> None:
    chat, words = tmp_path / "chat.txt", ("Is the tide in?", "It is, since noon.", "And the boat?", "By the old pier.")
    said = [f"[01/02/2024, 10:0{i}:00] {('Ann', 'Bo')[i % 2]}: {text}" for i, text in enumerate(words)]
    chat.write_text("\n".join(said))
    collect([place_of(str(chat))], tmp_path / "set")
    (row,) = rows(tmp_path / "set")
    assert row["person"] in ("Ann", "Bo")
    forget(tmp_path / "set", ForgetRequest(person="Ann" if row["person"] == "Bo" else "Bo"))
    assert list(rows(tmp_path / "set")) == []


def test_a_person_whose_name_begins_like_anothers_stays(tmp_path: Path) -> None:
    """Forgetting Ann leaves Anna and Joann, alone and in conversations."""
    people = {"Ann": "A fisher", "Anna": "A baker", "Joann": "A pilot"}
    places = [
        place_of(str(write(tmp_path / name, text=said(topic))), about={"person": name})
        for name, topic in people.items()
    ]
    words = ("Is the tide in?", "It is, since noon.", "And the boat?", "By the old pier.")
    for others in (("Anna", "Bo"), ("Ann", "Bo")):
        chat = tmp_path / f"{others[0]} and {others[1]}.txt"
        lines = [f"[01/02/2024, 10:0{i}:00] {others[i % 2]}: {text} ({others[0]})" for i, text in enumerate(words)]
        chat.write_text("\n".join(lines))
        places.append(place_of(str(chat)))
    collect(places, tmp_path / "set")
    forgotten = forget(tmp_path / "set", ForgetRequest(person="Ann"))
    assert forgotten.items == 2
    kept = [*rows(tmp_path / "set")]
    assert sorted(row["kind"] for row in kept) == ["conversation", "text", "text"]
    assert {row["person"] for row in kept if row["kind"] == "text"} == {"Anna", "Joann"}
    assert all("(Anna)" in row["text"] for row in kept if row["kind"] == "conversation")


MAILS = {
    "a": "Thomas Brandt <thomas@example.org>",
    "b": '"Brandt, Thomas" <thomas@example.org>',
    "c": "THOMAS BRANDT <t.brandt@example.com>",
    "d": "thomas@example.org",
    "e": "T. Brandt <other@example.net>",
    "f": "Thomas Brandtner <brandtner@example.net>",
    "g": "Ann Smith <ann@example.org>",
}


@pytest.fixture
def mails(tmp_path: Path) -> Path:
    """Mails of a person in several spellings, of others, and two of the others that name him."""
    (tmp_path / "mails").mkdir()
    named = {"f": "Ask Thomas\nBrandt, or brandt, thomas.", "g": "Thomas Brandt knows. (Thomas Brandt!)"}
    for (name, sender), walker in zip(MAILS.items(), WALKERS, strict=True):
        head = f"From: {sender}\nTo: all@example.org\nSubject: {walker}\nDate: Mon, 1 Jan 2024 10:00:00 +0000\n\n"
        body = said(walker) + named.get(name, "")
        (tmp_path / "mails" / f"{name}.eml").write_bytes((head + body).replace("\r\n", "\n").encode())
    collect([place_of(str(tmp_path / "mails"))], tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.parametrize("name", ["Thomas Brandt", "brandt, thomas", "Thomas Brandt <thomas@example.org>"])
def test_a_person_is_found_in_any_spelling_and_what_names_them_is_said(mails: Path, name: str) -> None:
    wish = ForgetRequest(person=name)
    found = find(mails, wish)
    assert found.items == 4 and set(found.people) == {MAILS[k] for k in "acd"} | {
        '"Brandt, Thomas" <thomas@example.org>'
    }
    assert [(Path(n.where).name, n.times) for n in found.named] == [("f.eml", 2), ("g.eml", 2)]
    assert found.perhaps == ('"T. Brandt" <other@example.net>',)
    gone = forget(mails, wish)
    assert len(texts(mails)) == 3 and gone.named == found.named
    assert holding(mails, "Mortimer", "Clementine", "Balthazar", "Philippa") == []
    collect([place_of(str(mails.parent / "mails"))], mails)
    gather([], mails, refresh=True)  # reads everything again
    assert len(texts(mails)) == 3
    forget(mails, ForgetRequest(item=",".join(n.item for n in found.named)))
    assert len(texts(mails)) == 1 and holding(mails, "Thomas Brandt", "Roseline") == []


def test_a_person_whom_others_only_name_is_refused_with_the_items(mails: Path) -> None:
    forget(mails, ForgetRequest(person="Ann Smith"))
    with pytest.raises(UserError, match=r"nothing of the person T Brandt\. .*perhaps the same person: Thomas Brandt"):
        find(mails, ForgetRequest(person="T Brandt"))
    (named,) = (r["id"] for r in rows(mails) if "Octavian" in r["text"])
    with pytest.raises(UserError, match=rf"(?s)Octavian is named \d+ times in 1 item of others.*`item={named}`"):
        find(mails, ForgetRequest(person="Octavian"))
