"""What `import afresh` offers: a `Model`, and functions that make one. Every verb of the command line is here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from afresh.core import UserError, events, registry
from afresh.core.events import Event, JsonLines, Listener, listening
from afresh.core.minutes import minutes_of
from afresh.core.verb import Result, Verb, doc_of, fields_of, signature_of
from afresh.data import imported
from afresh.data.in_memory import as_path
from afresh.data.preferences import preferences
from afresh.engine.sampling.constrained import structure
from afresh.engine.sampling.request import Request
from afresh.engine.sampling.samples import Samples
from afresh.engine.sampling.stream import Stream
from afresh.engine.training.budget import use_preferred_threads
from afresh.engine.training.logs.run_log import check_logs
from afresh.runs.about import AboutRun
from afresh.runs.deletion import delete_adapter
from afresh.runs.person_adapters import base_of
from afresh.runs.remove import remove_run
from afresh.runs.run import Run, list_runs
from afresh.services.collect.gather import CollectLimits as CollectLimits
from afresh.services.collect.gather import gather, places_of
from afresh.services.collect.licences import normalised
from afresh.services.provenance.layers import Provenance
from afresh.verbs import draw
from afresh.verbs import export as export_verb
from afresh.verbs import forget as forget_task
from afresh.verbs import measure as measure_verb
from afresh.verbs import pack as pack_verb
from afresh.verbs import propose as propose_verb
from afresh.verbs import score as score_verb
from afresh.verbs.annotate import Session
from afresh.verbs.collected.page import write_page
from afresh.verbs.console import default_listener
from afresh.verbs.doctor import Finding, examine_machine
from afresh.verbs.inspect_data import Look, look
from afresh.verbs.labelling import Format, Labelled, labelled
from afresh.verbs.likelihoods import Scores
from afresh.verbs.make_data import MadeData
from afresh.verbs.make_data import make_data as compute_data
from afresh.verbs.measuring import measure_run
from afresh.verbs.rank_check import examine_processes, rank_findings
from afresh.verbs.report import write_run_report
from afresh.verbs.resume import resume as resume_task
from afresh.verbs.sample import Control, Sampler
from afresh.verbs.torchrun import together
from afresh.verbs.training_job import Job, learn
from afresh.verbs.training_spec import AlignSpec, DistillSpec, RunSpec, TrainSpec, TuneSpec
from afresh.verbs.trust_prompt import check_trust
from afresh.verbs.verify import Check, copy_run
from afresh.verbs.verify import verify as verify_run
from afresh.verbs.verify_works import verify_address
from afresh.verbs.verify_works import verify_works as all_works

if TYPE_CHECKING:
    from afresh.verbs.get import Received

__all__ = [
    "Event",
    "JsonLines",
    "Look",
    "Model",
    "Run",
    "Samples",
    "Scores",
    "Session",
    "UserError",
    "collect_data",
    "doctor",
    "forget",
    "get",
    "inspect_data",
    "label",
    "list_models",
    "listening",
    "load",
    "make_data",
    "remove_data",
    "resume",
    "train",
    "tune",
    "verb",
    "verify_works",
]

P = ParamSpec("P")
R = TypeVar("R")
PathLike = str | os.PathLike[str]
Data = Any  # a path, or data in memory: a dataset, a data frame, arrays, a list, a loader
Minutes = float | str  # 5, 0.5, "90s", "2m", "1h30m"
Labels = str | Mapping[str, str]  # a class, or classes by the label's name
Log = str | Sequence[str]  # where training is also logged: tensorboard, trackio, wandb


def in_minutes(given: Minutes | None, name: str = "minutes") -> float | None:
    """Raises UserError if the duration is invalid."""
    return None if given is None else minutes_of(given, name)


def _names(log: Log) -> Sequence[str]:
    return [log] if isinstance(log, str) else log


@contextmanager
def _reporting(quiet: bool, log: Log = ()) -> Iterator[None]:
    """Events go to the listener that the caller has set, nowhere if `quiet`, or else to standard error or
    below the cell of a notebook. Raises UserError if a log cannot be used."""
    check_logs(_names(log))
    use_preferred_threads()
    wanted: Listener = events.ignore if quiet else (events.listener() or default_listener())
    with listening(wanted):
        yield


def _learnt(job: Job, log: Log) -> Model:
    learn(job, _names(log))
    return Model(job.run)


def _path(value: PathLike | None) -> Path | None:
    return None if value is None else Path(value)


def _data(value: Data | None) -> Path | None:
    return None if value is None else as_path(value)


def method(verb: Verb[P, R]) -> Callable[Concatenate[Model, P], R]:
    """The method of a model that does what a verb declares."""

    def call(self: Model, /, *args: P.args, **kwargs: P.kwargs) -> R:
        runs = [v.run if isinstance(v, Model) else v for v in args]
        named = {k: v.run if isinstance(v, Model) else v for k, v in kwargs.items()}
        return verb(self.run, *runs, **named)  # type: ignore[arg-type]

    call.__name__, call.__qualname__ = verb.name, f"Model.{verb.name}"
    call.__doc__ = verb.doc
    call.__signature__ = verb.signature  # type: ignore[attr-defined]
    return call


def training(spec: Callable[P, RunSpec]) -> Callable[P, Model]:
    """The function that trains what a specification asks for; of one that begins with a run, also a method."""
    declared: Any = spec

    def call(*args: P.args, **kwargs: P.kwargs) -> Model:
        asked = spec(*args, **kwargs)
        with _reporting(asked.quiet, asked.log):
            return _learnt(asked.start(), asked.log)

    call.__name__, call.__qualname__ = declared.verb, declared.verb
    call.__doc__ = doc_of(spec, fields_of(declared))
    call.__signature__ = signature_of(declared, "Model")  # type: ignore[attr-defined]
    return call


class Model:
    """A trained model: a run's folder, with every verb as a method.

    >>> model = afresh.load("runs/photos")
    >>> model.sample(16, label="cat", guidance=2.0).save("cats.png")
    """

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.run.path

    def __fspath__(self) -> str:
        return str(self.run.path)

    def __repr__(self) -> str:
        about = AboutRun(self.run)
        return f"Model({str(self.path)!r}: {about.model}, step {about.steps:,} of {about.planned:,})"

    def __str__(self) -> str:
        """What the model is, in a few lines (`afresh show`)."""
        return str(AboutRun(self.run))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The verbs of kinds of data and of other packages: `model.complete(...)` is `afresh.verb("complete")(model,
        ...)`."""
        if name.startswith("_") or name not in registry.verb_names():
            raise AttributeError(f"A model has no {name!r}", name=name, obj=self)
        return partial(verb(name), self)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *registry.verb_names()})

    # ------------------------------------------------------------------------------------------------ sampling

    sample = method(draw.sample)

    def stream(
        self,
        prompt: str | None = None,
        *,
        label: Labels | None = None,
        number: Mapping[str, float] | None = None,
        seed: int = 0,
        raw: bool = False,
        stop: str | Sequence[str] = (),
        logprobs: bool = False,
        json_schema: Mapping[str, Any] | bool | str | None = None,
        regex: str | None = None,
        grammar: str | None = None,
        adapters: Mapping[str, float] | None = None,
        **settings: Any,
    ) -> Stream:
        """The text of `sample(1, ...)` in pieces as it is written: whole characters, never a part of a `stop` string.

        >>> for piece in model.stream("Once"):
        ...     print(piece, end="", flush=True)

        Raises UserError as `sample` does.
        """
        request = Request(prompt, label, number or {}, None, raw, None, stop, logprobs)
        run = self.run
        made = structure(run.family, run.encoder, json_schema=json_schema, regex=regex, grammar=grammar)
        settings |= {} if made is None else {"constraint": made}
        control = Control(adapters=adapters or {})
        return Stream(lambda on_text: Sampler(run, 1, request, seed, settings, on_text, control))

    chat = method(draw.chat)
    edit = method(draw.edit)
    interpolate = method(draw.blend)

    # ------------------------------------------------------------------------------------------------ judging

    measure = method(measure_verb.measure)
    score = method(score_verb.score)

    def report(self, measure: bool = True) -> Path:
        """Write report.html, report.json and card.md into the run's folder; returns the page. Raises UserError as
        `measure` does."""
        return write_run_report(self.run, measure_run(self.run) if measure else None)

    propose = method(propose_verb.propose)

    compare = method(draw.compare)

    def verify(self, *, trust: bool = False) -> list[Check]:
        """Check hashes, weights, data, resuming, the cache, and that a seed gives the same sample.

        `trust`: run and read what a run of someone else names, now and later; what that is, is said.
        """
        if trust:
            check_trust(self.run, trust)
        return verify_run(self.run)

    # ------------------------------------------------------------------------------------------------ new models

    align = training(AlignSpec)
    tune = training(TuneSpec)
    distill = training(DistillSpec)

    # ------------------------------------------------------------------------------------------------ files

    export = method(export_verb.export)
    pack = method(pack_verb.pack)

    def save(self, path: PathLike) -> Model:
        """A verified copy of the whole folder. Raises UserError if `path` exists or a checkpoint is damaged."""
        return Model(copy_run(self.run, Path(path)))

    def remove(self, *, with_data: bool = False) -> list[str]:
        """Remove the run from the disk for good (`afresh rm`); models that were made from it keep working. Its folder
        stays if it holds other things, whose names are returned. Of the adapter of a person a proof is written, and
        `with_data` also deletes the data that it learnt from.

        Raises UserError if the folder is a link, if another process uses the run, if something cannot be removed, and
        for `with_data` of a run that is not a person's adapter.
        """
        if self.run.record.personal and base_of(self.run.path.resolve()) is not None:
            return list(delete_adapter(self.run, with_data).left)
        if with_data:
            raise UserError(f"{self.run.path} is not the adapter of a person: leave `with_data` out.")
        return remove_run(self.run)


