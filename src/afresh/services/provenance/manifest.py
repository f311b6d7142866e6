"""The layer `manifest`: a manifest of C2PA within a file, checked by the library, offline."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, BinaryIO

from c2pa import C2paError, Reader

from afresh.services.provenance import library
from afresh.services.provenance.certificates import time_fault
from afresh.services.provenance.containers import manifest_in
from afresh.services.provenance.cose import signer_of
from afresh.services.provenance.jumbf import Box, JumbfError, store_in
from afresh.services.provenance.layers import Layer, Origin, Status
from afresh.services.provenance.sidecar import SidecarError, opened, origins_of
from afresh.services.provenance.trusted import Trusted
from afresh.services.provenance.work import FACTS, GENERATED, Ingredient, work_of

NAME = "manifest"
MOST_ORIGINS = 100  # of a chain of edits
CONTENT = ("assertion.dataHash.mismatch", "assertion.boxesHash.mismatch", "assertion.boxesHash.unknownBox",
           "assertion.bmffHash.mismatch", "assertion.collectionHash.mismatch")  # fmt: skip
# What is said about a signer, and not about what is signed.
UNTRUSTED = ("signingCredential.untrusted",)  # by the library, which is not asked
TIME = ("signingCredential.expired", "claimSignature.outsideValidity")
STAMP = ("timeStamp.mismatch", "timeStamp.malformed")  # a damaged one; one of an unknown authority does not count
CREDENTIAL = ("signingCredential.invalid", "signingCredential.ocsp.revoked", "signingCredential.ocsp.unknown")
OF_SIGNER = (*UNTRUSTED, *TIME, *CREDENTIAL)


def manifest_layer(stream: BinaryIO, trusted: Trusted) -> Layer | None:
    """What the manifest in a file says; None without one."""
    try:
        found = manifest_in(stream)
        if found is None:
            return None
        store = store_in(found[1])
        stream.seek(0)
        # The library gets the manifest that was found here, so that it cannot find another one.
        with library.reading(trusted.authorities) as context, Reader(found[0], stream, found[1], context) as reader:
            said = json.loads(reader.json())
        return _layer(said, store, trusted)
    except (C2paError, ValueError) as error:
        why = str(error)
    except (KeyError, TypeError, AttributeError):
        why = "it is not built as C2PA says"
    return Layer(NAME, Status.DAMAGED, f"the manifest is damaged: {why}")


def _layer(said: Mapping[str, Any], store: Box, trusted: Trusted) -> Layer:
    manifests: dict[str, Any] = said["manifests"]
    active = said["active_manifest"]
    if store.boxes[-1].label != active:
        raise JumbfError("its last manifest is not the one that counts")
    chain = [signer_of(box) for box in store.boxes][-1]
    results = said["validation_results"]["activeManifest"]
    said_wrong = [*results["failure"], *(i for i in results["informational"] if i["code"] in STAMP)]
    failures = [(f["code"], f.get("explanation") or f["code"]) for f in said_wrong]
    # Of what the work was made from: only what is worse now than when the work was signed, apart from its signer.
    deltas = said["validation_results"].get("ingredientDeltas") or []
    worse = [f for d in deltas for f in d["validationDeltas"]["failure"] if f["code"] not in OF_SIGNER]
    failures += [("ingredient", f.get("explanation") or f["code"]) for f in worse]
    signer = trusted.signed_by(chain)
    # Without a time that a known authority vouches for, a certificate counts only while it is valid.
    stamped = any(s["code"] == "timeStamp.trusted" for s in results["success"])
    time = datetime.fromisoformat(manifests[active]["signature_info"]["time"]) if stamped else None
    late = time_fault(chain[0], time)
    origins = tuple(_origins(manifests, active))
    codes = {code for code, _ in failures}
    rest = [text for code, text in failures if code not in (*CONTENT, *OF_SIGNER)]
    if rest:
        status, detail = Status.DAMAGED, f"the manifest is not what was signed: {rest[0]}"
    elif codes & set(CONTENT):
        status = Status.CHANGED
        detail = f"changed since {signer.name} signed it, or the manifest is that of another file"
    else:
        late = late or ("it was not valid at the time of signing" if codes & set(TIME) else None)
        unfit = next((text for code, text in failures if code in CREDENTIAL), None)
        status, detail = trusted.standing(signer, late, unfit)
    return Layer(NAME, status, detail, signer, time, origins)


def _origins(manifests: Mapping[str, Any], label: str) -> list[Origin]:
    """The origins of a manifest's work and of what it was made from, nearest first."""
    out: list[Origin] = []
    waiting: list[tuple[str | None, str | None, tuple[str, ...]]] = [(None, label, ())]
    seen: set[str] = set()
    while waiting and len(out) < MOST_ORIGINS:
        title, current, wrong = waiting.pop(0)
        if current is None or current not in manifests:
            out.append(Origin(title, "", False, None, wrong))
            continue
        if current in seen:
            continue
        seen.add(current)
        manifest = manifests[current]
        assertions = manifest.get("assertions", [])
        work = next((work_of(a["data"]) for a in assertions if a["label"] == FACTS), None)
        actions = [x for a in assertions if a["label"].startswith("c2pa.actions") for x in a["data"]["actions"]]
        generated = any(x.get("digitalSourceType", "").endswith(GENERATED.rpartition("/")[2]) for x in actions)
        info = (manifest.get("claim_generator_info") or [{}])[0]
        generator = " ".join(str(info[k]) for k in ("name", "version") if k in info)
        out.append(Origin(title or manifest.get("title"), generator, generated, work, wrong))
        stated = [] if work is None else [i for i in work.ingredients if i.statement is not None]
        out += [origin for one in stated for origin in _stated(one)]
        with_statement = {one.title for one in stated}
        for one in manifest.get("ingredients", []):
            if one.get("title") in with_statement:
                continue
            results = (one.get("validation_results") or {}).get("activeManifest", {}).get("failure", [])
            faulty = tuple(f["code"] for f in results if f["code"] not in UNTRUSTED)
            waiting.append((one.get("title"), one.get("active_manifest"), faulty))
    return out


def _stated(one: Ingredient) -> list[Origin]:
    """What the sidecar of an ingredient says about it and about what that was made from."""
    try:
        payload, _, statements = opened(one.statement)
    except SidecarError as error:
        return [Origin(one.title, "", False, None, (str(error),))]
    if payload.sha256 != one.sha256:
        return [Origin(one.title, "", False, None, ("its sidecar is that of another file",))]
    first, *rest = origins_of(payload, statements)
    return [replace(first, title=one.title), *rest]
