"""Works that were kept: a folder each with the files and recipe.json, from which the same work is made again.

WORKS/ID/ holds the files of a work, its inputs, and an empty file `favourite` if it is one; WORKS/bin/ID those that
were thrown away. The folders are the truth: WORKS/index.sqlite only makes searching fast, and is written from them.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from afresh import __version__
from afresh.core import UserError
from afresh.data.storage.files import free_bytes, replace_file
from afresh.data.storage.folders import move_folder, write_folder
from afresh.runs.run import Run
from afresh.runs.works import credentials_of, hooks_of
from afresh.verbs.creation_request import CreationRequest, Form, Made, files_of, first_line, form_of

RECIPE, MARK, BIN, INDEX = "recipe.json", "favourite", "bin", "index.sqlite"
ID = re.compile(r"\d{8}-\d{6}-\d{6}[0-9a-f]{4}")  # when it was made, to the microsecond, and by chance
FILE = re.compile(r"[a-z]+(-\d+)?\.[a-z0-9]{2,5}")
VERSION = 1  # of the index; one of another version is written anew
TABLE = """
create table works (id text primary key, run text, form text, words text, favourite integer, binned integer);
create index by_time on works (binned, id desc);
"""


class WorkRecipe(BaseModel):
    """How a work was made. `run` and `checkpoint`: by which model; `form`: what it is for people; `index`: which
    of the works of the wish it is. `files`: {name: SHA-256} of the work, in which the first is the item itself.
    `written`: which characters of a text are the model's. `notes`: what was noted while it was made. `run_id`: the
    content hash of the run; None of a work that was to be neither marked nor signed."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    afresh: str = __version__
    made: str
    run: str
    checkpoint: str
    modality: str
    family: str
    form: Form
    title: str
    wish: CreationRequest
    index: int
    described: dict[str, Any] = {}
    files: dict[str, str]
    written: tuple[int, int] | None = None
    notes: tuple[str, ...] = ()
    run_id: str | None = None


@dataclass(frozen=True)
class Work:
    """A work that was kept."""

    id: str
    folder: Path
    recipe: WorkRecipe
    favourite: bool
    binned: bool

    @property
    def main(self) -> str:
        """The name of the file that is the item itself."""
        return next(iter(self.recipe.files))

    def text(self) -> str:
        """The text of a work that is one."""
        return self.read("work.txt").decode("utf-8", "replace")

    def read(self, name: str) -> bytes:
        """A file of the work. Raises UserError if none exists of that name."""
        if not FILE.fullmatch(name) or not (self.folder / name).is_file():
            raise UserError(f"There is no file {name} of this work.", "not_found")
        return (self.folder / name).read_bytes()

    def inputs(self) -> dict[str, bytes]:
        """The files that the wish names."""
        return {name: self.read(name) for name in self.recipe.wish.files}