train = training(TrainSpec)
tune = Model.tune


def resume(
    path: PathLike,
    *,
    trust: bool = False,
    ignore_stop: bool = False,
    processes: int = 1,
    on: str | None = None,
    log: Log = (),
    quiet: bool = False,
) -> Model:
    """Go on with a run to the end of its plan. `ignore_stop`: also if its training was stopped early, for example
    because it began to memorise; without it, such a run stays as it is. `trust`: also with a run of someone else that
    names programs to run or paths to read, which are listed by the error that is raised without it.

    Raises as `train` does, and if its data is missing or has changed.
    """
    with _reporting(quiet, log):
        return _learnt(together(resume_task)(Path(path), trust, ignore_stop, processes=processes, on=on), log)


def load(path: PathLike, *, marks: bool = True) -> Model:
    """The model in a run's folder. `marks`: whether what it makes is marked and signed, so that machines can tell where
    it comes from. Raises UserError if the folder is not a run."""
    run = Run.open(Path(path))
    run.marked = marks
    return Model(run)


def list_models(folder: PathLike | None = None) -> list[Model]:
    """The models directly in a folder, by name; by default in that of the user's preferences, runs/."""
    return [Model(run) for run in list_runs(_path(folder) or preferences().runs)]


def inspect_data(
    path: Data,
    *,
    modality: str | None = None,
    data: Mapping[str, Any] | None = None,
    validation: Data | None = None,
    near: bool = True,
) -> Look:
    """What would be learnt from `path`, as for `train`, before anything is spent (`afresh data`). `near`: whether near
    duplicates are searched. Raises UserError if it cannot be used."""
    return look(as_path(path), modality, data, _data(validation), near)


