"""The autoencoder whose latents stand for large images, and the size at which they are learnt: as set by hand, else by
the images' own sizes and the minutes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afresh.core import UserError, events, registry
from afresh.data.prepare import choose_modality
from afresh.data.sources import readable
from afresh.formats.autoencoders import DEFAULT, at_hand, holds_autoencoder, open_autoencoder
from afresh.preferences import preferences
from afresh.runs.base_licence import licences_of
from afresh.runs.latent_space import PublicAutoencoder, check_source
from afresh.runs.run import Run
from afresh.training.plan import Decision
from afresh.verbs.base_terms import base_sentences

AUTO, NONE = "auto", "none"
SIZES = {128: 0.0, 192: 10.0, 256: 20.0, 512: 120.0}  # pixels: the minutes from which they draw better than fewer do
IN_MEMORY = 1 << 29  # bytes of pixels, above which they are read from the disk
USUAL = 5.0  # minutes by which a size is chosen for a budget in steps


@dataclass(frozen=True)
class CodecChoice:
    """`codec`: a run of the family autoencoder, or a public one; None to learn the values themselves. `data`: the
    options of the modality, with the chosen size."""

    codec: Path | PublicAutoencoder | None
    data: Mapping[str, Any]
    decisions: tuple[Decision, ...] = ()


def choose_codec(
    path: Path, modality: str | None, data: Mapping[str, Any], family: str | None, wanted: str, minutes: float | None
) -> CodecChoice:
    """The codec that is `wanted`: "auto", "none", or that of a run, a folder or a name on the hub. Raises UserError for
    one that cannot be read."""
    plain = CodecChoice(None, data)
    here = Path(wanted).expanduser()
    if wanted == NONE:
        return plain
    if wanted != AUTO and here.exists() and not holds_autoencoder(here):
        check_source(Run.open(here))
        return CodecChoice(here, data)
    if wanted == AUTO and family is not None and not registry.family(family).mirrors:
        return plain
    source = readable(path, modality)
    sides_of = registry.sides_of(choose_modality(source, modality)[0].name)
    sides = [] if sides_of is None else sides_of(source)
    median = statistics.median_low(sides) if sides else 0
    set_by_hand = int(data["size"]) if str(data.get("size", "")).isdecimal() else None
    if wanted == AUTO and (set_by_hand or median) < min(SIZES):
        return plain
    public = opened(wanted) if wanted != AUTO else found(preferences().codec or DEFAULT)
    if public is None or set_by_hand is not None or not sides:
        return CodecChoice(public, data if public is None else {"channels": "rgb", **data})
    size, why = chosen_size(median, minutes)
    streamed = {"stream": True} if source.is_dir() and 3 * size * size * len(sides) > IN_MEMORY else {}
    chosen = {"channels": "rgb", **streamed, **data, "size": size}
    return CodecChoice(public, chosen, (Decision("image size", f"{size}", why),))


def chosen_size(median: int, minutes: float | None) -> tuple[int, str]:
    """Pixels of a side for images whose median shorter side is `median`, and why."""
    fitting = [size for size in SIZES if size <= median] or [min(SIZES)]
    size = max(size for size in fitting if SIZES[size] <= (minutes or USUAL))
    larger = [f"{SIZES[s]:.0f} minutes: {s} pixels" for s in fitting if s > size]
    why = f"the median shorter side is {median:,} pixels"
    return size, "; from ".join([why, *larger])


def found(name: str) -> PublicAutoencoder | None:
    """The autoencoder that is used where none is named; None, with a note, if it is neither here nor can be fetched."""
    if not at_hand(name) and preferences().offline:
        events.note(f"images are learnt small: {name} is not on this machine, and `offline` is set", "no_codec")
        return None
    try:
        return opened(name)
    except UserError as error:
        events.warning(f"Images are learnt small, without an autoencoder: {error}", "no_codec")
        return None


def opened(name: str) -> PublicAutoencoder:
    """A public autoencoder, of which the licence is said first. Raises UserError if it cannot be opened or fetched."""
    if not at_hand(name) and preferences().offline:
        raise UserError(f"{name} is not on this machine, and `offline` is set. Give a folder, or unset AFRESH_OFFLINE.")
    licences = licences_of(name)
    for sentence in base_sentences(licences):
        events.note(f"codec: {sentence}", "codec_licence")
    return PublicAutoencoder(name, open_autoencoder(name), licences[0])
