"""The registry of plug-ins: those of this package, by the name of their module, and those that other packages add
through entry points (`afresh.core.plugins`). Each is imported on first use."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from afresh.core import UserError, events
from afresh.core.plugins import loadable, plugins

if TYPE_CHECKING:
    from afresh.core import Aligner, Codec, Examples, Family, ItemKind, Metric, Modality, Source, Space

MODALITIES = ("text", "code", "image", "audio", "music", "exercises", "interactions", "molecule")
FAMILIES = ("transformer", "masked", "vae", "gan", "flow", "autoencoder")
FOREIGN = ("diffusers", "fewstep")  # families that start from another model: afresh tune BASE DATA, afresh distill RUN
FITTED = ("palette", "records")  # codecs that are fitted to the data when a family needs one
TRAINED = {"field": "trained", "tokens": "trained_sequences"}  # of a run that the user passes as `codec`, by its space
CODECS = (*FITTED, *TRAINED.values())
ALIGNERS = ("policy", "pairs", "denoise", "gradient", "selected", "search")  # files with methods of alignment
METRICS = (  # modules with metrics
    "domains.text.metrics",
    "domains.code.metrics",
    "domains.image.metrics",
    "evaluation.likelihood",
    "domains.music.metrics",
    "domains.molecule.metrics",
    "evaluation.tokens",
    "evaluation.feature_metrics",
    "domains.interactions.metrics",
    "domains.exercises.metrics",
)
SOURCES = ("collected", "arrow", "webdataset")  # files in afresh.data
REWARDS = (  # modules, each with the rewards of one or more kinds of items
    "domains.text.rewards",
    "domains.image.rewards",
    "domains.audio.rewards",
    "domains.molecule.rewards",
    "alignment.rewards.surrogate_reward",
)
RENAMED_KINDS = {"picture": "image"}  # names of kinds in files of earlier versions


def _check(kind: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"There is no {kind} {name!r}.{hint} Choose one of: {', '.join(known)}.")


def modality_names() -> tuple[str, ...]:
    return (*MODALITIES, *plugins("modalities", MODALITIES))


def modality(name: str) -> Modality:
    _check("modality", name, modality_names())
    own = name in MODALITIES
    plugin: Modality = (
        import_module(f"afresh.domains.{name}.modality").MODALITY
        if own
        else plugins("modalities", MODALITIES)[name].load()
    )
    return plugin


def modalities() -> list[Modality]:
    """All modalities that can be loaded, those of this package first."""
    own = [modality(name) for name in MODALITIES]
    return own + [m for _, m in loadable(plugins("modalities", MODALITIES).values())]


def kinds() -> dict[str, ItemKind]:
    """The kinds of items that modalities define, by name."""
    out: dict[str, ItemKind] = {}
    for m in modalities():
        if out.setdefault(m.kind.name, m.kind) is not m.kind:
            events.warning(
                f"The modality {m.name} defines another kind of items with the name {m.kind.name!r}, which is ignored."
            )
    return out


def kind(name: str) -> ItemKind:
    """A kind by its name in a saved file of this or an earlier version. Raises UserError if no modality defines it."""
    known, name = kinds(), RENAMED_KINDS.get(name, name)
    _check("kind of items", name, tuple(known))
    return known[name]


def family_names() -> tuple[str, ...]:
    return (*FAMILIES, *plugins("families", (*FAMILIES, *FOREIGN)))


def family(name: str) -> Family:
    _check("family", name, (*family_names(), *FOREIGN))
    own = (*FAMILIES, *FOREIGN)
    plugin: Family = (
        import_module(f"afresh.families.{name}").FAMILY if name in own else plugins("families", own)[name].load()
    )
    return plugin


def families() -> list[Family]:
    """All families that can be trained and loaded, those of this package first."""
    own = [family(name) for name in FAMILIES]
    return own + [f for _, f in loadable(plugins("families", (*FAMILIES, *FOREIGN)).values())]


def sources() -> list[Source]:
    """All sources of data, in the order in which they are asked. An entry point names one."""
    own: list[Source] = [import_module(f"afresh.data.{name}").SOURCE for name in SOURCES]
    return own + [source for _, source in loadable(plugins("sources").values())]


def metrics() -> list[Metric]:
    """All metrics. An entry point names a sequence of them."""
    own = [m for name in METRICS for m in import_module(f"afresh.{name}").METRICS]
    return own + [m for _, found in loadable(plugins("metrics").values()) for m in found]


def rewards() -> dict[str, dict[str, Any]]:
    """The rewards with a name, {kind of items: {name: afresh.alignment.rewards.reward.Builtin}}.

    Those of the kind "" are for items of any kind. An entry point has the name of the kind and refers to a mapping. It
    can add rewards to a kind, but not replace them.
    """
    own: dict[str, dict[str, Any]] = {}
    for name in REWARDS:
        for item_kind, table in import_module(f"afresh.{name}").REWARDS.items():
            own.setdefault(item_kind, {}).update(table)
    for plugin, table in loadable(plugins("rewards").values()):
        own[plugin.name] = {**table, **own.get(plugin.name, {})}
    return own


def aligners() -> dict[str, Aligner]:
    """Every method of alignment, by name. An entry point names a sequence of them."""
    own = [a for file in ALIGNERS for a in import_module(f"afresh.alignment.methods.{file}").ALIGNERS]
    added = [a for _, found in loadable(plugins("aligners").values()) for a in found]
    return {a.name: a for a in (*added, *own)}


def aligner(name: str, wanted: Family) -> Aligner:
    """The alignment method with this name.

    Raises UserError, naming the methods that work, if the name is unknown or if the family lacks a capability that the
    method needs.
    """
    methods = aligners()
    _check("method", name, tuple(methods))
    has = () if wanted.policy is None else wanted.policy.has()
    missing = [n for n in methods[name].needs if n not in has]
    if not missing:
        return methods[name]
    works = [a.name for a in methods.values() if set(a.needs) <= set(has)]
    able = [
        f for f in (*families(), *map(family, FOREIGN)) if f.policy and set(methods[name].needs) <= set(f.policy.has())
    ]
    raise UserError(
        f"{name} does not work for the family {wanted.name} (it lacks: {', '.join(missing)}). Methods that do: "
        f"{', '.join(works) or 'none'}. Families that {name} works for: {', '.join(f.name for f in able) or 'none'}."
    )


def codec_module(name: str) -> Any:
    """The module of a codec. It has `load`, and either `takes` and `fit` or `of_modules`."""
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
    spaces = [space]
    for name in FITTED:
        module = codec_module(name)
        if module.takes(space):
            codec: Codec = module.fit(examples, space)
            if wanted.accepts(codec.target) is None:
                return name, codec
            spaces.append(codec.target)
    works = [f.name for f in families() if any(f.accepts(s) is None for s in spaces)]
    raise UserError(
        f"The family {wanted.name!r} does not fit this data: {reason}. What works here: {', '.join(works) or 'none'}."
    )
