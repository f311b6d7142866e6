"""The verbs `train` and `tune`: read the data, plan, and create the run.

Training begins with random weights or with those of a base model: a run, public weights, or an adapter on either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from os import fspath
from pathlib import Path
from typing import Any

from torch import Tensor

from afresh.core import Codec, Examples, Space, UserError, events, registry
from afresh.core.device import computing_on
from afresh.core.options import override
from afresh.core.space import evenly_spaced
from afresh.data.in_memory import as_path
from afresh.data.preferences import preferences
from afresh.data.prepare import Prepared, advice_lines, long_records, prepare
from afresh.data.storage.object_store import RANGE
from afresh.engine.training import ranks
from afresh.engine.training.budget import measure_machine
from afresh.engine.training.family_choice import choose, curves_for, shortfall
from afresh.engine.training.lora import LoraConfig
from afresh.engine.training.plan import Plan, Task, complete, short_window, sized
from afresh.engine.training.plan_tuning import plan_tuning
from afresh.engine.training.training_clock import Clock
from afresh.engine.training.weights import BaseWeights, with_new_classes, with_vocabulary
from afresh.runs.formats.public import BaseModel
from afresh.runs.latent_space import UNFIT, LatentSpace, PublicAutoencoder, check_in_memory, latent_space
from afresh.runs.latents import heldout_latents, training_latents
from afresh.runs.person_adapters import adapter_folder, base_of
from afresh.verbs.base_advice import AUTO, SEARCHED, base_advice, choose_base, secret_advice
from afresh.verbs.base_data import prepare_for
from afresh.verbs.base_terms import open_base
from afresh.verbs.choose_codec import AUTO as AUTO_CODEC
from afresh.verbs.choose_codec import CodecChoice, choose_codec
from afresh.verbs.create_run import (
    check_spec,
    create_run,
    report_data,
    report_plan,
    training_seconds,
)
from afresh.verbs.data_source import DataSource
from afresh.verbs.frozen_base import check_frozen, in_memory
from afresh.verbs.plan_summary import report_summary
from afresh.verbs.torchrun import together
from afresh.verbs.training_job import Job, learn
from afresh.verbs.training_spec import TrainSpec

RECONSTRUCTED, KEPT = 16, 0.9  # held-out items that the autoencoder of a base is tried on; share of their variance
WINDOW = 1024  # the most tokens of a window in which a base is tuned, unless set by hand


@together
def start(spec: TrainSpec, clock: Clock | None = None) -> Job:
    """Read the data, plan, and create the run's folder.

    Raises UserError for invalid options or data, before any time is spent on training.
    """
    clock, lora = clock or Clock(), spec.adapted
    if spec.verb != "tune" and spec.minutes is None and spec.steps is None and spec.tokens is None:
        spec = replace(spec, minutes=preferences().minutes)
    check_options(spec)
    validation = None if spec.validation is None else as_path(spec.validation)
    spec = replace(spec, path=as_path(spec.path), validation=validation, data=spec.data or {})
    check_frozen(spec.set_train, spec.base is not None, lora is not None, spec.adapter is not None)
    based = None if spec.base is None or spec.base == AUTO else Path(spec.base)
    codec = Path(spec.codec or AUTO_CODEC).expanduser()
    inputs = [p for p in (spec.path, codec if codec.exists() else None, spec.validation, based) if p is not None]
    output = check_spec(spec, default_output(spec), inputs)
    chosen_codec, given = CodecChoice(None, spec.data), spec.data
    if spec.base is None:
        wanted = fspath(spec.codec or AUTO_CODEC)
        chosen_codec = choose_codec(spec.path, spec.modality, spec.data, spec.family, wanted, spec.budget_minutes)
        spec = replace(spec, data=chosen_codec.data)
        if chosen_codec.own_minutes and not ranks.launched():
            chosen_codec = replace(chosen_codec, codec=own_codec(spec, output, chosen_codec.own_minutes))
    base, prepared = read(spec)
    report_data(prepared)
    for secrets in secret_advice(prepared, SEARCHED):
        events.warning(f"{secrets.text}.", "secrets", items=secrets.count)
    advice: list[str] = []
    if base is None:
        advice = [] if spec.base is not None else [a.text for a in base_advice(prepared)]
        advice += advice_lines(prepared)
        for text in advice:
            events.detail(f"advice: {text}", "advice")
        try:
            latent = latent_space(prepared, spec.family, chosen_codec.codec, training_seconds(spec, clock))
        except UserError as error:
            if spec.codec not in (None, AUTO_CODEC) or error.code not in UNFIT:
                raise
            events.warning(f"Images are learnt without an autoencoder. {error}", "no_codec")
            spec, chosen_codec = replace(spec, data=given), CodecChoice(None, given)
            prepared = read(spec)[1]
            latent = latent_space(prepared, spec.family, None)
        latent = replace(latent, decisions=(*chosen_codec.decisions, *latent.decisions))
    else:
        base, lora = fitted(base, prepared, lora, spec.adapter)
        latent = space_of(base, prepared)
    machine, frozen = measure_machine(spec.device, spec.processes), None
    if base is not None:
        free = lora is not None and spec.adapter is None and not spec.set_train.get("shard")
        base, frozen = in_memory(base, latent, machine, spec.set_train, free)
    if frozen is not None:
        spec = replace(spec, settings={**(spec.settings or {}), "train.frozen": frozen.value})
    task = Task(
        family=latent.family,
        space=latent.space,
        conds=prepared.encoder.conds,
        examples=latent.train,
        machine=machine,
        seed=spec.seed,
        set_family=spec.set_family,
        set_train=spec.set_train,
        seconds=training_seconds(spec, clock),
        steps=spec.steps,
        tokens=spec.tokens,
        base=None if base is None else BaseWeights(base.weights, lora, base.recipe, base.seasoned),
    )
    if base is None:
        task, plan, fields = from_random_weights(task, spec, latent, bool(prepared.encoder.abilities.family))
    else:
        task, plan, fields = from_base(task, spec, latent, base)
    plan.decisions += [] if frozen is None else [frozen]
    report_plan(plan.decisions)
    public = chosen_codec.codec
    with create_run(
        spec,
        output,
        inputs,
        prepared=prepared,
        family=task.family.name,
        codec=latent.codec,
        plan=plan,
        machine=task.machine,
        minutes=spec.budget_minutes if plan.fills else None,
        validation=spec.validation,
        base=None if base is None else base.weights,
        fields={**fields, "codec_licence": public.licence if isinstance(public, PublicAutoencoder) else None},
    ) as run:
        source = DataSource(run, prepared, task.space, latent.train, latent.heldout)
        job = Job(run, prepared, source, clock, processes=spec.processes, on=spec.on)
        report_summary(job, advice)
        return job


# --------------------------------------------------------------------------- options


def with_settings(base: BaseModel, settings: Mapping[str, Any]) -> BaseModel:
    """The base with settings of its loss. Raises UserError for settings of its network."""
    tunable = base.family.plan.tunable
    if fixed := [name for name in settings if name not in tunable]:
        rest = f" What can be set: {', '.join(f'family.{name}' for name in tunable)}." if tunable else ""
        raise UserError(
            f"The network is that of the base model, so that {', '.join(f'family.{name}' for name in fixed)} cannot be "
            f"set. Leave it out.{rest}"
        )
    return replace(base, config=override(base.config, settings, "family")) if settings else base


def check_options(spec: TrainSpec) -> None:
    """Raises UserError for a family that only another verb can create, for a learning rate out of range, and for
    options that only a model from random weights has beside a base."""
    if spec.lr is not None and not 0 < spec.lr < 1:
        raise UserError(f"The learning rate must lie between 0 and 1. Given: {spec.lr}.", "range", name="lr")
    own = {"family": spec.family, "codec": spec.codec not in (None, AUTO_CODEC), "tokens": spec.tokens}
    given = [f"`{name}`" for name, value in own.items() if value]
    if spec.base is not None and given:
        raise UserError(
            f"With `base`, the network is that of the base, and the budget is in minutes or steps. Leave out "
            f"{', '.join(given)}, or leave out `base` to train from random weights."
        )
    if spec.family is not None and (verb := registry.family(spec.family).made_by):
        raise UserError(
            f"{spec.family} cannot be trained from data alone. Use the verb {verb}, which creates one from an existing "
            "run.",
            "family_made_by_verb",
            verb=verb,
        )


def own_codec(spec: TrainSpec, run: Path, minutes: float) -> Path:
    """A run of the family autoencoder on the same images, beside the run that is to learn its latents."""
    events.note(f"an autoencoder of your images is trained first, in {minutes:.1f} minutes", "own_codec")
    own = TrainSpec(
        path=spec.path,
        modality=spec.modality,
        family="autoencoder",
        minutes=minutes,
        seed=spec.seed,
        out=run.with_name(f"{run.name}-codec"),
        force=spec.force,
        device=spec.device,
        validation=spec.validation,
        data=spec.data,
        settings={"family.channels": 8},
    )
    job = start(own)
    learn(job)
    return job.run.path


def default_output(spec: TrainSpec) -> Path:
    """The folder of a run for which none is chosen. Raises UserError if the base cannot have adapters of persons."""
    if spec.adapter is None or spec.base is None:
        if spec.verb == "tune" and spec.base is not None:
            return preferences().runs / f"{name_of_base(fspath(spec.base))}-tuned"
        return preferences().runs / (RANGE.sub("", spec.path.resolve().stem).rstrip("-_.") or "run")
    if not spec.lora or spec.out is not None:
        raise UserError(
            "The adapter of a person is a LoRA in the folder of its base: leave out `out`, and keep `lora`.",
            "adapter_place",
        )
    base = Path(spec.base)
    if not (base / "run.json").is_file() or base_of(base.resolve()) is not None:
        raise UserError(
            f"Only runs have adapters of persons, and {spec.base} is none, or is an adapter itself. Tune it into a "
            "run first, without `adapter`, and give that run as the base.",
            "adapter_place",
        )
    return adapter_folder(base, spec.adapter)


def name_of_base(base: str) -> str:
    """The name of a run, of public weights, or of the run that an adapter is in, for a folder."""
    path = Path(base)
    if path.name == "adapter":
        path = path.resolve().parent
    name = (path.name or path.resolve().name).removesuffix(".gguf")
    return re.sub(r"[^\w.\-]+", "-", name).strip("-.") or "model"


# --------------------------------------------------------------------------- data


def read(spec: TrainSpec) -> tuple[BaseModel | None, Prepared]:
    """The base model, or None for random weights, and the data as it reads them.

    Whether "auto" is a base depends on the data, which are then read once more.
    """
    base = None if spec.base is None or spec.base == AUTO else open_base(fspath(spec.base), spec.commercial)
    with computing_on(spec.device or preferences().device):
        if base is None:
            prepared = prepare(spec.path, spec.modality, spec.data, spec.validation)
            base = choose_base(prepared) if spec.base == AUTO else None
        if base is None:
            return None, prepared
        base = with_settings(base, spec.set_family)
        count = sum(v.numel() for v in base.weights.values())
        events.detail(f"base: {base.name}, {base.family.name}, {count:,} parameters", "base_model", name=base.name)
        for text in base.notes:
            events.detail(f"note: {text}", "base_note")
        if base.sized is not None and str(size := spec.data.get("size", "")).isdecimal():
            base = base.sized(int(size))
        return base, prepare_for(base, spec.path, spec.modality, spec.data, spec.validation)


def fitted(
    base: BaseModel, prepared: Prepared, lora: LoraConfig | None, person: str | None
) -> tuple[BaseModel, LoraConfig | None]:
    """The base with rows for what is new in the data, and what can learn on it: an adapter on the layers that suit the
    base, unless others are named, or all weights where items or classes have rows of their own. Raises UserError for
    the adapter of a person there."""
    if lora is not None and not lora.targets:
        lora = lora.model_copy(update={"targets": base.family.plan.adapted})
    tunable = prepared.encoder.abilities.tunable
    if tunable is None:
        return base, lora
    weights = with_new_classes(base.weights, base.encoder.conds, prepared.encoder.conds)
    if base.encoder.space.vocab:
        weights = with_vocabulary(weights, base.encoder.space.vocab[0], tunable.first_rows(base.encoder))
    base = replace(base, weights=weights)
    if tunable.low_rank:
        return base, lora
    if person is not None:
        raise UserError(
            "This data has items or classes that the run does not know, for which all of its weights learn. Leave "
            "`adapter` out: the adapter of a person is for data with the same ones."
        )
    if lora is not None:
        events.note("note: all weights learn, not an adapter, because of new items or classes", "all_weights")
    return base, None


def space_of(base: BaseModel, prepared: Prepared) -> LatentSpace:
    """The data in the space of the base: its encoder's, or that of its codec."""
    if base.codec is None:
        return LatentSpace(base.family, None, prepared.encoder.space, prepared.train, prepared.heldout)
    codec = base.codec[1]
    if not (codec.target.coded and base.family.mirrors):
        check_in_memory(prepared)
    if codec.target.kind == "field":
        note_reconstruction(codec, prepared.heldout, prepared.encoder.kind.plural)
    train, heldout = training_latents(codec, prepared), heldout_latents(codec, prepared)
    return LatentSpace(base.family, base.codec, codec.target, train, heldout)


