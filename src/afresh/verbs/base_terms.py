"""What the licence of public weights allows, said before they are tuned and in the card of what they become."""

from __future__ import annotations

from collections.abc import Sequence

from afresh.core import UserError, events
from afresh.runs.base_licence import licences_of
from afresh.runs.base_model import open_base_model
from afresh.runs.formats.public import BaseModel
from afresh.runs.record import BaseLicence
from afresh.services.collect.licences import NO_ADVICE, duties, spdx_keys, terms_of
from afresh.services.collect.record import UNKNOWN


def open_base(name: str, commercial: bool = False) -> BaseModel:
    """A base whose licence is reported first. commercial: whether it must allow commerce. Raises UserError if it
    does not, before its weights are fetched, or if it cannot be opened."""
    licences = licences_of(name)
    if commercial:
        check_commercial(licences)
    for sentence in base_sentences(licences):
        events.note(f"licence: {sentence}", "base_licence")
    return open_base_model(name)


def check_commercial(licences: Sequence[BaseLicence]) -> None:
    """Raises UserError if a licence of a base does not allow commerce, if none is stated, or if it is not known."""
    for b in licences:
        known = b.licence != UNKNOWN and all(terms_of(key) is not None for key in spdx_keys(b.licence))
        if not known or "non-commercial use" in duties(b.licence):
            raise UserError(
                f"{base_sentence(b)} For commerce, choose a base whose licence allows it, or ask its owner for another "
                "licence. If you know that you may, leave `commercial` out.",
                "licence_forbids",
            )


def base_sentences(licences: Sequence[BaseLicence]) -> list[str]:
    """What is said of the licences of a base, when it is tuned and in the card of the result."""
    return [base_sentence(b) for b in licences]


def base_sentence(b: BaseLicence) -> str:
    """The licence of a base, what it allows and asks for, as a sentence or more."""
    if b.licence == UNKNOWN:
        return f"No licence is stated for {b.name}: what you make of it is for yourself, until its owner allows more."
    where = f" ({b.link})" if b.link else ""
    keys, asked = spdx_keys(b.licence), duties(b.licence)
    known = [terms for key in keys if (terms := terms_of(key)) is not None]
    shown = b.licence.removeprefix("LicenseRef-")
    if not known:
        return f"{b.name} is under the licence {shown}{where}, which is not known here: read it before you share."
    about = f": {known[0].about}" if len(keys) == 1 else ""
    ask = f" It asks for {', '.join(asked)}, of what is made from it as well." if asked else ""
    return f"{b.name} is under the licence {shown}{where}{about}.{ask} {NO_ADVICE}"
