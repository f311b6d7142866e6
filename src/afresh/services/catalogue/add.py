"""Put something into a catalogue, give it a price, and take it down.

What a listing shows of itself: a small picture of an image or of the wave of a sound, or the beginning of a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from afresh.core import UserError
from afresh.core.money import parse_money
from afresh.core.safe_json import faults
from afresh.data.storage.files import replace_file
from afresh.runs.about import REPORT, previews, read_report
from afresh.services.bundles.layout import BLOCK, size_of_signature
from afresh.services.bundles.open import checked
from afresh.services.catalogue.folder import Catalogue, copy_file, digest
from afresh.services.catalogue.listing import Bundle, Listing, Parent, Quality, id_of
from afresh.services.collect.licences import normalised
from afresh.services.collect.record import UNKNOWN

if TYPE_CHECKING:
    from afresh.verbs.labelling import Format
import io

from PIL import Image

from afresh.core.safe_text import visible
from afresh.data.audio import SUFFIXES as SOUNDS
from afresh.data.audio.sounds import read_sound
from afresh.data.audio.views import sound_image
from afresh.data.files import FileError
from afresh.data.image import SUFFIXES as IMAGES
from afresh.data.image.images import full_size_image, to_image
from afresh.services.catalogue.listing import Preview

FREE = "free"
LABELS: Mapping[str, Format] = {"card.md": "card", "label.json": "label", "cdx.json": "cyclonedx"}
OWN_WORDS = 4  # from which on a licence that SPDX does not know is a text


def add(
    catalogue: Catalogue,
    file: Path,
    *,
    kind: str,
    licence: str,
    title: str = "",
    id: str = "",
    price: str | None = None,
    link: str | None = None,
    preview: Path | None = None,
    run: Path | None = None,
    parents: Sequence[str] = (),
    **texts: str,
) -> Listing:
    """Add a file to a catalogue. An id that exists already gets the new file and facts, and keeps what is not given.

    run: the run that the file is a bundle of, for its measured quality, its label and its preview, or that made a work,
    for the lineage of that. parents:
    `ID_OR_SHA256` or `ID_OR_SHA256=PERCENT`, the share of each payment that is due to it. texts: summary, terms, maker,
    safety. Raises UserError for facts that are not valid, a licence that is not an expression of SPDX or not that of a
    bundle, and a circular lineage.
    """
    if not file.is_file():
        raise UserError(f"No file {file}. Give the file that is to be delivered.", "no_file")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", file.name).lstrip(".-")[-200:] or "file"
    licence, texts["terms"] = own_terms(licence, texts.get("terms", ""))
    check_licence(file, licence)
    with catalogue.changing():
        id = id or id_of(title or file.stem)
        old = catalogue.listing(id) if catalogue.has(id) else None
        facts: dict[str, Any] = {} if old is None else old.model_dump()
        facts |= {"id": id, "kind": kind, "licence": licence, "removed": None, **{k: v for k, v in texts.items() if v}}
        facts["title"] = title or facts.get("title") or file.stem
        facts["added"] = facts.get("added") or datetime.now(UTC).replace(microsecond=0)
        facts["maker"] = facts.get("maker") or catalogue.settings.maker
        facts["bundle"] = Bundle(name=name, size=file.stat().st_size, sha256=digest(file))
        if parents:
            facts["parents"] = [parent_of(text) for text in parents]
        facts |= {} if price is None else {"price": price_of(price)}
        facts |= {} if link is None else {"link": link}
        work = kind == "work"
        stated, labels = ({}, {}) if run is None else facts_of_run(run, licence, file if work else None)
        facts |= stated
        listing = validated(facts)
        shown = preview or next(reversed([] if run is None or work else previews(run)), None) or file
        if (seen := preview_of(shown, given=preview is not None or shown != file)) is not None:
            found, thumb = seen
            if thumb is not None:
                found = found.model_copy(update={"thumbnail": f"{id}.webp"})
                replace_file(catalogue.folder / "previews" / f"{id}.webp", thumb)
            listing = listing.model_copy(update={"preview": found})
        for label, content in labels.items():
            replace_file(catalogue.label(listing, label), content)
        copy_file(file, catalogue.bundle(listing))
        catalogue.write(listing)
        catalogue.ledger.append("added", listing=id, sha256=listing.bundle.sha256, licence=licence)
    return listing


def add_run(catalogue: Catalogue, run: Path, *, licence: str, accept: Sequence[str] = (), **facts: Any) -> Listing:
    """Pack a run into a signed bundle and add that, as `export` does it: `accept` names what may stand against
    sharing it. The other facts are those of `add`."""
    from afresh.runs.run import Run
    from afresh.verbs.packing import pack_run

    with TemporaryDirectory(dir=catalogue.folder, prefix=".pack.") as aside:
        target = Path(aside) / f"{run.resolve().name}.bundle"
        licence, facts["terms"] = own_terms(licence, facts.get("terms") or "")
        packed = pack_run(Run.open(run), target, licence, accept, force=False)
        return add(catalogue, target, licence=licence, run=run, **{"kind": packed.bundle.kind, **facts})


def validated(facts: dict[str, Any]) -> Listing:
    try:
        return Listing.model_validate(facts)
    except ValidationError as error:
        raise UserError(f"A listing cannot have these facts: {faults(error)}.", "listing") from None


def own_terms(licence: str, terms: str) -> tuple[str, str]:
    """The licence as SPDX writes it, and the terms: a licence of one's own, of at least `OWN_WORDS` words, becomes
    LicenseRef-own and terms. Raises UserError as `spdx`."""
    try:
        return spdx(licence), terms
    except UserError:
        if len(licence.split()) < OWN_WORDS:
            raise
        return "LicenseRef-own", "\n\n".join(filter(None, (licence.strip(), terms)))


def spdx(licence: str) -> str:
    """The licence as SPDX writes it. Raises UserError for none: what is offered says what may be done with it."""
    found = normalised(licence)
    if found == UNKNOWN:
        raise UserError(
            f"{licence!r} states no licence. Give an expression of SPDX, as licence='CC-BY-4.0', or the text of a "
            "licence of your own.",
            "no_licence",
        )
    return found


def price_of(text: str) -> Any:
    return FREE if text.strip().casefold() == FREE else parse_money(text)


def parent_of(text: str) -> Parent:
    """A parent as it is typed. Raises UserError for a share that is not a percentage with at most two decimals."""
    of, _, share = text.partition("=")
    match = re.fullmatch(r"([0-9]{1,3})(?:\.([0-9]{1,2}))?%?", share or "0")
    points = -1 if match is None else int(match[1]) * 100 + int((match[2] or "").ljust(2, "0"))
    try:
        return Parent(of=of.strip(), share=points)
    except ValidationError:
        raise UserError(
            f"{text!r} names no parent: write the id of a listing or a SHA-256, and the share that is due to it as a "
            "percentage of up to 100 with at most two decimals, as in parent='sketches=12.5'.",
            "parent",
        ) from None


def check_licence(file: Path, licence: str) -> None:
    """Raises UserError if a file is a bundle whose maker shares it under another licence, or that is damaged."""
    with file.open("rb") as stream:
        if size_of_signature(stream.read(BLOCK)) is None:
            return
    stated = checked(file).facts.get("licence")
    if stated not in (None, UNKNOWN, licence):
        raise UserError(
            f"{file} is not offered under {licence}: the bundle was signed with the licence {stated}. Give "
            f"licence={stated}, or pack the run again if you made it.",
            "makers_licence",
        )


def facts_of_run(run: Path, licence: str, work: Path | None = None) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What a listing says of a run: its measured quality, and what its label says; or of a work that the run made what
    the label of the work says; and the files of that label. Raises UserError if it is not a run, or has no label
    yet."""
    from afresh.runs.run import Run
    from afresh.services.labels.words import rows_of
    from afresh.services.labels.work_label import label_of_work
    from afresh.verbs.labelling import in_form, labelled_run

    opened = Run.open(run)
    label = None if work is None else label_of_work(work, licence, opened)
    if label is None:
        made = {name: labelled_run(opened, format, licence) for name, format in LABELS.items()}
    else:
        made = {name: in_form(label, format, {}) for name, format in LABELS.items() if format != "card"}
    label = made["label.json"].label
    assert label is not None
    facts: dict[str, Any] = {"lineage": dict(rows_of(label)), "labels": tuple(made), "quality": None}
    if work is None:
        facts["quality"] = quality_of(run)
    return facts, {name: one.text.encode("utf-8", "backslashreplace") for name, one in made.items()}


