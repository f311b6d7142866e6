"""The space that a family learns in: that of the data, of a codec fitted to the data, or of a codec trained before."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from afresh.core import Codec, Examples, Family, Space, UserError, registry
from afresh.core.space import evenly_spaced
from afresh.data.prepare import Prepared
from afresh.engine.families.codecs import pipeline
from afresh.engine.training.plan import Decision
from afresh.engine.training.weights import FITTED, read_weights
from afresh.runs.about import AboutRun
from afresh.runs.latents import heldout_latents, latent_folder, training_latents
from afresh.runs.record import BaseLicence
from afresh.runs.run import Run

# The largest share of the held-out values' variance that a codec may leave unexplained. 32x32 photographs were soft but
# recognisable at 5% and shapeless at 12%; 28x28 clothes lost their prints at 3% and their seams at 8%.
WORST = 0.08
SEQUENCES = 512  # held-out items of tokens that a codec is evaluated on
FEWEST_BACK = 0.1  # share of them that must come back as they were
TRAIN_BETTER = (
    "Train a better one: for longer (`minutes`), with more channels or levels (`family.channels=8` or "
    "`family.levels=[8,8,8,5,5]`), or with less downsampling (`family.factor=2`)."
)
LOSES, ALIGNED, SLOW = "codec_loses", "aligned_codec", "codec_slow"
UNFIT = (
    LOSES,
    ALIGNED,
    SLOW,
    pipeline.NOT_ENCODED,
)  # codes of errors of a codec that does not fit the data or the minutes
MIRRORING, ENCODING = 0.3, 0.5  # of a budget: the shares that encoding may take with mirror images, and without
CHECKED, VALUES = 2048, 1 << 23  # the most held-out examples that a codec is evaluated on, and their numbers
RANGE = 2.0  # the difference of the largest and the smallest value of a field, for the PSNR


@dataclass(frozen=True)
class PublicAutoencoder:
    """An autoencoder of others, with the name by which it is found again and what its owner allows."""

    name: str
    net: nn.Module
    licence: BaseLicence


@dataclass(frozen=True)
class LatentSpace:
    """A family, its codec if it needs one, and the data in the space that the family learns in."""

    family: Family
    codec: tuple[str, Codec] | None
    space: Space
    train: Examples
    heldout: Examples
    decisions: tuple[Decision, ...] = ()


def latent_space(
    prepared: Prepared, family: str | None, codec: Path | PublicAutoencoder | None, seconds: float | None = None
) -> LatentSpace:
    """Bring the data into a space that the family accepts, by a public autoencoder, by a run of the family autoencoder,
    or by a codec that `registry.bridge` fits.

    If `family` is None, it is what the encoder says, or the Transformer for tokens and the flow otherwise. Raises
    UserError if the codec does not fit the data or if the family accepts no available space.
    """
    if isinstance(codec, PublicAutoencoder):
        return through_public(codec, prepared, family, seconds)
    if codec is not None:
        return through(codec, prepared, family)
    space = prepared.encoder.space
    chosen = registry.family(family or prepared.encoder.abilities.family or usual(space))
    if chosen.accepts(space) is not None:
        check_in_memory(prepared)
        check_conditions(prepared)
    fitted = registry.bridge(chosen, prepared.train, space)
    if fitted is None:
        return LatentSpace(chosen.for_space(space), None, space, prepared.train, prepared.heldout)
    made = fitted[1]
    latents = made.encode(prepared.train), made.encode(prepared.heldout)
    return LatentSpace(chosen.for_space(made.target), fitted, made.target, *latents)


def check_in_memory(prepared: Prepared) -> None:
    """Raises UserError for data that is larger than memory, which no codec encodes."""
    if prepared.train.parts is None and prepared.train.rows is None:
        return
    usually = usual(prepared.encoder.space)
    raise UserError(
        f"{prepared.path} is learnt from the disk, because it is larger than memory or `data.stream=true` was set, and "
        f"only families that need no codec can learn it, such as `family={usually}`. Take one of these, give a part of "
        "the data, or read it into memory: `data.stream=false`.",
        "too_large",
    )


def check_conditions(prepared: Prepared) -> None:
    """Raises UserError for data with conditions on its grid, of which latents and tokens have none."""
    aligned = {name: part for name, part in prepared.encoder.conds.items() if part.kind == "aligned"}
    if not aligned:
        return
    advice = "leave it out of the data, such as the column of metadata that names it"
    if any(part.persists for part in aligned.values()):
        advice = (
            "learn items that are told nothing before (of fields: `data.history=0`, or `data.window=6` for several "
        )
        advice += "states at once)"
    raise UserError(
        f"{', '.join(aligned)} lies on the grid of the data, and a codec changes it, so that no family over a codec is "
        f"told. Take a family that learns the values themselves, such as "
        f"`family={prepared.encoder.abilities.family or usual(prepared.encoder.space)}`, or {advice}.",
        ALIGNED,
    )


def usual(space: Space) -> str:
    """The default family for a space."""
    return "transformer" if space.kind == "tokens" else "flow"


def through(path: Path, prepared: Prepared, family: str | None) -> LatentSpace:
    """Encode the data as latents of a finished run.

    Raises UserError if the run does not fit the data or reconstructs it too poorly.
    """
    check_in_memory(prepared)
    check_conditions(prepared)
    run = Run.open(path)
    name = registry.TRAINED[prepared.encoder.space.kind]
    module = registry.codec_module(name)
    check_source(run)
    check_run(run, module.FAMILY, prepared)
    codec = module.of_modules(run.record.config, run.modules, run.encoder.space, prepared.train, run.codec)
    chosen = registry.family(family or usual(codec.target))
    check_family(chosen, codec.target, path)
    quality = (checked_sequences if module.SOURCE == "tokens" else checked_fields)(codec, path, prepared)
    train = codec.encode(prepared.train)
    decision = Decision("codec", name, f"from {path}; {module.described(codec, train)}; {quality}")
    target, heldout = codec.target, codec.encode(prepared.heldout)
    return LatentSpace(chosen.for_space(target), (name, codec), target, train, heldout, (decision,))


def through_public(
    public: PublicAutoencoder, prepared: Prepared, family: str | None, seconds: float | None
) -> LatentSpace:
    """Encode images as latents of a public autoencoder, and their mirror images if that takes a small part of the
    `seconds` that are left of a budget. Raises UserError as `through`, and if it takes most of them."""
    check_conditions(prepared)
    codec, each = pipeline.fit(public.net, prepared.encoder.space, prepared.train)
    chosen = registry.family(family or usual(codec.target))
    check_family(chosen, codec.target, Path(public.name))
    codec, takes = replace(codec, mirrored=chosen.mirrors), each * prepared.train.count
    if seconds is not None and not latent_folder(codec, prepared, prepared.train, codec.mirrored).exists():
        codec = replace(codec, mirrored=codec.mirrored and 2 * takes < MIRRORING * seconds)
        if takes > ENCODING * seconds and not latent_folder(codec, prepared, prepared.train, False).exists():
            raise UserError(
                f"To encode {prepared.train.count:,} images takes about {takes / 60:,.0f} minutes, once, of which "
                f"{seconds / 60:,.0f} are left. Give more `minutes`, fewer images, smaller ones (`data.size`), or "
                "`codec=none`.",
                SLOW,
            )
    larger = "Learn larger images (`data.size`), so that it keeps more, or none: `codec=none`."
    quality = checked_fields(codec, public.name, prepared, larger)
    shape = sides(codec.target.shape)
    decision = Decision("codec", public.name, f"{sides(codec.source.shape)} pixels are {shape} latents; {quality}")
    train, heldout = training_latents(codec, prepared), heldout_latents(codec, prepared)
    target = codec.target
    return LatentSpace(chosen.for_space(target), ("pipeline", codec), target, train, heldout, (decision,))


def checked_fields(codec: Codec, name: object, prepared: Prepared, better: str = TRAIN_BETTER) -> str:
    """How well a codec explains held-out fields, in words. Raises UserError if that is too little, with what is
    `better`."""
    lost, decibels = unexplained(codec, prepared.heldout)
    quality = f"{lost:.1%} of the held-out values' variance is not explained, PSNR {decibels:.1f} dB"
    if not lost <= WORST:
        raise UserError(
            f"The codec {name} is not good enough for this data: {quality}. At most {WORST:.0%} is accepted, because a "
            f"model over a codec cannot be better than the codec. {better}",
            LOSES,
        )
    return quality


def checked_sequences(codec: Codec, path: Path, prepared: Prepared) -> str:
    """How many held-out items a codec gives back, in words. Raises UserError if they are too few."""
    encoder, items = prepared.encoder, prepared.heldout_items
    examples = encoder.encode(items[:: max(1, len(items) // SEQUENCES)][:SEQUENCES])
    assert examples.bounds is not None
    there = [encoder.decode(row)[0] for row in examples.x.tensor_split(examples.bounds[1:-1])]
    coded = codec.encode(examples)
    back = encoder.decode(codec.decode(coded.x)) if len(coded) == len(there) else []
    same = sum(a == b for a, b in zip(back, there, strict=False)) / len(there)
    quality = f"{same:.1%} of the held-out items come back as they were"
    if same < FEWEST_BACK:
        raise UserError(
            f"The codec {path} is not good enough for this data: {quality}. At least {FEWEST_BACK:.0%} are needed, "
            "because a model over a codec cannot be better than the codec. Train a better one: for longer (`minutes`), "
            "or with larger latents (`family.channels=16`)."
        )
    return quality


def check_source(run: Run) -> None:
    """Raises UserError if no codec can be made of `run`. Needs no data, so it can be called before data is read."""
    modules = [registry.codec_module(name) for name in registry.TRAINED.values()]
    record, wanted = run.record, modules[0].FAMILY
    if record.family != wanted or record.codec not in (None, *(name for m in modules for name in m.WITHIN)):
        raise UserError(
            f"{run.path} is a {AboutRun(run).family}; `codec` takes a finished run of the family {wanted}. Train one: "
            f"`afresh.train(DATA, family={wanted!r})`."
        )


def check_run(run: Run, wanted: str, prepared: Prepared) -> None:
    """Raises UserError unless `run` has finished training on data of the same modality and size."""
    path, record = run.path, run.record
    make = f"Train one: `afresh.train(DATA, family={wanted!r})`"
    if record.modality != prepared.modality:
        raise UserError(
            f"{path} was trained on {record.modality}, and this data is {prepared.modality}. {make} on data like this."
        )
    if run.encoder.space.kind == "tokens":
        check_vocabulary(run, prepared)
    theirs, ours = run.encoder.space.shape, prepared.encoder.space.shape
    if theirs != ours:
        options = " ".join(f"`data.{k}={v}`" for k, v in run.encoder.settled.items())
        raise UserError(
            f"{path} was trained on fields of {sides(theirs)}, and this data is read as {sides(ours)} (channels x "
            f"sides). Read the data at the codec's size ({options}), or train a codec on data of this size."
        )
    if read_weights(path, FITTED) is None:
        about = AboutRun(run)
        raise UserError(
            f"{path} has not finished training: it is at step {about.steps:,} of {about.planned:,}. Finish it with "
            f"`afresh.resume({str(path)!r})`."
        )


def check_vocabulary(run: Run, prepared: Prepared) -> None:
    """Raises UserError unless `run` makes the same tokens of the data as its own encoder does."""
    ours, theirs, items = prepared.encoder, run.encoder, prepared.train_items[:SEQUENCES]
    if ours.space != theirs.space or not torch.equal(ours.encode(items).x, theirs.encode(items).x):
        raise UserError(
            f"{run.path} learnt other tokens than this data has. Train a codec on this data, or read the data as it "
            f"did (windows have {ours.space.shape[0]} tokens here, and {theirs.space.shape[0]} there)."
        )


def sides(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def check_family(family: Family, target: Space, path: Path) -> None:
    """Raises UserError, naming the families that work, if `family` does not accept the codec's latents."""
    reason = family.accepts(target)
    if reason is None:
        return
    works = [f.name for f in registry.families() if f.accepts(target) is None]
    raise UserError(
        f"The codec {path} makes {target.kind} of shape {sides(target.shape)}, which {family.name} does not accept: "
        f"{reason}. Families that work with this codec: {', '.join(works)}. To get codes, train the codec with "
        "`family.bottleneck=fsq` (or vq); to get real numbers, with kl."
    )


def unexplained(codec: Codec, heldout: Examples) -> tuple[float, float]:
    """Return what a codec loses: the squared error over the variance of all values, and the PSNR in dB for `RANGE`.

    Evaluated on at most `CHECKED` examples of at most `VALUES` numbers in all, evenly spaced.
    """
    rows = evenly_spaced(len(heldout), max(1, min(CHECKED, VALUES // math.prod(heldout.x.shape[1:]))))
    x = heldout.x[rows]
    subset = Examples(x, heldout.cond.select(rows), heldout.scale, heldout.shift)
    decoded = codec.decode(codec.encode(subset).x)
    real = x.float() * heldout.scale + heldout.shift
    error = float((decoded - real).double().square().mean())
    variance = float(real.double().var(unbiased=False))
    decibels = 10 * math.log10(RANGE**2 / error) if error > 0 else math.inf
    return error / variance if variance > 0 else float(error > 0), decibels
