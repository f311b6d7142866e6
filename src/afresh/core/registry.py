"""The registry: what this package has, by the name of its module, and what plug-ins add (`afresh.core.plugins`). Each
is imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, resolve_name
from typing import TYPE_CHECKING, Any

from afresh.core import UserError, events
from afresh.core.plugins import OWN, loadable, parts

if TYPE_CHECKING:
    from afresh.core import Aligner, Codec, Examples, Family, ItemKind, Metric, Modality, Source, Space
    from afresh.core.verb import Verb

FAMILIES = ("transformer", "masked", "vae", "gan", "flow", "autoencoder")
# Kinds of public weights, each a file in afresh.runs.formats, with `PUBLIC`, and a family of its name, in the order in
# which they are asked whether a folder is theirs.
PUBLIC = ("causal_lm", "diffusers", "text_to_image")
FOREIGN = (*PUBLIC, "fewstep")  # families that start from another model: afresh tune BASE DATA, afresh distill RUN
FITTED = ("palette", "records")  # codecs that are fitted to the data when a family needs one
TRAINED = {"field": "trained", "tokens": "trained_sequences"}  # of a run that the user passes as `codec`, by its space
CODECS = (*FITTED, *TRAINED.values(), "pipeline")
ALIGNERS = ("policy", "pairs", "denoise", "gradient", "selected", "search")  # files with methods of alignment
METRICS = ("likelihood", "feature_metrics")  # files with metrics of any kind of items
# The verbs of any kind of items, each with its file in afresh.verbs.
VERBS = {name: name for name in ("complete", "export", "label", "measure", "pack", "propose", "score")}
VERBS |= dict.fromkeys(("sample", "edit", "blend", "compare", "chat"), "draw")
SOURCES = ("addresses", "collected", "arrow", "webdataset")  # files in afresh.data
REWARDS = ("surrogate_reward",)  # files with rewards for any kind of items
DIALECTS = "afresh.faces.http.protocols"  # a folder for each dialect of the server, with PATHS and PROTOCOL
FAMILY_ALIASES = {"diffusion": "flow"}  # other names of families that people know
RENAMED_KINDS = {"picture": "image"}  # names of kinds in files of earlier versions


LONGEST = 100  # characters of an unknown name that a message repeats


def _check(kind: str, name: str, known: tuple[str, ...], aliases: Mapping[str, str] | None = None) -> None:
    if name not in known:
        near = get_close_matches(name, (*known, *(aliases or {})), n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        also = {meant: alias for alias, meant in (aliases or {}).items()}
        listed = [f"{k} (also called {also[k]})" if k in also else k for k in known]
        raise UserError(f"No {kind} {name[:LONGEST]!r}.{hint} Choose one of: {', '.join(listed)}.")


def own_modalities() -> tuple[str, ...]:
    """The names of the modalities of this package."""
    return tuple(part.name for part in parts("modalities") if part.package == OWN)


def modality_names() -> tuple[str, ...]:
    return tuple(part.name for part in parts("modalities"))


def modality(name: str) -> Modality:
    _check("modality", name, modality_names())
    plugin: Modality = next(part for part in parts("modalities") if part.name == name).load()
    return plugin


def enough(name: str) -> tuple[int, str]:
    """How many "items" or "bytes" of training data usually suffice for a modality (`Plugin.enough`)."""
    return next((part.enough for part in parts("modalities") if part.name == name), (0, "items"))


def sides_of(name: str) -> Callable[[Path], list[int]] | None:
    """The shorter sides in pixels of the files at a path, of a modality that tells them."""
    return next((part.load() for part in parts("sides") if part.name == name), None)


def modalities(suffixes: Collection[str] = ()) -> list[Modality]:
    """All modalities that can be loaded, those of this package first. `suffixes`: of all files of some data, of which
    modalities are left out that cannot recognise it."""
    listed = parts("modalities")
    if suffixes and frozenset().union(*(part.only for part in listed)).issuperset(suffixes):
        return [m for _, m in loadable(p for p in listed if not p.only or not p.only.isdisjoint(suffixes))]
    return [m for _, m in loadable(listed)]


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
    return (*FAMILIES, *(part.name for part in parts("families", FAMILIES + FOREIGN)))


def family(name: str) -> Family:
    """The family of this name, or of another name that people know it by. Raises UserError if none exists."""
    name = FAMILY_ALIASES.get(name, name)
    _check("family", name, (*family_names(), *FOREIGN), FAMILY_ALIASES)
    if name in FAMILIES + FOREIGN:
        own: Family = import_module(f"afresh.engine.families.{name}").FAMILY
        return own
    added: Family = next(part for part in parts("families", FAMILIES + FOREIGN) if part.name == name).load()
    return added


def families() -> list[Family]:
    """All families that can be trained from data alone, those of this package first."""
    return [*map(family, FAMILIES), *(f for _, f in loadable(parts("families", FAMILIES + FOREIGN)) if not f.made_by)]


def public_weights() -> list[Any]:
    """The kinds of public weights (`afresh.runs.formats.public.PublicWeights`), in the order in which they are asked:
    those of other packages first, then those that are refused, and last the own decoder's, which takes any file."""
    own = [import_module(f"afresh.runs.formats.{name}").PUBLIC for name in ("sound", *PUBLIC, "load")]
    return [kind for _, kind in loadable(parts("weights", (*PUBLIC, "sound", "transformer")))] + own


def sources() -> list[Source]:
    """All sources of data, in the order in which they are asked."""
    own: list[Source] = [import_module(f"afresh.data.{name}").SOURCE for name in SOURCES]
    return own + [source for _, source in loadable(parts("sources"))]