def quality_of(run: Path) -> Quality | None:
    """The scores of a run's report with the card that says how they were measured; None if it was not measured."""
    report, keys = read_report(run), ("name", "value", "low", "high", "n", "better")
    if report.damaged:
        raise UserError(f"{run / REPORT} cannot be read. Measure the run again, or remove the file.", "damaged")
    scores = [{key: s[key] for key in keys if s.get(key) is not None} for s in report.scores]
    facts = {"verdict": (report.verdict or {}).get("sentence", ""), "scores": scores, "card": report.card}
    try:
        return Quality.model_validate(facts) if scores else None
    except ValidationError as error:
        raise UserError(f"{run / REPORT} is not the report of a run: {faults(error)}.", "damaged") from None


def set_price(catalogue: Catalogue, id: str, price: str, link: str | None = None, payment_link: str = "") -> Listing:
    """Give a listing a price, or `free`, and the link where it is bought; an earlier link goes, as it asks for another
    price. Raises UserError for a price that is none, or a link that is not an https address."""
    with catalogue.changing():
        old = catalogue.listing(id)
        given = price_of(price)
        kept = old.link if given == old.price else None
        new = validated({**old.model_dump(), "price": given, "link": link or kept, "payment_link": payment_link})
        catalogue.write(new)
        catalogue.ledger.append("priced", listing=id, price=new.model_dump(mode="json")["price"])
    return new


