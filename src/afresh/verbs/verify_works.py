"""Where works come from: the signed metadata of a file, and the mark of this user's key in its content."""

from __future__ import annotations

import codecs
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

from afresh.core import Encoder, UserError
from afresh.core.plural import counted
from afresh.core.results import SIDECAR
from afresh.core.solver_progress import step
from afresh.data.audio.sounds import decode_sound, header
from afresh.data.files import FileError
from afresh.data.image.images import TooManyPixels, full_size_image, open_image
from afresh.runs.kept_encoders import KeptEncoder, kept_encoders
from afresh.runs.works import known_watermark_key
from afresh.services.bundles.download import Wanted, content_of, fetched, is_local, shown
from afresh.services.bundles.open import DAMAGED, UNSIGNED, Entry, checked
from afresh.services.provenance.formats import media_type
from afresh.services.provenance.layers import Layer, Provenance, Status
from afresh.services.provenance.read import read, read_all
from afresh.services.provenance.sidecar import MOST_BYTES as MOST_SIDECAR
from afresh.services.watermark.detection import watermark_test
from afresh.services.watermark.watermark import Watermark

FALSE_ALARMS = 1e-4  # of works without a mark, the share in which one is said to be found, at most
LEAST_P = 1e-300
SURE = 0.99  # the probability that the payload is right, from which on it is said
MOST_TEXT = 1 << 18  # characters that are looked through, in all texts of a file and with all encoders: about a second
EACH_TEXT = 300  # characters that take as long as testing a text takes beside its length
MOST_PIXELS = 1 << 24
MOST_SECONDS, MOST_RATE = 300.0, 48_000  # of a sound, from its beginning; a higher rate is lowered to this one
MOST_BYTES = 256 * 2**20  # of a file whose content is looked through
MOST_ENCODERS = 32  # that texts are read with, the newest first


def verify_works(path: Path) -> Iterator[Provenance]:
    """What each file that a path names says about where it comes from, as `read_all` finds it, with the marks that this
    user's key finds in images, sounds and texts; of a bundle whether it is whole, by whom it is signed, and the same of
    the signed works in it. Raises UserError as `read_all` does."""
    marks = Marks()
    for found in read_all(path):
        in_bundle = bundled(Path(found.name), found.name)
        if in_bundle:
            yield replace(in_bundle[0], layers=(*in_bundle[0].layers, *found.layers))
            yield from in_bundle[1:]
        else:
            yield marks.added(found, Path(found.name))


def verify_address(url: str) -> list[Provenance]:
    """The same of a file on the web, and of the sidecar beside it. Raises UserError if it cannot be fetched, or is
    larger than 256 MiB."""
    local = is_local(url)
    with fetched(Wanted(url, local, MOST_BYTES)) as path:
        if in_bundle := bundled(path, shown(url)):
            return in_bundle
        content = path.read_bytes()
    found = verify_work(content, shown(url))
    if any(layer.name == "manifest" for layer in found.layers):
        return [found]
    try:
        beside = content_of(Wanted(shown(url) + SIDECAR, local, MOST_SIDECAR))
    except UserError:  # most files have none
        return [found]
    return [verify_work(content, shown(url), beside)]


def bundled(path: Path, called: str) -> list[Provenance]:
    """What a bundle says about itself, and then the findings of the signed works in it; nothing for another file."""
    try:
        bundle = checked(path, called)
    except UserError as error:
        damaged = Layer("bundle", Status.DAMAGED, str(error).replace(called, "the bundle", 1))
        return [Provenance(called, (damaged,))] if error.code in (DAMAGED, UNSIGNED) else []
    known = {"you": "you", "known": "who is known here", "unknown": "who is not known here"}[bundle.signer.whose]
    status = Status.UNKNOWN if bundle.signer.whose == "unknown" else Status.VALID
    files = f"{counted(len(bundle.entries), 'file')} with {bundle.bytes:,} bytes"
    detail = f"a bundle of the {bundle.kind} {bundle.name}: {files}, unchanged since {bundle.signer.name} ({known})"
    layer = Layer("bundle", status, f"{detail} packed it on {bundle.made:%Y-%m-%d}", bundle.signer)
    works, entries = [Provenance(called, (layer,))], {entry.name: entry for entry in bundle.entries}
    with path.open("rb") as stream:

        def content(entry: Entry) -> bytes:
            stream.seek(entry.place)
            return stream.read(entry.size)

        for entry in bundle.entries:
            beside = entries.get(entry.name + SIDECAR)
            if entry.size <= MOST_BYTES and (beside is not None or media_type(entry.name) is not None):
                sidecar = content(beside)[: MOST_SIDECAR + 1] if beside is not None else None
                found = read(content(entry), sidecar)
                works += [replace(found, name=f"{called}: {entry.name}")] if found.layers else []
    return works


def verify_work(content: bytes, name: str, sidecar: bytes | None = None) -> Provenance:
    """The same of the content of a file of this name."""
    found = replace(read(content, sidecar), name=name)
    layer = Marks().layer(content)
    return found if layer is None else replace(found, layers=(*found.layers, layer))


