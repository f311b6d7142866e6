"""The autoencoder whose latents stand for large images, and the size at which they are learnt: as set by hand, else by
the images' own sizes and the minutes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from afresh.core import UserError, events, registry
from afresh.data.preferences import preferences
from afresh.data.prepare import choose_modality
from afresh.data.sources import readable
from afresh.engine.training.plan import Decision
from afresh.runs.base_licence import licences_of, stated
from afresh.runs.formats.autoencoders import DEFAULT, at_hand, holds_autoencoder, located, read_autoencoder
from afresh.runs.formats.hub import check_name, check_reachable
from afresh.runs.formats.model_card import shared_name
from afresh.runs.latent_space import PublicAutoencoder, check_source
from afresh.runs.run import Run
from afresh.verbs.base_terms import base_sentences

AUTO, NONE, SIZE = "auto", "none", "image size"  # choices of a codec; the name of the decision on the size
LEAST, STEP = 97, 8  # pixels of a side from which latents are learnt, and of which smaller sizes are multiples
# Pixels, and the minutes from which they are learnt. 256 drew shapes worse than 128 after 9 minutes of one core.
SIZES = {128: 0.0, 192: 30.0, 256: 60.0, 512: 240.0}
IN_MEMORY = 1 << 29  # bytes of pixels, above which they are read from the disk
OWN, OWN_FROM = 0.35, 8.0  # share of the minutes for an autoencoder of the images themselves, and the least minutes
USUAL = 5.0  # minutes by which a size is chosen for a budget in steps


@dataclass(frozen=True)
class CodecChoice:
    """`codec`: a run of the family autoencoder, or a public one; None to learn the values themselves. `data`: the
    options of the modality, with the chosen size. `own_minutes`: in which an autoencoder of the images themselves is to
    be trained first; 0 for none."""

    codec: Path | PublicAutoencoder | None
    data: Mapping[str, Any]
    decisions: tuple[Decision, ...] = ()
    own_minutes: float = 0.0


def choose_codec(
    path: Path, modality: str | None, data: Mapping[str, Any], family: str | None, wanted: str, minutes: float | None
) -> CodecChoice:
    """The codec that is `wanted`: "auto", "none", or that of a run, a folder or a name on the hub. Raises UserError for
    one that cannot be read."""
    plain = CodecChoice(None, data)
    here = Path(wanted).expanduser()
    if wanted == NONE:
        return plain
    if wanted != AUTO and (here / "run.json").is_file() and not holds_autoencoder(here):
        check_source(Run.open(here))
        return CodecChoice(here, data)
    if wanted == AUTO and family is not None and not registry.family(family).mirrors:
        return plain
    sized, decisions, median = with_size(path, modality, data, minutes)
    if wanted == AUTO and median < LEAST:
        return plain
    public = opened(wanted) if wanted != AUTO else found(usual_codec())
    if public is None and (minutes is None or minutes < OWN_FROM or median < min(SIZES)):
        return plain
    if public is None:
        return CodecChoice(None, {**sized, "size": min(SIZES), "stream": False}, (), OWN * (minutes or 0.0))
    return CodecChoice(public, sized, decisions)


def usual_codec() -> str:
    """The autoencoder that is used where none is named."""
    return preferences().codec or DEFAULT


def with_size(
    path: Path, modality: str | None, data: Mapping[str, Any], minutes: float | None
) -> tuple[Mapping[str, Any], tuple[Decision, ...], int]:
    """The options of images that are learnt through an autoencoder, with their size and why, and the median shorter
    side of the images, or the one that is set by hand; 0 for other data."""
    source = readable(path, modality)
    sides_of = registry.sides_of(choose_modality(source, modality)[0].name)
    sides = [] if sides_of is None else sides_of(source)
    if str(data.get("size", "")).isdecimal():
        return {"channels": "rgb", **data}, (), int(data["size"])
    if not sides:
        return data, (), 0
    median = statistics.median_low(sides)
    size, why = chosen_size(median, minutes)
    streamed = {"stream": True} if source.is_dir() and 3 * size * size * len(sides) > IN_MEMORY else {}
    chosen = {"channels": "rgb", **streamed, **data, "size": size}
    return chosen, (Decision(SIZE, f"{size}", why),), median


def data_as_trained(path: Path, modality: str | None, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with which `train` reads the data by default, if its autoencoder is on this machine."""
    sized, _, median = with_size(path, modality, data, preferences().minutes)
    return sized if median >= LEAST and at_hand(usual_codec()) else data


def chosen_size(median: int, minutes: float | None) -> tuple[int, str]:
    """Pixels of a side for images whose median shorter side is `median`, and why."""
    if median < min(SIZES):
        return max(STEP, median // STEP * STEP), f"the median shorter side is {median:,} pixels"
    fitting = [size for size in SIZES if size <= median]
    size = max(size for size in fitting if SIZES[size] <= (minutes or USUAL))
    larger = [f"{s} from {SIZES[s]:.0f} minutes" for s in fitting if s > size]
    return size, ", ".join([f"the median shorter side is {median:,}", *larger])


def found(name: str) -> PublicAutoencoder | None:
    """The autoencoder that is used where none is named; None, with a note, if it is neither here nor can be fetched."""
    if not at_hand(name) and preferences().offline:
        events.note(f"{name} is not on this machine, and `offline` is set", "no_codec")
        return None
    try:
        return opened(name)
    except UserError as error:
        events.warning(f"Images are learnt without a public autoencoder: {error}", "no_codec")
        return None


def opened(name: str) -> PublicAutoencoder:
    """A public autoencoder whose licence is reported first. Raises UserError if it cannot be opened or fetched."""
    here = at_hand(name)
    if not here and preferences().offline:
        raise UserError(f"{name} is not on this machine, and `offline` is set. Give a folder, or unset AFRESH_OFFLINE.")
    if not here:
        check_name(name)
        check_reachable(name)
    licence = stated(located(name), shared_name(name)) if here else licences_of(name)[0]
    for sentence in base_sentences([licence]):
        events.note(f"codec: {sentence}", "codec_licence")
    return PublicAutoencoder(name, read_autoencoder(located(name, fetch=True)), licence)