def metrics(measured: str = "") -> list[Metric]:
    """All metrics: those of domains, those of other packages, and those of any kind of items. In this order they are
    asked for their verdicts. `measured`: a modality, for those alone that may measure its kind of items."""
    kind = modality(measured).kind.name if measured in modality_names() else ""
    asked = (part for part in parts("metrics") if not kind or not part.only or kind in part.only)
    of_kinds = [m for _, metrics in loadable(asked) for m in metrics]
    return of_kinds + [m for name in METRICS for m in import_module(f"afresh.engine.evaluation.{name}").METRICS]


def rewards() -> dict[str, dict[str, Any]]:
    """The rewards with a name, {kind of items: {name: afresh.engine.alignment.rewards.reward.Builtin}}.

    Those of the kind "" are for items of any kind. A reward of another package replaces none.
    """
    out: dict[str, dict[str, Any]] = {}
    own = [import_module(f"afresh.engine.alignment.rewards.{name}").REWARDS for name in REWARDS]
    for mapping in (*own, *(mapping for _, mapping in loadable(parts("rewards")))):
        for item_kind, table in mapping.items():
            out[item_kind] = {**table, **out.get(item_kind, {})}
    return out


def verbs() -> dict[str, Verb[Any, Any]]:
    """The verbs that are declared (afresh.core.verb), by name. One of another package replaces none."""
    return {name: verb(name) for name in VERBS} | {
        part.name: verb for part, verb in loadable(parts("verbs", tuple(VERBS)))
    }


def verb_names() -> tuple[str, ...]:
    """The names of the verbs that are declared."""
    return (*VERBS, *(part.name for part in parts("verbs", tuple(VERBS))))


def verb(name: str) -> Verb[Any, Any]:
    """A verb by name, without loading the others. Raises UserError if none exists."""
    _check("verb", name, verb_names())
    if name in VERBS:
        own: Verb[Any, Any] = getattr(import_module(f"afresh.verbs.{VERBS[name]}"), name)
        return own
    added: Verb[Any, Any] = next(part for part in parts("verbs", tuple(VERBS)) if part.name == name).load()
    return added


def protocols() -> list[tuple[tuple[str, ...], Callable[[], Any]]]:
    """The dialects of the server: parts of the paths that belong to one, and a function that loads it, a
    `afresh.faces.http.protocols.Protocol`."""
    return [*_own_protocols(), *(((part.name,), part.load) for part in parts("protocols"))]


@cache
def _own_protocols() -> tuple[tuple[tuple[str, ...], Callable[[], Any]], ...]:
    names = [m.name for m in iter_modules(import_module(DIALECTS).__path__) if m.ispkg]
    folders = [import_module(f"{DIALECTS}.{name}") for name in sorted(names)]
    return tuple((folder.PATHS, partial(resolve_name, f"{folder.__name__}.{folder.PROTOCOL}")) for folder in folders)


def creations() -> dict[str, Any]:
    """Ways in which works are made of what exists, by name, each a `afresh.verbs.creation_request.Creation`."""
    return {part.name: creation for part, creation in loadable(parts("creations"))}


def makers() -> dict[str, Any]:
    """Data that can be computed, by name, each a `afresh.core.data_maker.DataMaker`."""
    out: dict[str, Any] = {}
    for _, mapping in loadable(parts("makers")):
        out = {**mapping, **out}
    return out


def extractors() -> list[Mapping[str, Any]]:
    """What domains and other packages read for `afresh collect`: {suffix:
    afresh.services.collect.extract.Extractor}."""
    return [mapping for _, mapping in loadable(parts("extractors"))]


def pages() -> list[Any]:
    """The pages on which runs of one kind of data are used, each a `afresh.faces.studio.pages.RunPage`."""
    return [page for _, page in loadable(parts("pages"))]


def run_files() -> tuple[str, ...]:
    """Names, or patterns of names, of what the verbs of domains and of other packages write into the folder of a
    run."""
    return tuple(part.reference for part in parts("run_files"))


def aligners() -> dict[str, Aligner]:
    """Every method of alignment, by name."""
    own = [a for file in ALIGNERS for a in import_module(f"afresh.engine.alignment.methods.{file}").ALIGNERS]
    added = [a for _, found in loadable(parts("aligners")) for a in found]
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
        f.name
        for f in (*families(), *map(family, FOREIGN))
        if f.name != wanted.name and f.policy and set(methods[name].needs) <= set(f.policy.has())
    ]
    raise UserError(
        f"{name} does not work for the family {wanted.name} (it lacks: {', '.join(missing)}). Methods that do: "
        f"{', '.join(works) or 'none'}. Families that {name} works for: {', '.join(able) or 'none'}."
    )


def codec_module(name: str) -> Any:
    """What makes a codec: it has `load`, and either `takes` and `fit` or `of_modules`."""
    added = parts("codecs", CODECS)
    _check("codec", name, (*CODECS, *(part.name for part in added)))
    if name in CODECS:
        return import_module(f"afresh.engine.families.codecs.{name}")
    return next(part for part in added if part.name == name).load()


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
    own = [(name, codec_module(name)) for name in FITTED]
    for name, maker in (*own, *((part.name, added) for part, added in loadable(parts("codecs", CODECS)))):
        if maker.takes(space):
            codec: Codec = maker.fit(examples, space)
            if wanted.accepts(codec.target) is None:
                return name, codec
            spaces.append(codec.target)
    works = [f.name for f in families() if any(f.accepts(s) is None for s in spaces)]
    raise UserError(
        f"The family {wanted.name!r} does not fit this data: {reason}. What works here: {', '.join(works) or 'none'}."
    )