def take_down(catalogue: Catalogue, id: str, reason: str) -> Listing:
    """Stop offering and delivering a listing from now on, also to those who paid. Its files stay until they are removed
    by hand."""
    with catalogue.changing():
        old = catalogue.listing(id)
        new = validated({**old.model_dump(), "removed": reason})
        if not new.removed:
            raise UserError("Say why it is taken down: reason='...'.", "no_reason")
        catalogue.write(new)
        catalogue.ledger.append("removed", listing=id, sha256=old.bundle.sha256, reason=new.removed)
    return new


SIDE = 640, 480  # pixels that a thumbnail fits into
SECONDS = 60.0  # of a sound that are drawn
READ, SHOWN = 1 << 14, 700  # bytes of a text that are read, and characters of it that are shown


def preview_of(file: Path, given: bool = False) -> tuple[Preview, bytes | None] | None:
    """The preview of a file, without the name of its thumbnail, and that thumbnail (WebP) unless it is a text; None for
    a file of another kind.

    Raises UserError for a picture or a sound that cannot be read, and, if it was `given` as a preview, for other kinds.
    """
    suffix = file.suffix.casefold()
    if suffix in IMAGES:
        try:
            return Preview(kind="image"), thumbnail(to_image(full_size_image(file).pixels))
        except (FileError, OSError) as error:
            raise UserError(f"{file} cannot be shown: {error}. Give another preview.", "preview") from None
    if suffix in SOUNDS:
        sound = read_sound(file, rate=16_000, channels=1, max_seconds=SECONDS)
        return Preview(kind="sound"), thumbnail(Image.fromarray(sound_image(sound)))
    with file.open("rb") as stream:
        head = stream.read(READ)
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = error.start > len(head) - 4 and len(head) == READ  # in the middle of a character
        text = head[: error.start].decode("utf-8") if cut else "\0"
    if "\0" not in text and text.strip():
        shown = min(SHOWN, len(text) if given else file.stat().st_size // 3)  # what is sold is not shown whole
        return Preview(kind="text", excerpt=visible(text[:shown])), None
    if given:
        raise UserError(f"{file} cannot be shown: it is not a picture, sound or text. Give another preview.", "preview")
    return None


def thumbnail(image: Image.Image) -> bytes:
    """A picture as WebP that fits into SIDE. One of a few pixels is enlarged by a whole factor and stays sharp."""
    factor = min(SIDE[0] // image.width, SIDE[1] // image.height, 16)
    if factor > 1:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail(SIDE, Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=82, method=2)
    return stream.getvalue()
