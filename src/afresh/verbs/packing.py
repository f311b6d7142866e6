"""The verb `pack`: which files of a run are shared, and what is signed with them."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from afresh import __version__
from afresh.core import UserError
from afresh.core.plural import counted
from afresh.core.safe_text import with_texts
from afresh.core.verb import Line, ShownResult
from afresh.data.storage.folders import check_free
from afresh.engine.training import checkpoint
from afresh.engine.training.weights import CHOSEN, EARLY, FITTED
from afresh.runs.about import read_report
from afresh.runs.content_hash import READ
from afresh.runs.formats.model_card import shared_name
from afresh.runs.lock import held
from afresh.runs.manifest import FILE as MANIFEST
from afresh.runs.manifest import LABEL, RECORD, REPORTED, files_of, manifest_faults, read_manifest
from afresh.runs.record import BaseLicence, RunRecord
from afresh.runs.run import Run
from afresh.services.bundles.open import Bundle, checked
from afresh.services.bundles.pack import File, pack_files
from afresh.services.collect.licences import NO_ADVICE
from afresh.services.collect.record import UNKNOWN
from afresh.services.labels.run_label import canonical, label_of
from afresh.services.provenance.certificates import fingerprint
from afresh.services.provenance.signer import signer
from afresh.verbs.licence_table import licence_table
from afresh.verbs.sharing_licence import check_release

WEIGHTS = tuple(f"{name}.{suffix}" for name in (EARLY, CHOSEN, FITTED) for suffix in ("safetensors", "sha256", "json"))
SHARED = (*READ, LABEL, "adapter", "metrics.jsonl", *WEIGHTS)
TEXTS = (".json", ".html", ".md")  # files that may name paths
LONG = re.compile(r"(~|[A-Za-z]:|\w+:/)?[/\\][^/\\]+[/\\].")  # a path from the root, or an address, in a folder
FOLDERS = re.compile(r"(?<![\w./:\\-])(?:~|[A-Za-z]:)?/(?:[^/\s\"'<>,;:]+/)+")  # the folders of a path from the root


@dataclass(frozen=True)
class Packed(ShownResult):
    """A bundle that was written, and the licences that the run stands under."""

    bundle: Bundle
    licence: str | None
    licences: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = field(default_factory=tuple)

    def __fspath__(self) -> str:
        return str(self.bundle.path)

    def json(self) -> dict[str, Any]:
        return {
            "bundle": str(self.bundle.path),
            "sha256": self.bundle.sha256,
            "bytes": self.bundle.size,
            "files": len(self.bundle.entries),
            "kind": self.bundle.kind,
            "licence": self.licence,
            "licences": list(self.licences),
            "signer": self.bundle.signer.fingerprint,
        }

    def lines(self) -> Sequence[Line]:
        bundle = self.bundle
        return [
            f"{bundle.path}: {counted(len(bundle.entries), 'file')}, {bundle.size:,} bytes",
            f"SHA-256 {bundle.sha256}",
            f"signed by {bundle.signer.name}, whose certificate is {bundle.signer.fingerprint}",
        ]


def pack_run(run: Run, target: Path, licence: str | None, accept: Sequence[str], force: bool) -> Packed:
    """Write a run into a bundle. Raises UserError as the verb does."""
    if run.record.personal:
        raise UserError(
            f"{run.path} is the adapter of a person, which is nothing without the weights of its base. Write it for "
            f"other programs: `model.export('hub-folder')`; or pack its base, {run.base.path}.",
            "personal",
        )
    accept = [accept] if isinstance(accept, str) else list(accept)
    wanted = check_release(run.path, run.record, licence, accept, published=True)
    check_free(target, force)
    if target.is_dir():
        raise UserError(f"{target} is a folder. Name the file to write: `out=FILE`.", "output_exists")
    with held(run.path, "packed"):
        if faults := manifest_faults(run.path):
            raise UserError(f"{run.path} is not shared, because it is damaged: {'; '.join(faults[:3])}.", "damaged")
        files = files_of_run(run, wanted)
        table = licence_table(run.record, wanted)
        facts = facts_of(run, wanted, accept, table.json())
        kind = "model" if run.record.lora is None else "adapter"
        pack_files(files, run.path.resolve().name, target, kind, facts)
    notes = []
    if wanted is None or wanted == UNKNOWN:
        notes.append("no licence is stated, so others may do nothing with it: give one with `licence`")
    if read_report(run.path).verdict is None:
        notes.append("it was not measured: `model.measure()` adds a report with scores and a verdict")
    if any(row["duties"] for row in table.json()):
        notes.append(f"licences of its data ask for {_asked(table.json())}. {NO_ADVICE}")
    return Packed(checked(target), wanted, table.json(), notes)


def _asked(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(dict.fromkeys(word for row in rows for word in row["duties"]))


def facts_of(
    run: Run, licence: str | None, accepted: Sequence[str], licences: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What is signed of a run besides its files."""
    record, report = run.record, read_report(run.path)
    return {
        "afresh": __version__,
        "title": run.path.resolve().name,
        **record.model_dump(include={"modality", "family", "parameters"}),
        "licence": licence,
        "licences": [dict(row) for row in licences],
        "accepted": list(accepted),
        "base_model": None if record.base_model is None else shared_name(record.base_model),
        "scores": report.quality,
        "verdict": (report.verdict or {}).get("word"),
    }