def note_reconstruction(codec: Codec, given: Examples, plural: str) -> None:
    """Warn if the autoencoder of a base loses much of the variance of held-out items, which cannot be taught then."""
    rows = evenly_spaced(len(given), RECONSTRUCTED)
    x = given.x[rows].float() * given.scale + given.shift
    decoded = codec.decode(codec.encode(Examples(x, given.cond.select(rows))).x)
    kept = 1 - float((decoded - x).square().mean() / x.var().clamp_min(1e-12))
    if kept < KEPT:
        events.warning(
            f"The autoencoder of the base gives back {max(kept, 0):.0%} of the variance of your {plural}: what it does "
            "not draw cannot be taught. Larger ones may do (`data.size`), or another base.",
            "reconstruction",
            kept=kept,
        )


# --------------------------------------------------------------------------- plan


Planned = tuple[Task, Plan, Mapping[str, Any]]  # with further fields of the record of the run


def from_random_weights(task: Task, spec: TrainSpec, latent: LatentSpace, suited: bool) -> Planned:
    """Plan a network. Without a `family` of the user, it is the one that was measured to reach most in the minutes,
    unless its kind of items has one that suits it; nothing was measured in the space of a codec."""
    window = None if "context" in spec.data or task.space.records else short_window(task.space, task.seconds)
    if window is not None:
        task = replace(task, space=replace(task.space, shape=(window,)))
    unmeasured = latent.codec is not None or suited or task.seconds is None
    curves = None if unmeasured else curves_for(task.space, task.examples.count)
    decisions = list(latent.decisions)
    if curves is not None and spec.family is None and not spec.set_family:
        network, why = choose(task, curves)
        decisions += why
    else:
        network = sized(task)
        if curves is not None and (text := shortfall(network, curves)) is not None:
            events.warning(text, "minutes_too_few")
    made = complete(network)
    made.decisions[:0] = decisions
    return replace(network.task, space=task.space), made, {"window": window}