def make_data(
    name: str,
    *,
    settings: Mapping[str, Any] | None = None,
    out: PathLike | None = None,
    seed: int = 0,
    force: bool = False,
) -> MadeData:
    """Compute data to learn from, such as trajectories of the physical system `name`, and write it to the folder `out`,
    the name by default. Raises UserError for an unknown name, and for settings that are unknown or out of range."""
    return compute_data(name, _path(out), settings or {}, seed, force)


def collect_data(
    sources: Any = (),
    into: PathLike = "data",
    *,
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    rules: Sequence[str] = (),
    without_rules: Sequence[str] = (),
    licence: str | None = None,
    person: str | None = None,
    consent: str | None = None,
    near: str | None = None,
    split_by: str | None = None,
    heldout: float | None = None,
    against: Sequence[str] | None = None,
    leaks: str | None = None,
    max_bytes: int | None = None,
    max_items: int | None = None,
    max_minutes: Minutes | None = None,
    resume: bool = False,
    refresh: bool = False,
    processes: int = 1,
    cluster: str = "",
    trust: bool = False,
    quiet: bool = False,
) -> Mapping[str, Any]:
    """Gather a data set into the folder `into`, which `train` takes, after what it has (`afresh collect`); returns its
    manifest.

    `sources` is a place or a list of places: the path of a folder, a file, a table or a repository, or an address, as
    text or as Path. Or it is data of this program, whose `name` is then needed: a function without arguments that
    returns texts, rows {column: value}, arrays, images, sounds or paths, or an iterator or a list of them. `options`
    are those of the sources ({"text": "body"}); `rules` and `without_rules` switch rules on, also as "name=value", and
    off. `licence`, `person` and `consent` hold for what says nothing of them itself. `near` is "drop" or "keep",
    `split_by` what is never divided, `heldout` the share that is held out, `against` benchmarks that must not be learnt
    from, and `leaks`, "keep" or "drop", what becomes of what occurs there too. What was interrupted goes on with
    `resume`; data of a program is then given again, under its name. `refresh` reads sources again, and `cluster` is the
    address of a Ray cluster, or "local". `trust`: go on with a data set of someone else, whose sources are listed by
    the error that is raised without it.

    Raises UserError for a place that no source knows, for options and rules that do not exist, and if the folder holds
    something else or cannot be written.
    """
    about = {k: v for k, v in (("person", person), ("consent", consent)) if v}
    if licence:
        about |= {"licence": normalised(licence), "licence_from": "the collector"}
    choices = {"near": near, "split_by": split_by, "heldout": heldout, "against": against, "leaks": leaks}
    with _reporting(quiet):
        made = gather(
            places_of(sources, name, options or {}, about),
            Path(into),
            on=rules,
            off=without_rules,
            limits=CollectLimits(max_bytes, max_items, in_minutes(max_minutes, "max_minutes")),
            resume=resume,
            refresh=refresh,
            processes=processes,
            cluster=cluster,
            assembly={k: v for k, v in choices.items() if v is not None},
            trust=trust,
        )
        write_page(Path(into))
        return made