# --------------------------------------------------------------------------- the files


def files_of_run(run: Run, licence: str | None) -> dict[str, File]:
    """The files of a run that are shared, by name, with lists of hashes that fit them. Raises UserError if there is no
    intact checkpoint."""
    folder, record = run.path, shared_record(run, licence)
    files: dict[str, File] = {name: folder / name for name in files_of(folder, SHARED)}
    files[LABEL] = canonical(label_of(run, licence=licence))
    files[RECORD] = _json(record.model_dump(mode="json"))
    hidden = _private(run)
    files |= {name: folder / name for name in files_of(folder, REPORTED)}
    for name in [n for n in files if n.endswith(TEXTS)] if hidden else ():
        files[name] = _without(files[name], hidden)
    # The list of a run holds all but checkpoints, which have their own. What is shared as it is has been checked.
    known = read_manifest(folder) or {}
    sums = {n: known[n] if isinstance(f, Path) and n in known else _sha256(f) for n, f in sorted(files.items())}
    files[MANIFEST] = "".join(f"{digest}  {name}\n" for name, digest in sums.items()).encode()
    return files | checkpoint_files(run)


def checkpoint_files(run: Run) -> dict[str, File]:
    """The newest intact checkpoint without what only training needs."""
    root = run.path / "checkpoints"
    name = next((n for n in reversed(checkpoint.steps_in(root)) if not checkpoint.check(root / n)), None)
    if name is None:
        raise run.no_checkpoint()
    wanted = ("model.safetensors", "ema.safetensors", "state.json")  # in this order: the list of hashes ends so
    sums = {n: digest for n, digest in checkpoint.sums_of(root / name).items() if n in wanted}
    place = f"checkpoints/{name}"
    files: dict[str, File] = {f"{place}/{n}": root / name / n for n in sums}
    files[f"{place}/{checkpoint.SUMS}"] = "".join(f"{digest}  {n}\n" for n, digest in sums.items()).encode()
    return {**files, "latest": f"{name}\n".encode()}


def shared_record(run: Run, licence: str | None) -> RunRecord:
    """The record of a run as others get it: with the licence that its maker shares it under, which also counts for what
    is made from it, and without the folders of this machine, queries of data bases and votes."""
    record = run.record
    values = record.model_dump(mode="json")
    data, align = values["data"], values["align"]
    for part, key in ((data, "path"), (data, "validation"), (align, "preferences"), (values, "base_model")):
        if part is not None and part[key] is not None:
            part[key] = shared_name(part[key]) if key == "base_model" else _last(part[key])
    data["options"].pop("query", None)
    if align is not None:
        align["folder"] = None
    if record.licence is None or record.licence.licence != (licence or UNKNOWN):
        name, maker = run.path.resolve().name, fingerprint(signer().chain[0])
        own = BaseLicence(name=name, licence=licence or UNKNOWN, said_by="its maker", maker=maker)
        values["licence"] = own.model_dump(mode="json")
    hidden = _private(run)

    def without_folders(text: str) -> str:
        for path, name in hidden.items():
            text = text.replace(path, name)
        return FOLDERS.sub("", text)

    return RunRecord.model_validate(with_texts(values, without_folders))


def _private(run: Run) -> dict[str, str]:
    """The paths of this machine that a run names, the longest first, each with what is written in its place."""
    record, align = run.record, run.record.align
    paths = [str(run.path), str(run.path.resolve()), record.data.path, record.data.validation, record.base_model]
    paths += [] if align is None else [align.preferences, align.folder]
    found = {p: _last(p) for p in paths if p is not None and LONG.match(p)}
    return dict(sorted(found.items(), key=lambda pair: -len(pair[0])))


def _last(path: str) -> str:
    """The last part of a path or an address."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1].partition("?")[0] or "data"


def _without(file: File, hidden: Mapping[str, str]) -> File:
    """The file, or its content if that names one of the hidden paths, with a name in its place."""
    if isinstance(file, bytes):
        return file
    content = shared = file.read_bytes()
    for path, name in hidden.items():
        for written in (path, json.dumps(path)[1:-1], html.escape(path)):
            shared = shared.replace(written.encode(), name.encode())
    return file if shared == content else shared


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _sha256(file: File) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
