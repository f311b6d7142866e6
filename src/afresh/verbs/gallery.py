"""Works that were kept: a folder each with the files and recipe.json, from which the same work is made again.

WORKS/ID/ holds the files of a work, its inputs, and an empty file `favourite` if it is one; WORKS/bin/ID those that
were thrown away. The folders themselves are searched, the newest first.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from afresh import __version__
from afresh.core import ItemKind, Preview, UserError, registry
from afresh.data.storage.files import free_bytes, replace_file
from afresh.data.storage.folders import move_folder, write_folder
from afresh.runs.run import Run
from afresh.runs.works import credentials_of, hooks_of
from afresh.verbs.creation_request import CreationRequest, Form, Made, files_of, first_line, form_of

RECIPE, MARK, BIN = "recipe.json", "favourite", "bin"
ID = re.compile(r"\d{8}-\d{6}-\d{6}[0-9a-f]{4}")  # when it was made, to the microsecond, and by chance
FILE = re.compile(r"[a-z]+(-\d+)?\.[a-z0-9]{2,5}")
HELD = 10_000  # recipes that are held once they were read
CHANGED = {"blend": "blended", "move": "towards {}", "harmonise": "harmonised"}
EDITED = {
    "mask": "a part painted again",
    "strength": "{:.0%} changed",
    "hole": "{} s made again",
    "extend": "{:g} s longer",
    "loop": "looped",
    "upscale": "enlarged {} times",
    "palette": "in few colours",
    "edges": "with other edges",
    "style": "in another style",
}  # what an edit changes, by the field that asks for it


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

    @cached_property
    def preview(self) -> Preview:
        """What pages show of the item, also if its run is gone. Raises UserError if the item cannot be read."""
        kind = registry.modality(self.recipe.modality).kind
        try:
            return kind.preview(kind.decode(self.read(self.main)))
        except ValueError as error:
            raise UserError(f"The file {self.main} of this work cannot be read: {error}.", "damaged") from None

    def text(self) -> str:
        """The text of a work that is one."""
        return self.read("work.txt").decode("utf-8", "replace")

    def contains(self, words: Sequence[str]) -> bool:
        """Whether its recipe or its text has all of some words in lower case."""
        recipe = self.recipe
        said = [recipe.title, recipe.run, recipe.modality, recipe.form, *map(str, recipe.described.values())]
        text = "\n".join([*said, self.text()[:20_000] if recipe.form in ("text", "code") else ""]).lower()
        return all(word in text for word in words)

    def read(self, name: str) -> bytes:
        """A file of the work. Raises UserError if none exists of that name."""
        if not FILE.fullmatch(name) or not (self.folder / name).is_file():
            raise UserError(f"No file {name} of this work.", "not_found")
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
            title=title_of(wish, made, run.encoder.kind, form_of(run)),
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
        return Work(id_, self.root / id_, recipe, False, False)

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
            raise UserError(f"No work {id_[:40]!r} here. It may have been deleted.", "not_found")
        return read(recipe.parent)

    def favour(self, id_: str, wanted: bool) -> Work:
        """Make a work a favourite, or no longer one."""
        work = self.get(id_)
        if wanted:
            replace_file(work.folder / MARK, b"")
        else:
            (work.folder / MARK).unlink(missing_ok=True)
        return self.get(id_)

    def move(self, id_: str, binned: bool) -> Work:
        """Move a work to the bin, or back from it."""
        move(self.root, self.get(id_).id, binned)
        return self.get(id_)

    def empty_bin(self) -> int:
        """Delete what is in the bin; returns how many works that were."""
        folders = [p for p in (self.root / BIN).glob("*") if ID.fullmatch(p.name)]
        for folder in folders:
            shutil.rmtree(folder)
        return len(folders)

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
        root, wanted, found = self.root / BIN if binned else self.root, words.lower().split()[:20], list[Work]()
        ids = sorted((p.name for p in root.glob("*") if ID.fullmatch(p.name)), reverse=True)
        for id_ in (i for i in ids if not before or i < before):
            try:
                work = read(root / id_)
            except UserError:  # removed or damaged by somebody else
                continue
            of_run = not run or work.recipe.run == run
            if of_run and (work.favourite or not favourites) and (not wanted or work.contains(wanted)):
                found.append(work)
                if len(found) == most:
                    break
        return found


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


@lru_cache(HELD)
def recipe_in(file: Path, changed: int) -> WorkRecipe:
    """The recipe in a file that was changed at this time."""
    return WorkRecipe.model_validate_json(file.read_bytes())


def read(folder: Path) -> Work:
    """Raises UserError if the recipe is not valid."""
    try:
        recipe = recipe_in(folder / RECIPE, (folder / RECIPE).stat().st_mtime_ns)
    except (OSError, ValidationError) as error:
        raise UserError(f"The recipe in {folder} cannot be read: {error}.", "damaged") from None
    if not recipe.files or not all(FILE.fullmatch(n) for n in (*recipe.files, *recipe.wish.files)):
        raise UserError(f"The recipe in {folder} names files that no work has.", "damaged")
    return Work(folder.name, folder, recipe, (folder / MARK).is_file(), folder.parent.name == BIN)


def title_of(wish: CreationRequest, made: Made, kind: ItemKind, form: Form) -> str:
    """A few words by which a person tells a work from others: what was asked for, or what it is, and what changed."""
    noun = {"image": "picture", "music": "tune"}.get(form, form) if kind.medium or form == "music" else kind.name
    asked: Sequence[str] = [
        wish.caption or "",
        ", ".join(wish.label.values()),
        ", ".join(f"{k} {v:g}" for k, v in wish.number.items()),
        made.value if form != "music" and isinstance(made.value, str) else "",
        str(made.described.get("label") or ""),
    ]
    said, changes = first_line(asked), changes_of(wish)
    number = f"{made.index + 1} of {wish.n}" if wish.n > 1 and (changes or not said) else ""
    seed = "" if said and not changes else f"seed {wish.seed}"
    return ", ".join(part for part in (said or noun.capitalize(), *changes, number, seed) if part)


def changes_of(wish: CreationRequest) -> list[str]:
    """What a wish changes of works that exist, in a word or two each."""
    if wish.verb != "edit":
        return [CHANGED[wish.verb].format(wish.toward)] if wish.verb in CHANGED else []
    given = wish.model_dump(exclude_defaults=True)
    words = [said.format(given[name]) for name, said in EDITED.items() if name in given]
    return [*words, *(f"{n} pixels more at the {side}" for side, n in wish.outpaint.items())] or ["varied"]


def same(work: Work, run: Run, made: Made) -> bool:
    """Whether a work that was made again has the same bytes."""
    again = {n: hashlib.sha256(data).hexdigest() for n, data in files_of(run, made.value).items()}
    return again == work.recipe.files
