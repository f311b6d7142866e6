"""A manifest of C2PA within a file: the content with the facts of the work, signed."""

from __future__ import annotations

import io

from c2pa import Builder, C2paError, C2paSignerInfo
from c2pa import Signer as LibrarySigner

from afresh.core import UserError
from afresh.services.provenance import library
from afresh.services.provenance.formats import NAMES, media_type
from afresh.services.provenance.signer import Signer
from afresh.services.provenance.work import Work, definition, ingredient


def embedded(content: bytes, name: str, work: Work, signer: Signer) -> bytes:
    """The content of a file of this name or suffix, with its signed manifest. Pixels and samples stay as they are.

    Raises UserError if the format carries none, if the content is not one of that format, or if the time-stamping
    authority does not answer.
    """
    media = media_type(name)
    if media is None:
        raise UserError(f"{name} cannot carry a manifest: {NAMES} can. Other formats get a sidecar.", "format")
    out = io.BytesIO()
    try:
        with Builder.from_json(definition(work, media), context=library.signing(signer.timestamp_url)) as builder:
            for index, one in enumerate(work.ingredients):
                if one.content is None:
                    raise UserError(f"The content of {one.title} is not given, which {name} was made from.", "signing")
                kind = media_type(one.title) or "application/octet-stream"
                builder.add_ingredient(ingredient(one, index), kind, io.BytesIO(one.content))
            with _library_signer(signer) as of_library:
                builder.sign(of_library, media, io.BytesIO(content), out)
    except C2paError as error:
        why = "Its content is perhaps not of the format that its name says."
        if signer.timestamp_url is not None:
            why = (
                f"If the time-stamping authority {signer.timestamp_url} does not answer, try again later, or unset "
                "AFRESH_TIMESTAMP_URL to sign without a time that others vouch for."
            )
        raise UserError(f"{name} could not be signed: {error}. {why}", "signing") from error
    return out.getvalue()


def _library_signer(signer: Signer) -> LibrarySigner:
    url = None if signer.timestamp_url is None else signer.timestamp_url.encode()
    algorithm = "ed25519" if signer.algorithm == "EdDSA" else signer.algorithm.lower()
    return LibrarySigner.from_info(C2paSignerInfo(algorithm.encode(), signer.chain_pem, signer.key_pem, url))