def label(path: PathLike, *, format: Format = "label") -> Labelled:
    """What a run, a file or folder of data, or a generated work is made of, under which licences, and what it cost, as
    `afresh show --format` writes it: `document`, in one of the formats label, card, cyclonedx and croissant.

    Raises UserError if there is nothing at the path, if it cannot be read, or for a format that does not fit it.
    """
    return labelled(Path(path), format)


def verify_works(path: PathLike, *, trust_signer: PathLike | None = None) -> list[Provenance]:
    """Where works come from, as `afresh verify WORKS` reads it: of a file, or of each file of a folder, its `status`
    and its layers; after a bundle, those of the signed works in it. `trust_signer`: a file of certificates in PEM,
    whose signers are known from now on.

    Nothing is asked of a network, but for the address of a file. Raises UserError for a path that cannot be read or
    holds no file.
    """
    from afresh.services.provenance.trusted import trust

    if trust_signer is not None:
        trust(Path(trust_signer))
    web = isinstance(path, str) and path.startswith(("http://", "https://"))
    found = verify_address(str(path)) if web else list(all_works(Path(path)))
    if not found:
        raise UserError(f"{path} holds no files. Give a file, or a folder of files.", "no_works")
    return found


def get(
    source: PathLike,
    *,
    listing: str | None = None,
    name: str | None = None,
    out: PathLike | None = None,
    accept_signer: str | Sequence[str] = (),
    trust_signer: PathLike | None = None,
    force: bool = False,
) -> Received:
    """Take a bundle that `pack` or a catalogue has made, from a file or an address, as `afresh get` does. It is checked
    before anything of it is used. A model becomes a run, in the folder of runs under `name`, or at `out`; data and
    works become the folder `out`. The result stands for that folder: `afresh.load(afresh.get(...))`.

    `listing`: the id of a listing, if the source is a catalogue. `accept_signer`: the SHA-256 of the certificate of a
    signer who is accepted for this once. `trust_signer`: a file of certificates in PEM, whose signers are known from
    now on. Raises UserError, with nothing installed, if it cannot be fetched, is damaged, or is signed by a person who
    is neither known nor accepted, and if something is in its place, unless it is to be replaced (`force`).
    """
    from afresh.verbs.get import GetRequest
    from afresh.verbs.get import get as take

    accepted = (accept_signer,) if isinstance(accept_signer, str) else tuple(accept_signer)
    return take(GetRequest(str(source), listing, name, _path(out), accepted, _path(trust_signer), force))


def remove_data(*names: str) -> None:
    """Remove data that was given in memory and kept as files, by its names as `doctor` lists them; runs that learnt
    from it can still be sampled, but not be resumed. Raises UserError for a name that is not among them."""
    for data in imported.named_data(names):
        imported.remove_data(data)


def forget(
    dataset: PathLike, *, source: str | None = None, person: str | None = None, item: str | None = None
) -> list[Path]:
    """Remove from a data set of `afresh collect` what came from a source or a person, or one item by its id; returns
    the runs in the folder of runs that have, or may have, seen it.

    It leaves every file of the data set, and the copies that were kept to learn from it. A person or an item does not
    come back when its sources are read again. Raises UserError if there is nothing of the kind, or unless one of the
    three is given.
    """
    return [w.run for w in forget_task.forget(Path(dataset), forget_task.ForgetRequest(source, person, item))[1]]


def verb(name: str) -> Callable[..., Result]:
    """A verb by its name, also one that another package adds, as a function of a model and of the verb's parameters.

    >>> afresh.verb("score")(model, ["a cat sat"]).nats

    Raises UserError if there is no such verb.
    """
    declared = registry.verb(name)

    def call(model: Model, *args: Any, **kwargs: Any) -> Result:
        result: Result = declared(model.run, *args, **kwargs)
        return result

    call.__name__, call.__doc__ = name, declared.doc
    return call


def doctor(folder: PathLike = "runs", device: str | None = None, processes: int = 1) -> list[Finding]:
    """What this machine can do, measured for a moment, and what follows for training. `folder`: where runs would be
    written. So many `processes`, if it is more than one, are started to measure how they add numbers up. Raises
    UserError for an unknown device, and for processes that cannot train together."""
    findings = examine_machine(Path(folder), device)[1]
    return findings if processes == 1 else [*findings, *rank_findings(examine_processes(processes, device))]
