"""The credentials of works: the mark that is put into their content, and the signed metadata that names their run."""

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
from afresh.data.storage.secret import secret, secret_for
from afresh.services.provenance.formats import SIDECAR
from afresh.services.provenance.sign_work import Signed, signed_work
from afresh.services.provenance.work import Ingredient, Work, work
from afresh.services.watermark.media import marked
from afresh.services.watermark.watermark import Watermark

if TYPE_CHECKING:
    from afresh.services.provenance.signer import Signer

HASH = "sha256:"  # before the content hash of a run
PURPOSE = b"afresh watermark"  # tells the key of marks from others that are derived from the user's secret
WORDS = frozenset({"prompt", "infill", "turns", "caption", "suffix"})  # parts of a request that somebody wrote


def watermark_key() -> bytes:
    """The key of this user's marks, 32 bytes. Whoever has it can find them, and make texts that seem to be marked.

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
    """What the works of one run are marked and signed with.

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

    def marked(self, values: Sequence[Any], medium: str | None = None) -> list[Any]:
        """Images and sounds with a mark, which are of the run's medium unless another one is given; other values as
        they are."""
        return marked(medium or self.medium, values, self.watermark.key, self.payload)

    @property
    def payload(self) -> int:
        """The 32 bits that marks of images and sounds carry: the first of the run's hash."""
        return int(self.run.removeprefix(HASH)[:8], 16)

    def facts(self, recipe: Mapping[str, Any], ingredients: Sequence[Ingredient] = ()) -> Work:
        """The facts of a work that was made just now. Raises UserError as `work` does."""
        return work(
            run=self.run,
            model=self.model,
            family=self.family,
            medium=self.what,
            made=datetime.now(UTC),
            recipe=public(recipe),
            ingredients=tuple(ingredients),
        )

    def signed(
        self, content: bytes, name: str, recipe: Mapping[str, Any], ingredients: Sequence[Ingredient] = ()
    ) -> Signed:
        """The content of a file of this name, signed."""
        return signed_work(content, name, self.facts(recipe, ingredients), self.signer)

    def signed_files(self, files: Mapping[str, bytes], recipe: Mapping[str, Any]) -> dict[str, bytes]:
        """Files by name, signed, with those that go beside them."""
        out = dict[str, bytes]()
        for name, content in files.items():
            made = self.signed(content, name, recipe)
            out[name] = made.content
            if made.sidecar is not None:
                out[name + SIDECAR] = made.sidecar
        return out


def public(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe as it travels with a work: of words that somebody wrote, the SHA-256 alone."""
    out = dict[str, Any]()
    for name, value in recipe.items():
        if name in WORDS and value is not None:
            out[f"{name}_sha256"] = hashlib.sha256(json.dumps(value, ensure_ascii=False).encode()).hexdigest()
        elif value is not None:
            out[name] = json.loads(json.dumps(value, default=str))
    return out
