"""Sign a work: the one call of whatever writes one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from afresh.core import UserError
from afresh.services.provenance.formats import can_embed, media_type
from afresh.services.provenance.work import Work

if TYPE_CHECKING:
    from afresh.services.provenance.signer import Signer


@dataclass(frozen=True)
class Signed:
    """The content of a work with its manifest, or as it was with a sidecar that goes beside it."""

    content: bytes
    sidecar: bytes | None


def signed_work(content: bytes, name: str, work: Work, by: Signer | None = None) -> Signed:
    """Sign the content of a file of this name by the signer in force, which is made at first use. To sign many
    works, ask for it once (`signer.signer()`) and give it.

    What can carry a manifest of C2PA does so, and everything else gets a sidecar. Without the package for C2PA every
    format gets one. Raises UserError if nothing can be signed.
    """
    from afresh.services.provenance.sidecar import SidecarError, opened, sidecar
    from afresh.services.provenance.signer import signer

    by = by or signer()
    for one in work.ingredients:
        try:
            if one.statement is not None:
                opened(one.statement)
        except SidecarError as error:
            raise UserError(
                f"What is given as the sidecar of {one.title} is damaged: {error}. Leave it out to keep the hash "
                "alone.",
                "signing",
            ) from error
    if media_type(name) is not None and can_embed():
        from afresh.services.provenance.embed import embedded

        return Signed(embedded(content, name, work, by), None)
    return Signed(content, sidecar(content, PurePath(name).name, work, by))
