"""Where works come from: the signed metadata of a file, and the mark of this user's key in its content."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from afresh.bundles.download import Wanted, content_of, fetched, is_local, shown
from afresh.core import Encoder, UserError
from afresh.data.audio.sounds import SoundError, decode_sound, header
from afresh.data.image.images import ImageError, full_size_image, open_image
from afresh.provenance.formats import SIDECAR
from afresh.provenance.layers import Layer, Provenance, Status
from afresh.provenance.read import read, read_all
from afresh.provenance.sidecar import MOST_BYTES as MOST_SIDECAR
from afresh.runs.kept_encoders import KeptEncoder, kept_encoders
from afresh.sampling.credentials import known_watermark_key
from afresh.watermark.detection import watermark_test
from afresh.watermark.watermark import Watermark

FALSE_ALARMS = 1e-4  # of works without a mark, the share in which one is said to be found, at most
SURE = 0.99  # the probability that the payload is right, from which on it is said
MOST_TEXT = 1_000_000  # characters that are looked through
MOST_PIXELS = 1 << 24
MOST_SECONDS = 300.0  # of a sound, from its beginning
MOST_BYTES = 256 * 2**20  # of a file whose content is looked through
MOST_ENCODERS = 32  # that texts are read with, the newest first


def verify_works(path: Path) -> Iterator[Provenance]:
    """What each file that a path names says about where it comes from, as `read_all` finds it, with the marks that this
    user's key finds in images, sounds and texts. Raises UserError as `read_all` does."""
    marks = Marks()
    for found in read_all(path):
        yield marks.added(found, Path(found.name))


def verify_address(url: str) -> Provenance:
    """The same of a file on the web, and of the sidecar beside it. Raises UserError if it cannot be fetched, or is
    larger than 256 MiB."""
    local = is_local(url)
    with fetched(Wanted(url, local, MOST_BYTES)) as path:
        content = path.read_bytes()
    found = verify_work(content, shown(url))
    if any(layer.name == "manifest" for layer in found.layers):
        return found
    try:
        beside = content_of(Wanted(shown(url) + SIDECAR, local, MOST_SIDECAR))
    except UserError:  # most files have none
        return found
    return verify_work(content, shown(url), beside)


def verify_work(content: bytes, name: str, sidecar: bytes | None = None) -> Provenance:
    """The same of the content of a file of this name."""
    found = replace(read(content, sidecar), name=name)
    layer = Marks().layer(content, found)
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
                found.append((kept, kept.load()))
            except UserError:
                continue
        return found

    def added(self, found: Provenance, path: Path) -> Provenance:
        """What was found, with the mark in the content of the file."""
        if self.key is None or not path.is_file() or path.stat().st_size > MOST_BYTES:
            return found
        layer = self.layer(path.read_bytes(), found)
        return found if layer is None else replace(found, layers=(*found.layers, layer))

    def layer(self, content: bytes, found: Provenance) -> Layer | None:
        """The mark in the content of a file, if one is found."""
        if self.key is None:
            return None
        for look in (self.of_image, self.of_sound):
            try:
                return look(content)
            except (ImageError, SoundError, OSError, ValueError):
                continue
        texts = texts_in(content)
        return None if texts is None else self.of_texts(texts)

    def of_image(self, content: bytes) -> Layer | None:
        """The mark in an image file. Raises ImageError or OSError for what is none."""
        from afresh.watermark.images.evidence import image_evidence  # imports scipy, which a server does without

        assert self.key is not None
        with open_image(content) as image:
            if image.width * image.height > MOST_PIXELS:
                return None
        found = image_evidence(full_size_image(content).pixels, self.key)
        sure = math.prod(found.certainty) > SURE  # of all bits
        return found_layer("the pixels", found.p_value, found.payload if sure else None)

    def of_sound(self, content: bytes) -> Layer | None:
        """The mark in a sound file. Raises SoundError or OSError for what is none."""
        from afresh.watermark.sounds import sound_evidence

        assert self.key is not None
        head = header(content)
        sound = decode_sound(content, head.rate, min(head.channels, 2), MOST_SECONDS).sound
        found = sound_evidence(sound, self.key)
        return found_layer("the sound", found.p_value, found.payload)

    def of_texts(self, texts: Sequence[str]) -> Layer | None:
        """The likeliest mark in texts. Its p-value is that of the smallest one among all that were tested (Šidák
        1967)."""
        assert self.key is not None
        watermark = Watermark(self.key)
        tests = []
        for kept, encoder in self.encoders:
            reader = encoder.abilities.texts
            assert reader is not None
            for text in texts:
                evidence = watermark_test(reader.tokenizer.encode(text), watermark)
                tests.append((evidence.p_value, evidence.n, kept))
        if not tests:
            return None
        least, tokens, kept = min(tests, key=lambda t: t[0])
        p = -math.expm1(len(tests) * math.log1p(-least)) if least < 1 else 1.0
        if p > FALSE_ALARMS:
            return None
        of = f" of one of {len(texts):,} texts" if len(texts) > 1 else ""
        detail = f"the mark of your key in {tokens:,} tokens{of}, read as {kept.model} writes them"
        return Layer("mark", Status.MARKED, f"{detail}: p = {p:.2g}")


def found_layer(where: str, p_value: float, payload: int | None) -> Layer | None:
    """The layer of a mark in an image or a sound, which may carry the first 32 bits of the hash of its run; None if
    there is too little evidence."""
    if p_value > FALSE_ALARMS:
        return None
    run = "" if payload is None else f", of a run whose hash begins with {payload:08x}"
    return Layer("mark", Status.MARKED, f"the mark of your key in {where}{run}: p = {p_value:.2g}")


def texts_in(content: bytes) -> list[str] | None:
    """The texts in a file: those of samples.jsonl, or the file itself; None for what is not text. Of longer ones, the
    beginning."""
    try:
        text = content[: 4 * MOST_TEXT].decode()
    except UnicodeDecodeError:
        return None
    if "\0" in text:
        return None
    lines = text.splitlines()
    try:
        records = [json.loads(line) for line in lines if line.strip()]
        texts = [record["text"] for record in records]
        if texts and all(isinstance(t, str) for t in texts):
            return texts
    except (ValueError, KeyError, TypeError):
        pass
    return [text[:MOST_TEXT]] if text.strip() else None