def from_base(task: Task, spec: TrainSpec, latent: LatentSpace, base: BaseModel) -> Planned:
    """Plan how the base is tuned. Raises UserError for an invalid setting."""
    space = task.space
    longest = windows(space, task.examples.bounds, spec.data)
    for text in long_records(latent.train, latent.heldout, longest.shape) if longest != space else ():
        events.detail(f"note: {text}", "data_note")
    task = replace(task, space=longest)
    task, made = plan_tuning(task, base.config, latent.heldout, "context" in spec.data, copied=spec.adapter is None)
    fields = {
        "base_model": base.name,
        "lora": task.base and task.base.lora,
        "personal": spec.adapter is not None,
        "training_window": task.space.shape[0] if task.space != space else None,
    }
    return task, made, fields


def windows(space: Space, bounds: Tensor | None, options: Mapping[str, Any]) -> Space:
    """The space of training windows: as long as set by hand, as the longest conversation, or as the base's context.

    Unless set by hand, a window has at most WINDOW tokens.
    """
    if not space.stream or bounds is None:
        return space
    most = min(space.shape[0], WINDOW)
    if "context" in options:
        most = min(space.shape[0], int(options["context"]))
    elif space.records:
        most = min(most, max(64, -(-int(bounds.diff().max()) // 64) * 64))
    return replace(space, shape=(most,))
