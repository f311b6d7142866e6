"""What signing needs that is not a dependency of the package itself."""

from __future__ import annotations

from importlib.util import find_spec

from afresh.core import UserError


def can_embed() -> bool:
    """Whether manifests of C2PA can be written and read. Without that, a sidecar is written for every format."""
    return find_spec("c2pa") is not None and find_spec("cbor2") is not None


def require_cryptography(what: str) -> None:
    """Raises UserError if nothing can be signed or checked."""
    if find_spec("cryptography") is None:
        raise _missing(what, "cryptography")


def require_bundles(what: str) -> None:
    """Raises UserError if bundles cannot be fetched and checked."""
    require_cryptography(what)
    if find_spec("httpx") is None:
        raise _missing(what, "httpx")


def require_c2pa(what: str) -> None:
    """Raises UserError if manifests cannot be written and read."""
    if not can_embed():
        raise _missing(what, "c2pa-python")


def _missing(what: str, package: str) -> UserError:
    return UserError(
        f"{what} needs the extra provenance, of which {package} is not installed: pip install 'afresh[provenance]'.",
        "extra_missing",
        extra="provenance",
    )
