"""A data set of somebody else reads nothing that it names before its user agrees, and writes nowhere else."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afresh.core import UserError
from afresh.data.collected import MANIFEST, manifest, rows
from afresh.data.storage.secret import secret_file
from afresh.faces.cli import run as command
from afresh.services.collect.dataset_store import WORK
from afresh.services.collect.forget import ForgetRequest, forget
from afresh.services.collect.gather import gather, place_of
from afresh.services.collect.trust import FILE
from tests.heard import heard


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A data set of two texts, collected by this user."""
    (tmp_path / "texts").mkdir()
    for i in range(2):
        (tmp_path / "texts" / f"{i}.txt").write_text(f"A tale of number {i}, with a few words in it.")
    gather([place_of(str(tmp_path / "texts"))], tmp_path / "own")
    return tmp_path / "own"


def changed(dataset: Path, **fields: Any) -> Path:
    """The data set as somebody else would send it: its first source has other fields, and was not finished."""
    known = json.loads((dataset / MANIFEST).read_bytes())
    known["sources"][0] |= {"finished": False, **fields}
    (dataset / MANIFEST).write_text(json.dumps(known))
    shutil.rmtree(dataset / WORK / known["sources"][0]["key"], ignore_errors=True)
    return dataset


def test_another_folder_is_read_after_consent_only(own: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "diary.txt").write_text("What nobody else should read, in a sentence of some length.")
    dataset = changed(own, place=str(tmp_path / "private"))
    for options in ({"resume": True}, {"resume": True, "on": ["words_few=2"]}, {"refresh": True, "resume": True}):
        before = (dataset / MANIFEST).read_bytes()
        with pytest.raises(UserError, match="not collected here") as refused:
            gather([], dataset, **options)
        assert refused.value.code == "not_trusted" and str(tmp_path / "private") in str(refused.value)
        assert (dataset / MANIFEST).read_bytes() == before
    with heard("trusted: read the source"):
        gather([], dataset, resume=True, trust=True)
    assert [row["where"] for row in rows(dataset)] == ["diary.txt"]
    gather([], dataset, refresh=True)  # it is remembered


def test_a_query_of_somebody_else_is_not_asked(own: Path, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "base.db") as base:
        base.execute("CREATE TABLE secrets (id INTEGER PRIMARY KEY, body TEXT)")
        base.execute("INSERT INTO secrets VALUES (1, 'The words of a letter that was never sent.')")
    place, options = f"sqlite:///{tmp_path / 'base.db'}", {"query": "SELECT id, body FROM secrets", "key": "id"}
    dataset = changed(own, source="sql", place=place, options=options)
    assert command(["collect", "--into", str(dataset), "--resume", "--json"]) == 2
    assert "never sent" not in json.dumps(list(rows(dataset)))
    assert command(["collect", "--into", str(dataset), "--resume", "--trust", "--json"]) == 0
    assert "never sent" in json.dumps(list(rows(dataset)))


def test_what_it_is_compared_with_is_read_after_consent_too(own: Path, tmp_path: Path) -> None:
    (tmp_path / "private.jsonl").write_text('{"text": "What nobody else should read, in some words."}\n')
    known = json.loads((own / MANIFEST).read_bytes())
    known["assembly"]["against"] = [str(tmp_path / "private.jsonl")]
    (own / MANIFEST).write_text(json.dumps(known))
    with pytest.raises(UserError, match="not collected here"):
        gather([], own, refresh=True)
    gather([], own, refresh=True, assembly={"against": [str(tmp_path / "private.jsonl")]})  # the user names it
    gather([], own, refresh=True)


def test_ones_own_is_not_asked_about_wherever_it_lies(own: Path, tmp_path: Path) -> None:
    shutil.move(own, tmp_path / "moved")
    gather([], tmp_path / "moved", refresh=True)
    assert command(["collect", "--into", str(tmp_path / "moved"), "--refresh", "--json"]) == 0


def test_another_user_is_asked_and_a_source_that_is_named_again_is_not(own: Path, tmp_path: Path) -> None:
    secret_file().unlink()
    with pytest.raises(UserError, match="not collected here"):
        gather([], own, refresh=True)
    gather([place_of(str(tmp_path / "texts"))], own, refresh=True)
    gather([], own, refresh=True)


@pytest.mark.parametrize("sources", [None, "x", [1], [{"place": "x"}], {"key": {}}])
def test_sources_that_are_no_list_are_an_error_that_says_so(own: Path, sources: Any) -> None:
    known = manifest(own) | {"sources": sources}
    (own / MANIFEST).write_text(json.dumps(known))
    with pytest.raises(UserError, match="no list of sources"):
        gather([], own, resume=True)


@pytest.mark.parametrize(
    "work", [lambda d: gather([], d, refresh=True, trust=True), lambda d: forget(d, ForgetRequest(source="x"))]
)
def test_a_key_names_no_folder_outside_of_the_data_set(own: Path, tmp_path: Path, work: Callable[[Path], Any]) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "0.json").write_text("mine")
    known = manifest(own)
    known["sources"][0] |= {"key": "../../victim", "place": "x"}
    (own / MANIFEST).write_text(json.dumps(known))
    with pytest.raises(UserError, match="not the key of a source"):
        work(own)
    assert (tmp_path / "victim" / "0.json").read_text() == "mine"


@pytest.mark.parametrize("inside", [f"{WORK}/lock", f"{WORK}/journal.jsonl", f"{WORK}/{FILE}", MANIFEST, "blobs"])
def test_a_link_out_of_a_data_set_is_not_written_through(own: Path, tmp_path: Path, inside: str) -> None:
    target = tmp_path / "target"
    if inside == "blobs":
        target.mkdir()
    else:
        target.write_bytes((own / inside).read_bytes() if (own / inside).exists() else b"mine")
    (own / inside).unlink(missing_ok=True)
    (own / inside).symlink_to(target)
    before = None if inside == "blobs" else target.read_bytes()
    with pytest.raises(UserError, match="not followed out of a data set"):
        gather([], own, refresh=True)
    assert before is None or target.read_bytes() == before
