"""The one table of plug-ins. A name here is a module in the folder of its kind, loaded when first asked for."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from afresh.core import Aligner, Codec, Examples, Family, Metric, Modality, Space, UserError

MODALITIES = ("text", "code", "image", "audio", "music")
FAMILIES = ("transformer", "masked", "vae", "gan", "flow", "autoencoder")
FOREIGN = ("diffusers", "fewstep")  # families that only begin with a base: afresh tune BASE DATA, afresh distill RUN
FITTED = ("palette",)  # codecs that are fitted to the data when a family needs one
TRAINED = "trained"  # the codec that is made from a run that is given as `codec`
CODECS = (*FITTED, TRAINED)
ALIGNERS = ("policy", "pairs", "denoise", "gradient", "selected")  # files, with one or more ways to steer a model each
METRICS = ("texts", "programs", "images", "likelihood", "music")


def _check(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"There is no {kind} {name!r}.{hint} Choose one of: {', '.join(known)}.")


def modality(name: str) -> Modality:
    _check("modality", name, MODALITIES)
    return import_module(f"afresh.modalities.{name}").MODALITY


def family(name: str) -> Family:
    _check("family", name, (*FAMILIES, *FOREIGN))
    return import_module(f"afresh.families.{name}").FAMILY


def metrics() -> list[Metric]:
    return [m for name in METRICS for m in import_module(f"afresh.evaluation.{name}").METRICS]


def aligners() -> dict[str, Aligner]:
    """Every way to steer a model, by name."""
    return {a.name: a for file in ALIGNERS for a in import_module(f"afresh.alignment.methods.{file}").ALIGNERS}


def aligner(name: str, wanted: Family) -> Aligner:
    """Raises UserError for an unknown name, and for a family that lacks what it needs, naming what works."""
    every = aligners()
    _check("method", name, tuple(every))
    has = () if wanted.policy is None else wanted.policy.has()
    missing = [n for n in every[name].needs if n not in has]
    if not missing:
        return every[name]
    works = [a.name for a in every.values() if set(a.needs) <= set(has)]
    others = [f for f in (*FAMILIES, *FOREIGN) if (p := family(f).policy) and set(every[name].needs) <= set(p.has())]
    raise UserError(
        f"{name} does not work for the family {wanted.name} (it lacks: {', '.join(missing)}). Methods that do: "
        f"{', '.join(works) or 'none'}. Families that {name} works for: {', '.join(others) or 'none'}."
    )


def codec_module(name: str) -> Any:
    """The module: load, and planar and fit, or of_modules."""
    _check("codec", name, CODECS)
    return import_module(f"afresh.families.codecs.{name}")


def load_codec(name: str, folder: object) -> Codec:
    codec: Codec = codec_module(name).load(folder)
    return codec


def bridge(wanted: Family, examples: Examples, space: Space) -> tuple[str, Codec] | None:
    """A codec whose target the family accepts, fitted to `examples`; None when the family needs none.

    Raises UserError, naming what works, when no codec helps.
    """
    reason = wanted.accepts(space)
    if reason is None:
        return None
    for name in FITTED:
        module = codec_module(name)
        if module.planar(space):
            codec: Codec = module.fit(examples, space)
            if wanted.accepts(codec.target) is None:
                return name, codec
    works = [f for f in FAMILIES if family(f).accepts(space) is None]
    raise UserError(
        f"The family {wanted.name!r} does not fit this data: {reason}. What works here: {', '.join(works) or 'none'}."
    )
