"""The settings of the library for C2PA: no network of any kind and no thumbnails."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from c2pa import Context

from afresh.services.provenance.certificates import PURPOSES, Certificate
from afresh.services.provenance.signer import pem_of

PURPOSES_TEXT = "\n".join(PURPOSES) + "\n"
MOST_MEGABYTES = 32  # of a manifest, when it is decompressed


def _offline(hosts: list[str]) -> dict[str, Any]:
    return {
        "core": {
            "allowed_network_hosts": hosts,
            "allow_redirects": False,
            "decode_identity_assertions": False,  # whose reader does not heed the list of hosts
            "max_decompressed_manifest_size_in_mb": MOST_MEGABYTES,
        },
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False, "verify_after_sign": False},
        "builder": {"thumbnail": {"enabled": False}},
    }


def reading(authorities: list[Certificate]) -> Context:
    """Settings of reading. Whether a signer is known is decided in `trusted`, for every layer alike (the library's list
    of allowed signers is not used by it). Time stamps count if one of these authorities has issued them."""
    anchors = {"user_anchors": pem_of(authorities)} if authorities else {}
    return Context.from_dict({**_offline([]), "trust": {**anchors, "trust_config": PURPOSES_TEXT}})


@lru_cache(maxsize=4)
def signing(timestamp_url: str | None) -> Context:
    """Settings of signing, which may ask a time-stamping authority only."""
    host = urlsplit(timestamp_url).netloc.rpartition("@")[2] if timestamp_url else None
    return Context.from_dict({**_offline([host] if host else []), "trust": {"trust_config": PURPOSES_TEXT}})
