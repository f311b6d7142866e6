"""The verb `get`: take a bundle from a file, an address or a catalogue. It is checked before anything of it is used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag

from afresh.core import UserError
from afresh.core.plural import counted
from afresh.core.verb import Line, ShownResult
from afresh.data.preferences import preferences
from afresh.data.storage.files import CANNOT_WRITE
from afresh.data.storage.folders import check_free, folder_aside, put_in_place
from afresh.engine.training import checkpoint
from afresh.runs.lock import held
from afresh.runs.manifest import FILE as MANIFEST
from afresh.runs.manifest import RECORD, REPORTED, manifest_faults, read_manifest
from afresh.runs.output_dir import check_output_dir, is_run
from afresh.runs.run import Run
from afresh.services.bundles.download import Wanted, fetched, is_local, shown
from afresh.services.bundles.layout import SIGNATURE, name_fault
from afresh.services.bundles.listing import Offer, bundle_of_file, catalogue_of, find, is_catalogue, is_url, place_of
from afresh.services.bundles.open import Bundle, check_signer, checked, damaged, unpack
from afresh.services.provenance.trusted import trust
from afresh.verbs.packing import SHARED

RUNS = ("model", "adapter")  # the kinds of bundles that are runs
OF_RUNS = frozenset((RECORD, MANIFEST, "latest", "checkpoints", *SHARED, *REPORTED))  # what they may hold


@dataclass(frozen=True)
class Received(ShownResult):
    """A bundle that was installed, and the folder that it is in, which stands for it where a path is expected."""

    folder: Path
    bundle: Bundle

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def notes(self) -> Sequence[str]:
        licence = self.bundle.facts.get("licence")
        if licence is None or licence == "unknown":
            return ["no licence is stated: ask its maker what you may do with it"]
        return [f"its licence is {licence}"]

    def json(self) -> dict[str, Any]:
        """{folder, kind, name, facts, signer, sha256, files, bytes}."""
        bundle = self.bundle
        return {
            "folder": str(self.folder),
            "kind": bundle.kind,
            "name": bundle.name,
            "made": bundle.made.isoformat(),
            "facts": bundle.facts,
            "signer": asdict(bundle.signer),
            "sha256": bundle.sha256,
            "files": len(bundle.entries),
            "bytes": bundle.bytes,
        }  # fmt: skip

    def lines(self) -> Sequence[Line]:
        count, signer = counted(len(self.bundle.entries), "file"), self.bundle.signer
        whose = {"you": "you", "known": f"{signer.name}, who is known here"}.get(signer.whose, signer.name)
        return [f"{self.folder}: {self.bundle.kind}, {count}, signed by {whose}"]


@dataclass(frozen=True)
class GetRequest:
    """What to get. source: a file, an address, or a catalogue, of which `listing` or the part after # names a listing.

    name: of the run in the folder of runs. out: the folder to make, for what is not a run. accepted: fingerprints of
    signers that are accepted for this once. force: whether a run, or an earlier bundle, in its place is replaced.
    """

    source: str
    listing: str | None = None
    name: str | None = None
    out: Path | None = None
    accepted: tuple[str, ...] = ()
    trust_signer: Path | None = None
    force: bool = False


def get(request: GetRequest) -> Received:
    """Fetch, check and install a bundle. Raises UserError, with nothing installed, if it cannot be fetched, is damaged,
    or is signed by someone who is neither known nor accepted, and if there is no room for it."""
    accepted = tuple(a.strip().lower().replace(":", "") for a in request.accepted)
    for one in accepted:
        if len(one) != 64 or set(one) - set("0123456789abcdef"):
            raise UserError(
                f"{one!r} is not a fingerprint: give all 64 hexadecimal digits of the certificate's SHA-256.",
                "fingerprint",
            )
    if request.trust_signer is not None:
        trust(request.trust_signer)
    with _bundle_of(request, accepted) as (path, called, offer):
        listed = None if offer is None else bundle_of_file(path, called, offer)
        bundle = listed or checked(path, called)
        if offer is not None and (bundle.kind, bundle.sha256, bundle.size) != (
            offer.listing.kind, offer.listing.sha256, offer.listing.size,
        ):  # fmt: skip
            raise damaged(
                called, f"it is not the {offer.listing.kind} that its catalogue lists as {offer.listing.id!r}"
            )
        check_signer(bundle, accepted)
        return Received(_installed(bundle, request), bundle)


@contextlib.contextmanager
def _bundle_of(request: GetRequest, accepted: tuple[str, ...]) -> Iterator[tuple[Path, str, Offer | None]]:
    """The path of a bundle on this machine, how messages name it, and the listing that it is of, if it is of one."""
    source, fragment = urldefrag(request.source) if is_url(request.source) else (request.source, "")
    if not is_url(source) and "#" in source and not Path(source).exists():
        source, _, fragment = source.partition("#")
    listing = request.listing or fragment or None
    place: Path | Wanted
    found = None
    if listing is not None or is_catalogue(source):
        catalogue = catalogue_of(source)
        found = find(catalogue, listing, accepted)
        place = place_of(found.listing, catalogue)
    else:
        place = Wanted(source, is_local(source)) if is_url(source) else Path(source)
    if isinstance(place, Path):
        yield place, str(place), found
        return
    with fetched(place) as path:
        yield path, shown(place.url), found


# --------------------------------------------------------------------------- installing


def _installed(bundle: Bundle, request: GetRequest) -> Path:
    of_run = bundle.kind in RUNS and bool(bundle.signature)
    if of_run:
        place = request.out or preferences().runs / _name(bundle, request.name)
        check_output_dir(place, request.force)
    elif request.out is None or request.name is not None:
        raise UserError(
            f"It is of the kind {bundle.kind}, and no run: give the folder to put it in, `out=DIR`, and no name.",
            "output",
        )
    else:
        place = request.out  # what is not a run is not looked into
        check_free(place, request.force)
    if (
        request.force
        and place.exists()
        and not (is_run(place) or (place / SIGNATURE).is_file())
        and any(place.iterdir())
    ):
        raise UserError(
            f"{place} is neither a run nor what an earlier bundle held, so it is not replaced. Choose another folder: "
            "`out=DIR`.",
            "output_not_empty",
        )
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with folder_aside(place) as aside:
            unpack(bundle, aside)
            if of_run:
                _check_run(aside, bundle)
            with held(place, "replaced") if is_run(place) else contextlib.nullcontext():
                put_in_place(aside, place, replace=place.exists())
    except OSError as error:
        raise UserError(
            f"{place} cannot be written: {error.strerror or error}. Nothing of it is left there: choose another "
            "folder.",
            CANNOT_WRITE,
        ) from error
    return place


def _name(bundle: Bundle, given: str | None) -> str:
    """The name of a run. Raises UserError if it is not one."""
    name = bundle.name if given is None else given
    if "/" in name or (why := name_fault(name)):
        reason = "it leads into another folder" if "/" in name else why
        raise UserError(f"{name!r} is not a name for a run: {reason}. Give another one: `name=NAME`.", "name")
    return name


def _check_run(folder: Path, bundle: Bundle) -> None:
    """Raises UserError for what does not hold the files of a run, those alone, and intact."""
    foreign = [e.name for e in bundle.entries if e.name.split("/")[0] not in OF_RUNS]
    if foreign:
        raise UserError(
            f"It is not installed: {foreign[0]} is not part of a shared run. Ask its maker for a bundle "
            "that `pack` writes.",
            "not_a_run",
        )
    run = Run.open(folder)
    faults = [] if read_manifest(folder) is not None else [f"it has no {MANIFEST}"]
    root = folder / "checkpoints"
    steps = checkpoint.steps_in(root)
    faults += manifest_faults(folder) + [f for name in steps for f in checkpoint.check(root / name)]
    if run.record.personal or not steps:
        faults.append("it is the adapter of a person" if run.record.personal else "it has no checkpoint")
    if faults:
        raise UserError(f"It is not installed, because the run in it is not whole: {'; '.join(faults[:3])}.", "damaged")
