"""What a package, or a domain of this one, adds to afresh, as a record that is read before anything is imported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Plugin:
    """The parts that one package or one domain adds.

    Each part is a reference "module:attribute", which is imported when the part is first used, so that the record
    itself costs nothing. A package names its record in pyproject.toml:

        [project.entry-points."afresh.plugins"]
        walks = "afresh_walks:PLUGIN"

    modalities, families: by the name that runs record, which is also the `name` of the `afresh.core.Modality` or
    `Family`. sides: for a modality by name, a function of a path that returns the shorter sides in pixels of its files
    by their headers; the size of images and the use of an autoencoder are chosen by them. codecs: by the name that runs
    record, each with `takes(space) -> bool`, `fit(examples, space) -> Codec` and `load(folder) -> Codec`, for families
    that do not accept the space of the data. weights: kinds of public weights that `afresh tune` begins with, by the
    name that the record has, each a `afresh.runs.formats.public.PublicWeights`; a family that comes with them has
    "tune" as its `made_by`. metrics, aligners: each a sequence of `afresh.core.Metric` or `Aligner`. rewards: each a
    mapping {kind of items: {name: afresh.engine.alignment.rewards.reward.Builtin}}, where the kind "" stands for all
    kinds. sources: each a `afresh.core.Source`. verbs: by name, each a `afresh.core.verb.Verb`. commands:
    of the command line that no verb declares, by name, each a function with typer's annotations. pages: each a
    `afresh.faces.studio.pages.RunPage`. extractors: each a mapping of suffixes to functions that read a file for
    `afresh collect` (`afresh.services.collect.extract.Extractor`). protocols: dialects of the server by a part of the
    paths that belong to them, "/v1/messages", each a `afresh.faces.http.protocols.Protocol`. creations: ways in which
    the studio makes works of what exists, by name, each a `afresh.verbs.creation_request.Creation`. makers: data that
    is computed, each a mapping {name: afresh.core.data_maker.DataMaker}.

    on_result: each a function of a run that returns an `afresh.core.results.ResultHook`, which sees every value and
    file that the run makes for others before it is written or sent, unless its works are not to be marked.

    suffixes: of the files by which its modalities may recognise data. They are not asked about data whose files all
    have other suffixes, each named by some plug-in; without any, they are always asked. kinds: names of the kinds of
    items that its metrics measure; without any, the metrics are asked about every kind.

    items, reads: what its data are and what of them is read, in words for people. enough: how many items of training
    data, or bytes of text, usually suffice for its modalities (docs/concepts.md, "How much data is enough"); 0 where
    their number says little.

    run_files: no references, but the names of files and folders that the verbs write into the folder of a run, or
    patterns of them such as "walks-*.json". They are removed with the run. Raises ValueError for one that could match
    what lies elsewhere, or every file.
    """

    items: str = ""
    reads: str = ""
    enough: tuple[int, Literal["items", "bytes"]] = (300, "items")
    suffixes: Collection[str] = ()
    kinds: Collection[str] = ()
    modalities: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)
    sides: Mapping[str, str] = field(default_factory=dict)
    codecs: Mapping[str, str] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()
    aligners: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    verbs: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)
    pages: tuple[str, ...] = ()
    extractors: tuple[str, ...] = ()
    protocols: Mapping[str, str] = field(default_factory=dict)
    creations: Mapping[str, str] = field(default_factory=dict)
    makers: tuple[str, ...] = ()
    on_result: tuple[str, ...] = ()
    run_files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern in self.run_files:
            if not pattern.strip(".*?") or "/" in pattern or "\\" in pattern:
                raise ValueError(f"{pattern!r} is not a name of files in the folder of a run")
