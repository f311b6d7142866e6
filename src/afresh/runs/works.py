"""What a run makes for others to see: the mark that is put into it, and the signed metadata that names the run."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from afresh.core import UserError
from afresh.core.plugins import parts
from afresh.core.results import SIDECAR, ResultHook, finished_files
from afresh.core.verb import Result, Verb
from afresh.data.preferences import preferences
from afresh.data.storage.secret import secret, secret_for
from afresh.runs.content_hash import content_hash
from afresh.runs.kept_encoders import keep_encoder
from afresh.runs.run import Run
from afresh.services.provenance.sign_work import signed_work
from afresh.services.provenance.work import Ingredient, work
from afresh.services.watermark.media import marked
from afresh.services.watermark.watermark import Watermark

if TYPE_CHECKING:
    from afresh.services.provenance.signer import Signer

HASH = "sha256:"  # before the content hash of a run
PURPOSE = b"afresh watermark"  # tells the key of marks from others that are derived from the user's secret
WORDS = frozenset({"prompt", "infill", "turns", "caption", "suffix"})  # the user's own words in a request


def watermark_key() -> bytes:
    """The key of this user's marks, 32 bytes. Its holder can find them, and make texts that seem to be marked.

    Raises UserError if the user's secret, which it is derived from, can be neither read nor made.
    """
    with or_without_marks():
        return hmac.digest(secret_for("works"), PURPOSE, "sha256")


@contextmanager
def or_without_marks() -> Iterator[None]:
    """Add to a UserError about keys how works are made without them."""
    try:
        yield
    except UserError as error:
        without = "Or make works without marks and signatures: set AFRESH_MARK_WORKS=false."
        raise UserError(f"{error} {without}", error.code) from error


def known_watermark_key() -> bytes | None:
    """The key of this user's marks, if it has ever been used."""
    try:
        found = secret()
    except OSError:
        return None
    return None if found is None else hmac.digest(found, PURPOSE, "sha256")


@dataclass(frozen=True)
class Credentials:
    """What the works of one run are marked and signed with: a hook on results (`afresh.core.results.ResultHook`).

    `run`: `sha256:` and its content hash (afresh.runs.content_hash), and `model` its name, which is a hint. `what`: the
    name of what it makes, and `medium` the one that several modalities share (`ItemKind.medium`).
    """

    run: str
    model: str
    family: str
    what: str
    medium: str | None = None

    @cached_property
    def signer(self) -> Signer:
        """The signer in force. Raises UserError if it cannot sign."""
        from afresh.services.provenance.signer import signer

        with or_without_marks():
            return signer()

    @cached_property
    def watermark(self) -> Watermark:
        """The watermark of texts."""
        return Watermark(watermark_key())

    def values(self, values: Sequence[Any], medium: str | None = None) -> list[Any]:
        """Images and sounds with a mark, which are of the run's medium unless another one is given; other values as
        they are."""
        return marked(medium or self.medium, values, self.watermark.key, self.payload)

    @property
    def payload(self) -> int:
        """The 32 bits that marks of images and sounds carry: the first of the run's hash."""
        return int(self.run.removeprefix(HASH)[:8], 16)

    def files(
        self, name: str, content: bytes, recipe: Mapping[str, Any], made_from: Sequence[Ingredient] = ()
    ) -> dict[str, bytes]:
        """A file, signed, with the statement that goes beside it where it has no room for one. Raises UserError as
        `work` does."""
        facts = work(
            run=self.run,
            model=self.model,
            family=self.family,
            medium=self.what,
            made=datetime.now(UTC),
            recipe=public(recipe),
            ingredients=tuple(made_from),
        )
        made = signed_work(content, name, facts, self.signer)
        return {name: made.content, **({} if made.sidecar is None else {name + SIDECAR: made.sidecar})}


def public(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as it travels with a work: of words that someone wrote, the SHA-256 alone."""
    out = dict[str, Any]()
    for name, value in recipe.items():
        if name in WORDS and value is not None:
            out[f"{name}_sha256"] = hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()
        elif value is not None:
            out[name] = json.loads(json.dumps(value, default=str))
    return out


def hooks_of(run: Run) -> tuple[ResultHook, ...]:
    """The hooks of plug-ins on the results of a run; none where works are not to be marked (`Run.marked`, and the
    user's preference `mark_works`). Raises UserError if works cannot be signed."""
    if not (run.marked and preferences().mark_works):
        return ()
    return tuple(part.load()(run) for part in parts("on_result"))


def credentials_of(run: Run) -> Credentials:
    """What works of a run are marked and signed with."""
    kind = run.encoder.kind
    digest = content_hash(run)
    if run.encoder.abilities.texts is not None:
        keep_encoder(run.path / "encoder", digest, run.path.name, run.record.modality)
    return Credentials(HASH + digest, run.path.name, run.record.family, kind.name, kind.medium)


def settings_of_works(run: Run, values: Mapping[str, Any]) -> Any:
    """`Run.settings` for what others may get to see: texts are marked while they are drawn."""
    settings = run.settings(values)
    marks = "watermark" in type(settings).model_fields and run.encoder.abilities.texts is not None
    if not marks or run.codec is not None or settings.watermark is not None:
        return settings
    if not (run.marked and preferences().mark_works):
        return settings
    return settings.model_copy(update={"watermark": credentials_of(run).watermark})


def signed_files(verb: Verb[Any, Any], run: Run, result: Result) -> dict[str, bytes]:
    """The files of a result by name, with the signed statements that go beside them where they are works."""
    hooks, out = hooks_of(run) if verb.works else (), dict[str, bytes]()
    for name, content in result.files().items():
        out |= finished_files(hooks, name, content, {"verb": verb.name})
    return out