class Works:
    """The works in a folder, which is made when the first is kept."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # ------------------------------------------------------------------------------------------------ the folders

    def keep(
        self,
        run: Run,
        name: str,
        checkpoint: str,
        wish: CreationRequest,
        files: Mapping[str, bytes],
        made: Made,
        notes: Sequence[str] = (),
    ) -> Work:
        """Write a work that a run just made, with what was noted meanwhile. Raises UserError if it cannot be
        written."""
        content = files_of(run, made.value)
        now = datetime.now(UTC)
        recipe = WorkRecipe(
            made=now.isoformat(timespec="seconds"),
            run=name,
            checkpoint=checkpoint,
            modality=run.record.modality,
            family=run.record.family,
            form=form_of(run),
            title=title_of(wish, made, form_of(run)),
            wish=wish,
            index=made.index,
            described=dict(made.described),
            files={n: hashlib.sha256(data).hexdigest() for n, data in content.items()},
            written=made.written,
            notes=tuple(notes),
            run_id=credentials_of(run).run if hooks_of(run) else None,
        )
        id_ = f"{now:%Y%m%d-%H%M%S-%f}{secrets.token_hex(2)}"
        text = json.dumps(recipe.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"
        content |= {n: data for n, data in files.items() if n in wish.files}
        self._write(id_, {**content, RECIPE: text.encode("utf-8", "surrogatepass")})
        work = Work(id_, self.root / id_, recipe, False, False)
        with self._index() as index:
            enter(index, work)
        return work

    def _write(self, id_: str, content: Mapping[str, bytes]) -> None:
        """The folder of a work. Raises UserError if it cannot be written."""
        try:
            write_folder(self.root / id_, content.items())
        except OSError as error:
            raise not_kept("work", self.root, error) from None

    def get(self, id_: str) -> Work:
        """Raises UserError if there is no such work, or its recipe cannot be read."""
        recipe = place_of(self.root, f"{id_}/{RECIPE}") if ID.fullmatch(id_) else None
        if recipe is None:
            raise UserError(f"There is no work {id_[:40]!r} here. It may have been deleted.", "not_found")
        return read(recipe.parent)

    def favour(self, id_: str, wanted: bool) -> Work:
        """Make a work a favourite, or no longer one."""
        work = self.get(id_)
        if wanted:
            replace_file(work.folder / MARK, b"")
        else:
            (work.folder / MARK).unlink(missing_ok=True)
        return self._renewed(id_)

    def move(self, id_: str, binned: bool) -> Work:
        """Move a work to the bin, or back from it."""
        move(self.root, self.get(id_).id, binned)
        return self._renewed(id_)

    def _renewed(self, id_: str) -> Work:
        work = self.get(id_)
        with self._index() as index:
            enter(index, work)
        return work

    def empty_bin(self) -> int:
        """Delete what is in the bin; returns how many works that were."""
        folders = [p for p in (self.root / BIN).glob("*") if ID.fullmatch(p.name)]
        for folder in folders:
            shutil.rmtree(folder)
        with self._index() as index:
            index.execute("delete from works where binned")
        return len(folders)

    # ------------------------------------------------------------------------------------------------ the index

    def find(
        self,
        words: str = "",
        *,
        run: str = "",
        favourites: bool = False,
        binned: bool = False,
        before: str = "",
        most: int = 48,
    ) -> list[Work]:
        """The newest works whose recipe or text has all the words, older than the work `before`."""
        if not self.root.is_dir():
            return []
        where, values = ["binned = ?"], list[Any]([binned])
        for word in words.split()[:20]:
            where.append(r"words like ? escape '\'")
            values.append(f"%{escaped(word.lower())}%")
        for condition, value in (("run = ?", run), ("id < ?", before)):
            if value:
                where.append(condition)
                values.append(value)
        if favourites:
            where.append("favourite")
        query = f"select id from works where {' and '.join(where)} order by id desc limit ?"
        with self._index() as index:
            ids = [row[0] for row in index.execute(query, [*values, most])]
        found = []
        for id_ in ids:
            try:
                found.append(self.get(id_))
            except UserError:  # removed or damaged by somebody else
                continue
        return found

    @contextmanager
    def _index(self) -> Iterator[sqlite3.Connection]:
        """The index, which is written from the folders if it is missing, damaged or of another version."""
        self.root.mkdir(parents=True, exist_ok=True)
        try:
            connection = self._opened()
        except sqlite3.DatabaseError:
            for suffix in ("", "-wal", "-shm"):
                (self.root / f"{INDEX}{suffix}").unlink(missing_ok=True)
            connection = self._opened()
        with closing(connection), connection:
            yield connection

    def _opened(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.root / INDEX, timeout=10)
        try:
            connection.execute("pragma journal_mode = wal")
            with connection:
                connection.execute("begin immediate")
                if connection.execute("pragma user_version").fetchone()[0] != VERSION:
                    connection.execute("drop table if exists works")
                    for statement in TABLE.strip().split("\n"):
                        connection.execute(statement)
                    connection.execute(f"pragma user_version = {VERSION}")
                for work in self._others({row[0] for row in connection.execute("select id from works")}):
                    enter(connection, work)
        except BaseException:
            connection.close()
            raise
        return connection

    def _others(self, known: set[str]) -> Iterator[Work]:
        """The works that the index lacks: all of them, or those that were copied into the folder."""
        for folder in (*self.root.glob("*"), *(self.root / BIN).glob("*")):
            if folder.name not in known and ID.fullmatch(folder.name) and (folder / RECIPE).is_file():
                try:
                    yield read(folder)
                except UserError:
                    continue


def place_of(root: Path, name: str) -> Path | None:
    """Where a folder keeps a file of this name: in itself, or in its bin."""
    return next((p for p in (root / name, root / BIN / name) if p.is_file()), None)


def move(root: Path, name: str, binned: bool) -> None:
    """Move what a folder keeps under a name to its bin, or back from it."""
    here, there = root if (root / name).exists() else root / BIN, root / BIN if binned else root
    there.mkdir(exist_ok=True)
    if here != there:
        move_folder(here / name, there / name)


def not_kept(what: str, root: Path, error: OSError) -> UserError:
    return UserError(
        f"The {what} could not be kept in {root}: {error.strerror or error}. {free_bytes(root):,} bytes are free "
        "there. Make room, or choose another folder with the setting `works_folder`.",
        "cannot_write",
    )


def read(folder: Path) -> Work:
    """Raises UserError if the recipe is not valid."""
    try:
        recipe = WorkRecipe.model_validate_json((folder / RECIPE).read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"The recipe in {folder} cannot be read: {error}.", "damaged") from None
    if not recipe.files or not all(FILE.fullmatch(n) for n in (*recipe.files, *recipe.wish.files)):
        raise UserError(f"The recipe in {folder} names files that no work has.", "damaged")
    return Work(folder.name, folder, recipe, (folder / MARK).is_file(), folder.parent.name == BIN)


def enter(index: sqlite3.Connection, work: Work) -> None:
    """Put a work into the index, or renew it."""
    recipe = work.recipe
    words = [recipe.title, recipe.run, recipe.modality, recipe.form, *map(str, recipe.described.values())]
    if recipe.form in ("text", "code"):
        words.append(work.text()[:20_000])
    row = work.id, recipe.run, recipe.form, "\n".join(words).lower(), work.favourite, work.binned
    index.execute("insert or replace into works values (?, ?, ?, ?, ?, ?)", row)


def escaped(word: str) -> str:
    return re.sub(r"([\\%_])", r"\\\1", word)


def title_of(wish: CreationRequest, made: Made, form: Form) -> str:
    """A few words by which a person knows a work."""
    noun = {"image": "picture", "music": "tune"}.get(form, form)
    how = {"edit": "changed ", "blend": "blended ", "move": "changed ", "harmonise": "harmonised "}.get(wish.verb, "")
    done = how + noun
    asked: Sequence[str] = [
        wish.caption or "",
        ", ".join(wish.label.values()),
        ", ".join(f"{k} {v:g}" for k, v in wish.number.items()),
        made.value if form != "music" and isinstance(made.value, str) else "",
        str(made.described.get("label") or ""),
    ]
    return first_line(asked) or done.capitalize()


def same(work: Work, run: Run, made: Made) -> bool:
    """Whether a work that was made again has the same bytes."""
    again = {n: hashlib.sha256(data).hexdigest() for n, data in files_of(run, made.value).items()}
    return again == work.recipe.files
