"""The table of built-in plug-ins. Each name is a module in the folder of its kind, imported on first use."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import Any

from afresh.core import Aligner, Codec, Examples, Family, Metric, Modality, Space, UserError

MODALITIES = ("text", "code", "image", "audio", "music")
FAMILIES = ("transformer", "masked", "vae", "gan", "flow", "autoencoder")
FOREIGN = ("diffusers", "fewstep")  # families that start from another model: afresh tune BASE DATA, afresh distill RUN
FITTED = ("palette",)  # codecs that are fitted to the data when a family needs one
TRAINED = "trained"  # the codec of a run that the user passes as `codec`
CODECS = (*FITTED, TRAINED)
ALIGNERS = ("policy", "pairs", "denoise", "gradient", "selected")  # files, each with one or more methods of alignment
METRICS = ("texts", "programs", "images", "likelihood", "music")


def _check(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"There is no {kind} {name!r}.{hint} Choose one of: {', '.join(known)}.")


def modality(name: str) -> Modality:
    _check("modality", name, MODALITIES)
    plugin: Modality = import_module(f"afresh.modalities.{name}").MODALITY
    return plugin


def family(name: str) -> Family:
    _check("family", name, (*FAMILIES, *FOREIGN))
    plugin: Family = import_module(f"afresh.families.{name}").FAMILY
    return plugin


def metrics() -> list[Metric]:
    return [m for name in METRICS for m in import_module(f"afresh.evaluation.{name}").METRICS]


def aligners() -> dict[str, Aligner]:
    """Every method of alignment, by name."""
    return {a.name: a for file in ALIGNERS for a in import_module(f"afresh.alignment.methods.{file}").ALIGNERS}


def aligner(name: str, wanted: Family) -> Aligner:
    """The method of that name.

    Raises UserError, naming what works, if the name is unknown or if the family lacks a capability that it needs.
    """
    methods = aligners()
    _check("method", name, tuple(methods))
    has = () if wanted.policy is None else wanted.policy.has()
    missing = [n for n in methods[name].needs if n not in has]
    if not missing:
        return methods[name]
    works = [a.name for a in methods.values() if set(a.needs) <= set(has)]
    others = [f for f in (*FAMILIES, *FOREIGN) if (p := family(f).policy) and set(methods[name].needs) <= set(p.has())]
    raise UserError(
        f"{name} does not work for the family {wanted.name} (it lacks: {', '.join(missing)}). Methods that do: "
        f"{', '.join(works) or 'none'}. Families that {name} works for: {', '.join(others) or 'none'}."
    )


def codec_module(name: str) -> Any:
    """The module of a codec. It has `load`, and either `planar` and `fit` or `of_modules`."""
    _check("codec", name, CODECS)
    return import_module(f"afresh.families.codecs.{name}")


def load_codec(name: str, folder: object) -> Codec:
    codec: Codec = codec_module(name).load(folder)
    return codec


def bridge(wanted: Family, examples: Examples, space: Space) -> tuple[str, Codec] | None:
    """A codec, fitted to `examples`, whose target the family accepts; None if the family accepts the space itself.

    Raises UserError, naming the families that work, if there is no such codec.
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