class Marks:
    """Looks for the marks of this user's key, if there is one, in files one after the other."""

    @cached_property
    def key(self) -> bytes | None:
        return known_watermark_key()

    @cached_property
    def encoders(self) -> list[tuple[KeptEncoder, Encoder]]:
        """The encoders of runs that have written texts here, the newest first; damaged ones are left out."""
        found = list[tuple[KeptEncoder, Encoder]]()
        for kept in kept_encoders():
            if len(found) == MOST_ENCODERS:
                break
            try:
                found.append((kept, loaded(kept)))
            except UserError:
                continue
        return found

    def added(self, found: Provenance, path: Path) -> Provenance:
        """What was found, with the mark in the content of the file, unless it cannot be read."""
        if self.key is None:
            return found
        try:
            if not path.is_file():
                return found
            size = path.stat().st_size
            why = f"it has {size:,} bytes"
            layer = self.layer(path.read_bytes()) if size <= MOST_BYTES else not_looked(why, MOST_BYTES)
        except OSError:
            return found
        return found if layer is None else replace(found, layers=(*found.layers, layer))

    def layer(self, content: bytes) -> Layer | None:
        """The mark in the content of a file, if one is found, or why it was not looked for; None without one."""
        if self.key is None:
            return None
        for done, look in enumerate((self.of_image, self.of_sound)):
            step(done, 3)
            try:
                return look(content)
            except (FileError, OSError, ValueError):
                continue
        texts, whole = texts_in(content)
        return self.of_texts(texts, whole) if texts else None

    def of_image(self, content: bytes) -> Layer | None:
        """The mark in an image file. Raises FileError or OSError for anything else."""
        from afresh.services.watermark.images.evidence import (
            image_evidence,  # imports scipy, which a server does without
        )

        assert self.key is not None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # about sizes, which are looked at here
            try:
                with open_image(content) as image:
                    pixels = image.width * image.height
            except TooManyPixels as error:
                pixels = error.pixels
            if pixels > MOST_PIXELS:
                return not_looked(f"it has {pixels:,} pixels", MOST_PIXELS)
            decoded = full_size_image(content).pixels
        found = image_evidence(decoded, self.key)
        sure = math.prod(found.certainty) > SURE  # of all bits
        return found_layer("the pixels", found.p_value, found.payload if sure else None)

    def of_sound(self, content: bytes) -> Layer | None:
        """The mark in a sound file. Raises FileError or OSError for anything else."""
        from afresh.services.watermark.sounds import sound_evidence

        assert self.key is not None
        head = header(content)
        sound = decode_sound(content, min(head.rate, MOST_RATE), min(head.channels, 2), MOST_SECONDS).sound
        found = sound_evidence(sound, self.key)
        return found_layer("the sound", found.p_value, found.payload)

    def of_texts(self, texts: Sequence[str], whole: bool = True) -> Layer | None:
        """The likeliest mark in texts; the first are tested, as time allows, or of a long one the
        beginning. Its p-value is that of the smallest one among all that were tested (Šidák 1967). `whole`: whether
        these are all of a file."""
        assert self.key is not None
        if not self.encoders:
            return None
        watermark, tests, left, tested = Watermark(self.key), [], MOST_TEXT // len(self.encoders), 0
        for text in texts:
            if left <= EACH_TEXT:
                whole = False
                break
            part = text[: left - EACH_TEXT]
            whole, left, tested = whole and part == text, left - EACH_TEXT - len(part), tested + len(part)
            for kept, encoder in self.encoders:
                step(tested, MOST_TEXT)
                reader = encoder.abilities.texts
                assert reader is not None
                evidence = watermark_test(reader.tokenizer.encode(part), watermark)
                tests.append((evidence.p_value, evidence.n, kept))
        least, tokens, kept = min(tests, key=lambda t: t[0])
        p = -math.expm1(len(tests) * math.log1p(-least)) if least < 1 else 1.0
        if p > FALSE_ALARMS:
            untested = f"no mark of your key in its first {tested:,} characters; what follows was not tested"
            return None if whole else Layer("mark", Status.NOTHING, untested)
        of = f" of one of {len(texts):,} texts" if len(texts) > 1 else ""
        detail = f"the mark of your key in {tokens:,} tokens{of}, read as {kept.model} writes them"
        return Layer("mark", Status.MARKED, f"{detail}: {p_words(p)}")


@lru_cache(MOST_ENCODERS)
def loaded(kept: KeptEncoder) -> Encoder:
    """A kept encoder, which never changes. Raises UserError if it is damaged."""
    return kept.load()


def not_looked(why: str, most: int) -> Layer:
    return Layer("mark", Status.NOTHING, f"the mark was not looked for: {why}, and at most {most:,} are looked through")


def p_words(p: float) -> str:
    """A p-value in words; one that floating point cannot tell from 0 is given by its bound."""
    return f"p = {p:.2g}" if p >= LEAST_P else f"p < {LEAST_P:.0e}"


def found_layer(where: str, p_value: float, payload: int | None) -> Layer | None:
    """The layer of a mark in an image or a sound, which may carry the first 32 bits of the hash of its run; None if
    there is too little evidence."""
    if p_value > FALSE_ALARMS:
        return None
    run = "" if payload is None else f", of a run whose hash begins with {payload:08x}"
    return Layer("mark", Status.MARKED, f"the mark of your key in {where}{run}: {p_words(p_value)}")


def texts_in(content: bytes) -> tuple[list[str], bool]:
    """The texts in a file: those of samples.jsonl, or the file itself, none for what is not text; and whether these are
    all of it. Of longer ones there is the beginning."""
    most = 4 * MOST_TEXT
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(content[:most], len(content) <= most)
    except UnicodeDecodeError:
        return [], True
    if "\0" in text or not text.strip():
        return [], True
    lines, whole = text.splitlines(), len(content) <= most
    if not whole and len(lines) > 1:
        del lines[-1]  # it is cut off
    try:
        texts = [json.loads(line)["text"] for line in lines if line.strip()]
        if all(isinstance(t, str) for t in texts):
            return texts, whole
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return [text], whole
